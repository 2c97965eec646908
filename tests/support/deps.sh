#!/bin/sh
# Installs what is missing to build warrend, with `broker` what its private RabbitMQ node needs, with `bench` what it is
# compared with, with `package` what packs it, and with `metrics` what judges its metrics, from Debian's packages.
#
#   deps.sh            a C compiler (SQLite is built from source), make, certificates for crates.io
#   deps.sh broker     these and rabbitmq-server; where CI is set also what judges manual and units: groff, mandoc, systemd
#   deps.sh bench      these, Python with virtual environments, and amqp-consume
#   deps.sh package    what makes and tests the Debian package: dpkg-dev, lintian, debootstrap, systemd-nspawn
#   deps.sh metrics    these and Prometheus, for its promtool
#
# Does nothing where all is there. It never starts a service of the system, nor changes one that is installed.
set -eu

say() {
    printf 'deps: %s\n' "$*" >&2
}

fail() {
    say "$*"
    exit 1
}

server=/usr/lib/rabbitmq/bin/rabbitmq-server
units="rabbitmq-server.service epmd.socket epmd.service prometheus.service"
policy=/usr/sbin/policy-rc.d
# What install_quietly changed.
masked='' policy_is_ours='' new=''

# The newest Debian has an older Rust than we need, so the toolchain is the one thing that we do not install.
check_rust() {
    PATH=$PATH:${CARGO_HOME:-${HOME:-/root}/.cargo}/bin
    needed=$(sed -n 's/^rust-version = "1\.\([0-9]*\).*/\1/p' "$(dirname "$0")/../../Cargo.toml")
    found=$(cargo --version 2>/dev/null | sed -n 's/^cargo 1\.\([0-9]*\).*/\1/p')
    [ -n "$found" ] || fail "no cargo in PATH or ~/.cargo/bin: install Rust 1.$needed or newer with https://rustup.rs"
    [ "$found" -ge "$needed" ] || fail "cargo 1.$found is too old: Rust 1.$needed or newer is needed (rustup update)"
}

missing_packages() {
    if ! command -v cc >/dev/null; then echo gcc; fi
    if ! [ -e /usr/include/stdio.h ]; then echo libc6-dev; fi
    if ! command -v make >/dev/null; then echo make; fi
    if ! [ -e /etc/ssl/certs/ca-certificates.crt ]; then echo ca-certificates; fi
    if [ "${1:-}" = broker ] && ! [ -x "$server" ]; then echo rabbitmq-server; fi
    # Elsewhere the checks that need these are skipped, and say so.
    if [ "${1:-}" = broker ] && [ -n "${CI:-}" ]; then
        if ! command -v groff >/dev/null; then echo groff-base; fi
        if ! command -v mandoc >/dev/null; then echo mandoc; fi
        if ! command -v systemd-analyze >/dev/null; then echo systemd; fi
    fi
    if [ "${1:-}" = metrics ] && ! command -v promtool >/dev/null; then echo prometheus; fi
    if [ "${1:-}" = bench ]; then
        if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then echo python3-venv; fi
        if ! command -v amqp-consume >/dev/null; then echo amqp-tools; fi
    fi
    if [ "${1:-}" = package ]; then
        if ! command -v dpkg-shlibdeps >/dev/null; then echo dpkg-dev; fi
        if ! command -v lintian >/dev/null; then echo lintian; fi
        if ! command -v debootstrap >/dev/null && ! [ -x /usr/sbin/debootstrap ]; then echo debootstrap; fi
        if ! command -v systemd-nspawn >/dev/null; then echo systemd-container; fi
    fi
}

apt() {
    # needrestart would restart services of the machine; a hook of ours has no business there.
    DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 apt-get -q -o DPkg::Lock::Timeout=300 "$@" </dev/null
}

# install_packages NAME...: the package lists are fetched only if what is there does not do.
install_packages() {
    log=$(mktemp)
    if apt install -y --no-install-recommends "$@" >"$log" 2>&1; then
        rm -f "$log"
        return
    fi
    say "fetching the package lists (apt-get update)"
    if apt update >"$log" 2>&1 && apt install -y --no-install-recommends "$@" >"$log" 2>&1; then
        rm -f "$log"
        return
    fi
    tail -n 15 "$log" >&2
    rm -f "$log"
    fail "apt-get could not install: $*"
}

# Debian starts and enables a service as its package is installed. Those of RabbitMQ and Prometheus would listen on all
# addresses.
# Only services that are not there yet are kept from it: epmd may belong to an Erlang that somebody uses.
install_quietly() {
    new=
    for unit in $units; do
        if ! [ -e "/lib/systemd/system/$unit" ]; then new="$new $unit"; fi
    done
    trap restore EXIT
    trap 'exit 130' HUP INT TERM
    if [ -d /run/systemd/system ]; then
        say "masking$new during the installation: no service of the system is started or enabled"
        masked=$new
        # shellcheck disable=SC2086 # a list of words
        systemctl --quiet mask --runtime $masked 2>/dev/null
    elif [ -e "$policy" ]; then
        code=0
        "$policy" rabbitmq-server start >/dev/null 2>&1 || code=$?
        [ "$code" = 101 ] || fail "$policy lets packages start services: install $* yourself, then run this again"
        say "$policy forbids starting services: none of the system is started or enabled"
    else
        say "a temporary $policy forbids starting services: none of the system is started or enabled"
        policy_is_ours=yes
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    install_packages "$@"
}

# What install_quietly changed for the time of the installation, also after a failure; and no start at the next boot.
restore() {
    # shellcheck disable=SC2086 # lists of words
    {
        if [ -n "$masked" ]; then systemctl --quiet unmask --runtime $masked || true; fi
        if [ -n "$policy_is_ours" ]; then rm -f "$policy"; fi
        for unit in $new; do
            # What `systemctl disable` does; a container has no systemctl.
            rm -f /etc/systemd/system/*.wants/"$unit"
            if [ -e "/etc/init.d/${unit%.service}" ]; then
                update-rc.d "${unit%.service}" disable >/dev/null 2>&1 || true
            fi
        done
        if [ -n "$masked" ]; then systemctl daemon-reload || true; fi
    }
}

# The part that needs root, in a process of its own where sudo is used.
as_root() {
    for package in "$@"; do
        case $package in
            rabbitmq-server | prometheus)
                install_quietly "$@"
                return
                ;;
        esac
    done
    install_packages "$@"
}

main() {
    if [ "${1:-}" = --as-root ]; then
        shift
        as_root "$@"
        return
    fi
    check_rust
    packages=$(missing_packages "$@")
    if [ -z "$packages" ]; then
        return
    fi
    packages=$(printf '%s' "$packages" | tr '\n' ' ')
    if ! [ -e /etc/debian_version ] || ! command -v apt-get >/dev/null; then
        fail "this is not Debian: install what these packages hold yourself: $packages"
    fi
    say "installing from Debian's packages (a minute or two): $packages"
    # shellcheck disable=SC2086 # a list of words
    if [ "$(id -u)" = 0 ]; then
        sh "$0" --as-root $packages
    elif command -v sudo >/dev/null; then
        sudo sh "$0" --as-root $packages || fail "could not install as root: $packages"
    else
        fail "neither root nor sudo: have somebody install these packages: $packages"
    fi
}

main "$@"

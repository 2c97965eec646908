#!/usr/bin/env bash
# What becomes of the Debian package in a Debian of its own, below a systemd of its own: the five commands of the README, the
# bounds of the unit, faults, an upgrade, removal and purge. `make test-deb` calls it, with a broker at hand.
#
#   deb.sh           in a container with a systemd of its own, where one boots; else, and it says so:
#   deb.sh chroot    there `warrend run` stands for `systemctl start`, and what only systemd does is left out
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
work=$target/package-test
base=$target/package-base.tar
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
suite=bookworm
# Longer than everything inside takes together.
boot_seconds=400

say() {
    printf 'deb: %s\n' "$*"
}

fail() {
    say "$*" >&2
    exit 1
}

# Once for all runs: a minute.
make_base() {
    [ -e "$base" ] && return
    say "a minimal Debian ($suite) from $mirror"
    rm -rf "$work/base"
    debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus "$suite" "$work/base" "$mirror" >"$work/debootstrap.log" 2>&1 ||
        fail "debootstrap failed, see $work/debootstrap.log"
    tar -C "$work/base" -cf "$base.new" .
    mv "$base.new" "$base"
    rm -rf "$work/base"
}

# The commands that the README shows for the package.
readme_commands() {
    sed -n '/^## Running it/,/^## /p' "$root/README.md" | sed -n '/apt install/,/^$/s/^    //p'
}

# Lays out the Debian with what the test needs below /test.
make_root() {
    rm -rf "$work/root"
    mkdir -p "$work/root"
    tar -C "$work/root" -xf "$base"
    mkdir -p "$work/root/test/new"
    cp "$work"/warrend_*-1_*.deb "$work/root/test/"
    cp "$work"/warrend_*-2_*.deb "$work/root/test/new/"
    cp "$root/tests/package/inside.sh" "$work/root/test/"
    readme_commands >"$work/root/test/commands"
    printf 'quiet "2";\nDpkg::Use-Pty "0";\n' >"$work/root/etc/apt/apt.conf.d/quiet"
    printf '%s\n' "$WARREND_TEST_AMQP_URL" >"$work/root/test/url"
}

# Boots it; the test is a unit of it that ends the container. 1 if systemd did not come up.
run_booted() {
    cat >"$work/root/etc/systemd/system/package-test.service" <<'UNIT'
[Unit]
After=multi-user.target

[Service]
Type=oneshot
ExecStart=/bin/bash /test/inside.sh systemd
ExecStopPost=/bin/systemctl poweroff --no-block
StandardOutput=file:/test/log
StandardError=inherit
TimeoutStartSec=infinity

[Install]
WantedBy=default.target
UNIT
    ln -sf /etc/systemd/system/package-test.service "$work/root/etc/systemd/system/multi-user.target.wants/"
    ln -sf /lib/systemd/system/multi-user.target "$work/root/etc/systemd/system/default.target"
    timeout "$boot_seconds" systemd-nspawn --quiet --register=no --keep-unit --directory="$work/root" --boot \
        >"$work/boot.log" 2>&1 </dev/null || true
    [ -s "$work/root/test/log" ]
}

run_chrooted() {
    unshare --mount --pid --fork --kill-child --mount-proc="$work/root/proc" \
        chroot "$work/root" /bin/bash /test/inside.sh chroot >"$work/root/test/log" 2>&1 </dev/null || true
}

main() {
    [ "$(id -u)" = 0 ] || fail "this needs root, for a chroot"
    [ -n "${WARREND_TEST_AMQP_URL:-}" ] || fail "no broker: run it by way of tests/support/with-broker.sh, as make test-deb does"
    PATH=$PATH:/usr/sbin:/sbin
    mkdir -p "$work"
    local first
    first=$(ls "$target"/debian/warrend_*-1_*.deb) || fail "no package: run \`make deb\` first"
    say "lintian $(basename "$first")"
    lintian --fail-on error,warning "$first" || fail "lintian finds fault with it"
    say "a second one, for the upgrade"
    rm -f "$work"/warrend_*.deb
    cp "$first" "$work/"
    REVISION=2 sh "$root/packaging/deb.sh" --fast --output "$work/" >/dev/null
    # It clears its folder of older ones.
    cp "$work/$(basename "$first")" "$first"
    make_base
    make_root
    if [ "${1:-}" != chroot ] && run_booted; then
        say "in a container, below systemd:"
    else
        [ "${1:-}" = chroot ] || say "no container boots here (see $work/boot.log)"
        say "in a chroot, \`warrend run\` in place of \`systemctl start\`:"
        make_root
        run_chrooted
    fi
    cat "$work/root/test/log"
    [ -e "$work/root/test/passed" ] || fail "failed"
    rm -rf "$work/root"
    say "all is well"
}

main "$@"

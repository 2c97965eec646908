#!/bin/sh
# Puts all that belongs to warrend but the binary where a Linux system looks for it. `make install` and the package call it.
#
#   install-files.sh BINARY DESTDIR PREFIX SYSCONFDIR ZSHDIR
#
# A configuration that is there is not touched.
set -eu

binary=$1 dest=$2 prefix=$3 etc=$4 zsh=$5
root=$(cd "$(dirname "$0")/../.." && pwd)
share=$dest$prefix/share
cd "$root"

# place TARGET: standard input becomes that file.
place() {
    install -d "$(dirname "$1")"
    cat >"$1"
    chmod 644 "$1"
}

copy() {
    install -D -m 644 "$1" "$2"
}

for unit in warrend.service warrend@.service; do
    sed "s|@BINDIR@|$prefix/bin|" "systemd/$unit" | place "$dest$prefix/lib/systemd/system/$unit"
done
copy systemd/warrend.sysusers.conf "$dest$prefix/lib/sysusers.d/warrend.conf"
copy systemd/warrend.tmpfiles.conf "$dest$prefix/lib/tmpfiles.d/warrend.conf"

pages=$(mktemp -d)
trap 'rm -rf "$pages"' EXIT
"$binary" man --all "$pages"
gzip -9n "$pages"/*
for page in "$pages"/*; do
    section=${page%.gz}
    section=${section##*.}
    copy "$page" "$share/man/man$section/${page##*/}"
done

"$binary" completions bash | place "$share/bash-completion/completions/warrend"
"$binary" completions zsh | place "$dest$zsh/_warrend"
"$binary" completions fish | place "$share/fish/vendor_completions.d/warrend.fish"
"$binary" config schema | place "$share/warrend/warrend.schema.json"

for file in README.md docs/*.md; do
    copy "$file" "$share/doc/warrend/${file##*/}"
done
examples=$share/doc/warrend/examples
for file in config/warrend.toml config/minimal.toml config/instance.toml; do
    sed "s|^#:schema .*|#:schema $prefix/share/warrend/warrend.schema.json|" "$file" | place "$examples/${file##*/}"
done
copy config/prometheus-alerts.yml "$examples/prometheus-alerts.yml"
copy config/grafana-dashboard.json "$examples/grafana-dashboard.json"
for file in systemd/examples/* examples/workers/*; do
    case $file in
        *.conf) copy "$file" "$examples/systemd/${file##*/}" ;;
        *) copy "$file" "$examples/workers/${file##*/}" ;;
    esac
done

# configuration FILE TARGET
configuration() {
    if ! [ -e "$2" ]; then
        sed "s|^#:schema .*|#:schema $prefix/share/warrend/warrend.schema.json|" "$1" | place "$2"
    fi
}
install -d "$dest$etc/warrend/jobs.d"
configuration config/installed.toml "$dest$etc/warrend/warrend.toml"
configuration config/jobs.d/mail.toml.example "$dest$etc/warrend/jobs.d/mail.toml.example"

#!/usr/bin/env bash
# Has systemd judge the units and the drop-ins, where there is a systemd-analyze: no unknown word in them, and little that a
# handler could do to the machine. The binary need not be installed for it. Where CI is set it must be here.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# What `systemd-analyze security` gives at most, in tenths.
exposure=13

if ! command -v systemd-analyze >/dev/null; then
    if [ -n "${CI:-}" ]; then
        echo "systemd-analyze is not here, and CI is set" >&2
        exit 1
    fi
    echo "skipped: no systemd-analyze"
    exit 0
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# verify UNIT: an unknown key is only a warning to systemd, and an error to us.
verify() {
    local said
    said=$(systemd-analyze verify --man=no --recursive-errors=no "$1" 2>&1) || {
        printf '%s\n' "$said" >&2
        return 1
    }
    if [[ $said == *"$folder"* || $said == *warrend* ]]; then
        printf '%s\n' "$said" >&2
        return 1
    fi
}

# An executable that exists on every machine stands in for the installed one.
for unit in warrend.service warrend@.service; do
    sed -e 's|^\(Exec[A-Za-z]*\)=@BINDIR@/warrend|\1=/bin/true|' "$root/systemd/$unit" >"$folder/$unit"
done
for unit in warrend.service warrend@billing.service; do
    echo "systemd-analyze verify $unit"
    verify "$folder/$unit"
    echo "systemd-analyze security $unit"
    said=$(systemd-analyze security --offline=true --no-pager --threshold=$exposure "$folder/$unit") || {
        printf '%s\n' "$said" >&2
        exit 1
    }
done
for drop_in in "$root"/systemd/examples/*.conf; do
    echo "systemd-analyze verify warrend.service with ${drop_in##*/}"
    mkdir "$folder/warrend.service.d"
    # Examples in comments are settings too.
    sed 's/^#\([A-Z][A-Za-z]*=\)/\1/' "$drop_in" >"$folder/warrend.service.d/${drop_in##*/}"
    verify "$folder/warrend.service"
    rm -r "$folder/warrend.service.d"
done

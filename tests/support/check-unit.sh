#!/usr/bin/env bash
# Has systemd judge the unit, where there is a systemd-analyze. The binary need not be installed for it.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
if ! command -v systemd-analyze >/dev/null; then
    echo "systemd-analyze is not here: the unit is not verified"
    exit 0
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# An executable that exists on every machine stands in for the installed one.
sed -e 's|^ExecStart=@BINDIR@/warrend|ExecStart=/bin/true|' "$root/systemd/warrend.service" >"$folder/warrend.service"
echo "systemd-analyze verify systemd/warrend.service"
said=$(systemd-analyze verify --man=no --recursive-errors=no "$folder/warrend.service" 2>&1) || {
    printf '%s\n' "$said" >&2
    exit 1
}
# An unknown key is only a warning to systemd, and an error to us.
if [[ $said == *warrend.service* ]]; then
    printf '%s\n' "$said" >&2
    exit 1
fi

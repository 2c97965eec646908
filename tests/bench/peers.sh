#!/bin/sh
# Puts the Python peers of the benchmark into a virtual environment below target/, from PyPI, at pinned versions. Does
# nothing where they are. Only `make bench` calls it.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
folder=${CARGO_TARGET_DIR:-$here/../../target}/bench-python

if cmp -s "$here/requirements.txt" "$folder/installed"; then
    exit 0
fi
rm -rf "$folder"
echo "installing the Python peers into $folder" >&2
python3 -m venv "$folder"
"$folder/bin/pip" install -q --disable-pip-version-check --no-deps -r "$here/requirements.txt"
# Last: what was broken off is begun anew.
cp "$here/requirements.txt" "$folder/installed"

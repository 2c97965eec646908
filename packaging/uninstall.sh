#!/bin/sh
# Takes away what `make install` installs: it is installed once more, elsewhere, to see what that is. The configuration and
# the store stay.
#
#   BINARY=... uninstall.sh DESTDIR PREFIX SYSCONFDIR
set -eu

dest=$1 prefix=$2 etc=$3
root=$(cd "$(dirname "$0")/.." && pwd)
list=$(mktemp -d)
trap 'rm -rf "$list"' EXIT
make -s -C "$root" install BINARY="$BINARY" DESTDIR="$list" PREFIX="$prefix" SYSCONFDIR="$etc" >/dev/null
rm -r "${list:?}$etc"
cd "$list"
find . -type f | while read -r file; do rm -f "$dest/$file"; done
# Folders that are ours alone; the others may have been there before.
find . -depth -type d -path '*/warrend*' | while read -r folder; do rmdir "$dest/$folder" 2>/dev/null || true; done

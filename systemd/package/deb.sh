#!/bin/sh
# Makes the Debian package of the release binary that is there: cargo-deb packs what `make install` installs.
#
# REVISION=1 is that of the package. Arguments go to cargo-deb.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
tool=$target/tools/bin/cargo-deb
tool_version=3.8.0
revision=${REVISION:-1}
cd "$root"

# The same sources make the same package.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH

if [ "$("$tool" --version 2>/dev/null)" != "cargo-deb $tool_version" ]; then
    echo "deb: installing cargo-deb $tool_version (a minute or two)" >&2
    # What is built for it is of no use to others: not in this target folder.
    env -u CARGO_TARGET_DIR cargo install cargo-deb --locked --quiet --version "$tool_version" --root "$target/tools"
fi

# cargo-deb finds it there, wherever the target folder is.
stage=$target/release/package
rm -rf "$stage"
sh systemd/package/install-files.sh "$target/release/warrend" "$stage" /usr /etc /usr/share/zsh/vendor-completions

documents=$stage/usr/share/doc/warrend
install -D -m 644 systemd/package/debian/lintian-overrides "$stage/usr/share/lintian/overrides/warrend"
gzip -9nc CHANGELOG.md >"$documents/changelog.gz"
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
maintainer=$(sed -n 's/^maintainer = "\(.*\)"/\1/p' Cargo.toml)
gzip -9n >"$documents/changelog.Debian.gz" <<EOT
warrend ($version-$revision) unstable; urgency=medium

  * Packaged; what is new in this version is in changelog.gz.

 -- $maintainer  $(date --utc --rfc-email --date="@$SOURCE_DATE_EPOCH")
EOT

# The symbols for backtraces are a package of their own (warrend-dbgsym).
"$tool" --no-build --quiet --dbgsym --deb-revision "$revision" "$@"

#!/bin/sh
# Makes what is given to users, in target/dist: a static program in a tar.gz and in a .deb, the context of
# the image, a list of all libraries (SBOM), install.sh and SHA256SUMS. The same commit gives the same
# bytes, except for the program where another compiler or C library builds it.
#
#   deploy/dist.sh              builds the program with optimisation
#   BINARY=FILE deploy/dist.sh  packs a program that is built already (LEVEL=1: quickly, for tests)
set -eu
cd "$(dirname "$0")/.."

cargo=${CARGO:-cargo}
target=${TARGET:-$(rustc -vV | sed -n 's/^host: //p')}
out=${DIST:-target/dist}
level=${LEVEL:-9}
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
cyclonedx_version=0.5.9
# Without git and without the file that an archive has, dates are those of the format's beginning.
SOURCE_DATE_EPOCH=$(deploy/commit.sh epoch)
: "${SOURCE_DATE_EPOCH:=315532800}"
export SOURCE_DATE_EPOCH
export LC_ALL=C TZ=UTC
umask 022

say() { printf 'dist: %s\n' "$*" >&2; }
fail() { say "$1" "(hint: $2)"; exit 1; }

case $target in
  x86_64-*-linux-*) machine=x86_64 architecture=amd64 ;;
  aarch64-*-linux-*) machine=aarch64 architecture=arm64 ;;
  *) fail "no packages are made for $target" "build it with make build" ;;
esac
for tool in dpkg-deb strip gzip sha256sum; do
  command -v $tool >/dev/null || fail "$tool is missing" "on Debian or Ubuntu: sudo apt-get install dpkg binutils gzip coreutils"
done

build() {
  # crt-static: the C library is part of the program. The target is named so that build scripts and
  # macros, which are loaded, stay dynamic. No path of this machine gets into the program.
  home=${CARGO_HOME:-$HOME/.cargo}
  flags="-C target-feature=+crt-static --remap-path-prefix=$PWD=/atcomm --remap-path-prefix=$home=/cargo"
  ATCOMM_COMMIT=$(deploy/commit.sh) RUSTFLAGS="$flags" \
    CFLAGS="-ffile-prefix-map=$PWD=/atcomm -ffile-prefix-map=$home=/cargo" \
    "$cargo" build --locked --release --bin atcomm --target "$target"
  binary=target/$target/release/atcomm
}

# Every library that is linked into the program, in the format of CycloneDX.
sbom() { # sbom <file>
  if ! command -v cargo-cyclonedx >/dev/null && ! [ -x target/tools/bin/cargo-cyclonedx ]; then
    say "building cargo-cyclonedx $cyclonedx_version"
    "$cargo" install --locked --quiet --debug --root target/tools --version "$cyclonedx_version" cargo-cyclonedx
  fi
  PATH=$PATH:$PWD/target/tools/bin
  "$cargo" cyclonedx --quiet --format json --target "$target" --no-build-deps --override-filename atcomm-sbom
  # Crates of this folder are named by it, which would tell where the release was made.
  sed "s|path+file://$PWD|path+file:///atcomm|g" atcomm-sbom.json >"$1"
}

# Files of a directory with the dates of the commit, so that archives do not tell when they were made.
dated() { find "$1" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +; }

archive() { # archive <directory> <file>
  tar --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner -C "$(dirname "$1")" \
    -cf - "$(basename "$1")" | gzip -n"$level" >"$2"
}

tree() { # tree <directory>: what a release has, by kind
  mkdir -p "$1/completions" "$1/systemd" "$1/config"
  install -m 755 "$stage/atcomm" "$1/atcomm"
  install -m 644 LICENSE CHANGELOG.md "$stage/atcomm.cdx.json" "$1"
  install -m 644 deploy/systemd/atcomm.service deploy/systemd/atcomm.sysusers "$1/systemd"
  install -m 644 deploy/atcomm.toml deploy/config.example.toml "$1/config"
  "$stage/atcomm" man "$1/man/man1" >/dev/null
  for shell in bash zsh fish; do
    "$stage/atcomm" completions $shell >"$1/completions/atcomm.$shell"
  done
}

debian() { # debian <tree> <root>: the same where Debian's policy wants it
  doc=$2/usr/share/doc/atcomm
  install -D -m 755 "$1/atcomm" "$2/usr/bin/atcomm"
  install -D -m 644 "$1/systemd/atcomm.service" "$2/usr/lib/systemd/system/atcomm.service"
  install -D -m 644 "$1/systemd/atcomm.sysusers" "$2/usr/lib/sysusers.d/atcomm.conf"
  install -D -m 644 "$1/config/atcomm.toml" "$2/etc/atcomm/atcomm.toml"
  install -D -m 644 "$1/completions/atcomm.bash" "$2/usr/share/bash-completion/completions/atcomm"
  install -D -m 644 "$1/completions/atcomm.zsh" "$2/usr/share/zsh/vendor-completions/_atcomm"
  install -D -m 644 "$1/completions/atcomm.fish" "$2/usr/share/fish/vendor_completions.d/atcomm.fish"
  install -D -m 644 deploy/debian/copyright "$doc/copyright"
  install -m 644 "$1/config/config.example.toml" "$1/atcomm.cdx.json" "$doc"
  gzip -9nc CHANGELOG.md >"$doc/changelog.gz"
  mkdir -p "$2/usr/share/man/man1"
  for page in "$1"/man/man1/*.1; do
    gzip -9nc "$page" >"$2/usr/share/man/man1/$(basename "$page").gz"
  done
  install -d "$2/DEBIAN"
  install -m 755 deploy/debian/postinst deploy/debian/prerm deploy/debian/postrm "$2/DEBIAN"
  install -m 644 deploy/debian/conffiles "$2/DEBIAN"
  size=$(du -k -s --apparent-size "$2" | cut -f1)
  sed -e "s/@VERSION@/$version/" -e "s/@ARCHITECTURE@/$architecture/" -e "s/@SIZE@/$size/" \
    -e "s|@MAINTAINER@|${DEBFULLNAME:-atcomm maintainers} <${DEBEMAIL:-root@localhost}>|" \
    deploy/debian/control >"$2/DEBIAN/control"
  (cd "$2" && find etc usr -type f | sort | xargs md5sum >DEBIAN/md5sums)
}

binary=${BINARY:-}
[ -n "$binary" ] || build
rm -rf "$out"
mkdir -p "$out"
stage=$(mktemp -d)
trap 'rm -rf "$stage" atcomm-sbom.json crates/*/atcomm-sbom.json' EXIT
trap 'exit 1' INT TERM

install -m 755 "$binary" "$stage/atcomm"
strip --strip-all --enable-deterministic-archives "$stage/atcomm"
sbom "$stage/atcomm.cdx.json"

name=atcomm-$version-$machine-linux
tree "$stage/$name"
archive "$stage/$name" "$out/$name.tar.gz"
debian "$stage/$name" "$stage/deb"
dated "$stage/deb"
dpkg-deb --root-owner-group -Zxz -z"$level" --build "$stage/deb" "$out/atcomm_${version}_$architecture.deb" >/dev/null
mkdir -p "$out/image/data"
cp "$stage/atcomm" "$stage/atcomm.cdx.json" LICENSE "$out/image"
dated "$out/image"
cp "$stage/atcomm.cdx.json" "$out/$name.cdx.json"
install -m 755 deploy/install.sh "$out/install.sh"
(cd "$out" && find . -maxdepth 1 -type f | sed 's|^\./||' | sort | xargs sha256sum >"$stage/SHA256SUMS")
mv "$stage/SHA256SUMS" "$out"
say "made in $out:"
(cd "$out" && ls -1) >&2

#!/bin/sh
# Installs atcomm on Linux: the program with its manual and completions, and the service where systemd
# runs. Prints what it is going to do, and asks before it does it.
set -eu

usage() {
  cat <<'END'
Usage: install.sh [options]              install, or bring an installation up to date
       install.sh uninstall [options]    remove what was installed; settings and data stay

  --from PLACE    folder or https address of the release [default: the folder of this script]
  --deb, --tar    the Debian package, or the files alone [default: the package where there is dpkg]
  --prefix DIR    where the files alone go [default: /usr/local]
  --no-service    the program without the service, for people who only write messages
  --dry-run       print what would be done, and do nothing
  --yes           do not ask
END
}

say() { printf '%s\n' "$*"; }
fail() { printf 'install.sh: %s\nhint: %s\n' "$1" "$2" >&2; exit "${3:-1}"; }
has() { command -v "$1" >/dev/null 2>&1; }

action=install from= kind= prefix=/usr/local service=yes dry= yes=
# Of a root other than /: for packagers and tests. No service is started there.
root=${DESTDIR:-}
while [ $# -gt 0 ]; do
  case $1 in
    uninstall) action=uninstall ;;
    --from | --prefix)
      [ $# -gt 1 ] || fail "$1 needs a value" "install.sh --help shows the options" 2
      if [ "$1" = --from ]; then from=$2; else prefix=$2; fi
      shift
      ;;
    --deb | --tar) kind=${1#--} ;;
    --no-service) service= ;;
    --dry-run) dry=yes ;;
    --yes) yes=yes ;;
    -h | --help) usage; exit 0 ;;
    *) fail "unknown argument $1" "install.sh --help shows the options" 2 ;;
  esac
  shift
done
case $prefix in
  /*) ;;
  *) fail "--prefix $prefix is not an absolute path" "name it from / on" 2 ;;
esac

# Every change of the machine goes through here, so that --dry-run and the real run say the same.
plan=
step() { # step <what> <command...>
  what=$1
  shift
  if [ "$plan" ]; then say "  $what"; else "$@"; fi
}

manifest=$prefix/share/atcomm/installed
config=/etc/atcomm/atcomm.toml
unit=/etc/systemd/system/atcomm.service
booted() { [ -z "$root" ] && [ -d /run/systemd/system ]; }

put() { # put <mode> <source> <target>
  mkdir -p "$root$(dirname "$3")"
  # A new file in place of the old one: the program may be running.
  install -m "$1" "$2" "$root$3.new"
  mv -f "$root$3.new" "$root$3"
  printf '%s\n' "$3" >>"$work/installed"
}
put_all() { # put_all <source folder> <target folder>
  for file in "$1"/*; do put 644 "$file" "$2/$(basename "$file")"; done
}
put_unit() {
  sed "s|^ExecStart=/usr/bin/atcomm|ExecStart=$prefix/bin/atcomm|" "$tree/systemd/atcomm.service" >"$work/unit"
  put 644 "$work/unit" "$unit"
  put 644 "$tree/systemd/atcomm.sysusers" /etc/sysusers.d/atcomm.conf
}
put_config() {
  mkdir -p "$root$(dirname $config)"
  install -m 640 "$tree/config/atcomm.toml" "$root$config"
  if booted; then chgrp atcomm "$config"; fi
}
remember() {
  mkdir -p "$root$(dirname "$manifest")"
  install -m 644 "$work/installed" "$root$manifest"
}

fetch() { # fetch <file>
  case $from in
    https://*)
      has curl || fail "curl is missing" "install curl, or download the release and name its folder with --from"
      curl --proto =https --tlsv1.2 -fsSL --max-time 600 -o "$work/$1" "$from/$1" ||
        fail "cannot download $from/$1" "check the address given with --from" 4
      ;;
    *) cp "$from/$1" "$work/$1" 2>/dev/null || fail "$from has no $1" "name the folder of a release with --from" ;;
  esac
}

# Fetches a file of the release and compares it with SHA256SUMS.
verified() { # verified <file>
  fetch "$1"
  grep -E "^[0-9a-f]{64}  $1\$" "$work/SHA256SUMS" >"$work/sum" || fail "SHA256SUMS does not name $1" "the release is incomplete"
  (cd "$work" && sha256sum -c --quiet sum >/dev/null 2>&1) ||
    fail "$1 is not the file that SHA256SUMS names" "download the release again; do not use this one"
}

choose() { # the name of the release's file for this machine
  case $(uname -s)-$(uname -m) in
    Linux-x86_64) machine=x86_64 architecture=amd64 ;;
    Linux-aarch64) machine=aarch64 architecture=arm64 ;;
    *) fail "there is no release for $(uname -s) on $(uname -m)" "build it with Rust: make build" ;;
  esac
  if [ -z "$kind" ]; then
    if has dpkg && [ "$service" ] && [ "$prefix" = /usr/local ] && [ -z "$root" ]; then kind=deb; else kind=tar; fi
  fi
  case $kind in
    deb) pattern="atcomm_[0-9A-Za-z.+~]*_$architecture\\.deb" ;;
    tar) pattern="atcomm-[0-9A-Za-z.+~]*-$machine-linux\\.tar\\.gz" ;;
  esac
  file=$(sed -n "s/^[0-9a-f]\\{64\\}  \\($pattern\\)\$/\\1/p" "$work/SHA256SUMS")
  [ "$(printf '%s\n' "$file" | wc -l)" = 1 ] && [ "$file" ] ||
    fail "the release has no single $kind for $machine" "name the folder of a release with --from"
}

install_steps() {
  if [ "$kind" = deb ]; then
    step "install the package $file with dpkg: program, manual, service, $config" \
      dpkg ${root:+--root="$root"} --install "$work/$file"
    return
  fi
  step "put the program into $root$prefix/bin/atcomm" put 755 "$tree/atcomm" "$prefix/bin/atcomm"
  step "put the manual into $root$prefix/share/man/man1" put_all "$tree/man/man1" "$prefix/share/man/man1"
  step "put completions for bash, zsh and fish below $root$prefix/share" put_completions
  step "put the license and the list of libraries into $root$prefix/share/doc/atcomm" put_documents
  if [ "$service" ]; then
    step "put the service into $root$unit, and its user into $root/etc/sysusers.d/atcomm.conf" put_unit
    if booted; then step "make the user atcomm" systemd-sysusers /etc/sysusers.d/atcomm.conf; fi
    if [ -e "$root$config" ]; then
      step "leave $root$config as it is" true
    else
      step "put the settings into $root$config" put_config
    fi
  fi
  step "note the files in $root$manifest, for uninstall" remember
  if [ "$service" ] && booted; then
    step "start the service, now and when the machine starts" start_service
  fi
}
put_completions() {
  put 644 "$tree/completions/atcomm.bash" "$prefix/share/bash-completion/completions/atcomm"
  put 644 "$tree/completions/atcomm.zsh" "$prefix/share/zsh/site-functions/_atcomm"
  put 644 "$tree/completions/atcomm.fish" "$prefix/share/fish/vendor_completions.d/atcomm.fish"
}
put_documents() {
  for file in LICENSE CHANGELOG.md atcomm.cdx.json config/config.example.toml; do
    put 644 "$tree/$file" "$prefix/share/doc/atcomm/$(basename "$file")"
  done
}
start_service() {
  systemctl daemon-reload
  systemctl enable atcomm.service
  systemctl restart atcomm.service
}

uninstall_steps() {
  if [ "$kind" = deb ]; then
    step "remove the package atcomm with dpkg" dpkg ${root:+--root="$root"} --remove atcomm
  else
    if grep -qx "$unit" "$root$manifest" && booted; then
      step "stop the service" systemctl disable --now atcomm.service
    fi
    step "remove the $(wc -l <"$root$manifest") files that $root$manifest lists" remove_files
  fi
  step "leave the settings in $root/etc/atcomm and the data in $root/var/lib/atcomm" true
}
remove_files() {
  while IFS= read -r file; do
    rm -f "$root$file"
  done <"$root$manifest"
  rm -f "$root$manifest"
  rmdir "$root$prefix/share/atcomm" "$root$prefix/share/doc/atcomm" 2>/dev/null || true
  if booted; then systemctl daemon-reload; fi
}

confirm() {
  [ -z "$yes" ] || return 0
  [ -t 0 ] || fail "nothing was done, because there is no terminal to ask at" "run it again with --yes"
  printf 'Continue? [y/N] '
  read -r answer
  case $answer in
    y | Y | yes) ;;
    *) say "nothing was done"; exit 1 ;;
  esac
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM

if [ "$action" = install ]; then
  from=${from:-$(cd "$(dirname "$0")" && pwd)}
  fetch SHA256SUMS
  choose
  verified "$file"
  say "atcomm: $from/$file is the file that SHA256SUMS names"
  if [ "$kind" = tar ]; then
    tar -xzf "$work/$file" -C "$work" --no-same-owner
    tree=$work/${file%.tar.gz}
  fi
  : >"$work/installed"
else
  if [ -z "$kind" ]; then
    if [ -e "$root$manifest" ]; then kind=tar; else kind=deb; fi
  fi
  if [ "$kind" = deb ]; then
    { has dpkg-query && dpkg-query ${root:+--root="$root"} -W atcomm >/dev/null 2>&1; } ||
      fail "atcomm is not installed here" "name the prefix of the installation with --prefix"
  else
    [ -e "$root$manifest" ] || fail "there is no $root$manifest" "name the prefix of the installation with --prefix"
  fi
fi

say "This is going to:"
plan=yes
"${action}_steps"
if [ "$dry" ]; then exit 0; fi
confirm
plan=
"${action}_steps"
if [ "$action" = install ]; then
  say "done: $(if [ "$root" ]; then echo "installed below $root"; elif [ $kind = deb ]; then atcomm --version; else "$prefix/bin/atcomm" --version; fi)"
else
  say "done"
fi

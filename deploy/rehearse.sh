#!/usr/bin/env bash
# Rehearses the way from nothing to a message whose sender is verified, beside a real PDS with a real Caddy:
#
#   deploy/rehearse.sh [--binary FILE]
#
# Everything runs on this machine, in a directory that is removed at the end. What stands here before the
# first command is what an operator and two users have already: a PDS, its Caddy with the official
# configuration, a name in DNS, two accounts with app passwords. What differs from a public server is only
# that: the certificates are of Caddy's own authority, and ports are free ones. Needs caddy, curl and what
# tests/network/setup.sh installs. Exit code 0: the message came, and its sender was verified.
set -euo pipefail
project=$(cd "$(dirname "$0")/.." && pwd)

die() { printf 'rehearse: %s\n' "$1" >&2; exit 1; }
binary=$project/target/release/atcomm
case "${1-}" in
  --binary) binary=${2:?a file} ;;
  '') [ -x "$binary" ] || die "there is no $binary (hint: make build, or --binary FILE)" ;;
  *) die "unknown argument $1 (hint: deploy/rehearse.sh [--binary FILE])" ;;
esac
command -v caddy >/dev/null || die 'caddy is missing (hint: on Debian: apt-get install caddy)'

dir=$(mktemp -d)
mkdir "$dir/bin"
ln -s "$(realpath "$binary")" "$dir/bin/atcomm"
export PATH="$dir/bin:$PATH" HOME="$dir" XDG_DATA_HOME="$dir/caddy" XDG_CONFIG_HOME="$dir/caddy"
processes=()
finish() {
  local status=$?
  for ((i = ${#processes[@]} - 1; i >= 0; i--)); do kill "${processes[i]}" 2>/dev/null || true; done
  for process in "${processes[@]}"; do wait "$process" 2>/dev/null || true; done
  if [ $status = 0 ]; then
    rm -rf "$dir"
  else
    tail -n 5 "$dir"/*.log >&2 || true
    printf 'rehearse: failed (hint: logs and files are in %s)\n' "$dir" >&2
  fi
}
trap finish EXIT

# ---- what is there already

field() { node -e 'let v=JSON.parse(process.argv[1]);for(const k of process.argv[2].split("."))v=v[k];console.log(v)' "$1" "$2"; }
post() { curl -fsS -X POST -H 'content-type: application/json' "${@:3}" -d "$2" "$1"; }
free_port() { node -e 'const s=require("net").createServer().listen(0,"127.0.0.1",()=>{console.log(s.address().port);s.close()})'; }
# until_there <what> <command...>
until_there() {
  local what=$1 begun=$SECONDS
  shift
  until "$@" >/dev/null 2>&1; do
    [ $((SECONDS - begun)) -lt 60 ] || die "$what is not there after a minute"
    sleep 0.1
  done
}

"$project/tests/network/run.sh" --multikey >"$dir/network.json" 2>"$dir/network.log" &
processes+=($!)
until_there 'the PDS' grep -q ready "$dir/network.json"
network=$(head -n 1 "$dir/network.json")
control=$(field "$network" control)
pds=$(field "$network" pds.0.url)
name=mail.pds0.test
https=$(free_port)
listen=127.0.0.1:$(free_port)
post "$control/dns.set" "{\"name\":\"$name\",\"a\":\"127.0.0.1\"}" >/dev/null
# The PDS of the tests has no /tls-check of its own.
web=$(field "$network" web)
post "$control/web.set" '{"path":"/tls-check","body":{"success":true}}' >/dev/null

mkdir "$dir/pds"
cat >"$dir/pds/Caddyfile" <<END
{
	admin unix/$dir/pds/caddy.sock
	local_certs
	skip_install_trust
	default_bind 127.0.0.1
	http_port $(free_port)
	https_port $https
	on_demand_tls {
		ask $web/tls-check
	}
}

*.pds0.test, pds0.test {
	tls {
		on_demand
	}
	reverse_proxy $pds
}
END
caddy run --adapter caddyfile --config "$dir/pds/Caddyfile" >"$dir/caddy.log" 2>&1 &
processes+=($!)
authority=$dir/caddy/caddy/pki/authorities/local/root.crt
until_there 'the authority of Caddy' test -s "$authority"

# A public server needs none of these lines.
local_machine() {
  printf '[net]\ndevelopment = true\nname_server = "%s"\nextra_ca_file = "%s"\n' "$(field "$network" dns)" "$authority"
  printf '[identity]\nplc_url = "%s"\n' "$(field "$network" plc)"
}
local_machine >"$dir/client.toml"
# user <name> <pds>: an account with an app password
user() {
  local account session
  account=$(post "$control/account.create" "{\"name\":\"$1\",\"pds\":$2}")
  session=$(post "$control/session" "{\"account\":\"$1\"}")
  post "$(field "$account" pdsUrl)/xrpc/com.atproto.server.createAppPassword" '{"name":"atcomm"}' \
    -H "authorization: Bearer $(field "$session" accessJwt)" >"$dir/$1.json"
}
user alice 0
user bob 0
# as <name> <command...>
as() {
  ATCOMM_CONFIG=$dir/client.toml ATCOMM_HOME=$dir/wallet-$1 \
    ATCOMM_PASSWORD=$(field "$(cat "$dir/$1.json")" password) "${@:2}"
}

# ---- the commands

cd "$dir"
count=0
begun=$EPOCHREALTIME
since() { LC_ALL=C awk -v now="$EPOCHREALTIME" -v then="$1" 'BEGIN { printf "%.1f s", now - then }'; }
# run <text that is shown> <command...>
run() {
  local shown=$1 started=$EPOCHREALTIME
  shift
  count=$((count + 1))
  printf '\n%d$ %s\n' "$count" "$shown"
  "$@" >"$dir/out" 2>&1 || { cat "$dir/out"; die "command $count failed"; }
  sed 's/^/   /' "$dir/out"
  printf '   (%s)\n' "$(since "$started")"
}

write_config() {
  {
    printf 'data_dir = "%s"\n\n[http]\nlisten = "%s"\n\n' "$dir/data" "$listen"
    printf '[mediator]\npublic_url = "https://%s:%s"\n\n' "$name" "$https"
    printf '[[sources]]\nkind = "pds"\nurl = "%s"\n\n' "$pds"
    local_machine
  } >atcomm.toml
}
add_site() { sed "s/mail.example.com/$name/; s/127.0.0.1:2590/$listen/" "$project/deploy/caddy/Caddyfile" >>pds/Caddyfile; }
reload_caddy() { caddy reload --adapter caddyfile --config pds/Caddyfile --address "unix/$dir/pds/caddy.sock"; }
start_service() {
  atcomm serve --config atcomm.toml 2>service.log &
  processes+=($!)
  until_there 'the service' curl -fsS "http://$listen/xrpc/_health"
}
from_outside() { curl -fsS -w "\n" --cacert "$authority" --resolve "$name:$https:127.0.0.1" "https://$name:$https/.well-known/did.json"; }
# The message takes a moment to come.
receive() {
  until_there 'the message' sh -c 'atcomm receive >received 2>&1; grep -q "hello bob" received'
  cat received
}

run 'editor atcomm.toml' write_config
run 'sed s/mail.example.com/NAME/ deploy/caddy/Caddyfile >>pds/Caddyfile' add_site
run 'caddy reload --config pds/Caddyfile' reload_caddy
run 'atcomm serve --config atcomm.toml &' start_service
run "curl https://$name:$https/.well-known/did.json" from_outside
run "atcomm enroll alice.pds0.test --mediator $name:$https" as alice atcomm enroll alice.pds0.test --mediator "$name:$https"
run "atcomm enroll bob.pds0.test --mediator $name:$https" as bob atcomm enroll bob.pds0.test --mediator "$name:$https"
run "atcomm send bob.pds0.test 'hello bob'" as alice atcomm send bob.pds0.test 'hello bob'
run 'atcomm receive' as bob receive
grep -q '@alice.pds0.test (verified)' received || die 'the sender is not verified'

printf '\n%d commands, %s: a message came, and its sender is verified\n' "$count" "$(since "$begun")"

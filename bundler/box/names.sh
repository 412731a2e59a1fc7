# ---------------------------------------------------------------------------------------------------- names

# The other way of set-up: the box keeps asking the vendor's servers, and their names lead to the mirror. Nothing is changed
# but /etc/hosts, and not even that where the network's own name server does it.

YUM_NAMES='mirrorlist.sangoma.net package1.sangoma.net sng7.com'
MODULE_NAME=mirror.freepbx.org

vendor_names() {
  case $MANAGER in apt) printf '%s\n' "$MODULE_NAME" ;; *) printf '%s %s\n' "$YUM_NAMES" "$MODULE_NAME" ;; esac
}

# The port, before anything is fetched.
check_named_origin() {
  case $origin in https:*) fail 2 '--dns goes with a mirror at http://HOST: the names are asked by http' ;; esac
  case ${origin#http://} in
  '['*']' | '['*']':80 | *[!:]:80) ;;
  *:*) fail 2 "$origin: the names of the vendor are asked at port 80" 'let an origin of the mirror listen there, with vendorNames: true' ;;
  esac
}

take_names() {
  address=$(address_of "$origin")
  [ -n "$address" ] || fail 6 "$origin: its name has no address here" 'give the mirror by its address: http://10.0.0.5'
  for name in $(vendor_names); do
    { fetch_as "$name" keys/site.asc >"$SCRATCH/named" 2>/dev/null && cmp -s "$SCRATCH/named" "$SCRATCH/site.asc"; } ||
      fail 3 "$origin does not answer as $name; nothing was changed" 'in mirror.yaml, of this origin: vendorNames: true'
  done
  if [ -r "$ROOT/etc/freepbx.conf" ]; then
    case $(database "SELECT value FROM freepbx_settings WHERE keyword = 'MODULE_REPO';") in
    https:*)
      say "modules: MODULE_REPO asks https://$MODULE_NAME, and no name alone can answer that: boxes verify its certificate"
      say "  fwconsole setting MODULE_REPO http://$MODULE_NAME; or gapferry-box setup without --dns"
      ;;
    esac
  fi
}

# address_of ORIGIN
address_of() {
  host=${1#*://}
  case $host in
  '['*) host=${host#'['} && printf '%s\n' "${host%%']'*}" ;;
  *)
    host=${host%:*}
    if printf '%s\n' "$host" | grep -qxE '[0-9.]+'; then printf '%s\n' "$host"; else addresses "$host" | head -n 1; fi
    ;;
  esac
}

addresses() {
  ! have getent || within getent ahosts "$1" | awk '!seen[$1]++ { print $1 }'
}

# fetch_as NAME PATH: what the mirror answers to who takes it for NAME
fetch_as() {
  case $address in *:*) place="[$address]" ;; *) place=$address ;; esac
  if have curl; then
    curl --fail --silent --max-time 60 --max-filesize "$MAX_SITE_KEY_BYTES" -H "Host: $1" "http://$place/$2"
  elif have wget; then
    wget -q -T 60 -O - --header "Host: $1" "http://$place/$2"
  else
    "$(interpreter)" -c 'import sys
try: from urllib.request import urlopen, Request
except ImportError: from urllib2 import urlopen, Request
data = urlopen(Request(sys.argv[1], headers={"Host": sys.argv[2]}), timeout=60).read(65536)
getattr(sys.stdout, "buffer", sys.stdout).write(data)' "http://$place/$2" "$1"
  fi | head -c $((MAX_SITE_KEY_BYTES + 1))
}

assert_names() {
  ! are_names_led || return 0
  {
    [ ! -f "$ROOT/etc/hosts" ] || without_block <"$ROOT/etc/hosts"
    printf '%s\n%s %s\n%s\n' "$BLOCK_BEGIN" "$address" "$(vendor_names)" "$BLOCK_END"
  } >"$SCRATCH/hosts"
  change_file /etc/hosts <"$SCRATCH/hosts"
  [ -z "$ROOT" ] && [ "$DRY" = 0 ] || return 0
  for name in $(vendor_names); do
    addresses "$name" | grep -qxF "$address" || fail 1 "$name still leads elsewhere than to $address" 'hosts: files has to come first in /etc/nsswitch.conf'
  done
}

# Whether a name server does it, without lines of ours.
are_names_led() {
  [ -z "$ROOT" ] && ! has_block /etc/hosts || return 1
  for name in $(vendor_names); do
    addresses "$name" | grep -qxF "$address" || return 1
  done
}

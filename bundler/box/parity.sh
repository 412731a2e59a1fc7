# ---------------------------------------------------------------------------------------------------- parity

parity() {
  ROOT='' origin='' box=$(uname -n)
  while [ $# -gt 0 ]; do
    case $1 in
    --root) set_root "${2:-}" && shift 2 ;;
    --box) [ $# -gt 1 ] || fail 2 '--box: a name is missing' && box=$2 && shift 2 ;;
    -h | --help) usage && return ;;
    http://* | https://*) origin=${1%/} && shift ;;
    *) fail 2 "parity: \"$1\" is not known" ;;
    esac
  done
  [ "$(id -u)" = 0 ] || fail 2 'the manager works for root alone' 'sudo gapferry-box parity'
  find_manager
  [ "$MANAGER" != apt ] || fail 2 'parity is for yum and dnf'
  refuse_while_updating
  box=$(printf '%s' "$box" | tr ABCDEFGHIJKLMNOPQRSTUVWXYZ abcdefghijklmnopqrstuvwxyz)
  [ -n "$origin" ] || origin=$(mirror_origin)
  [ -n "$origin" ] || fail 2 'no enabled repository comes from a mirror' 'gapferry-box parity http://MIRROR:PORT'
  cd / # python looks for modules where it is started, and anybody may have put some there
  # one byte more than a plan may have, so that a longer one is no whole plan
  plan=$({ fetch "$origin/gapferry/parity/$box.txt" || printf '\nfetch failed\n'; } | head -c "$((MAX_PLAN_BYTES + 1))" | tr -d '\000')
  [ "$(printf '%s\n' "$plan" | tail -n 1)" != 'fetch failed' ] || fail 6 "$origin/gapferry/parity/$box.txt: cannot be fetched" 'see that the mirror serves, and that it has a plan for a box of this name (--box NAME)'
  printf '%s\n' "$plan" | is_plan || fail 3 "$origin/gapferry/parity/$box.txt: is not a whole plan for $box" 'see that ORIGIN is the mirror'
  state=$(state_digest) || exit 1
  choice=$(choose)
  body=$(printf '%s\n' "$plan" "$choice" | compare "$box" "$state") || exit 1
  printf '%s\n' "$body"
  printf 'end %s %s\n' "$(printf '%s\n' "$body" | awk 'END { print NR }')" "$(printf '%s\n' "$body" | sha256)"
  printf '%s\n' "$body" | awk '
    $1 == "result" { result = $2 } $1 == "chosen" { count++ }
    $1 == "difference" { sub(/^difference /, ""); print "  " $0 > "/dev/stderr" }
    END { printf "gapferry-box: parity %s; %d packages would be installed\n", result, count > "/dev/stderr" }'
  printf '%s\n' "$body" | grep -qx 'result holds'
}

# The origin of the first enabled repository with a baseurl as mirrors have it.
mirror_origin() {
  { main_file && repository_files; } | while IFS= read -r path; do ini "$ROOT$path"; done | awk -F "$TAB" '
    $2 == "enabled" { off[$1] = tolower($3) ~ /^(0|no|false|off)$/ }
    $2 == "baseurl" && match($3, /^https?:\/\/[^\/]+\/yum\//) { if (!($1 in url)) order[++count] = $1; url[$1] = substr($3, 1, RLENGTH - 5) }
    END { for (i = 1; i <= count; i++) if (!off[order[i]]) { print url[order[i]]; exit } }'
}

fetch() {
  case $1 in file:///*) cat "$ROOT${1#file://}" && return ;; esac
  if have curl; then
    curl --fail --silent --show-error --location --max-time 60 "$1"
  elif have wget; then
    waiting 120 wget -q -T 60 -O - "$1"
  else
    waiting 120 "$(interpreter)" -c 'import sys
try: from urllib.request import urlopen
except ImportError: from urllib2 import urlopen
data = urlopen(sys.argv[1], timeout=60).read()
getattr(sys.stdout, "buffer", sys.stdout).write(data)' "$1"
  fi
}

# Whole, by its first and last line, and for this box? Its lines stand beside the manager's answer and on a terminal, so
# that no other word and no other byte may be in it.
is_plan() {
  BOX=$box awk '
    NR == 1 && $0 != "gapferry-parity 1" { bad = 1 }
    /[^ -~]/ || $1 !~ /^(gapferry-parity|box|inventory|taken|state|manager|guess|unresolved|candidate|end)$/ { bad = 1 }
    $1 == "box" && $2 == ENVIRON["BOX"] { mine = 1 }
    { last = $0 }
    END { exit bad || !(mine && last == "end " (NR - 1)) }'
}

# As the laptop computes it: NEVRAs sorted by bytes, then the settings.
state_digest() {
  names=$(rpm_query -qa --qf '%{NAME} %|EPOCH?{%{EPOCH}}:{0}| %{VERSION} %{RELEASE} %{ARCH}\n') || fail 1 'the package database cannot be read' 'rpm -qa'
  {
    printf '%s\n' "$names" | awk "$ESCAPE"'
      $1 != "gpg-pubkey" { print word($1) "-" ($2 == "0" ? "" : $2 ":") word($3) "-" word($4) "." word($5) }' | sort
    settings | awk "$ESCAPE"'{ print escape($0) }'
  } | sha256
}

# The manager's own answer, from its own solver: "chosen NEVRA" lines, "failed WHY", and "asked" when it could be asked.
# Its table is for eyes (yum 3.4.3 wraps and cuts it); both managers are python, which stands in their first line.
choose() {
  python_choose | "$(interpreter)" - "$MANAGER" "$ROOT" "$ROOT$(main_file)"
}

# The python that the manager itself runs on; it may be called by a script of sh, or by env.
interpreter() {
  own=$(sed -n '1s/^#![[:space:]]*\([^[:space:]]*\).*/\1/p' "$ROOT/usr/bin/$MANAGER" 2>/dev/null)
  case ${own##*/} in *python*) ;; *) own= ;; esac
  for python in "$own" python3 python2 python; do
    [ -z "$python" ] || ! have "$python" || break
  done
  printf '%s\n' "$python"
}

# compare BOX STATE: the plan and the choice, one after the other, as a result
compare() {
  BOX=$1 STATE=$2 MANAGER=$MANAGER NOW=$(date -u +%Y-%m-%dT%H:%M:%SZ) TOOL=$TOOL awk "$ESCAPE"'
    function differ(text) { differences[++different] = text }
    NR > 1 && $1 == "inventory" { inventory = $2 }
    $1 == "taken" { taken = $2 }
    $1 == "state" { state = $2 }
    $1 == "manager" { manager = $2 }
    $1 == "guess" { guess = 1 }
    $1 == "unresolved" { unresolved[++known] = $2 }
    $1 == "candidate" { candidate[$2] = 1 }
    $1 == "chosen" { chosen[++count] = $2; if (!($2 in candidate)) differ("unplanned " $2) }
    $1 == "failed" || $1 == "broken" {
      kind = $1
      sub(/^[a-z]+ /, "")
      failure = substr(failure (failure == "" ? "" : "; ") escape($0), 1, 2000)
    }
    $1 == "asked" { asked = 1 }
    END {
      if (manager != ENVIRON["MANAGER"]) differ("manager planned for " manager ", found " ENVIRON["MANAGER"])
      if (!guess && state != ENVIRON["STATE"]) differ("state packages or settings are not those of the inventory of " taken ": take a new one")
      if (kind == "failed") for (i = 1; i <= known; i++) if (index(failure, unresolved[i])) expected = 1
      if (kind != "" && !expected) differ("failure " failure)
      if (!asked && kind == "") differ("failure " ENVIRON["MANAGER"] " gave no answer")
      print "gapferry-parity-result 1"
      print "box " ENVIRON["BOX"]
      print "checked " ENVIRON["NOW"]
      print "tool " ENVIRON["TOOL"]
      print "manager " ENVIRON["MANAGER"]
      print "inventory " inventory
      print "state " ENVIRON["STATE"]
      print "result " (different ? "differs" : "holds")
      for (i = 1; i <= different; i++) print "difference " differences[i]
      if (expected) print "expected-failure " failure
      for (i = 1; i <= count; i++) print "chosen " chosen[i]
    }'
}

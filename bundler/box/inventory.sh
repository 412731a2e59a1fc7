# ---------------------------------------------------------------------------------------------------- inventory

inventory() {
  ROOT=
  while [ $# -gt 0 ]; do
    case $1 in
    --root) set_root "${2:-}" && shift 2 ;;
    -h | --help) usage && return ;;
    *) fail 2 "inventory: \"$1\" is not known" ;;
    esac
  done
  find_manager
  [ "$(id -u)" = 0 ] || fail 2 'some facts can be read by root alone' 'sudo gapferry-box inventory'
  refuse_while_updating
  # All of it is in memory before the first line leaves: whoever gets a file at all gets it whole or sees where it ends.
  body=$(sections) || exit 1
  printf '%s\n' "$body"
  printf 'end %s %s\n' "$(printf '%s\n' "$body" | awk 'END { print NR }')" "$(printf '%s\n' "$body" | sha256)"
}

sections() {
  printf 'gapferry-inventory 1\n'
  box_facts | section box || return 1
  release_files
  manager_files
  settings | section settings || return 1
  plugin_names | section plugins || return 1
  case $MANAGER in
  apt) ;;
  *) installed_packages || return 1 ;;
  esac
  freepbx || return 1
  readiness | section readiness
}

set_root() {
  [ -d "${1:-/dev/null}" ] || fail 2 "--root: there is no folder \"$1\""
  ROOT=$(cd "$1" && pwd)
  [ "$ROOT" != / ] || ROOT=
}

# MANAGER: what `yum update` or its like is here. From EL8 on, yum is a link to dnf.
find_manager() {
  if [ -x "$ROOT/usr/bin/apt-get" ] && [ -e "$ROOT/var/lib/dpkg/status" ]; then
    MANAGER=apt
  elif [ -e "$ROOT/usr/bin/yum" ] && [ ! -L "$ROOT/usr/bin/yum" ]; then
    MANAGER=yum
  elif [ -e "$ROOT/usr/bin/dnf" ] || [ -L "$ROOT/usr/bin/dnf" ]; then
    MANAGER=dnf
  else
    fail 4 "${ROOT:-this system}: neither yum nor dnf nor apt-get is here" 'gapferry-box works on PBXact and FreePBX systems'
  fi
}

# Half an update is no state that anybody should plan for.
refuse_while_updating() {
  for path in /var/run/yum.pid /var/lib/dnf/rpmdb_lock.pid; do
    [ -s "$ROOT$path" ] && kill -0 "$(first_line "$ROOT$path")" 2>/dev/null && fail 7 "$path: another program is changing packages" 'wait until it has ended'
  done
  return 0
}

box_facts() {
  printf 'box %s\n' "$(uname -n)"
  printf 'created %s\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)"
  printf 'tool %s\n' "$TOOL"
  printf 'arch %s\n' "$(uname -m)"
  printf 'kernel %s\n' "$(uname -r)"
  printf 'manager %s\n' "$MANAGER"
  [ ! -r "$ROOT/etc/machine-id" ] || printf 'machine %s\n' "$(first_line "$ROOT/etc/machine-id" | tr -d '\n' | sha256)"
}

release_files() {
  for path in os-release redhat-release sangoma-release debian_version; do
    file_section "/etc/$path"
  done
}

# The files that decide what the manager does, verbatim but for passwords.
manager_files() {
  configuration | while IFS= read -r path; do file_section "$path"; done
}

# Paths on the box, in the order in which the manager reads them.
configuration() {
  case $MANAGER in
  yum)
    main_file
    repository_files
    existing '/etc/yum/vars/*' '/etc/yum/pluginconf.d/*.conf'
    ;;
  dnf)
    main_file
    repository_files
    existing '/etc/yum/vars/*' '/etc/dnf/vars/*' '/etc/dnf/plugins/*.conf'
    ;;
  apt)
    existing /etc/apt/sources.list '/etc/apt/sources.list.d/*.list' '/etc/apt/sources.list.d/*.sources'
    existing /etc/apt/preferences '/etc/apt/preferences.d/*'
    ;;
  esac
}

main_file() {
  case $MANAGER in
  yum) existing /etc/yum.conf /etc/yum/yum.conf | head -n 1 ;;
  dnf) existing /etc/dnf/dnf.conf ;;
  esac
}

repository_files() {
  folders=$(main_file | while IFS= read -r path; do ini "$ROOT$path" | sed -n "s/^main${TAB}reposdir${TAB}//p" | tr -s ', ' '\n'; done)
  if [ -z "$folders" ]; then
    case $MANAGER in
    yum) folders="/etc/yum/repos.d$NEWLINE/etc/yum.repos.d" ;;
    dnf) folders="/etc/yum.repos.d$NEWLINE/etc/yum/repos.d$NEWLINE/etc/distro.repos.d" ;;
    esac
  fi
  printf '%s\n' "$folders" | while IFS= read -r folder; do
    [ -z "$folder" ] || existing "$folder/*.repo"
  done
}

# lock_file STEM: the plugin's list, wherever STEM.conf puts it
lock_file() {
  list=
  [ ! -r "$ROOT$1.conf" ] || list=$(ini "$ROOT$1.conf" | sed -n "s/^main${TAB}locklist${TAB}//p" | tail -n 1)
  existing "${list:-$1.list}"
}

# existing PATH…: those that are readable files below ROOT; patterns are for the box, so they are expanded here
existing() {
  spaces=$IFS
  IFS=$NEWLINE # a path may hold spaces
  for path in "$@"; do
    for found in "$ROOT"$path; do
      [ -f "$found" ] && [ -r "$found" ] && printf '%s\n' "${found#"$ROOT"}"
    done
  done | awk '!seen[$0]++'
  IFS=$spaces
}

# file_section PATH
file_section() {
  [ -f "$ROOT$1" ] && [ -r "$ROOT$1" ] || return 0
  without_passwords <"$ROOT$1" | section file "$1"
}

# Values of password options, and user:password@ of URLs, as ***; continued lines of such a value, too, which go on behind
# comments and empty lines. A password that nobody escaped may hold "@" and "/".
without_passwords() {
  awk '
    secret && /^[ \t]+[^ \t]/ { print " ***"; next }
    /^[ \t]*$/ || /^[#;]/ { keep = secret }
    !/^[ \t]*$/ && !/^[#;]/ { keep = 0 }
    { secret = keep }
    tolower($0) ~ /^[ \t#;]*[a-z_]*passw(or)?d[ \t]*[=:]/ { match($0, /[=:]/); print substr($0, 1, RSTART) "***"; secret = 1; next }
    { gsub(/:\/\/[^\/ \t]*@/, "://***@"); gsub(/:\/\/[^\/@: \t]*:[^ \t,]*@/, "://***@"); print }
  '
}

# section NAME [ARGUMENT]: standard input as a section, every line made printable ASCII
section() {
  NAME=$1 ARGUMENT=${2:-} awk "$ESCAPE"'
    { line[NR] = escape($0) }
    END {
      printf "section %s %d%s\n", ENVIRON["NAME"], NR, ENVIRON["ARGUMENT"] == "" ? "" : " " escape(ENVIRON["ARGUMENT"])
      for (i = 1; i <= NR; i++) print line[i]
    }'
}

# %xx for every byte that is not printable ASCII, and for %
# shellcheck disable=SC2016 # awk text
ESCAPE='
  function escape(text,   i, c, out) {
    if (text !~ /[^ -$&-~]/) return text
    if (!("%" in hex)) for (i = 1; i < 256; i++) hex[sprintf("%c", i)] = sprintf("%%%02x", i)
    for (i = 1; i <= length(text); i++) {
      c = substr(text, i, 1)
      out = out (c ~ /[ -$&-~]/ ? c : (c in hex ? hex[c] : "%00"))
    }
    return out
  }
  function word(text) { text = escape(text); if (index(text, " ")) gsub(/ /, "%20", text); return text }
'

# ini FILE: "section TAB key TAB value" for each option, as ConfigParser of python 2.7 (yum) or libdnf (dnf) reads it;
# lines of one value joined by spaces, keys in lower case
ini() {
  awk -v manager="$MANAGER" -v OFS="$TAB" '
    function flush() { if (key != "") print part, key, value; key = "" }
    function trim(text) { gsub(/^[ \t\r\n\f\v]+|[ \t\r\n\f\v]+$/, "", text); return text }
    { line = $0 }
    trim(line) == "" || line ~ /^[#;]/ || (manager == "yum" && line ~ /^[Rr][Ee][Mm][ \t]/) { next }
    line ~ /^[ \t]/ { line = trim(line); if (key != "") value = value (value == "" ? "" : " ") line; next }
    line ~ /^\[[^]]+\]/ { flush(); part = substr(line, 2, index(line, "]") - 2); next }
    part != "" {
      at = match(line, manager == "yum" ? "[=:]" : "=")
      if (at < 2) next
      flush()
      key = tolower(trim(substr(line, 1, at - 1)))
      value = trim(substr(line, at + 1))
      if (manager == "yum" && match(value, /[ \t];/)) value = trim(substr(value, 1, RSTART - 1))
    }
    END { flush() }
  ' "$1"
}

# The options that decide what an update chooses, of the manager and of every enabled repository, and the version locks:
# with the installed packages, what the box's state is.
settings() {
  [ "$MANAGER" != apt ] || return 0
  { main_file && repository_files; } | while IFS= read -r path; do ini "$ROOT$path"; done | awk -F "$TAB" "$ESCAPE"'
    BEGIN {
      split("exclude excludepkgs includepkgs obsoletes installonlypkgs installonly_limit multilib_policy exactarch " \
        "best strict install_weak_deps skip_broken plugins protected_multilib group_command distroverpkg", list, " ")
      for (i in list) of_main[list[i]] = 1
      split("exclude excludepkgs includepkgs priority cost protect enabled enablegroups module_hotfixes", list2, " ")
      for (i in list2) of_repository[list2[i]] = 1
    }
    { gsub(/[ \t]+/, " ", $3) }
    $1 == "main" { if ($2 in of_main) { if (!($2 in main)) order_main[++mains] = $2; main[$2] = $3 } next }
    !($1 in known) { known[$1] = 1; order[++count] = $1 }
    $2 in of_repository { options[$1] = options[$1] "\n" $2 " " $3; if ($2 == "enabled") enabled[$1] = tolower($3) }
    END {
      for (i = 1; i <= mains; i++) print "main " order_main[i] " " main[order_main[i]]
      for (i = 1; i <= count; i++) {
        id = order[i]
        if (enabled[id] ~ /^(0|no|false|off)$/) continue
        print "repository " word(id)
        lines = split(substr(options[id], 2), part, "\n")
        for (j = 1; j <= lines; j++) if (part[j] !~ /^enabled /) print "repository " word(id) " " part[j]
      }
    }' | sort
  case $MANAGER in yum) lock_file /etc/yum/pluginconf.d/versionlock ;; dnf) lock_file /etc/dnf/plugins/versionlock ;; esac |
    while IFS= read -r path; do sed -e 's/^[[:space:]]*//' -e 's/[[:space:]]*$//' -e '/^#/d' -e '/^$/d' -e 's/^/lock /' "$ROOT$path"; done
}

plugin_names() {
  case $MANAGER in
  yum) set -- "$ROOT"/usr/lib/yum-plugins/*.py "$ROOT"/usr/share/yum-plugins/*.py ;;
  dnf) set -- "$ROOT"/usr/lib/python3*/site-packages/dnf-plugins/*.py "$ROOT"/usr/lib/python3/dist-packages/dnf-plugins/*.py ;;
  *) set -- ;;
  esac
  for path in "$@"; do
    [ ! -f "$path" ] || basename "$path" .py
  done | sort -u
}

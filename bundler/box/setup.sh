# ---------------------------------------------------------------------------------------------------- setup

MAX_SITE_KEY_BYTES=65536
MAX_SETUP_BYTES=65536
SITE_KEY=/etc/pki/rpm-gpg/RPM-GPG-KEY-gapferry

setup() {
  ROOT='' DRY=0 origin='' words='' group='' box='' mode=mirror keeps=1 trusts=0
  while [ $# -gt 0 ]; do
    case $1 in
    --root) set_root "${2:-}" && shift 2 ;;
    --fingerprint) words=${2:-} && needs_value "$@" && shift 2 ;;
    --group) group=${2:-} && needs_value "$@" && shift 2 ;;
    --box) box=${2:-} && needs_value "$@" && shift 2 ;;
    --dns) mode=names && shift ;;
    --dry-run) DRY=1 && shift ;;
    --no-keep) keeps=0 && shift ;;
    --yes) trusts=1 && shift ;;
    -h | --help) usage && return ;;
    -*) fail 2 "setup: \"$1\" is not known" ;;
    *) [ -z "$origin" ] || fail 2 "setup: expected one ORIGIN, found \"$1\" as well" && origin=${1%/} && shift ;;
    esac
  done
  case $0 in /*) self=$0 ;; *) self=$PWD/$0 ;; esac
  check_origin
  [ "$mode" != names ] || check_named_origin
  find_manager
  [ -n "$box" ] || box=$(known_box)
  is_box_name "$box" || fail 2 "--box: \"$(printf '%s' "$box" | printable)\" is no name: letters, digits and . _ - alone, 64 at most"
  begin_changes
  cd / # python looks for modules where it is started, and anybody may have put some there
  refuse_while_updating
  take_site_key
  take_facts
  check_database
  printf '%s: group %s\n' "$origin" "$group"
  case $mode in mirror) take_mirror ;; names) take_names ;; esac
  assert_all
  [ "$mode" = names ] || [ "$MANAGER" != apt ] || say 'packages: apt still asks where it asked before; of this box only modules come from the mirror so far'
  remember_setup
  [ "$keeps" = 0 ] || assert_keep
  say_setup
}

needs_value() {
  [ $# -gt 1 ] || fail 2 "$1: a value is missing"
}

# Boxes ask for modules at scheme, host and port: a path would be dropped, and a slash at the end doubled.
check_origin() {
  [ -n "$origin" ] || fail 2 'setup: the mirror is missing' "gapferry-box setup http://MIRROR:PORT --fingerprint 'TWELVE WORDS'"
  case $origin in *"$NEWLINE"*) origin='two lines' ;; esac
  printf '%s\n' "$origin" | grep -qxE 'https?://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?' ||
    fail 2 "\"$(printf '%s' "$origin" | printable)\": expected scheme, host and port, no path" 'gapferry-mirror status shows where each group is served'
  case $origin in https:*) say 'https: the module client of a box trusts public certificates alone; where the mirror has another, use http (modules and packages are signed)' ;; esac
}

known_box() {
  name=$(setting_of box)
  printf '%s\n' "${name:-$(uname -n)}" | tr ABCDEFGHIJKLMNOPQRSTUVWXYZ abcdefghijklmnopqrstuvwxyz
}

is_box_name() {
  printf '%s\n' "$1" | grep -qxE '[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?' && [ "$(printf '%s\n' "$1" | wc -l)" = 1 ]
}

# take FILE PATH MAX: the origin's answer, whole; status 1 where it has none
take() {
  {
    fetch "$origin/$2" 2>"$SCRATCH/why" || : >"$SCRATCH/failed"
  } | head -c $(($3 + 1)) >"$1"
  size=$(wc -c <"$1")
  [ "$size" -le "$3" ] || fail 3 "$origin/$2: longer than $3 bytes" 'see that ORIGIN is the mirror'
  [ ! -e "$SCRATCH/failed" ] || { rm -f "$SCRATCH/failed" && return 1; }
}

cannot_fetch() {
  fail 6 "$origin/$1: cannot be fetched: $(tail -n 1 "$SCRATCH/why" | printable)" "see that the mirror serves and that this box reaches it; nothing was changed"
}

# The one thing that is trusted; all else follows from what it signed.
take_site_key() {
  take "$SCRATCH/site.asc" keys/site.asc "$MAX_SITE_KEY_BYTES" || cannot_fetch keys/site.asc
  without_armor <"$SCRATCH/site.asc" >"$SCRATCH/site.bytes" 2>/dev/null ||
    fail 3 "$origin/keys/site.asc: is no OpenPGP key" 'see that ORIGIN is the mirror; nothing was changed'
  found=$(sha256 <"$SCRATCH/site.bytes" | words_of)
  [ "$trusts" = 0 ] || return 0
  [ -n "$words" ] || fail 2 'the words of the site key are missing; nothing was changed' "--fingerprint 'WORDS', from the slip that came with the stick, or from: gapferry keys list"
  given=$(spelled_words "$words") || fail 2 "--fingerprint: $given" 'the twelve words stand on the slip that came with the stick'
  [ "$given" = "$found" ] || fail 3 "the site key has other words; nothing was changed
  expected: $given
  found:    $found" 'see that ORIGIN is the mirror and the words are those of the site key, not of the root; else somebody stands between'
}

take_facts() {
  take "$SCRATCH/came.txt" gapferry/setup.txt "$MAX_SETUP_BYTES" || cannot_fetch gapferry/setup.txt
  tr '\000' '\001' <"$SCRATCH/came.txt" >"$SCRATCH/setup.txt"
  awk '
    NR == 1 { bad = $0 != "gapferry-setup 1"; next }
    ended { bad = 1 }
    /[^ -~]/ || / $|  / { bad = 1 }
    $1 == "group" && NF == 2 && $2 ~ /^[a-z0-9._-]+$/ && length($2) <= 64 && !groups++ { next }
    $1 == "repository" && NF == 3 && is_id($2) && !($2 in seen) && $3 ~ /^(checked|unchecked)$/ { seen[$2]; next }
    $1 == "modules" && NF == 2 && $2 ~ /^[1-9][0-9]?$/ { next }
    $1 == "module-key" && NF == 2 && $2 ~ /^[0-9A-Fa-f]+$/ && length($2) == 16 && ++keys <= 20 { next }
    $1 == "end" && NF == 2 && $2 == NR - 1 { ended = 1; next }
    { bad = 1 }
    function is_id(text) { return text ~ /^[A-Za-z0-9][A-Za-z0-9_.:-]*$/ && length(text) <= 64 && tolower(text) != "main" }
    END { exit bad || !ended || groups != 1 }' "$SCRATCH/setup.txt" ||
    fail 3 "$origin/gapferry/setup.txt: is not what a mirror says to a box" 'see that ORIGIN is the mirror, and that its bundle was made by this version of gapferry or a later one; nothing was changed'
  served=$(fact group)
  [ -z "$group" ] || [ "$group" = "$served" ] || fail 3 "$origin serves group $served, not $group; nothing was changed" 'gapferry-mirror status shows where each group is served'
  group=$served
  repositories=$(sed -n 's/^repository //p' "$SCRATCH/setup.txt")
}

fact() {
  sed -n "s/^$1 //p" "$SCRATCH/setup.txt"
}

# A FreePBX whose database is down now would be set up by half.
check_database() {
  [ "$mode" != names ] && [ -r "$ROOT/etc/freepbx.conf" ] || return 0
  read_settings MODULE_REPO RSSFEEDS BROWSER_STATS AMPWEBROOT
  [ -n "$(known_row MODULE_REPO)" ] || fail 1 'the database of FreePBX cannot be read; nothing was changed' 'fwconsole setting MODULE_REPO'
}

# From the mirror to $SCRATCH and to variables, whatever `assert_all` needs; later `keep` has the same from /etc/gapferry.
take_mirror() {
  own_files=$SCRATCH/own
  mkdir "$own_files" "$own_files/keys"
  cp "$SCRATCH/site.asc" "$own_files/site.asc"
  module_repo=
  module_keys=
  if [ -r "$ROOT/etc/freepbx.conf" ]; then
    major=$(framework_major)
    if fact modules | grep -qxF "${major:-none}"; then module_repo=$origin; else say "$origin has no modules of FreePBX ${major:-}: MODULE_REPO stays"; fi
    for key in $(fact module-key); do
      name=$(printf '%s' "$key" | tr abcdef ABCDEF)
      take "$own_files/keys/$name.key" "keys/modules/$key.key" "$MAX_KEY_BYTES" || cannot_fetch "keys/modules/$key.key"
      without_armor <"$own_files/keys/$name.key" >/dev/null 2>&1 || fail 3 "$origin/keys/modules/$key.key: is no OpenPGP key; nothing was changed"
      module_keys="$module_keys $name"
    done
  fi
  [ "$MANAGER" = apt ] || take_repository_keys
}

framework_major() {
  database "SELECT value FROM admin WHERE variable = 'version';" | sed -n '1s/^\([0-9]*\)\..*/\1/p'
}

# What a box shall have, whatever it has now: `setup` and every `keep`.
assert_all() {
  case $mode in
  names) assert_names ;;
  mirror | stick)
    [ "$MANAGER" = apt ] || assert_repositories
    [ ! -r "$ROOT/etc/freepbx.conf" ] || assert_modules
    ;;
  esac
}

assert_modules() {
  [ -e "$SCRATCH/rows" ] || read_settings MODULE_REPO RSSFEEDS BROWSER_STATS AMPWEBROOT
  [ -z "$module_repo" ] || change_setting MODULE_REPO "$module_repo" "$module_repo"
  change_setting RSSFEEDS ''
  change_setting BROWSER_STATS 0
  root=$(known_row AMPWEBROOT)
  WEBROOT=$(from_hex "${root% *}")
  is_plain_path "$WEBROOT" || WEBROOT=/var/www/html
  folder=$WEBROOT/admin/libraries/BMO
  [ -d "$ROOT$folder" ] || return 0
  for key in $module_keys; do
    has_module_key "$key" || is_too_large "$folder/$key.key" || change_file "$folder/$key.key" 0644 folder <"$own_files/keys/$key.key"
  done
}

# The web server's user may have put anything there.
is_too_large() {
  [ -f "$ROOT$1" ] && [ "$(stat -L -c %s "$ROOT$1")" -gt "$MAX_KEY_BYTES" ] || return 1
  say "$1: larger than $MAX_KEY_BYTES bytes: it is left as it is"
}

# has_module_key ID: one of the vendor's own; ours is written again where it is not as it was
has_module_key() {
  for there in "$ROOT$folder"/*.key "$ROOT$folder"/signatures/*.key; do
    [ "$there" != "$ROOT$folder/$1.key" ] || [ -z "$(entry_of file "$folder/$1.key")" ] || continue
    [ "$(basename "$there" .key | tr abcdef ABCDEF)" != "$1" ] || return 0
  done
  return 1
}

# What `keep` goes by, of ours alone: it is no change of the box, and goes with uninstall.
remember_setup() {
  [ "$DRY" = 0 ] || return 0
  if [ "$mode" != names ]; then
    for file in "$ROOT"/etc/gapferry/keys/*; do [ -e "$own_files/keys/${file##*/}" ] || rm -f "$file"; done
    own_file site.asc <"$own_files/site.asc"
    for file in "$own_files"/keys/*; do [ ! -f "$file" ] || own_file "keys/${file##*/}" <"$file"; done
  else
    own_file site.asc <"$SCRATCH/site.asc"
  fi
  {
    printf 'mode %s\norigin %s\ngroup %s\nbox %s\n' "$mode" "$origin" "$group" "$box"
    case $mode in
    mirror | stick)
      printf '%s\n' "$repositories" | sed -n 's/^./repository &/p'
      [ -z "$module_repo" ] || printf 'module-repo %s\n' "$module_repo"
      for key in $module_keys; do printf 'module-key %s\n' "$key"; done
      ;;
    names) printf 'address %s\n' "$address" ;;
    esac
  } >"$SCRATCH/settings"
  own_file settings <"$SCRATCH/settings"
}

# own_file NAME <BYTES: below /etc/gapferry
own_file() {
  cat >"$SCRATCH/own-file"
  ! cmp -s "$SCRATCH/own-file" "$ROOT/etc/gapferry/$1" || return 0
  mkdir -p "$(dirname "$ROOT/etc/gapferry/$1")"
  { cp "$SCRATCH/own-file" "$ROOT/etc/gapferry/$1.new" && durable "$ROOT/etc/gapferry/$1.new" && mv -f "$ROOT/etc/gapferry/$1.new" "$ROOT/etc/gapferry/$1"; } ||
    fail 5 "/etc/gapferry/$1: cannot be written" 'df -h'
}

# setting_of KEY: the lines of it in /etc/gapferry/settings
setting_of() {
  [ ! -r "$ROOT/etc/gapferry/settings" ] || sed -n "s/^$1 //p" "$ROOT/etc/gapferry/settings"
}

say_setup() {
  if [ "$CHANGED" = 0 ]; then
    printf 'nothing to change: this box is set up\n'
  elif [ "$DRY" = 1 ]; then
    printf '%s; nothing was done\n' "$(counted would-be change)"
  else
    printf '%s; gapferry-box uninstall takes them back\n' "$(counted '' change)"
  fi
  [ "$DRY" = 0 ] && [ "$mode" = mirror ] || return 0
  [ "$MANAGER" = apt ] || accept_site_key
  [ "$MANAGER" = apt ] || printf 'next: %s check-update\n' "$MANAGER"
  [ -z "$module_repo" ] || printf 'next: fwconsole ma showupgrades\n'
}

counted() {
  [ "$CHANGED" = 1 ] && printf '1 %s' "${1:+$1 }$2" || printf '%s %s' "$CHANGED" "${1:+$1 }${2}s"
}

# yum and dnf ask before they take a key for metadata, and jobs of cron cannot answer.
accept_site_key() {
  [ -z "$ROOT" ] || return 0
  unlocked waiting 600 "$MANAGER" -y -q makecache >"$SCRATCH/makecache" 2>&1 ||
    fail 1 "$MANAGER makecache: $(tail -n 1 "$SCRATCH/makecache" | printable)" "$MANAGER makecache; this box is set up, the mirror does not answer $MANAGER yet"
}

# ---------------------------------------------------------------------------------------------------- uninstall, hold

uninstall() {
  ROOT='' DRY=0 force=
  while [ $# -gt 0 ]; do
    case $1 in
    --root) set_root "${2:-}" && shift 2 ;;
    --dry-run) DRY=1 && shift ;;
    --force) force=force && shift ;;
    -h | --help) usage && return ;;
    *) fail 2 "uninstall: \"$1\" is not known" ;;
    esac
  done
  begin_changes
  cd /
  [ "$DRY" = 1 ] || stop_keep
  if ! undo_changes "$force"; then
    fail 1 "$left left as they are; the rest is as it was before" 'look at them; gapferry-box uninstall --force puts the originals back'
  fi
  [ "$DRY" = 0 ] || { printf 'nothing was done\n' && return; }
  forget_applied
  forget_setup
  if [ "$UNDONE" = 0 ]; then
    printf 'nothing to give back: this box was not set up\n'
    return
  fi
  reload_services
  printf 'this box is as it was before\n'
}

# What is not set-up's own (keys of this box, what `apply` remembers) stays.
forget_setup() {
  rm -rf "$ROOT/etc/gapferry/settings" "$ROOT/etc/gapferry/site.asc" "$ROOT/etc/gapferry/keys" "$ROOT/etc/gapferry"/*.new "$ROOT/var/lib/gapferry/told"
  rmdir "$ROOT/var/lib/gapferry" 2>/dev/null
  rmdir "$CHANGES" "$ROOT/etc/gapferry" 2>/dev/null
  [ ! -d "$ROOT/etc/gapferry" ] || printf 'left /etc/gapferry: %s\n' "$(cd "$ROOT/etc/gapferry" && printf '%s ' *)"
}

hold() {
  ROOT='' reason=
  while [ $# -gt 0 ]; do
    case $1 in
    --root) set_root "${2:-}" && shift 2 ;;
    --off) reason=--off && shift ;;
    -h | --help) usage && return ;;
    -*) fail 2 "hold: \"$1\" is not known" ;;
    *) reason=$1 && shift ;;
    esac
  done
  [ "$(id -u)" = 0 ] || fail 2 'root alone can hold this box' 'sudo gapferry-box hold'
  if [ "$reason" = --off ]; then
    rm -f "$ROOT/etc/gapferry/hold"
    rmdir "$ROOT/etc/gapferry" 2>/dev/null
    printf 'not held: gapferry-box changes what it is told to\n'
    return
  fi
  mkdir -p "$ROOT/etc/gapferry"
  printf '%s\n' "${reason:-held by $(id -un) on $(date -u +%Y-%m-%dT%H:%M:%SZ)}" >"$ROOT/etc/gapferry/hold" || fail 1 '/etc/gapferry/hold: cannot be written'
  printf 'held: gapferry-box changes nothing until gapferry-box hold --off\n'
}

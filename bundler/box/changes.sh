# ---------------------------------------------------------------------------------------------------- changes

# What this tool changes of a box, and how every byte, mode and owner of it comes back.
#
# CHANGES/<n>/ is one path or one setting: `record` (its name, its original, every state we gave it) and before.<k>, the
# original itself. Invariant: the original and the digest of what we are about to write are on disk before the box is
# changed, and each change is one rename. So wherever a run is cut off, what stands there is the original or something
# whose digest is in the record, and undo_changes tells both from what others wrote.
#
#   begin_changes                                  first; refuses while held or while another run is at work
#   change_file PATH [MODE [OWNER:GROUP]] <BYTES   default: as the file there has them, else 0644 0:0; "folder" as owner: the
#                                                  folder's, who may be at work there, and is given no more than he has
#   change_link PATH TARGET
#   remove_file PATH
#   change_setting KEY VALUE [DEFAULT]             in FreePBX's database; DEFAULT: its defaultval, too
#   undo_changes [force]                           everything, newest first; status 1 where something was left
#
# PATHs are the box's, without ROOT. Each prints a line where it changes something, and adds 1 to CHANGED: call them in
# the shell itself, not behind a pipe. With DRY=1 they say what they would do, and do nothing.

TOOL_PATH=/usr/local/sbin/gapferry-box
NEW_ENDING=.gapferry-new
# whoever finds this in a line of a file knows that we wrote it
MARK='# gapferry-box:'
BLOCK_BEGIN='# gapferry-box begin: lines up to the end are kept by gapferry-box'
BLOCK_END='# gapferry-box end'
FWCONSOLE_SECONDS=120
MAX_SHOWN_LINES=300

begin_changes() {
  [ "$(id -u)" = 0 ] || fail 2 'root alone can change this box' 'sudo gapferry-box …'
  CHANGED=0 DRY=${DRY:-0} CHANGES=$ROOT/etc/gapferry/changes
  refuse_while_held
  SCRATCH=$(mktemp -d "${TMPDIR:-/tmp}/gapferry-box.XXXXXX") || fail 5 'no room for temporary files'
  trap end_changes EXIT
  trap 'exit 130' HUP INT TERM
  [ "$DRY" = 0 ] || return 0
  mkdir -p "$CHANGES" || fail 1 "$CHANGES: cannot be made"
  exec 9<"$CHANGES"
  ! have flock || flock -n 9 || fail 7 'another gapferry-box is at work' 'wait until it has ended'
  SYNC_TAKES_FILES=$(sync --help 2>&1 | grep 'FILE') # coreutils 8.24; before that it would sync the whole system
  find_database
  rm -rf "$CHANGES"/*.tmp "$CHANGES"/gone "$CHANGES"/*/record.new
  undo_once
}

# Where nothing was changed nothing of ours stays.
end_changes() {
  rm -rf "$SCRATCH"
  [ "$DRY" = 1 ] || rmdir "$ROOT/etc/gapferry/changes" "$ROOT/etc/gapferry" 2>/dev/null || :
}

refuse_while_held() {
  [ ! -e "$ROOT/etc/gapferry/hold" ] || fail 7 "/etc/gapferry/hold: this box is held: $(head -c 200 "$ROOT/etc/gapferry/hold" | tr -cd ' -~')" 'gapferry-box hold --off'
}

# Programs that may go on running: the lock is not theirs.
unlocked() {
  "$@" 9<&-
}

change_file() {
  cat >"$SCRATCH/incoming" || fail 5 "$1: no room for temporary files"
  change_mode=${2:-} change_owner=${3:-} is_foreign=
  [ "$change_owner" != folder ] || is_foreign=yes change_owner=
  [ "$(state_of "$ROOT$1")" != other ] || fail 1 "$1: is not a file" 'see what it is, and move it away'
  wanted="file $(sha256 <"$SCRATCH/incoming")"
  ! is_as_wanted "$1" "$wanted" || return 0
  tell_change "$1" || return 0
  make_folders "${1%/*}"
  remember "$1" "$wanted"
  [ -z "$is_foreign" ] || { { durable "$CHANGES" && write_foreign "$1"; } || give_up "$1" && return; }
  new=$ROOT$1$NEW_ENDING
  rm -f "$new"
  { write_new "$1" && mv -fT "$new" "$ROOT$1"; } || give_up "$1"
}

# In a folder of somebody who can put links there at any moment: as that user, without root's rights, and without a path
# once the folder is entered.
write_foreign() {
  "$(any_python)" -c 'import os, sys
folder, name, mode, ending, source = sys.argv[1:]
with open(source, "rb") as file:
    data = file.read()
os.chdir(folder)
about = os.stat(".")
if about.st_uid != 0:
    os.setgroups([])
    os.setgid(about.st_gid)
    os.setuid(about.st_uid)
fresh = name + ending
if os.path.lexists(fresh):
    os.unlink(fresh)
descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
with os.fdopen(descriptor, "wb") as file:
    file.write(data)
    file.flush()
    os.fchmod(file.fileno(), int(mode, 8))
    os.fsync(file.fileno())
os.rename(fresh, name)' "$ROOT${1%/*}" "${1##*/}" "$change_mode" "$NEW_ENDING" "$SCRATCH/incoming" 2>/dev/null
}

# The file as it shall be, under its other name; what the one in place has beside its bytes is kept.
write_new() {
  if [ -f "$ROOT$1" ] && [ ! -L "$ROOT$1" ]; then cp -p "$ROOT$1" "$new"; else (umask 022 && : >"$new"); fi &&
    cat "$SCRATCH/incoming" >"$new" &&
    { [ -z "$change_owner" ] || chown "$change_owner" "$new"; } &&
    { [ -z "$change_mode" ] || chmod "$change_mode" "$new"; } &&
    durable "$new" "$CHANGES"
}

change_link() {
  [ "$(state_of "$ROOT$1")" != other ] || fail 1 "$1: is not a file" 'see what it is, and move it away'
  rm -f "$SCRATCH/incoming"
  wanted="link $(printf '%s\n' "$2" | sha256)" is_foreign=
  [ "$(state_of "$ROOT$1")" != "$wanted" ] || return 0
  tell_change "$1" || return 0
  make_folders "${1%/*}"
  remember "$1" "$wanted"
  rm -f "$ROOT$1$NEW_ENDING"
  { durable "$CHANGES" && ln -s "$2" "$ROOT$1$NEW_ENDING" && mv -fT "$ROOT$1$NEW_ENDING" "$ROOT$1"; } || give_up "$1"
}

remove_file() {
  is_foreign=
  case $(state_of "$ROOT$1") in
  absent) return 0 ;;
  other) fail 1 "$1: is not a file" 'see what it is, and move it away' ;;
  esac
  printf '%s %s\n' "$(would remove)" "$1"
  CHANGED=$((CHANGED + 1))
  [ "$DRY" = 0 ] || return 0
  remember "$1" absent
  { durable "$CHANGES" && rm -f "$ROOT$1"; } || give_up "$1"
}

give_up() {
  rm -f "$ROOT$1$NEW_ENDING"
  fail 1 "$1: cannot be written" 'df -h; then the same again: nothing is half done. gapferry-box uninstall takes everything back'
}

# is_as_wanted PATH STATE
is_as_wanted() {
  [ "$(state_of "$ROOT$1")" = "$2" ] || return 1
  [ -z "$change_mode" ] || [ "$(stat -c %a "$ROOT$1")" = "${change_mode#0}" ] || return 1
  [ -n "$change_owner" ] || return 0
  case " $(stat -c '%u:%g %U:%G' "$ROOT$1") " in *" $change_owner "*) return 0 ;; esac
  return 1
}

# tell_change PATH: status 1 where that is all to be done
tell_change() {
  CHANGED=$((CHANGED + 1))
  if [ -e "$ROOT$1" ] || [ -L "$ROOT$1" ]; then printf '%s %s\n' "$(would change)" "$1"; else printf '%s %s\n' "$(would write)" "$1"; fi
  [ "$DRY" = 1 ] || return 0
  show_difference "$1"
  return 1
}

would() {
  if [ "$DRY" = 1 ]; then printf 'would %s' "$1"; else printf '%s' "$1" | sed 's/e$//; s/$/ed/; s/writed/written/'; fi
}

show_difference() {
  [ -f "$SCRATCH/incoming" ] && have diff && [ "$(wc -l <"$SCRATCH/incoming")" -lt "$MAX_SHOWN_LINES" ] || return 0
  old=$ROOT$1
  if [ ! -f "$old" ] || [ -L "$old" ]; then old=/dev/null; fi
  diff "$old" "$SCRATCH/incoming" | sed -n 's/^[<>]/    &/p' | tr -d '\000-\010\013-\037' | sed -e 's/^    </    -/' -e 's/^    >/    +/'
}

# What stands at a path: absent, other (a folder, a device), or a kind and a digest
state_of() {
  if [ -L "$1" ]; then
    printf 'link %s\n' "$(readlink "$1" | sha256)"
  elif [ -f "$1" ]; then
    printf 'file %s\n' "$(sha256 <"$1")"
  elif [ -e "$1" ]; then
    printf 'other\n'
  else
    printf 'absent\n'
  fi
}

# remember PATH STATE: the original, once, and that we are about to bring PATH into STATE
remember() {
  state=$(state_of "$ROOT$1")
  entry=$(entry_of file "$1")
  if [ -z "$entry" ]; then
    new_entry
    [ -z "$is_foreign" ] || state=absent
    keep_original "$1" "$entry.tmp/before.1"
    printf 'file %s\nbefore 1 %s\nafter %s\n' "$1" "$state" "$2" >"$entry.tmp/record"
    commit_entry
    return
  fi
  {
    printf 'file %s\n' "$1"
    if is_ours "$entry" "$state"; then grep '^before ' "$entry/record"; else next_original "$1"; fi
    grep '^after ' "$entry/record" | grep -vxF "after $2"
    printf 'after %s\n' "$2"
  } >"$entry/record.new"
  commit_record
}

# What others wrote over ours is what would stand there without us, so it is what uninstall gives back: the vendor's newer
# file; not one of ours that somebody edited; of a file that has a block of ours, the lines around it.
next_original() {
  if [ -n "$is_foreign" ] || { [ "${state%% *}" = file ] && grep -qF "$MARK" "$ROOT$1"; }; then
    grep '^before ' "$entry/record"
    return
  fi
  k=$(($(sed -n 's/^before \([0-9]*\).*/\1/p' "$entry/record") + 1))
  if [ "${state%% *}" = file ] && has_block "$ROOT$1"; then
    { cp -p "$ROOT$1" "$entry/before.$k" && without_block <"$ROOT$1" >"$entry/before.$k" && durable "$entry/before.$k"; } || give_up "$1"
    state=$(state_of "$entry/before.$k")
  else
    keep_original "$1" "$entry/before.$k"
    [ -L "$entry/before.$k" ] || [ "$state" = absent ] || durable "$entry/before.$k"
  fi
  printf 'before %s %s\n' "$k" "$state"
}

# keep_original PATH COPY
keep_original() {
  [ "$state" != absent ] || return 0
  rm -f "$2"
  cp -pP "$ROOT$1" "$2" || give_up "$1"
}

# is_ours ENTRY STATE: the original, or something that we put there
is_ours() {
  grep -qxF -e "after $2" "$1/record" || [ "$(sed -n 's/^before [0-9]* //p' "$1/record")" = "$2" ]
}

has_block() {
  grep -qxF "$BLOCK_BEGIN" "$1" && grep -qxF "$BLOCK_END" "$1"
}

# Where somebody took its end away, what follows is his: all but the first line stays.
without_block() {
  awk -v begin="$BLOCK_BEGIN" -v end="$BLOCK_END" '
    $0 == begin { for (i = 1; i <= count; i++) print line[i]; inside = 1; count = 0; next }
    $0 == end { inside = count = 0; next }
    inside { line[++count] = $0; next }
    { print }
    END { for (i = 1; i <= count; i++) print line[i] }'
}

# entry_of KIND NAME: its folder, or nothing
entry_of() {
  for folder in "$CHANGES"/[0-9][0-9][0-9][0-9]; do
    [ ! -d "$folder" ] || printf '%s\n' "$folder/record"
  done >"$SCRATCH/entries"
  [ -s "$SCRATCH/entries" ] || return 0
  found=$(tr '\n' '\000' <"$SCRATCH/entries" | xargs -0 grep -lxF "$1 $2" | head -n 1)
  printf '%s\n' "${found%/record}"
}

new_entry() {
  last=$(cd "$CHANGES" && for folder in [0-9][0-9][0-9][0-9]; do printf '%s\n' "$folder"; done | tail -n 1)
  case $last in *'['*) last=0000 ;; esac
  entry=$CHANGES/$(awk -v last="$last" 'BEGIN { printf "%04d", last + 1 }')
  mkdir "$entry.tmp" || give_up "$entry"
}

# What follows it in time (a rename in the box) is to wait for `durable "$CHANGES"` or "$entry".
commit_entry() {
  set -- "$entry.tmp"
  for file in "$entry.tmp"/*; do [ -L "$file" ] || set -- "$@" "$file"; done
  { durable "$@" && mv "$entry.tmp" "$entry"; } || give_up "${entry#"$ROOT"}"
}

commit_record() {
  { durable "$entry/record.new" && mv -f "$entry/record.new" "$entry/record" && durable "$entry"; } || give_up "${entry#"$ROOT"}"
}

# make_folders PATH: those that lack go again with uninstall
make_folders() {
  [ -n "$1" ] && [ ! -d "$ROOT$1" ] || return 0
  make_folders "${1%/*}"
  new_entry
  printf 'folder %s\n' "$1" >"$entry.tmp/record"
  commit_entry
  durable "$CHANGES"
  mkdir -m 0755 "$ROOT$1" || give_up "$1"
}

# durable PATH…: what was written survives a power cut
durable() {
  if [ -n "$SYNC_TAKES_FILES" ]; then
    sync "$@"
    return
  fi
  python=$(any_python)
  if [ -n "$python" ]; then
    "$python" -c 'import os, sys
for name in sys.argv[1:]:
    descriptor = os.open(name, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)' "$@"
  else
    sync
  fi
}

# ---- settings of FreePBX, in hexadecimal: they may hold line ends and quotes

change_setting() {
  row=$(known_row "$1")
  [ -n "$row" ] || return 0 # this FreePBX has no such setting
  value=$(printf '%s' "$2" | to_hex) default=${row#* }
  [ $# -lt 3 ] || default=$(printf '%s' "$3" | to_hex)
  [ "$row" != "$value $default" ] || return 0
  CHANGED=$((CHANGED + 1))
  printf '%s setting %s: %s\n' "$(would change)" "$1" "$(shown_setting "$row" "$value" "$default")"
  [ "$DRY" = 0 ] || return 0
  remember_setting "$1" "$value" "$default"
  durable "$CHANGES"
  put_setting "$1" "$value" "$default" "$row" || fail 1 "setting $1: cannot be changed" 'fwconsole setting '"$1"'; then the same again'
}

shown_setting() {
  if [ "${1% *}" != "$2" ]; then printf '"%s", was "%s"' "$(from_hex "$2" | printable)" "$(from_hex "${1% *}" | printable)"; else printf 'its default "%s", was "%s"' "$(from_hex "$3" | printable)" "$(from_hex "${1#* }" | printable)"; fi
}

printable() {
  tr '\n\t' '  ' | tr -cd ' -~' | cut -c 1-200
}

remember_setting() {
  entry=$(entry_of setting "$1")
  if [ -z "$entry" ]; then
    new_entry
    printf 'setting %s\nbefore %s\nafter %s %s\n' "$1" "$row" "$2" "$3" >"$entry.tmp/record"
    commit_entry
  elif ! grep -qxF "after $2 $3" "$entry/record"; then
    { cat "$entry/record" && printf 'after %s %s\n' "$2" "$3"; } >"$entry/record.new"
    commit_record
  fi
}

# put_setting KEY VALUE DEFAULT ROW, as it is now: FreePBX's own command for the value, as it tells whoever has to know; it takes no default
put_setting() {
  now=$4
  if [ "${now% *}" != "$2" ] && have fwconsole; then
    text=$(from_hex "$2" && printf .)
    unlocked waiting "$FWCONSOLE_SECONDS" fwconsole setting "$1" "${text%.}" >/dev/null 2>&1
    now=$(setting_row "$1")
  fi
  [ "$now" != "$2 $3" ] || return 0
  database "UPDATE freepbx_settings SET value = $(sql_text "$2"), defaultval = $(sql_text "$3") WHERE keyword = '$1';" || return 1
  [ "$(setting_row "$1")" = "$2 $3" ]
}

sql_text() {
  if [ "$1" = - ]; then printf "''"; else printf "X'%s'" "$1"; fi
}

# read_settings KEY…: one question for all of them, which change_setting goes by
read_settings() {
  list=
  for key in "$@"; do list="$list${list:+, }'$key'"; done
  database "SELECT keyword, HEX(value), HEX(defaultval) FROM freepbx_settings WHERE keyword IN ($list);" | awk -F "$TAB" '
    function word(text) { return text == "" || text == "NULL" ? "-" : toupper(text) }
    { print $1 " " word($2) " " word($3) }' >"$SCRATCH/rows"
}

known_row() {
  if [ -e "$SCRATCH/rows" ]; then sed -n "s/^$1 //p" "$SCRATCH/rows"; else setting_row "$1"; fi
}

# "VALUE DEFAULT", of which nothing is "-"; empty where there is no such setting
setting_row() {
  database "SELECT HEX(value), HEX(defaultval) FROM freepbx_settings WHERE keyword = '$1';" | awk -F "$TAB" '
    function word(text) { return text == "" || text == "NULL" ? "-" : toupper(text) }
    NR == 1 { print word($1) " " word($2) }'
}

to_hex() {
  digits=$(od -An -v -tx1 | tr -d ' \n' | tr abcdef ABCDEF)
  printf '%s' "${digits:--}"
}

from_hex() {
  [ "$1" != - ] || return 0
  # shellcheck disable=SC2059 # digits alone
  printf "$(printf '%s' "$1" | awk '
    function digit(c) { return index("0123456789ABCDEF", c) - 1 }
    { for (i = 1; i < length($0); i += 2) printf "\\%03o", digit(substr($0, i, 1)) * 16 + digit(substr($0, i + 1, 1)) }')"
}

# ---- the way back

undo_changes() {
  forced=${1:-} left=0 UNDONE=0 tool_entry=
  entries=
  for folder in "$CHANGES"/[0-9][0-9][0-9][0-9]; do
    [ ! -d "$folder" ] || entries="$folder$NEWLINE$entries"
  done
  spaces=$IFS
  IFS=$NEWLINE
  # shellcheck disable=SC2086 # one folder a line
  set -- $entries
  IFS=$spaces
  for entry in "$@"; do
    UNDONE=$((UNDONE + 1))
    undo_entry && forget_entry
  done
  # what stays behind is taken care of by the tool, as long as there is one
  entry=$tool_entry
  [ "$left" != 0 ] || [ -z "$entry" ] || { name=$TOOL_PATH && undo_file && forget_entry; }
  [ "$left" = 0 ]
}

forget_entry() {
  [ "$DRY" = 0 ] || return 0
  case $name in /*) [ ! -d "$ROOT${name%/*}" ] || durable "$ROOT${name%/*}" ;; esac
  mv "$entry" "$CHANGES/gone" && rm -rf "$CHANGES/gone"
}

# status 1: its entry stays
undo_entry() {
  name=$(sed -n '1s/^[a-z]* //p' "$entry/record")
  [ "$name" != "$TOOL_PATH" ] || { tool_entry=$entry && return 1; }
  case $(sed -n '1s/ .*//p' "$entry/record") in
  file) undo_file ;;
  setting) undo_setting ;;
  folder) [ "$DRY" = 1 ] || rmdir "$ROOT$name" 2>/dev/null || : ;;
  *) leave "$entry" 'its record cannot be read' ;;
  esac
}

leave() {
  left=$((left + 1))
  printf 'left %s: %s\n' "$1" "$2"
  return 1
}

undo_file() {
  state=$(state_of "$ROOT$name")
  before=$(sed -n 's/^before //p' "$entry/record")
  original=$entry/before.${before%% *}
  [ "$DRY" = 1 ] || rm -f "$ROOT$name$NEW_ENDING"
  if [ "$forced" != force ] && ! is_ours "$entry" "$state"; then
    undo_block
    return
  fi
  case $before in
  *' absent') [ "$state" = absent ] || { undoing remove && [ "$DRY" = 0 ] && rm -f "$ROOT$name"; } ;;
  *) is_original || { undoing restore && [ "$DRY" = 0 ] && put_back; } ;;
  esac
  [ "$DRY" = 1 ] || is_original || leave "$name" 'cannot be put back; see above'
}

# The same bytes, mode and owner
is_original() {
  case $before in *' absent') [ ! -e "$ROOT$name" ] && [ ! -L "$ROOT$name" ] && return ;; esac
  [ "$(state_of "$ROOT$name")" = "${before#* }" ] || return 1
  [ "$(stat -c '%a %u %g' "$ROOT$name")" = "$(stat -c '%a %u %g' "$original")" ]
}

put_back() {
  {
    cp -pP "$original" "$ROOT$name$NEW_ENDING" &&
      { [ -L "$original" ] || durable "$ROOT$name$NEW_ENDING"; } && mv -fT "$ROOT$name$NEW_ENDING" "$ROOT$name"
  } || rm -f "$ROOT$name$NEW_ENDING"
}

undoing() {
  printf '%s %s\n' "$(would "$1")" "$name"
}

# Somebody wrote into the file after us; a block of ours goes all the same.
undo_block() {
  if [ "${state%% *}" != file ] || ! has_block "$ROOT$name"; then
    leave "$name" 'is not what gapferry-box wrote any more; --force puts the original back'
    return
  fi
  undoing 'change' && [ "$DRY" = 0 ] || return 0
  {
    cp -p "$ROOT$name" "$ROOT$name$NEW_ENDING" && without_block <"$ROOT$name" >"$ROOT$name$NEW_ENDING" &&
      durable "$ROOT$name$NEW_ENDING" && mv -f "$ROOT$name$NEW_ENDING" "$ROOT$name"
  } || leave "$name" 'cannot be written'
}

undo_setting() {
  row=$(setting_row "$name")
  before=$(sed -n 's/^before //p' "$entry/record")
  [ "$row" != "$before" ] || return 0
  [ -n "$row" ] || { leave "setting $name" 'the database cannot be read' || return; }
  if [ "$forced" != force ] && ! { is_setting_ours 2 "${row% *}" && is_setting_ours 3 "${row#* }"; }; then
    leave "setting $name" 'is not what gapferry-box wrote any more; --force puts the original back'
    return
  fi
  printf '%s setting %s: %s\n' "$(would restore)" "$name" "$(shown_setting "$row" "${before% *}" "${before#* }")"
  [ "$DRY" = 0 ] || return 0
  put_setting "$name" "${before% *}" "${before#* }" "$row" || leave "setting $name" 'cannot be changed'
}

# is_setting_ours FIELD TEXT: of the record's lines, 2 the value, 3 the default
is_setting_ours() {
  FIELD=$1 TEXT=$2 awk '/^(before|after) / && $ENVIRON["FIELD"] == ENVIRON["TEXT"] { found = 1 } END { exit !found }' "$entry/record"
}

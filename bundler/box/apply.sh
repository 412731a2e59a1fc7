# ---------------------------------------------------------------------------------------------------- apply

# One box without a mirror: the stick goes into the box itself. What is believed, staged and unpacked is apply.py's; here the
# box is pointed at it, and told what its updates will do.

DATA=/var/lib/gapferry

apply() {
  apply_options "$@"
  [ "$puts_back" = 0 ] || { put_back_once && return; }
  have openssl || fail 2 'the openssl command is not here' 'install openssl'
  [ -n "$(any_python)" ] || fail 2 'no python is here' 'install python 2.7 or 3'
  find_manager
  refuse_while_updating
  begin_changes
  cd / # python looks for modules where it is started, and anybody may have put some there
  mode=stick
  check_database
  agree_root
  [ -n "$group" ] || group=$(setting_of group)
  answer=$(apply_python apply) || exit $?
  number=$(told number) site=$(told site) group=$(told group)
  printf 'bundle %s of site %s, made %s, good until %s: group %s is unpacked here\n' "$number" "$site" "$(told created)" "$(told expires)" "$group"
  [ "$once" = 0 ] || begin_once
  point_here
  install_licenses
  show_updates
  write_records
  [ "$once" = 0 ] || wait_once
  [ "$problems" = 0 ]
}

apply_options() {
  ROOT='' stick='' once=0 group='' words='' box=$(uname -n) wanted_site='' late='' reason='' is_lab=0 pin='' records=1 keeps=1 puts_back=0 problems=0
  while [ $# -gt 0 ]; do
    case $1 in
    --root) set_root "${2:-}" && shift 2 ;;
    --once) once=1 && shift ;;
    --yes) is_lab=1 && shift ;;
    --no-report) records=0 && shift ;;
    --no-keep) keeps=0 && shift ;;
    --put-back) puts_back=1 && shift ;;
    --accept-expired) late=1 && shift ;;
    --group | --fingerprint | --box | --site | --reason)
      [ $# -gt 1 ] || fail 2 "$1: a value is missing"
      case $1 in
      --group) group=$2 ;;
      --fingerprint) words=$2 ;;
      --box) box=$2 ;;
      --site) wanted_site=$2 ;;
      --reason) reason=$2 ;;
      esac
      shift 2
      ;;
    -h | --help) apply_usage && exit ;;
    -*) fail 2 "apply: \"$1\" is not known" 'gapferry-box apply --help' ;;
    *)
      [ -z "$stick" ] || fail 2 'apply: one folder at a time' 'gapferry-box apply --help'
      case $1 in /*) stick=$1 ;; *) stick=$PWD/$1 ;; esac
      shift
      ;;
    esac
  done
  case $0 in /*) self=$0 ;; *) self=$PWD/$0 ;; esac
  [ "$puts_back" = 0 ] || return 0
  [ -n "$stick" ] || fail 2 'apply: the folder where the stick is mounted is missing' 'gapferry-box apply --help'
  [ "${late:+x}" = "${reason:+x}" ] || fail 2 '--accept-expired and --reason need each other' "add --accept-expired --reason 'TEXT'"
  case $reason in *[!\ -~]*) fail 2 '--reason: expected printable characters' ;; esac
  [ ${#reason} -le 200 ] || fail 2 '--reason: expected at most 200 characters'
  box=$(printf '%s' "$box" | tr ABCDEFGHIJKLMNOPQRSTUVWXYZ abcdefghijklmnopqrstuvwxyz)
  case $box in '' | .* | -* | *[!a-z0-9._-]*) fail 2 "--box: \"$box\" is no name" ;; esac
}

apply_usage() {
  cat <<'TEXT'
Usage: gapferry-box apply DIR [OPTIONS]

One box and no mirror: takes the newest bundle of the site from the stick that is mounted at DIR, as a mirror's import would
(signatures, numbers, dates, every digest), unpacks it below /var/lib/gapferry and lets this box update from there: yum from
the files, modules from its own web server on 127.0.0.1:8482. It shows what the updates will do; it does not run them.

  --fingerprint 'WORDS'     the twelve words of the site's root, from the slip or by phone: needed at first use
  --group NAME              where the bundle has several groups
  --site NAME               where the stick has bundles of several sites
  --once                    until Enter is pressed (or the input ends); then every setting is as before
  --put-back                what a run with --once left that was ended by force (the next apply does it, too)
  --accept-expired --reason TEXT
                            a bundle up to 400 days past its end
  --box NAME                what the laptop calls this box (default: its host name)
  --no-report               write nothing to the stick
  --no-keep                 without the timer that puts settings back which others overwrite
  --yes                     in a lab: believe the stick's root without words
  --root DIR                look at the system below DIR (default: /)

Example, as root:
  gapferry-box apply /media/stick --fingerprint 'basic banner level ...'
  yum update
  fwconsole ma upgradeall
TEXT
}

# At first use somebody compares words; nothing is written before.
agree_root() {
  pin=
  roots=$(apply_python roots) || exit $?
  [ -z "$words" ] || words=$(spelled_words "$words") || fail 3 "--fingerprint: $words [ROOT_FINGERPRINT]" 'the twelve words stand on the slip that came with the stick'
  first=$(printf '%s\n' "$roots" | awk 'NR == 1 { print $2 }')
  [ -n "$first" ] || fail 3 'no root is with the bundle [ROOT_INVALID]' 'bring the root.json of the site beside it'
  shown=$(printf '%s' "$first" | words_of)
  case $roots in
  pinned*)
    [ -z "$words" ] || [ "$words" = "$shown" ] || fail 3 "the root that this box believes has the words: $shown [ROOT_FINGERPRINT]" 'apply works without --fingerprint by now'
    return
    ;;
  esac
  [ "$is_lab" = 0 ] || { pin=$first && return; }
  [ -n "$words" ] || fail 2 "this box believes nobody yet; the stick says that it is of site $(printf '%s\n' "$roots" | awk 'NR == 1 { print $3 }'), by a root with the words: $shown [ROOT_NOT_CONFIRMED]" \
    "compare them with those of the laptop (the slip, or gapferry keys list), then: gapferry-box apply $stick --fingerprint 'WORDS'"
  for digest in $(printf '%s\n' "$roots" | awk '{ print $2 }'); do
    [ "$(printf '%s' "$digest" | words_of)" != "$words" ] || pin=$digest
  done
  [ -n "$pin" ] || fail 3 "the stick's root has other words: $shown [ROOT_FINGERPRINT]" 'do not use this stick: ask who brought it'
}

# apply_python roots|apply: what apply.py says, lines "name value"
apply_python() {
  set -- "$1" "root=$ROOT" "dir=$stick" "site=$wanted_site" "group=$group" "pin=$pin"
  [ -z "$late" ] || set -- "$@" "reason=$reason"
  with_verify python_apply "$@"
}

# with_verify PART ARGUMENT...: a python part, with the source of verify.py on descriptor 3
with_verify() {
  part=$1
  shift
  (cd / && python_verify | {
    exec 3<&0
    "$part" | "$(any_python)" -B - "$@"
  })
}

# told NAME: each value of that name
told() {
  printf '%s\n' "$answer" | sed -n "s/^$1 //p"
}

# A run with --once that was ended by force left its changes: they go first, whatever is done now.
undo_once() {
  [ -d "$ROOT/etc/gapferry/once" ] || return 0
  say 'an earlier run with --once was ended before it put everything back: done now'
  end_once || fail 1 'not everything could be put back' 'see above; then the same again'
}

# Changes of --once are kept apart, so that what was set up before comes back, not what the vendor had. Whoever interrupts it
# gets them back by a shell of its own: in a trap, sh of CentOS 7 gives `return` another meaning.
begin_once() {
  CHANGES=$ROOT/etc/gapferry/once
  mkdir -p "$CHANGES" || fail 1 "$CHANGES: cannot be made"
  [ -f "$self" ] || return 0
  trap '[ ! -d "$ROOT/etc/gapferry/once" ] || { exec 9<&- && sh "$self" apply --put-back --root "${ROOT:-/}"; }; end_changes' EXIT
  trap 'trap "" HUP INT TERM; rm -rf "$SCRATCH"; exec sh "$self" apply --put-back --root "${ROOT:-/}"' HUP INT TERM
}

put_back_once() {
  begin_changes
  printf 'every setting is as it was before --once\n'
}

end_once() {
  kept=$CHANGES
  CHANGES=$ROOT/etc/gapferry/once
  undo_changes || return 1
  find_web
  [ -z "$WEB" ] || [ -e "$ROOT$WEB_FILE" ] || reload_web || :
  rm -rf "$CHANGES"/*.tmp "$CHANGES"/gone
  rmdir "$CHANGES" && CHANGES=$kept
}

wait_once() {
  printf '\nThis box updates from the stick until Enter is pressed here; run the updates in another terminal.\n'
  IFS= read -r _ || :
  trap '' HUP INT TERM
  end_once || fail 1 'not everything could be put back' 'see above; then: gapferry-box apply, or gapferry-box uninstall'
  printf 'every setting is as before. yum keeps what it read: yum clean metadata\n'
}

# What setup does for a mirror, with the unpacked tree in its place: packages from files, modules from the loopback.
point_here() {
  origin=file://$DATA/origin trusts=1
  take_site_key
  take_facts
  take_mirror
  [ -z "$module_repo" ] || serve_modules
  assert_all
  [ "$once" = 0 ] || return 0
  remember_setup
  [ "$keeps" = 0 ] || assert_keep
}

# With uninstall: the tree, and what it was made of. What is believed stays, so that nothing older is taken some day.
forget_applied() {
  [ -d "$ROOT$DATA/trees" ] || return 0
  for name in origin previous trees blobs staging licenses empty.txt; do rm -rf "$ROOT${DATA:?}/$name"; done
  find_web
  [ -z "$WEB" ] || [ -e "$ROOT$WEB_FILE" ] || reload_web || :
}

serve_modules() {
  module_repo=
  find_web
  list=$(told modules | head -n 1)
  if [ -z "$WEB" ]; then
    problem 'no httpd or apache2 is here that could answer for modules: they stay as they were'
    return
  fi
  [ -e "$ROOT$WEB_FILE" ] || [ -n "$ROOT" ] || web_port_is_free || {
    problem "127.0.0.1:$WEB_PORT is another program's: modules stay as they were"
    return
  }
  [ -e "$ROOT$DATA/empty.txt" ] || { : >"$ROOT$DATA/empty.txt" && chmod 0644 "$ROOT$DATA/empty.txt"; }
  web_configuration >"$SCRATCH/web"
  before=$CHANGED
  change_file "$WEB_FILE" 0644 0:0 <"$SCRATCH/web"
  if [ "$before" != "$CHANGED" ] && ! reload_web; then problem "$WEB was not told: systemctl reload $WEB"; fi
  [ -n "$ROOT" ] || web_answers "$list" || {
    problem "http://127.0.0.1:$WEB_PORT/$list is not answered: modules stay as they were; see that $WEB runs, then the same again"
    return
  }
  module_repo=http://127.0.0.1:$WEB_PORT
}

problem() {
  problems=$((problems + 1))
  say "$1"
}

# Of the sealed licenses on the stick the one that the key of this box opens.
install_licenses() {
  [ -r "$ROOT/etc/gapferry/box.key" ] || return 0
  for sealed in "$ROOT$DATA"/licenses/*; do
    if [ ! -f "$sealed" ] || ! license_opens "$sealed"; then continue; fi
    license_install "$sealed" "$site" || problem 'a license for this box came and could not be installed; all else is done'
  done
}

show_updates() {
  printf '\n'
  [ -z "$(told yum)" ] || [ "$MANAGER" = apt ] || show_packages
  [ -z "$(told modules)" ] || show_modules
}

# The manager's own choice, before anything is installed.
show_packages() {
  choice=$(cd / && choose)
  failed=$(printf '%s\n' "$choice" | sed -n -e 's/^failed //p' -e 's/^broken //p')
  chosen=$(printf '%s\n' "$choice" | sed -n 's/^chosen //p')
  if [ -n "$failed" ]; then
    problem "$MANAGER could not say what it would do: $(printf '%s' "$failed" | tr '\n' ' ')"
  elif [ -z "$chosen" ]; then
    printf 'packages: nothing to update\n'
  else
    printf 'packages that "%s" will bring:\n' "$(update_command)"
    printf '%s\n' "$chosen" | sed 's/^/  /'
  fi
}

update_command() {
  case $MANAGER in yum) printf 'yum update' ;; *) printf 'dnf upgrade' ;; esac
}

show_modules() {
  list=$(told modules | head -n 1)
  freepbx >"$SCRATCH/freepbx"
  edge=$(awk '$1 == "setting" && $2 == "MODULEADMINEDGE" { print $3 }' "$SCRATCH/freepbx")
  awk '$1 == "module" && $4 != "not-installed" && $4 != "unknown" { print $2, $3 }' "$SCRATCH/freepbx" >"$SCRATCH/modules"
  rows=$(cd / && python_upgrades | "$(any_python)" -B - "$ROOT$DATA/origin/$list" "${edge:-0}" 3<"$SCRATCH/modules") || problem "$list: cannot be read"
  if [ -z "$rows" ]; then
    printf 'modules: nothing to upgrade\n'
  else
    printf 'modules that "fwconsole ma upgradeall" will bring:\n'
    printf '%s\n' "$rows" | awk '{ printf "  %s %s -> %s\n", $1, $2, $3 }'
  fi
}

# What was done, and the inventory as it is now, for the laptop.
write_records() {
  [ "$records" = 1 ] || return 0
  (inventory --root "${ROOT:-/}") >"$SCRATCH/inventory" || : >"$SCRATCH/inventory"
  printf '\n'
  set -- "data=$ROOT$DATA" "settings=$ROOT/etc/gapferry" "folder=$(told folder)" "below=$(told below)" "inventory=$SCRATCH/inventory" "once=$once" "reason=$reason"
  set -- "$@" "box=$box" "tool=$TOOL" "number=$number" "site=$site" "group=$(told group)"
  with_verify python_records "$@" "created=$(told created)" "expires=$(told expires)" "origin=$(told origin)" ||
    say 'nothing was written to the stick; all else is done'
}

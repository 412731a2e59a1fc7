# ---------------------------------------------------------------------------------------------------- keep

UNITS=/etc/systemd/system
MAX_TOLD_SECONDS=21600

keep() {
  ROOT='' DRY=0
  while [ $# -gt 0 ]; do
    case $1 in
    --root) set_root "${2:-}" && shift 2 ;;
    --dry-run) DRY=1 && shift ;;
    -h | --help) usage && return ;;
    *) fail 2 "keep: \"$1\" is not known" ;;
    esac
  done
  [ ! -e "$ROOT/etc/gapferry/hold" ] || return 0
  mode=$(setting_of mode)
  [ -n "$mode" ] || fail 4 'this box is not set up' "gapferry-box setup http://MIRROR:PORT --fingerprint 'WORDS'"
  find_manager
  begin_changes
  cd /
  if [ "$DRY" = 1 ]; then
    recall_setup
    assert_all
    printf 'nothing was done\n'
    return
  fi
  trap 'tell_changes; end_changes' EXIT
  recall_setup
  assert_all >"$SCRATCH/changes"
  tell_changes
  case $origin in file:*) ;; *) tell_mirror ;; esac
  keep_license
}

keep_license() {
  fetched=0
  license_keep >"$SCRATCH/license" || fetched=$?
  tell_log mirror <"$SCRATCH/license"
  return "$fetched"
}

# Also where the rest could not be done.
tell_changes() {
  [ ! -s "$SCRATCH/changes" ] || tell_log 'put back' <"$SCRATCH/changes"
  : >"$SCRATCH/changes"
}

# What `remember_setup` wrote.
recall_setup() {
  own_files=$ROOT/etc/gapferry
  origin=$(setting_of origin)
  group=$(setting_of group)
  box=$(setting_of box)
  repositories=$(setting_of repository)
  module_repo=$(setting_of module-repo)
  module_keys=$(setting_of module-key)
  address=$(setting_of address)
}

# tell_log WHAT: each line of standard input to the system's log, and to a person
tell_log() {
  while IFS= read -r line; do
    ! have logger || logger -t gapferry-box -- "$1: $line"
    printf '%s\n' "$line"
  done
}

# The inventory, when it is another than the last that the mirror took, or six hours old.
tell_mirror() {
  (inventory ${ROOT:+--root "$ROOT"}) >"$SCRATCH/inventory" 2>"$SCRATCH/said" || return 0 # an update is at work: next time
  told=$ROOT/var/lib/gapferry/told
  digest=$(sed -e '/^created /d' -e '/^time-source /d' -e '/^time-offset /d' -e '/^end /d' "$SCRATCH/inventory" | sha256)
  now=$(date +%s)
  before='' since=0 outcome=
  [ ! -r "$told" ] || read -r before since outcome <"$told"
  case $since in '' | *[!0-9]*) since=0 ;; esac
  if [ "$before" = "$digest" ] && [ "$outcome" = taken ] && [ $((now - since)) -lt "$MAX_TOLD_SECONDS" ] && [ "$now" -ge "$since" ]; then return 0; fi
  if have gzip; then gzip -c "$SCRATCH/inventory" >"$SCRATCH/body"; else cp "$SCRATCH/inventory" "$SCRATCH/body"; fi
  status=$(post "$SCRATCH/body" "$origin/gapferry/inventories?box=$box")
  case $status in
  20[0-9]) result=taken ;;
  404) result=unwanted ;;
  000 | '') result=away ;;
  *) result=refused-$status ;;
  esac
  mkdir -p "$ROOT/var/lib/gapferry"
  printf '%s %s %s\n' "$digest" "$now" "$result" >"$told.new" && mv -f "$told.new" "$told"
  [ "$result" = "$outcome" ] || say_told
  case $result in taken | unwanted) ;; *) exit 6 ;; esac
}

# Once for each turn, not every quarter of an hour.
say_told() {
  case $result in
  taken) printf 'the mirror %s has the inventory of %s\n' "$origin" "$box" ;;
  unwanted) printf 'the mirror %s takes no inventories by network: carry it, gapferry-box inventory > %s.gfi\n' "$origin" "$box" ;;
  away) printf 'the mirror %s cannot be reached\n' "$origin" ;;
  *) printf 'the mirror %s does not take the inventory of %s: status %s\n' "$origin" "$box" "$status" ;;
  esac | tell_log mirror
}

# post FILE URL: the status of the answer, 000 without one
post() {
  if have curl; then
    curl --silent --output /dev/null --write-out '%{http_code}' --max-time 60 --header 'Content-Type: application/octet-stream' --header 'Expect:' --data-binary "@$1" "$2" 2>/dev/null
  else
    "$(interpreter)" -c 'import sys
try: from urllib.request import urlopen, Request
except ImportError: from urllib2 import urlopen, Request
try: print(urlopen(Request(sys.argv[2], open(sys.argv[1], "rb").read(), {"Content-Type": "application/octet-stream"}), timeout=60).getcode())
except Exception as error: print(getattr(error, "code", "000"))' "$1" "$2" 2>/dev/null
  fi
}

# ---- what runs `keep`

# The minute is the box's own, so that not all of them come at once; systemd 219 has no RandomizedDelaySec.
assert_keep() {
  [ -f "$self" ] || fail 2 'keep needs this tool as a file' 'save gapferry-box in a file and run that; or --no-keep'
  change_file "$TOOL_PATH" 0755 0:0 <"$self"
  minute=$(printf '%s' "$box" | cksum | awk '{ print $1 % 15 }')
  if has_systemd; then
    change_file "$UNITS/gapferry-box.service" 0644 0:0 <<TEXT
[Unit]
Description=Keep this box as gapferry-box set it up
After=network.target mariadb.service

[Service]
Type=oneshot
ExecStart=$TOOL_PATH keep
Nice=19
TimeoutStartSec=900
TEXT
    change_file "$UNITS/gapferry-box.timer" 0644 0:0 <<TEXT
[Unit]
Description=Keep this box as gapferry-box set it up

[Timer]
OnBootSec=3min
OnCalendar=*:$minute/15
AccuracySec=1min

[Install]
WantedBy=timers.target
TEXT
    before=$CHANGED
    change_link "$UNITS/timers.target.wants/gapferry-box.timer" "$UNITS/gapferry-box.timer"
    if [ "$DRY" = 0 ] && [ "$before" != "$CHANGED" ]; then
      service daemon-reload
      service start gapferry-box.timer || say 'the timer could not be started: systemctl status gapferry-box.timer'
    fi
  else
    change_file /etc/cron.d/gapferry-box 0644 0:0 <<TEXT
# Keep this box as gapferry-box set it up
$minute-59/15 * * * * root $TOOL_PATH keep >/dev/null
TEXT
  fi
}

has_systemd() {
  if [ -n "$ROOT" ]; then [ -d "$ROOT$UNITS" ]; else [ -d /run/systemd/system ]; fi
}

# Below another root nothing of this system is started.
service() {
  have systemctl || return 0
  if [ -n "$ROOT" ]; then case $(command -v systemctl) in /usr/bin/* | /bin/*) return 0 ;; esac; fi
  unlocked systemctl "$@" >/dev/null 2>&1 </dev/null
}

stop_keep() {
  [ ! -e "$ROOT$UNITS/gapferry-box.timer" ] || service stop gapferry-box.timer || :
}

reload_services() {
  ! has_systemd || service daemon-reload || :
}

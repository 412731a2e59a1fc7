# ---------------------------------------------------------------------------------------------------- readiness

# "name value" lines: what a box needs to live without the internet
readiness() {
  printf 'readiness 2\n' # of what follows, all is looked for: what is not there is not on the box
  [ ! -r "$ROOT/etc/gapferry/settings" ] || sed -n -e 's/^mode \([a-z]*\)$/setup-mode \1/p' -e 's/^origin \([!-~]*\)$/setup-origin \1/p' "$ROOT/etc/gapferry/settings" | joined
  [ ! -e "$ROOT/etc/gapferry/hold" ] || printf 'held yes\n'
  list dns-servers "$(fields nameserver /etc/resolv.conf)"
  list time-servers "$(time_servers)"
  list setting-names "$(setting_names)"
  [ -n "$ROOT" ] || { time_state && answers; }
  mail_facts
  time_zone
  # what installs things by itself, in the database, in a table of cron or as a timer, is one fact
  {
    printf '%s\n' "${SETTING_ROWS:-}" | awk -F "$TAB" '
      $1 == "trunk" { print "trunks " $2; next }
      $2 == "MODULE_REPO" { print "module-repo " $3; print "module-repo-default " $4 }
      $2 == "RSSFEEDS" { gsub(/\\n/, " ", $3); print "news-feeds " $3 }
      $2 == "BROWSER_STATS" { print "statistics " $3 }
      $2 == "SIGNATURECHECK" { print "signature-check " $3 }
      $2 == "PROXY_ENABLED" { proxied = $3 ~ /^(1|true|yes|on)$/ }
      $2 == "PROXY_ADDRESS" { proxy = $3 }
      $2 ~ /^AUTO/ { print "automatic " tolower($2) "=" $3 }
      END { if (proxied) print "proxy fwconsole=" proxy }'
    [ ! -r "$ROOT/etc/environment" ] || sed -n 's/^[[:space:]]*\(https\{0,1\}_proxy\)=["'\'']\{0,1\}\([^"'\'']*\).*/proxy \1=\2/p' "$ROOT/etc/environment"
    scheduled
  } | without_passwords | joined
  list vpn "$(existing '/etc/openvpn/*.conf' '/etc/openvpn/client/*.conf')"
  list dynamic-dns "$(existing /etc/ddclient.conf /etc/ddclient/ddclient.conf)"
  list package-keys "$(existing '/etc/pki/rpm-gpg/RPM-GPG-KEY-gapferry*' | while IFS= read -r path; do printf '%s=%s\n' "$path" "$(sha256 <"$ROOT$path")"; done)"
  list box-certificate "$(certificate /etc/gapferry/box.pem)"
}

time_servers() {
  for path in /etc/chrony.conf /etc/chrony/chrony.conf /etc/ntp.conf /etc/ntpsec/ntp.conf; do
    fields 'server pool peer' "$path"
  done
}

# "mail-service off" only where it is certain
mail_facts() {
  [ ! -r "$ROOT/etc/postfix/main.cf" ] || printf 'mail-relay %s\n' "$(sed -n 's/^relayhost[[:space:]]*=[[:space:]]*//p' "$ROOT/etc/postfix/main.cf" | tail -n 1)"
  services=/etc/systemd/system/multi-user.target.wants
  [ -d "$ROOT$services" ] && [ ! -d "$ROOT/etc/exim4" ] || return 0
  enabled=
  for name in postfix sendmail; do
    [ ! -L "$ROOT$services/$name.service" ] || enabled="$enabled$name "
  done
  printf 'mail-service %s\n' "${enabled:-off}"
}

# Tables of cron and timers are in the box's own time.
time_zone() {
  zone=$(readlink "$ROOT/etc/localtime" 2>/dev/null | sed -n 's/.*zoneinfo\///p')
  [ -n "$zone" ] || [ ! -r "$ROOT/etc/timezone" ] || zone=$(first_line "$ROOT/etc/timezone")
  list timezone "$zone"
  [ -n "$ROOT" ] || printf 'utc-offset %s\n' "$(date +%z)"
}

# The host names that the box's settings name: repositories, modules, time, mail, trunks, remote logs.
setting_names() {
  {
    case $MANAGER in
    apt) existing /etc/apt/sources.list '/etc/apt/sources.list.d/*' | while IFS= read -r path; do sed -n '/^[[:space:]]*#/d; s/.*\(https\{0,1\}:\/\/[^ ]*\).*/\1/p' "$ROOT$path"; done ;;
    *) { main_file && repository_files; } | while IFS= read -r path; do ini "$ROOT$path"; done | awk -F "$TAB" '
      $2 == "enabled" { off[$1] = tolower($3) ~ /^(0|no|false|off)$/ }
      $2 == "baseurl" || $2 == "mirrorlist" || $2 == "metalink" { urls[$1] = urls[$1] " " $3 }
      END { for (id in urls) if (!off[id]) { n = split(urls[id], url, /[ ,]+/); for (i = 1; i <= n; i++) if (url[i] ~ /:\/\//) print url[i] } }' ;;
    esac
    printf '%s\n' "${SETTING_ROWS:-}" | awk -F "$TAB" '$2 == "MODULE_REPO" { gsub(/,/, " ", $3); print $3 } $1 == "trunk" { print $2 }'
    time_servers
    [ ! -r "$ROOT/etc/postfix/main.cf" ] || sed -n 's/^relayhost[[:space:]]*=[[:space:]]*//p' "$ROOT/etc/postfix/main.cf"
    existing /etc/rsyslog.conf '/etc/rsyslog.d/*.conf' | while IFS= read -r path; do sed -n '/^[[:space:]]*#/d; s/^[^@]*[[:space:]]@\{1,2\}\(([^)]*)\)\{0,1\}\([^@][^ ;]*\).*/\2/p' "$ROOT$path"; done
  } | tr ' ' ',' | tr ',' '\n' | sed -e 's/^[a-z]*:\/\///' -e 's/^[^@/]*@//' -e 's/[/?].*//' -e 's/^\[\(.*\)\]\(:[0-9]*\)\{0,1\}$/\1/' -e 's/:[0-9]*$//' |
    awk '/^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$/ && /[A-Za-z]/ && length($0) <= 253 && $0 != "localhost" { print tolower($0) }' |
    sort -u | head -n "$MAX_NAMES"
}

# Whether name servers and time servers answer, and names have an address; a few seconds for all of them together.
answers() {
  python=$(interpreter)
  have "$python" || return 0
  {
    fields nameserver /etc/resolv.conf | sed 's/^/dns /'
    time_servers | sed 's/^/ntp /'
    setting_names | sed 's/^/name /'
  } | "$python" -c "$(python_probe)" 2>/dev/null
}

# The jobs of tables of cron as "schedule command", and timers: whatever may install things by itself.
scheduled() {
  existing /var/spool/cron/asterisk /var/spool/cron/root /var/spool/cron/crontabs/asterisk /var/spool/cron/crontabs/root |
    while IFS= read -r path; do cron_jobs 0 <"$ROOT$path"; done
  existing /etc/crontab '/etc/cron.d/*' | while IFS= read -r path; do cron_jobs 1 <"$ROOT$path"; done
  [ ! -r "$ROOT/etc/yum/yum-cron.conf" ] || sed -n 's/^[[:space:]]*apply_updates[[:space:]]*=[[:space:]]*/automatic yum-cron=/p' "$ROOT/etc/yum/yum-cron.conf"
  [ ! -r "$ROOT/etc/dnf/automatic.conf" ] || sed -n 's/^[[:space:]]*apply_updates[[:space:]]*=[[:space:]]*/automatic dnf-automatic=/p' "$ROOT/etc/dnf/automatic.conf"
  existing '/etc/apt/apt.conf.d/*' | while IFS= read -r path; do sed -n 's/^[[:space:]]*APT::Periodic::Unattended-Upgrade[[:space:]]*"\([^"]*\)".*/automatic unattended-upgrades=\1/p' "$ROOT$path"; done | tail -n 1
  for path in "$ROOT"/etc/systemd/system/timers.target.wants/*.timer; do
    name=${path##*/}
    case $name in dnf-automatic* | yum-cron* | apt-daily-upgrade*) [ ! -L "$path" ] || timer "$name" ;; esac
  done
}

# cron_jobs HAS_USER: those that look like an update; of a system's table without the user
cron_jobs() {
  awk -v user="$1" '
    /^[ \t]*#/ { next }
    /fwconsole.*[ \t](ma|sys|moduleadmin)[ \t]/ || /(yum|dnf|apt|apt-get)[ \t].*(update|upgrade|install)/ || /unattended-upgrade/ {
      line = $0
      sub(/^[ \t]+/, "", line)
      gsub(/[ \t]+\|[ \t]+/, " |", line)
      head = ""
      for (i = line ~ /^@/ ? 1 : 5; user && i > 0 && match(line, /^[^ \t]+[ \t]+/); i--) {
        head = head substr(line, 1, RLENGTH)
        line = substr(line, RLENGTH + 1)
      }
      if (user) sub(/^[^ \t]+[ \t]+/, "", line)
      if (++count <= 20) print "automatic " substr(head line, 1, 300)
    }'
}

# timer NAME: its calendar, as the unit and what changes it say
timer() {
  unit=$(existing "/etc/systemd/system/$1" "/usr/lib/systemd/system/$1" "/lib/systemd/system/$1" | head -n 1)
  { [ -z "$unit" ] || printf '%s\n' "$unit"; existing "/etc/systemd/system/$1.d/*.conf"; } |
    while IFS= read -r path; do sed -n 's/^[[:space:]]*OnCalendar[[:space:]]*=[[:space:]]*//p' "$ROOT$path"; done |
    NAME=$1 awk '$0 == "" { count = 0; next } { times[++count] = $0 } END { for (i = 1; i <= count; i++) print "automatic timer " ENVIRON["NAME"] " " times[i] }'
}

# certificate FILE: the first one in it, base64
certificate() {
  [ ! -r "$ROOT$1" ] || [ "$(wc -c <"$ROOT$1")" -gt "$MAX_KEY_BYTES" ] || awk '
    /^-----END CERTIFICATE-----/ { exit }
    inside { sub(/\r$/, ""); printf "%s", $0 }
    /^-----BEGIN CERTIFICATE-----/ { inside = 1 }' "$ROOT$1"
}

time_state() {
  if have chronyc; then
    within chronyc -n -c tracking 2>/dev/null | awk -F , 'NF > 5 { print "time-source " $2; print "time-offset " $5 }'
  elif have ntpq; then
    within ntpq -pn 2>/dev/null | awk '/^\*/ { print "time-source " substr($1, 2); print "time-offset " $9 / 1000 }'
  fi
}

# list NAME VALUES: one line, or none where there are no values
list() {
  [ -z "$2" ] || printf '%s %s\n' "$1" "$(printf '%s' "$2" | tr '\n' ' ')"
}

# Lines of one name become one line, their values between " | "
joined() {
  awk '{ name = $1; value = substr($0, length(name) + 2)
      if (!(name in values)) { order[++count] = name; values[name] = value } else values[name] = values[name] " | " value }
    END { for (i = 1; i <= count; i++) print order[i] " " values[order[i]] }'
}

# fields WORDS FILE: the field after each of these words where it starts a line
fields() {
  [ ! -r "$ROOT$2" ] || WORDS=" $1 " awk 'index(ENVIRON["WORDS"], " " $1 " ") && $2 !~ /^[#;]/ { print $2 }' "$ROOT$2"
}

# ---------------------------------------------------------------------------------------------------- readiness

# "name value" lines: what a box needs to live without the internet
readiness() {
  list dns-servers "$(fields nameserver /etc/resolv.conf)"
  list time-servers "$(for path in /etc/chrony.conf /etc/chrony/chrony.conf /etc/ntp.conf /etc/ntpsec/ntp.conf; do fields 'server pool peer' "$path"; done)"
  [ -n "$ROOT" ] || time_state
  [ ! -r "$ROOT/etc/postfix/main.cf" ] || printf 'mail-relay %s\n' "$(sed -n 's/^relayhost[[:space:]]*=[[:space:]]*//p' "$ROOT/etc/postfix/main.cf" | tail -n 1)"
  # what installs things by itself, in the database or in a table of cron, is one fact
  {
    printf '%s\n' "${SETTING_ROWS:-}" | awk -F "$TAB" '
      $2 == "MODULE_REPO" { print "module-repo " $3; print "module-repo-default " $4 }
      $2 == "RSSFEEDS" { gsub(/\\n/, " ", $3); print "news-feeds " $3 }
      $2 == "BROWSER_STATS" { print "statistics " $3 }
      $2 == "SIGNATURECHECK" { print "signature-check " $3 }
      $2 ~ /^AUTO/ { print "automatic " tolower($2) "=" $3 }'
    scheduled
  } | joined
  list vpn "$(existing '/etc/openvpn/*.conf' '/etc/openvpn/client/*.conf')"
  list dynamic-dns "$(existing /etc/ddclient.conf /etc/ddclient/ddclient.conf)"
}

# Jobs that install things by themselves.
scheduled() {
  for path in /var/spool/cron/asterisk /var/spool/cron/crontabs/asterisk; do
    [ ! -r "$ROOT$path" ] || sed -n '/^[[:space:]]*#/d; /fwconsole.*\(ma\|sys\|moduleadmin\)[[:space:]]/s/^/automatic /p' "$ROOT$path"
  done
  [ ! -r "$ROOT/etc/yum/yum-cron.conf" ] || sed -n 's/^[[:space:]]*apply_updates[[:space:]]*=[[:space:]]*/automatic yum-cron=/p' "$ROOT/etc/yum/yum-cron.conf"
  [ ! -r "$ROOT/etc/dnf/automatic.conf" ] || sed -n 's/^[[:space:]]*apply_updates[[:space:]]*=[[:space:]]*/automatic dnf-automatic=/p' "$ROOT/etc/dnf/automatic.conf"
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

# ---------------------------------------------------------------------------------------------------- freepbx

# Read from the database (SELECT alone) and from files. fwconsole would start the framework: seconds, caches written,
# servers asked.
freepbx() {
  WEBROOT=/var/www/html
  facts=
  [ -r "$ROOT/etc/freepbx.conf" ] || [ -d "$ROOT$WEBROOT/admin/modules" ] || return 0
  rows=$(database_rows)
  printf '%s\n' "$rows" | grep -q '^version' || say 'the FreePBX database cannot be read; modules come from their files alone'
  root=$(printf '%s\n' "$rows" | awk -F "$TAB" '$1 == "setting" && $2 == "AMPWEBROOT" { print $3 }')
  ! is_plain_path "$root" || WEBROOT=$root
  facts=$({
    printf '%s\n' "$rows"
    module_files
  } | awk -F "$TAB" '
    function as_word(text) { gsub(/%/, "%25", text); gsub(/ /, "%20", text); return text }
    $1 == "version" { version = $2 }
    $1 == "profile" && $3 != "NULL" { print "profile " as_word($2) " " $3 }
    $1 == "module" { row[$2] = $3 == "NULL" ? "" : $3; on[$2] = $4 }
    $1 == "setting" && $2 ~ /^(MODULEADMINEDGE|AUTO[A-Z]*UPDATES)$/ { print "setting " $2 " " $3 }
    $1 == "sound" { print "sound " as_word($2) " " as_word($3) " " as_word($4) " " as_word($5) " " as_word($6) }
    $1 == "repos" { active($2) }
    $1 == "xml" { file[$2] = $3; license[$2] = $4 }
    $1 == "xml" && $2 == "framework" && version == "" { version = $3 }
    END {
      if (version != "") print "framework " as_word(version)
      for (name in row) {
        state = !(name in file) ? "broken" : on[name] != 1 ? "disabled" : file[name] != row[name] ? "needs-upgrade" : "enabled"
        module(name, row[name], state)
      }
      for (name in file) if (!(name in row)) module(name, file[name], length(row) == 0 ? "unknown" : "not-installed")
    }
    # {"standard":1,"commercial":1}, or of old the same as PHP writes it: a:1:{s:8:"standard";i:1;}
    function active(list) {
      while (match(list, /"[a-z0-9_]+"(:|;i:)"?[01]/)) {
        if (substr(list, RSTART + RLENGTH - 1, 1) == 1) {
          split(substr(list, RSTART, RLENGTH), part, "\"")
          print "active-repo " part[2]
        }
        list = substr(list, RSTART + RLENGTH)
      }
    }
    function module(name, number, state) {
      print "module " as_word(name) " " as_word(number == "" ? "?" : number) " " state " " as_word(license[name] == "" ? "?" : license[name])
    }' | sort)
  {
    [ -z "$facts" ] || printf '%s\n' "$facts"
    profile
    licenses
    signing_keys
    signing_key_files
  } | section freepbx
  SETTING_ROWS=$(printf '%s\n' "$rows" | sed -n -e '/^setting/p' -e '/^trunk/p')
}

# is_plain_path TEXT: whoever can write to the database can write there what is none
is_plain_path() {
  case $1 in *[!A-Za-z0-9._/-]* | */../* | */..) return 1 ;; /?*) return 0 ;; *) return 1 ;; esac
}

# Tab separated: version V · module NAME VERSION ENABLED · setting KEY VALUE DEFAULT · profile KEY VALUE · repos LIST ·
# sound TYPE MODULE LANGUAGE FORMAT INSTALLED · trunk HOST. A table that is not there is passed over.
database_rows() {
  database "
      SELECT 'version', value FROM admin WHERE variable = 'version';
      SELECT 'module', modulename, version, enabled FROM modules;
      SELECT 'setting', keyword, value, defaultval FROM freepbx_settings WHERE keyword IN ('AMPWEBROOT', 'MODULE_REPO',
        'RSSFEEDS', 'BROWSER_STATS', 'PROXY_ENABLED', 'PROXY_ADDRESS', 'MODULEADMINEDGE', 'SIGNATURECHECK', 'AUTOMODULEUPDATES',
        'AUTOSECURITYUPDATES', 'AUTOSYSTEMUPDATES');
      SELECT 'profile', 'installid', data FROM module_xml WHERE id = 'installid';
      SELECT 'profile', 'ucount', COUNT(*) FROM users;
      SELECT 'repos', data FROM module_xml WHERE id IN ('repos_json', 'repos_serialized') ORDER BY id LIMIT 1;
      SELECT DISTINCT 'trunk', data FROM pjsip WHERE keyword = 'sip_server' AND data <> '' LIMIT 50;
      SELECT DISTINCT 'trunk', data FROM sip WHERE keyword = 'host' AND id LIKE 'tr-peer-%' AND data NOT IN ('', 'dynamic') LIMIT 50;
      SELECT DISTINCT 'trunk', data FROM iax WHERE keyword = 'host' AND id LIKE 'tr-peer-%' AND data NOT IN ('', 'dynamic') LIMIT 50;
      SELECT 'sound', type, module, language, format, installed FROM soundlang_packages
        WHERE installed <> '' AND type <> '' AND module <> '' AND language <> '' AND format <> '';" --force
}

# database SQL [OPTION]: rows of FreePBX's database, tab separated, as mysql escapes them; nothing where it cannot be read
database() {
  [ -n "${DATABASE_USER+known}" ] || find_database
  have mysql && [ -n "$DATABASE_USER" ] || return 0
  sql=$1 && shift
  # freepbx.conf is the web server's, so its words are no options of ours, and the server that it names gets no file of root's
  MYSQL_PWD=$DATABASE_PASSWORD within mysql --batch --skip-column-names --connect-timeout=3 --local-infile=0 \
    --host="${DATABASE_HOST:-localhost}" --user="$DATABASE_USER" --database="${DATABASE_NAME:-asterisk}" --execute="$sql" "$@" 2>/dev/null
}

find_database() {
  DATABASE_USER=$(php_setting AMPDBUSER) DATABASE_PASSWORD=$(php_setting AMPDBPASS)
  DATABASE_HOST=$(php_setting AMPDBHOST) DATABASE_NAME=$(php_setting AMPDBNAME)
}

php_setting() {
  [ -r "$ROOT/etc/freepbx.conf" ] || return 0
  sed -n "s/^[[:space:]]*\$amp_conf\[['\"]$1['\"]\][[:space:]]*=[[:space:]]*['\"]\(.*\)['\"];.*/\1/p" "$ROOT/etc/freepbx.conf" | tail -n 1
}

# xml NAME VERSION LICENSE of each module, tab separated; the first <version> is the module's own
module_files() {
  # the web server's user may have put anything there: a pipe would hang the box's root
  set --
  for path in "$ROOT$WEBROOT"/admin/modules/*/module.xml; do
    [ ! -f "$path" ] || [ ! -r "$path" ] || set -- "$@" "$path"
  done
  [ $# -gt 0 ] || return 0
  if [ -n "$(find -L "$@" -prune -size +$((MAX_MODULE_BYTES / 512)) 2>/dev/null)" ]; then
    for path in "$@"; do
      shift
      [ "$(stat -L -c %s "$path")" -gt "$MAX_MODULE_BYTES" ] || set -- "$@" "$path"
    done
    [ $# -gt 0 ] || return 0
  fi
  # shellcheck disable=SC2016 # awk text
  waiting 60 awk -v OFS="$TAB" '
    function text(tag) {
      if (!match($0, "<" tag ">[^<]*</" tag ">")) return ""
      return substr($0, RSTART + length(tag) + 2, RLENGTH - 2 * length(tag) - 5)
    }
    function flush() { if (name != "") print "xml", name, version, license; name = version = license = "" }
    FNR == 1 { flush() }
    /<(depends|supported|changelog)>/ { if (version == "") version = text("version") }
    name == "" { name = text("rawname") }
    version == "" { version = text("version") }
    license == "" { license = text("license") }
    END { flush() }' "$@"
}

profile() {
  for folder in sangoma schmooze; do
    [ ! -r "$ROOT/etc/$folder/pbx-brand" ] || printf 'profile brandid %s\n' "$(first_line "$ROOT/etc/$folder/pbx-brand")"
    [ ! -r "$ROOT/etc/$folder/pbx-version" ] || printf 'profile distrover %s\nprofile distro freepbxdistro\n' "$(first_line "$ROOT/etc/$folder/pbx-version")"
    [ ! -r "$ROOT/etc/$folder/pbxid" ] || printf 'profile deploymentid %s\n' "$(first_line "$ROOT/etc/$folder/pbxid")"
  done | awk '!seen[$2]++'
  [ ! -r "$ROOT/etc/machine-id" ] || printf 'profile machineid %s\n' "$(first_line "$ROOT/etc/machine-id" | tr -d '\n' | sha256)"
  version=$(of_box asterisk && within asterisk -V 2>/dev/null | sed -n 's/^Asterisk //p')
  [ -z "$version" ] || printf 'profile astver %s\n' "$version"
  of_box php || return 0
  within php -v 2>/dev/null | sed -n \
    -e 's/^PHP \([0-9][^ ]*\).*/profile phpver \1/p' \
    -e 's/.*ionCube PHP Loader.* v\([0-9][^ ,]*\).*/profile ioncube \1/p' \
    -e 's/.*Zend Guard Loader.*/profile zend available/p'
}

# of_box PROGRAM: whether it is there and belongs to the box; this system's own tell nothing of one below another root
of_box() {
  have "$1" || return 1
  [ -n "$ROOT" ] || return 0
  case $(command -v "$1") in /usr/* | /bin/* | /sbin/*) return 1 ;; esac
}

# Names and dates of license files, never their content.
licenses() {
  existing '/etc/schmooze/*.zl' '/etc/schmooze/license*' '/etc/sangoma/*.zl' '/etc/sangoma/license*' | while IFS= read -r path; do
    word=$(printf '%s\n' "$path" | as_word)
    printf 'license %s\n' "$word"
    head -c 1048576 "$ROOT$path" | tr -d '\000\r' | sed -n \
      -e 's/^[[:space:]]*\([A-Za-z0-9_]\{1,60\}_exp\)[[:space:]]*=[[:space:]]*\([0-9][-0-9A-Za-z:\/. ]\{0,39\}\)$/\1 \2/p' \
      -e 's/^[[:space:]]*\(Product-Name\|deploymentid\)[[:space:]]*=[[:space:]]*\([-0-9A-Za-z. ]\{1,60\}\)$/\1 \2/p' |
      WORD=$word awk '{ print "license-fact " ENVIRON["WORD"] " " $0 }'
  done
}

signing_keys() {
  for path in "$ROOT$WEBROOT"/admin/libraries/BMO/*.key "$ROOT$WEBROOT"/admin/libraries/BMO/signatures/*.key; do
    [ ! -f "$path" ] || basename "$path" .key | tr abcdef ABCDEF
  done | grep -x '[0-9A-F]\{16\}' | sort -u | sed 's/^/key /'
}

# Their public keys, for a laptop that has to verify modules: nothing else of these files, of which anybody may be any file.
# Of two of one name the first, which came with the framework.
signing_key_files() {
  taken=' '
  count=0
  for path in "$ROOT$WEBROOT"/admin/libraries/BMO/*.key "$ROOT$WEBROOT"/admin/libraries/BMO/signatures/*.key; do
    name=$(basename "$path" .key | tr abcdef ABCDEF)
    case $name in *[!0-9A-F]*) continue ;; esac
    case $taken in *" $name "*) continue ;; esac
    if [ ${#name} != 16 ] || [ ! -f "$path" ] || [ ! -r "$path" ]; then continue; fi
    if [ "$(wc -c <"$path")" -ge "$MAX_KEY_BYTES" ] || [ "$count" = "$MAX_KEY_FILES" ]; then continue; fi
    taken="$taken$name "
    count=$((count + 1))
    tr -d '\000\r' <"$path" | NAME=$name awk '
      /^-----BEGIN / { inside = $0 == "-----BEGIN PGP PUBLIC KEY BLOCK-----" }
      inside && length($0) <= 256 && ++lines <= 1100 { print "key-line " ENVIRON["NAME"] " " $0 }
      /^-----END / { inside = 0 }'
  done
}

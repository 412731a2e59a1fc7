# ---------------------------------------------------------------------------------------------------- repositories

# The vendor's repository files, section by section: what the mirror has of these ids comes from there, what it has not is
# switched off; lines of other options stay as they are. No word of the network stands in what is written but the ids, the
# origin is the operator's. Every option fits on one line, which yum 3.4.3 and dnf read alike.

# A repository whose packages the vendor signs needs the vendor's key: the one that is on this box, where there is one. Else
# the bundle's, but from a stick alone, where its digest was signed: managers take any key of a repository for its metadata,
# too, so that whoever stands on the network could bring one and be believed from then on.
take_repository_keys() {
  rewrite_repositories
  sort -u "$SCRATCH/needed" >"$SCRATCH/ids"
  while IFS= read -r id; do
    case $origin in
    file:*) ;;
    *)
      say "packages of $id are signed by a key that this box does not have: gpgcheck=0, as the site key vouches for each of them"
      continue
      ;;
    esac
    take "$own_files/keys/$id.asc" "keys/$id.asc" "$MAX_KEY_BYTES" || cannot_fetch "keys/$id.asc"
    without_armor <"$own_files/keys/$id.asc" >/dev/null 2>&1 || fail 3 "$origin/keys/$id.asc: is no OpenPGP key; nothing was changed"
    say "packages of $id are signed by a key that came with the bundle: $(without_armor <"$own_files/keys/$id.asc" | sha256 | words_of)"
  done <"$SCRATCH/ids"
}

assert_repositories() {
  change_file "$SITE_KEY" 0644 0:0 <"$own_files/site.asc"
  for key in "$own_files"/keys/*.asc; do
    id=${key##*/}
    [ ! -f "$key" ] || change_file "$SITE_KEY-${id%.asc}" 0644 0:0 <"$key"
  done
  rewrite_repositories
  while IFS= read -r path; do
    change_file "$path" <"$SCRATCH/rewritten$path"
  done <"$SCRATCH/vendor-files"
  if [ -s "$SCRATCH/rewritten/own" ]; then change_file "/etc/yum.repos.d/gapferry-$group.repo" 0644 0:0 <"$SCRATCH/rewritten/own"; fi
  while IFS= read -r path; do
    if [ ! -s "$SCRATCH/rewritten/own" ] || [ "$path" != "/etc/yum.repos.d/gapferry-$group.repo" ]; then remove_file "$path"; fi
  done <"$SCRATCH/own-files"
}

# rewritten/NAME of each file, rewritten/own for ids of no other file, and the ids whose keys are needed. Files called
# gapferry-*.repo were put there by hand, with ids that the vendor's files have, too.
rewrite_repositories() {
  rm -rf "$SCRATCH/rewritten" && mkdir "$SCRATCH/rewritten"
  : >"$SCRATCH/needed"
  : >"$SCRATCH/seen"
  repository_files | grep '/gapferry-[^/]*\.repo$' >"$SCRATCH/own-files"
  repository_files | grep -v '/gapferry-[^/]*\.repo$' >"$SCRATCH/vendor-files"
  while IFS= read -r path; do
    mkdir -p "$SCRATCH/rewritten${path%/*}" # folders may hold files of one name
    rewrite_sections <"$ROOT$path" >"$SCRATCH/rewritten$path"
  done <"$SCRATCH/vendor-files"
  printf '%s\n' "$repositories" | awk -v seen="$SCRATCH/seen" '
    BEGIN { while ((getline line < seen) > 0) known[line] = 1 }
    $1 != "" && !($1 in known) { print "[" $1 "]\nname=" $1 "\n" }' >"$SCRATCH/missing"
  [ ! -s "$SCRATCH/missing" ] || rewrite_sections <"$SCRATCH/missing" >"$SCRATCH/rewritten/own"
}

rewrite_sections() {
  ORIGIN=$origin REPOSITORIES=$repositories KEY=$SITE_KEY MARK=$MARK BOX_ROOT=$ROOT OWN_KEYS=$own_files/keys SCRATCH=$SCRATCH awk '
    BEGIN {
      lines = split(ENVIRON["REPOSITORIES"], list, "\n")
      for (i = 1; i <= lines; i++) if (split(list[i], part, " ") == 2) carried[part[1]] = part[2]
      ours = " baseurl mirrorlist metalink enabled gpgcheck repo_gpgcheck gpgkey gpgcakey metadata_expire skip_if_unavailable deltarpm "
      mark = ENVIRON["MARK"] " updates come from the mirror; gapferry-box uninstall gives this file back"
    }
    function trim(text) { gsub(/^[ \t\r\n\f\v]+|[ \t\r\n\f\v]+$/, "", text); return text }
    function add(text) { out = out text "\n" }
    # a later line of the same option counts, as in both managers
    function take(text) { if (option == "baseurl" || option == "gpgkey") value[option] = value[option] " " text; else if (option != "") value[option] = text }
    function is_off(text) { text = tolower(text); return text == "0" || text == "no" || text == "false" || text == "off" }
    function is_local(   i, count, url) {
      if (value["mirrorlist"] != "" || value["metalink"] != "") return 0
      count = split(value["baseurl"], url, /[ \t,]+/)
      for (i = 1; i <= count; i++) if (url[i] != "" && url[i] !~ /^file:/) return 0
      return value["baseurl"] ~ /[^ ]/
    }
    function is_there(path,   line, got) { got = (getline line < path); close(path); return got >= 0 }
    function keys(   i, count, url, list) {
      if (carried[id] == "unchecked") return ""
      count = split(value["gpgkey"], url, /[ \t,]+/)
      for (i = 1; i <= count; i++) {
        if (url[i] ~ /^file:\/\/\// && url[i] != "file://" ENVIRON["KEY"] && url[i] !~ /[$]/ && is_there(ENVIRON["BOX_ROOT"] substr(url[i], 8))) list = list " " url[i]
      }
      if (list == "" || list == " file://" ENVIRON["KEY"] "-" id) {
        print id >> (ENVIRON["SCRATCH"] "/needed")
        if (!is_there(ENVIRON["OWN_KEYS"] "/" id ".asc")) return ""
        list = " file://" ENVIRON["KEY"] "-" id
      }
      return list
    }
    function flush(   i, list) {
      if (head == "") return
      print id >> (ENVIRON["SCRATCH"] "/seen")
      if (id in carried) {
        changed = 1
        list = keys()
        add(head)
        add("baseurl=" ENVIRON["ORIGIN"] "/yum/" id "/")
        add("enabled=1")
        add("gpgcheck=" (list != "" ? 1 : 0))
        add("repo_gpgcheck=1")
        add("gpgkey=file://" ENVIRON["KEY"] list)
        add("metadata_expire=60")
        add("skip_if_unavailable=0")
        add("deltarpm=0")
        for (i = 1; i <= count; i++) if (!dropped[i]) add(line[i])
      } else if (id == "main" || is_off(value["enabled"]) || is_local()) {
        add(head)
        for (i = 1; i <= count; i++) add(line[i])
      } else {
        changed = 1
        add(head)
        add("enabled=0")
        for (i = 1; i <= count; i++) if (option_of[i] != "enabled") add(line[i])
      }
    }
    NR == 1 && $0 == mark { changed = 1; next }
    /^\[[^]]+\]/ {
      flush()
      head = $0
      id = substr($0, 2, index($0, "]") - 2)
      count = 0
      option = ""
      split("", value)
      next
    }
    head == "" { add($0); next }
    {
      line[++count] = $0
      option_of[count] = ""
      dropped[count] = 0
    }
    trim($0) == "" || /^[#;]/ { next }
    /^[ \t]/ { take(trim($0)) }
    /^[^ \t]/ {
      at = match($0, /[=:]/)
      option = at < 2 ? "" : tolower(trim(substr($0, 1, at - 1)))
      if (option == "baseurl" || option == "gpgkey") value[option] = ""
      take(trim(substr($0, at + 1)))
    }
    { option_of[count] = option; dropped[count] = option != "" && index(ours, " " option " ") > 0 }
    END {
      flush()
      if (changed) print mark
      printf "%s", out
    }'
}

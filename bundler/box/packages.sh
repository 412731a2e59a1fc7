# ---------------------------------------------------------------------------------------------------- rpm

# rpm without its shared environment: as root it would make or join lock files of the database (rpm 4.11; the words are
# unknown to later backends, which need none).
rpm_query() {
  set -- --define '__dbi_cdb create cdb private mpool mp_mmapsize=128Mb mp_size=1Mb' "$@"
  if [ -n "$ROOT" ]; then
    database=/var/lib/rpm
    [ -d "$ROOT$database" ] || database=/usr/lib/sysimage/rpm
    set -- --root "$ROOT" --dbpath "$database" "$@"
  fi
  rpm "$@"
}

# The sections relations, packages and rpm-keys from one pass over the database. Relations are numbered, each text once:
# of a thousand packages most require the same few libraries. Of files only those are kept that a package requires.
installed_packages() {
  format='P %{NAME} %|EPOCH?{%{EPOCH}}:{0}| %{VERSION} %{RELEASE} %{ARCH}\n'
  for kind in p:PROVIDE r:REQUIRE o:OBSOLETE c:CONFLICT m:RECOMMEND s:SUPPLEMENT; do
    tag=${kind#?:}
    case $kind in
    [ms]:*) rpm --querytags | grep -qx "${tag}NAME" || continue ;;
    esac
    format="${format}[${kind%:*} %{${tag}FLAGS:depflags} %{${tag}VERSION} %{${tag}NAME}\n]"
  done
  format="${format}[f %{FILENAMES}\n]"
  links=
  for folder in bin sbin lib lib64; do
    [ ! -L "$ROOT/$folder" ] || links="$links $folder"
  done
  {
    problem=$(rpm_query -qa --qf "$format" 2>&1 1>&4)
    printf '= %s %s\n' "$?" "$(printf '%s' "$problem" | head -n 1)"
  } 4>&1 | LINKS=$links awk "$ESCAPE"'
    BEGIN { split("p r o c m s", kinds, " "); count_links = split(ENVIRON["LINKS"], links, " ") }
    function number(text) {
      if (!(text in numbers)) { numbers[text] = ++known; texts[known] = text }
      return numbers[text]
    }
    # Lists of numbers are written as 1-3,7: what one package provides mostly stands in a row.
    function add(id, n) {
      if (last[id] && n == last[id] + 1) { last[id] = n; return }
      close_range(id)
      first[id] = last[id] = n
    }
    function close_range(id) {
      if (!last[id]) return
      lists[id] = lists[id] (lists[id] == "" ? "" : ",") first[id] (last[id] > first[id] ? "-" last[id] : "")
      last[id] = 0
    }
    function finish(   i, kind) {
      if (!open) return
      for (i = 1; i in kinds; i++) {
        kind = kinds[i]
        close_range(kind)
        if (lists[kind] != "") packages[count] = packages[count] " " kind "=" lists[kind]
        lists[kind] = ""
      }
      open = 0
    }
    /^P / {
      finish()
      if ($2 == "gpg-pubkey") { keys[++key_count] = word($4 "-" $5); next }
      packages[++count] = word($2) " " $3 " " word($4) " " word($5) " " word($6)
      open = 1
      next
    }
    /^[procms] / {
      if (!open) next
      kind = substr($0, 1, 1)
      rest = substr($0, 3)
      at = index(rest, " "); sign = substr(rest, 1, at - 1); rest = substr(rest, at + 1)
      at = index(rest, " "); version = substr(rest, 1, at - 1); name = substr(rest, at + 1)
      if (name ~ /^rpmlib\(/) next
      text = word(name) (sign == "" ? "" : " " sign " " word(version))
      n = number(text)
      if (seen[kind, n] == count) next
      seen[kind, n] = count
      add(kind, n)
      next
    }
    /^f \// { if (open) { path = word(substr($0, 3)); owners[path] = owners[path] " " count } next }
    /^f / { next }
    /^= / { ended = 1; status = $2; problem = substr($0, 4 + length($2)); next }
    { strange = $0; exit }
    END {
      finish()
      if (strange != "") bad = "the package database has an entry that is not understood: " strange
      else if (!ended) bad = "the package database was not read to its end"
      else if (status != 0 || problem ~ /^error:/) bad = "the package database cannot be read: " problem
      else if (count == 0) bad = "the package database holds no package"
      if (bad != "") { print "gapferry-box: " escape(bad) > "/dev/stderr"; exit 1 }
      for (n = 1; n <= known; n++) {
        if (substr(texts[n], 1, 1) != "/") continue
        own(n, texts[n])
        for (i = 1; i <= count_links; i++) if (index(texts[n], "/" links[i] "/") == 1) own(n, "/usr" texts[n])
      }
      print "section relations " known + 0
      for (n = 1; n <= known; n++) print texts[n]
      print "section packages " count
      for (n = 1; n <= count; n++) { close_range("f" n); print packages[n] (lists["f" n] == "" ? "" : " f=" lists["f" n]) }
      print "section rpm-keys " key_count + 0
      for (n = 1; n <= key_count; n++) print keys[n]
    }
    function own(n, path,   i, list, m) {
      m = split(owners[path], list, " ")
      for (i = 1; i <= m; i++) {
        if (last["f" list[i]] != n) add("f" list[i], n)
      }
    }' || return 1
}

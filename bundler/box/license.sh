# ---------------------------------------------------------------------------------------------------- licenses

capture() {
  license_options capture "$@"
  license_python capture "$box"
}

enrol() {
  license_options enrol "$@"
  [ -n "$url" ] || fail 2 'enrol: the address of the mirror is missing' 'gapferry-box enrol https://MIRROR:PORT --code CODE'
  if [ -z "$code" ] || [ "$code" = - ]; then
    [ ! -t 0 ] || printf 'code: ' >&2
    IFS= read -r code || fail 2 'enrol: the code is missing' 'gapferry-box enrol https://MIRROR:PORT --code CODE'
  fi
  GAPFERRY_CODE=$code license_python enrol "$url" "$box" && certificate_words &&
    echo 'next: gapferry-box license'
}

key() {
  license_options key "$@"
  license_python key "$box" && certificate_words
}

certificate_words() {
  printf 'certificate: %s\n' "$(openssl x509 -in "$ROOT/etc/gapferry/box.pem" -outform DER | sha256 | words_of)"
}

license() {
  license_options license "$@"
  refuse_while_held
  if [ -n "$file" ]; then
    license_python install "$file" '' "$force"
  else
    license_python fetch '' "$force"
  fi
}

# license_opens FILE: status 0 where what is sealed in it is for the key of this box; says nothing
license_opens() {
  license_python opens "$(absolute "$1")" >/dev/null 2>&1
}

# license_install FILE [SITE]: installs what is sealed in it for the key of this box, and tells FreePBX. Nothing is said or done
# where it is installed already. Status 0; 3 refused, 5 no space, 7 another run is at it, 1 all else; the reason is on stderr
license_install() {
  (refuse_while_held) && license_python install "$(absolute "$1")" "${2:-}" ''
}

# license_keep: for keep. Of a box that is enrolled: ends what was interrupted, and installs what the mirror has that is new.
# One line on stdout for each thing done
license_keep() {
  [ ! -e "$ROOT/etc/gapferry/hold" ] || return 0
  [ -e "$ROOT/etc/gapferry/enrolled" ] || [ -e "$ROOT/etc/gapferry/keys.journal" ] || return 0
  license_python fetch quiet ''
}

# mirror_put NAME FILE: sends it to /boxes/<this box>/NAME of the mirror where the box is enrolled
mirror_put() {
  license_python put "$1" "$(absolute "$2")"
}

# license_options COMMAND ARGUMENT…: ROOT, box, url, code, file, force
license_options() {
  command=$1 ROOT='' box='' url='' code='' file='' force=''
  shift
  while [ $# -gt 0 ]; do
    case $command:$1 in
    *:--root) set_root "${2:-}" && shift 2 ;;
    capture:--box | enrol:--box | key:--box) [ $# -gt 1 ] || fail 2 '--box: a name is missing' && box=$2 && shift 2 ;;
    enrol:--code) [ $# -gt 1 ] || fail 2 '--code: the code is missing' && code=$2 && shift 2 ;;
    license:--file) [ $# -gt 1 ] || fail 2 '--file: a file is missing' && file=$(absolute "$2") && shift 2 ;;
    license:--force) force=yes && shift ;;
    *:-h | *:--help) usage && exit ;;
    enrol:https://*) url=$1 && shift ;;
    *) fail 2 "$command: \"$1\" is not known" ;;
    esac
  done
  [ "$(id -u)" = 0 ] || fail 2 'the keys and licenses of this box are for root alone' "sudo gapferry-box $command"
  box=$(printf '%s' "${box:-$(uname -n)}" | tr ABCDEFGHIJKLMNOPQRSTUVWXYZ abcdefghijklmnopqrstuvwxyz)
}

# license_python MODE ARGUMENT…
license_python() (
  find_manager
  python=$(interpreter)
  have "$python" || fail 4 'there is no python here' 'install python3'
  cd / # python looks for modules where it is started, and anybody may have put some there
  { python_whole && python_mirror && python_enrol && python_here && python_capture && python_afterwards && python_license; } | {
    mode=$1
    shift
    GAPFERRY_TOOL=$TOOL "$python" -E -s -W ignore - "$mode" "$ROOT" "$@"
  }
)

absolute() {
  case $1 in /*) printf '%s\n' "$1" ;; *) printf '%s/%s\n' "$PWD" "$1" ;; esac
}

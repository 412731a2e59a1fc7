#!/bin/sh
# gapferry-box: what a PBXact or FreePBX box tells about itself, and checks, where updates come from a Gapferry mirror.
# One POSIX sh file without dependencies: CentOS 7 (bash 4.2, rpm 4.11, yum 3.4.3) and later, Debian 12.
#
# `inventory` changes nothing: it takes no lock, writes no file and no cache, and starts no part of FreePBX. Whatever it
# cannot read it leaves out, and says so; a package database that cannot be read whole is an error, not a short list.
# Format: manifests/FORMAT.md of Gapferry.

set -u
LC_ALL=C
export LC_ALL
umask 077
PATH=$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
# HOME may still be that of whoever called sudo
PYTHONNOUSERSITE=1
export PYTHONNOUSERSITE

TOOL=0.1.0
WAIT_SECONDS=5
MAX_PLAN_BYTES=4194304
MAX_KEY_FILES=20
MAX_KEY_BYTES=65536
MAX_MODULE_BYTES=4194304
MAX_NAMES=30
NEWLINE='
'
TAB=$(printf '\t')

main() {
  case ${1:-} in
  inventory) shift && inventory "$@" ;;
  parity) shift && parity "$@" ;;
  setup) shift && setup "$@" ;;
  keep) shift && keep "$@" ;;
  hold) shift && hold "$@" ;;
  uninstall) shift && uninstall "$@" ;;
  apply) shift && apply "$@" ;;
  capture) shift && capture "$@" ;;
  enrol) shift && enrol "$@" ;;
  key) shift && key "$@" ;;
  license) shift && license "$@" ;;
  -h | --help | help) usage ;;
  --version) printf '%s\n' "$TOOL" ;;
  '') fail 2 'a command is missing' ;;
  *) fail 2 "there is no command \"$1\"" ;;
  esac
}

usage() {
  cat <<'TEXT'
Usage: gapferry-box COMMAND [OPTIONS]

  inventory          write what this box has to standard output; changes nothing
  parity [ORIGIN]    would an update from the mirror do what was planned? Installs nothing;
                     writes the result to standard output, exit status 1 where it differs
                     (ORIGIN: scheme, host and port; default: as in the repository files)
  setup ORIGIN       let this box update from the mirror at http://HOST:PORT, after its site
                     key was compared with the twelve words of the slip (--fingerprint)
  keep               put back what others overwrote since, and tell the mirror what this box has;
                     a timer does it after setup
  hold [REASON]      let nothing here be changed, until: hold --off
  uninstall          give back every file and setting as it was before setup or apply
  apply DIR          one box and no mirror: take the bundle of the stick at DIR, and update from
                     it (gapferry-box apply --help)

  capture            write this box's license files as an archive to standard output, while it
                     is activated; for `gapferry license add` on the laptop
  enrol MIRROR       make this box known to the mirror that delivers its license
                     (https://HOST:PORT, with the one-time CODE that `gapferry-mirror boxes
                     enrol` shows there)
  key                make a key for licenses where there is no mirror; shows its words
  license            fetch the license from the mirror and install it, or take it from a file

Options:
  --root DIR         look at the system below DIR, as at a mounted disk (default: /)
  --box NAME         parity, setup, enrol, key: what the laptop calls this box (default: its host
                     name)
  --fingerprint 'WORDS'
                     setup: the twelve words that the site key must have
  --dns              setup: change nothing but resolution; the vendor's names lead to the mirror
  --dry-run          setup, keep, uninstall: say every change and do none
  --no-keep          setup: without the timer
  --group NAME       setup: refuse a mirror that serves another group there
  --yes              setup: believe the site key as it comes (labs)
  --code CODE        enrol: the one-time code; without it, or with -, it is read
  --file FILE        license: a license that is sealed for this box's key
  --force            license: also where what is here is newer; uninstall: also where somebody
                     changed a file since
  --help, --version

Examples, as root:
  gapferry-box inventory > box.gfi
  gapferry-box parity > box.parity
  gapferry-box setup http://mirror.hq.lan:8416 --dry-run --fingerprint 'twelve words of the slip'
  gapferry-box capture > box.license.tar
  gapferry-box enrol https://mirror.hq.lan:8490
  gapferry-box license
TEXT
}

# fail STATUS WHAT [NEXT]: exit status 1 failed, 2 wrong use, 4 something is missing
fail() {
  printf 'gapferry-box: %s\n  next: %s\n' "$2" "${3:-gapferry-box --help}" >&2
  exit "$1"
}

say() {
  printf 'gapferry-box: %s\n' "$1" >&2
}

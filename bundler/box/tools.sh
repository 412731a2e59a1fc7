# ---------------------------------------------------------------------------------------------------- tools

have() {
  command -v "$1" >/dev/null 2>&1
}

# within COMMAND…: ended after a few seconds; a box that hangs somewhere still tells the rest
within() {
  waiting "$WAIT_SECONDS" "$@"
}

# waiting SECONDS COMMAND…
waiting() {
  if have timeout; then timeout "$@" </dev/null; else shift && "$@" </dev/null; fi
}

# A python of either kind, or nothing
any_python() {
  for python in python3 python2 python /usr/libexec/platform-python; do
    ! have "$python" || { printf '%s\n' "$python" && break; }
  done
}

# Lines as words: without a space
as_word() {
  sed -e 's/%/%25/g' -e 's/ /%20/g'
}

first_line() {
  head -c 4096 "$1" | head -n 1 | tr -d '\r'
}

# The digest of standard input, 64 hex digits
sha256() {
  if have sha256sum; then sha256sum | cut -c 1-64; else openssl dgst -sha256 | sed 's/.*[= ]//'; fi
}

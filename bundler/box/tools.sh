# ---------------------------------------------------------------------------------------------------- tools

have() {
  command -v "$1" >/dev/null 2>&1
}

# within COMMAND…: ended after a few seconds; a box that hangs somewhere still tells the rest
within() {
  if have timeout; then timeout "$WAIT_SECONDS" "$@" </dev/null; else "$@" </dev/null; fi
}

# Lines as words: without a space
as_word() {
  sed -e 's/%/%25/g' -e 's/ /%20/g'
}

first_line() {
  head -n 1 "$1" | tr -d '\r'
}

# The digest of standard input, 64 hex digits
sha256() {
  if have sha256sum; then sha256sum | cut -c 1-64; else openssl dgst -sha256 | sed 's/.*[= ]//'; fi
}

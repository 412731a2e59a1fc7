# ---------------------------------------------------------------------------------------------------- words

# The words of fingerprints: the first 128 bits of a SHA-256 and 4 bits of checksum, 11 bits a word (BIP-39, English).
word_list() {
  cat <<'WORDS'
@words@
WORDS
}

# words_of: a digest of 64 digits on standard input → twelve words
words_of() {
  half=$(cut -c 1-32)
  check=$(from_hex "$(printf '%s' "$half" | tr abcdef ABCDEF)" | sha256 | cut -c 1)
  word_list | DIGITS=$half$check awk '
    { for (i = 1; i <= NF; i++) word[count++] = $i }
    END {
      for (i = 1; i <= 33; i++) {
        value = value * 16 + index("0123456789abcdef", substr(ENVIRON["DIGITS"], i, 1)) - 1
        bits += 4
        if (bits >= 11) {
          bits -= 11
          for (power = 1; power_bits < bits; power_bits++) power *= 2
          power_bits = 0
          line = line (line == "" ? "" : " ") word[int(value / power)]
          value = value % power
        }
      }
      print line
    }'
}

# spelled_words TEXT: what a person typed as words_of spells it; status 1, with the reason, where it cannot be twelve words
spelled_words() {
  word_list | TYPED=$1 awk '
    { for (i = 1; i <= NF; i++) known[$i] = 1 }
    END {
      text = tolower(substr(ENVIRON["TYPED"], 1, 1000))
      gsub(/[^a-z]+/, " ", text)
      count = split(text, list, " ")
      for (i = 1; i <= count; i++) {
        if (!(list[i] in known)) { print "word " i ", \"" list[i] "\", is not on the list"; exit 1 }
        line = line (line == "" ? "" : " ") list[i]
      }
      if (count != 12) { print "expected 12 words, found " count + 0; exit 1 }
      print line
    }'
}

# Armored OpenPGP public keys and nothing else on standard input → their bytes; status 1 for anything else. Not even a blank
# more is allowed, so that no key stands there that one reader sees and another does not.
without_armor() {
  awk '
    BEGIN { state = "outside" }
    state == "outside" && $0 == "" { next }
    state == "outside" && $0 == "-----BEGIN PGP PUBLIC KEY BLOCK-----" { state = "headers"; keys++; next }
    state == "headers" && $0 == "" { state = "bytes"; next }
    state == "headers" && /^[A-Za-z]+: [ -~]*$/ { next }
    state == "bytes" && /^[A-Za-z0-9+\/]+=?=?$/ && length($0) <= 78 { printf "%s", $0; next }
    (state == "bytes" || state == "sum") && $0 == "-----END PGP PUBLIC KEY BLOCK-----" { state = "outside"; print ""; next }
    state == "bytes" && /^=[A-Za-z0-9+\/]+$/ && length($0) == 5 { state = "sum"; next }
    { bad = 1; exit }
    END { exit bad || !keys || state != "outside" }' >"$SCRATCH/armor" || return 1
  # each key is padded for itself
  while IFS= read -r line; do
    if have base64; then printf '%s\n' "$line" | base64 -d; else printf '%s' "$line" | openssl base64 -d -A; fi || return 1
  done <"$SCRATCH/armor"
}

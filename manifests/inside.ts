/** Which hosts belong to a network without internet, as far as their names tell; nothing is looked up. */

/** Ends of names that nobody on the internet has (RFC 6762, RFC 8375, and customs). */
const INNER_NAME = /^[^.]+$|\.(?:lan|local|localdomain|internal|intranet|intra|corp|home|private|home\.arpa)$/i

/** An address of this network or of no network at all, or a name that only a network of its own has. */
export function isInside(host: string): boolean {
  if (/^(?:localhost|127\..*|::1)$/.test(host)) return true
  if (/^f[cd][0-9a-f]{2}:|^fe80:/i.test(host)) return true
  if (/^[\d.]+$/.test(host)) return /^(?:10\.|192\.168\.|172\.(?:1[6-9]|2\d|3[01])\.|169\.254\.)/.test(host)
  return !host.includes(':') && INNER_NAME.test(host)
}

/** Those that stand in a text, apart from spaces and commas. */
export function words(text: string | undefined): string[] {
  return (text ?? '').split(/[\s,]+/).filter((word) => word !== '')
}

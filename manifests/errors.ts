/**
 * Every failure a person can meet has a code. Codes are API: scripts and tests name them, so a code is never renamed,
 * and each stands in the table below with its exit status (design: 1 failed · 2 usage · 3 refused · 4 incomplete ·
 * 5 no space or budget · 6 network · 7 busy) and, where the mirror can meet it while serving, its HTTP status.
 */
const CODES = {
  // usage and configuration
  USAGE_INVALID: { exit: 2 },
  CONFIG_MISSING: { exit: 2 },
  CONFIG_EXISTS: { exit: 2 },
  CONFIG_INVALID: { exit: 2 },
  CONFIG_KEY_UNKNOWN: { exit: 2 },
  SITE_UNKNOWN: { exit: 2 },
  GROUP_UNKNOWN: { exit: 2 },
  BOX_UNKNOWN: { exit: 2 },
  BOX_UNGROUPED: { exit: 2 },
  BOX_CONFLICT: { exit: 2, http: 409 },
  INTERNAL: { exit: 1, http: 500 },
  // plain values
  DIGEST_INVALID: { exit: 3 },
  PATH_INVALID: { exit: 3, http: 400 },
  TREE_INVALID: { exit: 3 },
  SITE_FACTS_INVALID: { exit: 3 },
  INVENTORY_INVALID: { exit: 3, http: 400 },
  INVENTORY_OLDER: { exit: 3, http: 409 },
  INVENTORY_LIMIT: { exit: 5, http: 429 },
  PARITY_INVALID: { exit: 3 },
  PARITY_DIFFERS: { exit: 1 },
  DOCTOR_FOUND: { exit: 1 },
  // archives
  BUNDLE_NOT_FOUND: { exit: 4 },
  BUNDLE_NOT_REGULAR: { exit: 3 },
  BUNDLE_UNREADABLE: { exit: 1 },
  BUNDLE_HEADER_INVALID: { exit: 3 },
  BUNDLE_PADDING: { exit: 3 },
  BUNDLE_ENTRY_TYPE: { exit: 3 },
  BUNDLE_ENTRY_MISSING: { exit: 3 },
  BUNDLE_ENTRY_UNKNOWN: { exit: 3 },
  BUNDLE_ENTRY_DUPLICATE: { exit: 3 },
  BUNDLE_ENTRY_ORDER: { exit: 3 },
  BUNDLE_TOO_LARGE: { exit: 3 },
  BUNDLE_TRUNCATED: { exit: 3 },
  BUNDLE_TRAILING: { exit: 3 },
  BUNDLE_MIXED: { exit: 3 },
  BUNDLE_HINT_INVALID: { exit: 3 },
  BUNDLE_INCOMPLETE: { exit: 4 },
  BLOB_DIGEST_MISMATCH: { exit: 3, http: 503 },
  BLOB_SIZE_MISMATCH: { exit: 3, http: 503 },
  BLOB_MISSING: { exit: 4, http: 503 },
  BLOB_UNREADABLE: { exit: 1, http: 503 },
  MEDIUM_UNUSABLE: { exit: 1 },
  PACK_READ_BACK: { exit: 1 },
  FILE_FAILED: { exit: 1 },
  PART_SIZE_SHORT: { exit: 2 },
  // trust
  ROLE_INVALID: { exit: 3 },
  ROLE_SIGNATURE: { exit: 3 },
  ROLE_ROLLBACK: { exit: 3 },
  ROLE_CONFLICT: { exit: 3 },
  ROLE_EXPIRED: { exit: 3 },
  ROLE_FUTURE: { exit: 3 },
  ROLE_MIXED: { exit: 3 },
  ROLE_DELEGATED: { exit: 3 },
  ROLE_KEYID: { exit: 3 },
  SITE_MISMATCH: { exit: 3 },
  ROOT_INVALID: { exit: 3 },
  ROOT_FINGERPRINT: { exit: 3 },
  ROOT_PINNED: { exit: 2 },
  ROOT_NOT_CONFIRMED: { exit: 2 },
  KEY_MISSING: { exit: 4 },
  KEY_INVALID: { exit: 3 },
  KEY_EXISTS: { exit: 2 },
  KEY_PASSPHRASE_MISSING: { exit: 2 },
  KEY_PASSPHRASE_WRONG: { exit: 2 },
  ROOT_PENDING: { exit: 4 },
  TOKEN_FAILED: { exit: 1 },
  TOKEN_TIMEOUT: { exit: 1 },
  TOKEN_PIN_WRONG: { exit: 2 },
  // upstream
  FETCH_FAILED: { exit: 6 },
  FETCH_STATUS: { exit: 6 },
  FETCH_TIMEOUT: { exit: 6 },
  FETCH_CAPTIVE: { exit: 6 },
  FETCH_TOO_LONG: { exit: 3 },
  FETCH_SIZE_MISMATCH: { exit: 3 },
  FETCH_DIGEST_MISMATCH: { exit: 3 },
  MIRRORLIST_EMPTY: { exit: 6 },
  METALINK_INVALID: { exit: 3 },
  METALINK_MISMATCH: { exit: 3 },
  XML_INVALID: { exit: 3 },
  DECOMPRESS_INVALID: { exit: 3 },
  DECOMPRESS_TOO_LONG: { exit: 3 },
  REPOMD_INVALID: { exit: 3 },
  REPOMD_SIGNATURE: { exit: 3 },
  REPODATA_INVALID: { exit: 3 },
  REPODATA_MIXED: { exit: 3 },
  RPM_INVALID: { exit: 3 },
  RPM_MISMATCH: { exit: 3 },
  PACKAGE_CONFLICT: { exit: 3 },
  MODULE_LIST_INVALID: { exit: 3 },
  MODULE_LIST_SHORT: { exit: 2 },
  MODULE_DIGEST: { exit: 3 },
  MODULE_ARCHIVE: { exit: 3 },
  MODULE_MISMATCH: { exit: 3 },
  MODULE_REQUEST_MISSING: { exit: 2 },
  // plan, compose
  PLAN_UNFETCHED: { exit: 4 },
  PLAN_EMPTY: { exit: 2 },
  INVENTORY_MISMATCH: { exit: 2 },
  MODULE_KEY_MISSING: { exit: 4 },
  MODULE_SIGNATURE: { exit: 3 },
  MODULE_CONFLICT: { exit: 2 },
  MODULE_UNKNOWN: { exit: 2 },
  BUDGET_EXCEEDED: { exit: 5 },
  SPACE_SHORT: { exit: 5 },
  PATH_CONFLICT: { exit: 3 },
  PATH_CHANGED: { exit: 3 },
  // proving a plan
  TOOL_MISSING: { exit: 2 },
  TOOL_FAILED: { exit: 1 },
  PROOF_DIFFERS: { exit: 1 },
  // reports
  REPORT_INVALID: { exit: 3 },
  REPORT_SIGNATURE: { exit: 3 },
  REPORT_IDENTITY: { exit: 3 },
  REPORT_OLDER: { exit: 3 },
  REPORT_WORDS: { exit: 3 },
  REPORT_KEY_MISSING: { exit: 4 },
  REPORT_NOT_CONFIRMED: { exit: 2 },
  CERTIFICATE_INVALID: { exit: 3 },
  DELIVERY_REFUSED: { exit: 3, http: 404 },
  // licenses
  CMS_INVALID: { exit: 3 },
  LICENSE_INVALID: { exit: 3 },
  LICENSE_OLDER: { exit: 3 },
  // stores and the mirror
  STORE_MISSING: { exit: 2 },
  STORE_VERSION: { exit: 2 },
  STORE_BUSY: { exit: 7 },
  STORE_DAMAGED: { exit: 1 },
  STORE_UNREADABLE: { exit: 1 },
  STORE_ROTTEN: { exit: 1 },
  STORE_EXISTS: { exit: 2 },
  BACKUP_INVALID: { exit: 3 },
  BACKUP_DAMAGED: { exit: 3 },
  AUDIT_BROKEN: { exit: 1 },
  RELEASE_NOTHING: { exit: 4, http: 503 },
  RELEASE_INCOMPLETE: { exit: 4 },
  RELEASE_REVOKED: { exit: 3 },
  RELEASE_STAMP: { exit: 3 },
  LISTEN_FAILED: { exit: 7 },
  METHOD_UNKNOWN: { exit: 1, http: 405 },
  HOST_INVALID: { exit: 1, http: 400 },
  HOST_UNKNOWN: { exit: 1, http: 421 },
  PATH_UNKNOWN: { exit: 1, http: 404 },
  CONDITION_FAILED: { exit: 1, http: 412 },
  RANGE_INVALID: { exit: 1, http: 416 },
  BODY_TOO_LONG: { exit: 1, http: 413 },
} as const satisfies Record<string, { exit: number; http?: number }>

/** A stable error code, AREA_WHAT. */
export type ErrorCode = keyof typeof CODES

/** All codes with their statuses, for the manuals' table and its test. */
export const errorCodes: Readonly<Record<ErrorCode, { exit: number; http?: number }>> = CODES

/** Enough for a hundred mirrors that are named with what each of them said. */
const MAX_MESSAGE_LENGTH = 16_384

/** The only error this project throws on purpose.
 *  @param code     stable, see the table
 *  @param message  names the item, what was expected and what was found; lower case, one line
 *  @param options  `hint`: the next command to run; `cause`: the error below
 *  Credentials in URLs and control characters are taken out of the message, and it ends after 16 KB, so that it can be
 *  shown and logged. */
export class GapferryError extends Error {
  readonly code: ErrorCode
  readonly hint: string | undefined

  constructor(code: ErrorCode, message: string, options: { hint?: string; cause?: unknown } = {}) {
    super(redact(shorten(message)), options.cause === undefined ? undefined : { cause: options.cause })
    this.name = 'GapferryError'
    this.code = code
    this.hint = options.hint === undefined ? undefined : redact(options.hint)
  }
}

/** True when `error` is a GapferryError, with one of `codes` where any are given. */
export function isGapferryError(error: unknown, ...codes: ErrorCode[]): error is GapferryError {
  return error instanceof GapferryError && (codes.length === 0 || codes.includes(error.code))
}

/** The exit status for any thrown value; 1 for what is not a GapferryError. */
export function exitStatus(error: unknown): number {
  return error instanceof GapferryError ? CODES[error.code].exit : 1
}

/** The HTTP status for any thrown value; 500 where the table has none. */
export function httpStatus(error: unknown): number {
  if (!(error instanceof GapferryError)) return 500
  const row: { exit: number; http?: number } = CODES[error.code]
  return row.http ?? 500
}

/** A hostile name may have megabytes, and is not worth reading to its end. */
function shorten(message: string): string {
  return message.length > MAX_MESSAGE_LENGTH ? `${message.slice(0, MAX_MESSAGE_LENGTH)}…` : message
}

/** What moves the cursor, ends a line, or turns and hides the text around it: control and format characters. */
export const TRICKS = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu

/** `text` without `user:password@` in URLs, and with what a hostile name could play tricks with as `\xNN` or `\u{NNNN}`. */
export function redact(text: string): string {
  return text.replace(/\b([a-z][a-z0-9+.-]{0,30}:\/\/)[^\s/]+@/gi, '$1***@').replace(TRICKS, (c) => {
    const hex = c.codePointAt(0)!.toString(16).padStart(2, '0')
    return hex.length === 2 ? `\\x${hex}` : `\\u{${hex}}`
  })
}

/**
 * A backup: one file with the state, the whole database, the settings and blobs. Its first line is the SHA-256 of the
 * second, the second lists every file that follows with size and SHA-256, so one digest stands for all of it. Written under
 * a temporary name, synced, then renamed. Format: FORMAT.md#backups.
 */
import { createHash } from 'node:crypto'
import { closeSync, constants, existsSync, fstatSync, fsyncSync, openSync, readSync, renameSync, rmSync } from 'node:fs'
import { dirname } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import * as v from 'valibot'
import { sha256Of, type Sha256 } from '../manifests/digest.ts'
import { strictObject } from '../manifests/document.ts'
import { GapferryError, isGapferryError } from '../manifests/errors.ts'
import { noticeShortSpace, syncFolder, systemCode, writeAll } from './durable.ts'

const FORMAT = 3
const BUFFER_BYTES = 1024 * 1024
const DIGEST_LINE_BYTES = 65
/** 20,000 blobs of each of 50 bundles are less. */
const MAX_LIST_BYTES = 128 * 1024 * 1024
const MAX_FILES = 1_000_000

const Count = v.pipe(v.number(), v.safeInteger(), v.minValue(0))
const BackupHead = strictObject({
  _type: v.literal('gapferry-backup'),
  format: v.picklist([1, 2, FORMAT]),
  site: v.pipe(v.string(), v.maxLength(64)),
  createdAt: v.pipe(v.string(), v.maxLength(32)),
  bundle: v.nullable(Count),
  files: v.pipe(
    v.array(
      strictObject({
        name: v.pipe(
          v.string(),
          v.regex(
            /^(?:state\.json|catalog\.db|mirror\.yaml|identity\.key|mirror-identity\.json|keys\.sealed|blobs\/[0-9a-f]{64})$/,
          ),
        ),
        bytes: Count,
        sha256: v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/)),
      }),
    ),
    v.maxLength(MAX_FILES),
  ),
})

/** What a backup says of itself. */
export type BackupHead = v.InferInput<typeof BackupHead>

/** One file of a backup to be written. */
export interface BackupSource {
  name: string
  bytes: number
  sha256: Sha256
  /** its bytes, or the file that has them */
  from: Buffer | string
}

/** Takes the bytes of one file of a backup; `chunk` is only valid during the call. */
export interface BackupConsumer {
  write(chunk: Uint8Array): void
}

/** @param to  where nothing stands yet
 *  @returns the backup's digest, its first line
 *  @throws USAGE_INVALID when something stands there; SPACE_SHORT; STORE_ROTTEN when a file is not what its digest says any
 *          more; the signal's reason. Nothing is left at `to` then. */
export async function writeBackup(
  to: string,
  { files, ...about }: Omit<BackupHead, '_type' | 'format' | 'files'> & { files: BackupSource[] },
  signal?: AbortSignal,
): Promise<Sha256> {
  if (existsSync(to)) {
    throw new GapferryError('USAGE_INVALID', `${to} is there already`, { hint: 'name a new file' })
  }
  const listed = files.map(({ name, bytes, sha256 }) => ({ name, bytes, sha256 }))
  const head: BackupHead = { _type: 'gapferry-backup', format: FORMAT, ...about, files: listed }
  const line = Buffer.from(`${JSON.stringify(head)}\n`)
  const temp = `${to}.part`
  const digest = sha256Of(line)
  let fd: number | undefined
  try {
    rmSync(temp, { force: true })
    fd = noticeShortSpace(to, () => openSync(temp, 'wx', 0o600))
    writeAll(fd, Buffer.concat([Buffer.from(`${digest}\n`), line]), to)
    for (const file of files) await copyInto(fd, file, to, signal)
    const whole = fd
    noticeShortSpace(to, () => fsyncSync(whole))
    renameSync(temp, to)
    syncFolder(dirname(to))
    return digest
  } catch (error) {
    throw isGapferryError(error) || systemCode(error) === '' ? error : unwritable(to, error)
  } finally {
    if (fd !== undefined) closeSync(fd)
    rmSync(temp, { force: true })
  }
}

/** Reads a backup from front to end; every byte that `onFile` gets may still turn out wrong until this resolves.
 *  @param onHead  before the first file
 *  @param onFile  in the order of the list; undefined where the bytes are not needed (they are checked all the same)
 *  @throws BACKUP_INVALID, BACKUP_DAMAGED, USAGE_INVALID where there is no such file; what the callbacks throw */
export async function readBackup(
  file: string,
  reader: {
    onHead?: (head: BackupHead) => void
    onFile: (file: BackupHead['files'][number]) => BackupConsumer | undefined
  },
  signal?: AbortSignal,
): Promise<BackupHead> {
  const fd = openBackup(file)
  try {
    const { head, at } = readHead(fd, file)
    reader.onHead?.(head)
    const buffer = Buffer.allocUnsafeSlow(BUFFER_BYTES)
    let position = at
    for (const one of head.files) {
      const consumer = reader.onFile(one)
      const hash = createHash('sha256')
      for (let done = 0; done < one.bytes;) {
        signal?.throwIfAborted()
        const count = readSync(fd, buffer, 0, Math.min(buffer.length, one.bytes - done), position + done)
        if (count === 0) throw damaged(file, `${one.name} is cut short`)
        const chunk = buffer.subarray(0, count)
        hash.update(chunk)
        consumer?.write(chunk)
        done += count
        await setImmediate()
      }
      if (hash.digest('hex') !== one.sha256) throw damaged(file, `${one.name} is not what its digest says`)
      position += one.bytes
    }
    return head
  } finally {
    closeSync(fd)
  }
}

function openBackup(file: string): number {
  let fd: number
  try {
    fd = openSync(file, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  } catch (cause) {
    throw new GapferryError('USAGE_INVALID', `${file}: ${(cause as Error).message}`, { cause })
  }
  if (fstatSync(fd).isFile()) return fd
  closeSync(fd)
  throw invalid(file, 'is no plain file')
}

function readHead(fd: number, file: string): { head: BackupHead; at: number } {
  const { size } = fstatSync(fd)
  const first = readExactly(fd, 0, Math.min(size, DIGEST_LINE_BYTES)).toString('latin1')
  const start = readExactly(fd, DIGEST_LINE_BYTES, Math.min(Math.max(0, size - DIGEST_LINE_BYTES), 32)).toString(
    'latin1',
  )
  if (!/^[0-9a-f]{64}\n$/.test(first) || !start.startsWith('{"_type":"gapferry-backup",')) {
    throw invalid(file, 'is no backup of gapferry-mirror')
  }
  const line = readLine(fd, DIGEST_LINE_BYTES, size)
  if (line === undefined || sha256Of(line) !== first.trimEnd())
    throw damaged(file, 'its list is not what its digest says')
  const head = parseJson(line)
  if (!v.is(BackupHead, head)) throw invalid(file, 'is of a version that is not known here')
  if (new Set(head.files.map(({ name }) => name)).size < head.files.length) throw damaged(file, 'names a file twice')
  const at = DIGEST_LINE_BYTES + line.length
  const expected = head.files.reduce((total, { bytes }) => total + bytes, at)
  if (expected !== size) throw damaged(file, `expected ${expected} bytes, found ${size}`)
  return { head, at }
}

function parseJson(line: Buffer): unknown {
  try {
    return JSON.parse(line.toString('utf8'))
  } catch {
    return undefined
  }
}

/** The line from `from` on, with its end; undefined where none ends within the limit. */
function readLine(fd: number, from: number, size: number): Buffer | undefined {
  const pieces: Buffer[] = []
  for (let at = from; at < size && at - from < MAX_LIST_BYTES;) {
    const piece = readExactly(fd, at, Math.min(BUFFER_BYTES, size - at))
    const end = piece.indexOf(10)
    pieces.push(end === -1 ? piece : piece.subarray(0, end + 1))
    if (end !== -1) return Buffer.concat(pieces)
    at += piece.length
  }
  return undefined
}

/** Fewer bytes where the file ends. */
function readExactly(fd: number, position: number, length: number): Buffer {
  const buffer = Buffer.alloc(length)
  let done = 0
  while (done < length) {
    const count = readSync(fd, buffer, done, length - done, position + done)
    if (count === 0) break
    done += count
  }
  return buffer.subarray(0, done)
}

async function copyInto(fd: number, source: BackupSource, to: string, signal?: AbortSignal): Promise<void> {
  if (typeof source.from !== 'string') return writeAll(fd, source.from, to)
  const input = openSync(source.from, constants.O_RDONLY | constants.O_NOFOLLOW)
  try {
    const buffer = Buffer.allocUnsafeSlow(BUFFER_BYTES)
    const hash = createHash('sha256')
    let done = 0
    for (;;) {
      signal?.throwIfAborted()
      const count = readSync(input, buffer, 0, buffer.length, done)
      if (count === 0) break
      hash.update(buffer.subarray(0, count))
      writeAll(fd, buffer.subarray(0, count), to)
      done += count
      await setImmediate()
    }
    if (done === source.bytes && hash.digest('hex') === source.sha256) return
    throw new GapferryError('STORE_ROTTEN', `${source.name} in the store is not as it was signed`, {
      hint: 'gapferry-mirror verify',
    })
  } finally {
    closeSync(input)
  }
}

function unwritable(to: string, cause: unknown): GapferryError {
  return new GapferryError('MEDIUM_UNUSABLE', `${to}: the backup cannot be written: ${(cause as Error).message}`, {
    hint: 'name a file in a folder that this user may write to',
    cause,
  })
}

function invalid(file: string, why: string): GapferryError {
  return new GapferryError('BACKUP_INVALID', `${file} ${why}`, {
    hint: 'name a file that gapferry-mirror backup wrote',
  })
}

function damaged(file: string, why: string): GapferryError {
  return new GapferryError('BACKUP_DAMAGED', `${file}: ${why}`, { hint: 'use another backup' })
}

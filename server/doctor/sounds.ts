/** The sound packages: a request that fails makes a box set MODULE_REPO back to the internet. */
import { plural } from '../../manifests/console.ts'
import { GapferryError, isGapferryError } from '../../manifests/errors.ts'
import {
  MAX_SOUND_LIST_BYTES,
  parseSoundFeed,
  soundFile,
  soundLicense,
  type SoundPackage,
} from '../../manifests/sound-feed.ts'
import { compareModuleVersions } from '../../manifests/module-version.ts'
import type { TreePath } from '../../manifests/path.ts'
import { MAX_BLOB_BYTES } from '../../manifests/tree.ts'
import type { Reply } from './ask.ts'
import { listForm } from './form.ts'
import { ask, statusText, type ModuleArgs } from './modules.ts'
import type { Sheet } from './sheet.ts'

const CHECK = 'sounds'
const RESET = 'its sounds module sets MODULE_REPO back to the vendor’s address on the internet'
const REMEDY = 'gapferry-mirror verify; let no proxy before the mirror answer with an error'
/** More packages than that no box has. */
const MAX_PACKAGES = 200
/** Asked for where no such file can be: an error here would do the same harm. */
const NOWHERE = 'sounds/module-doctor-xx-license.txt'

export async function checkSounds(args: ModuleArgs, major: number): Promise<void> {
  const { sheet } = args
  const packages = await checkSoundList(args, major)
  await checkSoundFile(args, NOWHERE)
  for (const one of packages) {
    await checkSoundFile(args, soundLicense(one))
    if (args.tree.entries.has(soundFile(one))) await checkSoundFile(args, soundFile(one))
    else checkUncarried(args, one)
  }
  if (sheet.isClean(CHECK))
    sheet.passed(
      CHECK,
      `sounds-${major}.0.xml has ${plural(packages.length, 'package')}; no path below /sounds/ ends in an error`,
    )
}

/** A listed package without its file is answered with an empty one, which is well as long as nobody asks for it. */
function checkUncarried({ sheet, box }: ModuleArgs, one: SoundPackage): void {
  const has = box?.freepbx?.sounds.find((other) => NAMES.every((name) => other[name] === one[name]))
  if (has === undefined || compareModuleVersions(has.version, one.version) >= 0) return
  sheet.found(CHECK, {
    asked: `POST /${soundFile(one)}`,
    text: `it is listed and not carried, and ${box!.box} has ${has.version}`,
    effect: 'it unpacks an empty file, and has no sounds of that language any more',
    remedy: `on the laptop: gapferry inventory add of ${box!.box}, gapferry bundle; here: gapferry-mirror import --release STICK`,
  })
}

const NAMES = ['type', 'module', 'language', 'format'] as const

async function checkSoundList({ sheet, client, box }: ModuleArgs, major: number): Promise<SoundPackage[]> {
  const path = `/sounds-${major}.0.xml`
  const asked = `POST ${path}`
  const form = `${listForm(box?.freepbx)}&soundlangver=2&canredirect=1`
  const answer = await ask(() => client.post(path, { form, maxBytes: MAX_SOUND_LIST_BYTES }))
  const body = answer instanceof GapferryError || listFault(answer) !== undefined ? undefined : answer.body
  if (body === undefined) {
    const text = answer instanceof GapferryError ? answer.message : listFault(answer)!
    sheet.found(CHECK, { asked, text, effect: RESET, remedy: REMEDY })
    return []
  }
  const packages = parsed(sheet, asked, body)
  if (packages.length !== 1) return packages.slice(0, MAX_PACKAGES)
  const effect = 'it reads a single one as a list of its fields, and fails'
  sheet.found(CHECK, {
    asked,
    text: 'it has 1 package, and needs none or two',
    effect,
    remedy: 'on the laptop: gapferry bundle; here: gapferry-mirror import --release STICK',
  })
  return packages
}

function listFault(answer: Reply): string | undefined {
  if (answer.status !== 200) return statusText(answer)
  return answer.body.length === 0 ? 'the answer is empty' : undefined
}

function parsed(sheet: Sheet, asked: string, body: Buffer): SoundPackage[] {
  try {
    return parseSoundFeed(body, 'the list').packages
  } catch (error) {
    if (!isGapferryError(error)) throw error
    const effect = 'it shows no sound packages'
    sheet.found(CHECK, { asked, text: error.message, effect, remedy: REMEDY })
    return []
  }
}

async function checkSoundFile({ sheet, client, tree }: ModuleArgs, path: string): Promise<void> {
  const maxBytes = tree.entries.get(path as TreePath)?.bytes ?? MAX_BLOB_BYTES
  const answer = await ask(() => client.payload(`/${path}`, { form: '', maxBytes }))
  const text = answer instanceof GapferryError ? answer.message : answer.status === 200 ? undefined : statusText(answer)
  if (text !== undefined) sheet.found(CHECK, { asked: `POST /${path}`, text, effect: RESET, remedy: REMEDY })
}

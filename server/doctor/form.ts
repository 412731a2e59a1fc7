/** What a box posts when it asks for modules. Without the ids of a box: the mirror keeps those that it hears. */
import type { FreepbxFacts } from '../../manifests/inventory.ts'

/** What a box calls the states of its modules. */
const STATES: Record<string, string> = { enabled: '2', disabled: '1' }
/** What would make a person out of the question. */
const PRIVATE = new Set(['deploymentid', 'installid', 'machineid', 'extraid'])

/** The form of a module list request, in PHP's spelling.
 *  @param facts  of the box that is played; a fresh one where none is given
 *  Rule: framework 15 to 17, modulefunctions.class.php, add_options */
export function listForm(facts: FreepbxFacts | undefined): string {
  const fields: [string, string][] = [['firstinstall', 'yes']]
  for (const { name, version, state, license } of facts?.modules ?? []) {
    const about = { version, status: STATES[state] ?? '0', rawname: name, license }
    for (const [key, value] of Object.entries(about)) fields.push([`modules[${name}][${key}]`, value])
  }
  for (const [key, value] of facts?.profile ?? []) if (!PRIVATE.has(key)) fields.push([key, value])
  if (facts?.framework !== undefined) fields.push(['pbxver', facts.framework])
  return encodeForm([...fields, ['sv', '2']])
}

/** The form that asks for one version of one module. Rule: the same, getModuleDownloadByModuleNameAndVersion. */
export function tagForm(facts: FreepbxFacts | undefined, rawname: string, tag: string): string {
  const told = (key: string): string => facts?.profile.get(key) ?? ''
  return encodeForm([
    ['deploymentid', '0'],
    ['phpver', told('phpver')],
    ['rawname', rawname],
    ['tag', tag],
    ['framework', tag.split('.').slice(0, 2).join('.')],
    ['distro', told('distro')],
    ['distrover', told('distrover')],
    ['pbxver', facts?.framework ?? ''],
    ['sv', '2'],
  ])
}

function encodeForm(fields: readonly (readonly [string, string])[]): string {
  return new URLSearchParams(fields.map(([key, value]) => [key, value] as [string, string])).toString()
}

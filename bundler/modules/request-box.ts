import type { ModuleBox } from '../resolve-modules.ts'

/** States by the number that a request has. Rule: `status` of a module there, protocols of FreePBX 15 to 17. */
const STATES: Readonly<Record<string, string>> = {
  '0': 'not-installed',
  '1': 'disabled',
  '2': 'enabled',
  '3': 'needs-upgrade',
  '-1': 'broken',
}

/** What a captured request tells of the box that sent it, which goes by the name `request`.
 *  @param form  urlencoded, as it was sent */
export function boxOfRequest(form: string): ModuleBox {
  const fields = new URLSearchParams(form)
  const modules: ModuleBox['modules'] = []
  for (const [key, version] of fields) {
    const name = /^modules\[([^\]]+)\]\[version\]$/.exec(key)?.[1]
    if (name === undefined || version === '') continue
    const status = fields.get(`modules[${name}][status]`) ?? ''
    modules.push({ name, version, state: STATES[status] ?? 'unknown' })
  }
  const [framework, phpver] = [fields.get('pbxver'), fields.get('phpver')]
  return {
    name: 'request',
    ...(framework ? { framework } : {}),
    ...(phpver ? { phpver } : {}),
    modules,
    edge: false,
  }
}

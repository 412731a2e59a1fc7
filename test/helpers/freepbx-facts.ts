import { noFreepbxFacts, type FreepbxFacts } from '../../manifests/inventory-freepbx.ts'

/** What an inventory says of a box's FreePBX.
 *  @param modules  name → version (enabled, GPLv3+), or version, state and license */
export function freepbxFacts({
  framework = '16.0.40.11',
  profile = {},
  modules = {},
}: {
  framework?: string
  profile?: Record<string, string>
  modules?: Record<string, string | [version: string, state: string, license: string]>
} = {}): FreepbxFacts {
  return {
    ...noFreepbxFacts(),
    framework,
    profile: new Map(Object.entries(profile)),
    modules: Object.entries(modules).map(([name, told]) => {
      const [version, state, license] = typeof told === 'string' ? [told, 'enabled', 'GPLv3+'] : told
      return { name, version, state, license }
    }),
  }
}

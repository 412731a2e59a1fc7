/** Two trees with the same content differ in nothing but their repositories' stamped lists. */
import { parseTreePath } from '../manifests/path.ts'
import type { Tree } from '../manifests/tree.ts'

/** Whether boxes find the same in both. */
export function isSameContent(a: Tree, b: Tree): boolean {
  const stamped = new Set([...stampedPaths(a), ...stampedPaths(b)])
  const rest = (tree: Tree) => [...tree.entries].filter(([path]) => !stamped.has(path))
  const entries = rest(a)
  return (
    entries.length === rest(b).length && entries.every(([path, { sha256 }]) => b.entries.get(path)?.sha256 === sha256)
  )
}

function stampedPaths({ stamps }: Tree): string[] {
  return [...stamps.keys()].flatMap((id) => {
    const path = parseTreePath(`yum/${id}/repodata/repomd.xml`, `yum ${id}`)
    return [path, `${path}.asc`]
  })
}

/** Who runs a program, for the audit trail. */
import { userInfo } from 'node:os'

/** `name (uid)` of the operating system's user. A user without an entry in passwd, as in a container, has a number only.
 *  @param uid  of the process, where the system has such */
export function whoRuns(uid: number | undefined): string {
  try {
    const { username, uid: own } = userInfo()
    return `${username} (${own})`
  } catch {
    return `? (${uid ?? '?'})`
  }
}

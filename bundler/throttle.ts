/** Shares one rate among all connections. @param bytesPerSecond  of bodies, all connections together
 *  @param nowMs  a clock that never goes back
 *  @returns told of bytes that came: for how long (ms) that connection shall rest */
export function makeThrottle(bytesPerSecond: number, nowMs: () => number): (bytes: number) => number {
  let paidMs = 0
  return (bytes) => {
    const now = nowMs()
    paidMs = Math.max(paidMs, now) + (bytes / bytesPerSecond) * 1000
    return paidMs - now
  }
}

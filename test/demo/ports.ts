/** The ports of the demo on this machine. */
import { once } from 'node:events'
import { createServer } from 'node:net'

/** @throws unless each of them is free on loopback, naming the first that is not */
export async function expectFree(ports: readonly number[]): Promise<void> {
  for (const port of ports) {
    const server = createServer().listen(port, '127.0.0.1')
    try {
      await once(server, 'listening')
    } catch {
      throw new Error(`port ${port} is taken by another program here; end that (another npm start?), then start again`)
    }
    server.close()
    await once(server, 'close')
  }
}

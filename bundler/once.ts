/** Work that several ask for in one run and that is done once: what a dozen sites have in common. */
export class Once {
  readonly #done = new Map<string, Promise<unknown>>()

  /** A failure is remembered like a result, but not where somebody gave up who is no longer asked.
   *  @param key  tells one piece of work from another, and the kind of its result
   *  @param signal  of the work */
  async get<T>(key: string, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    const known = this.#done.get(key) as Promise<T> | undefined
    const found = known ?? work()
    this.#done.set(key, found)
    try {
      return await found
    } catch (error) {
      if (this.#done.get(key) === found && signal.aborted) this.#done.delete(key)
      throw error
    }
  }
}

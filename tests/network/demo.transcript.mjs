// What the demo's commands printed, without what differs from run to run, so that it can be compared.

/** Commands and what they printed, chapter by chapter. */
export class Transcript {
  #names = [] // what is known to differ, and what stands for it
  #lines = []
  #title

  /** `text` (a DID, a port) is shown as `name`. */
  name(text, name) {
    this.#names.push([String(text), name])
    return this
  }

  /** The title of the commands that follow, if any do. */
  chapter(title) {
    this.#title = title
  }

  add(command, printed, exit) {
    if (this.#lines.length) this.#lines.push('')
    if (this.#title) this.#lines.push(`# ${this.#title}`, '')
    this.#title = null
    this.#lines.push(command, printed.trimEnd())
    if (exit !== 0) this.#lines.push(`(exit code ${exit})`)
  }

  text() {
    let text = this.#lines.join('\n')
    for (const [from, to] of this.#names) text = text.replaceAll(from, to)
    return `${plain(text)}\n`
  }
}

/** Without keys, times and hashes: their beginning tells what they are. */
export function plain(text) {
  return text
    .replace(/\x1b\[[0-9;]*m/g, '')
    .replace(/did:peer:2\.[\w.=-]+/g, 'did:peer:2.…')
    .replace(/did:key:z\w+/g, 'did:key:z…')
    .replace(/\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z/g, '2026-01-01T00:00:00Z')
    .replace(/\b\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d)?/g, '2026-01-01 00:00')
    .replace(/\b([0-9a-f]{4} ){7}[0-9a-f]{4}\b/g, '0123 4567 89ab …')
    .replace(/\bbafyrei\w+/g, 'bafyrei…')
    .replace(/\b3[a-z2-7]{12}\b/g, '3…')
}

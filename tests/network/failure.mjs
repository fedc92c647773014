/** An error that a control operation answers with a status of its own. */
export class Failure extends Error {
  constructor(status, message) {
    super(message)
    this.status = status
  }
}

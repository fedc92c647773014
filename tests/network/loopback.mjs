// Ports and addresses: everything here lives on the loopback address.
import net from 'node:net'

export const LOOPBACK = '127.0.0.1'

// Neither the PDS nor the directory package lets its caller choose a listen
// address (they bind every interface), so a listen that names only a port is
// given the loopback address here. Call it before either is started.
export function bindLoopbackOnly() {
  const listen = net.Server.prototype.listen
  net.Server.prototype.listen = function (...args) {
    if (typeof args[0] === 'number' && typeof args[1] !== 'string') args.splice(1, 0, LOOPBACK)
    return listen.apply(this, args)
  }
}

/** Listen on loopback and return the port. */
export function listen(server, port = 0) {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, LOOPBACK, () => {
      server.off('error', reject)
      resolve(server.address().port)
    })
  })
}

// A port that is free now and stays free across a stop and a start: below the
// range from which the system draws ports for outgoing connections, so that no
// client's connection can sit on it when its owner comes back.
export async function freePort() {
  for (let attempt = 0; attempt < 100; attempt++) {
    const port = 20000 + Math.floor(Math.random() * 12000)
    const probe = net.createServer()
    try {
      await listen(probe, port)
    } catch (e) {
      if (e.code === 'EADDRINUSE' || e.code === 'EACCES') continue
      throw e
    }
    await new Promise((done) => probe.close(done))
    return port
  }
  throw new Error('no free port between 20000 and 32000')
}

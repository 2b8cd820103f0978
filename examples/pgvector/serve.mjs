// A PostgreSQL server with pgvector, in memory, on the unix socket that the argument names.
import { PGlite } from '@electric-sql/pglite'
import { vector } from '@electric-sql/pglite-pgvector'
import { PGLiteSocketServer } from '@electric-sql/pglite-socket'

// pglite-socket needs CustomEvent, which Node.js has since version 19.
globalThis.CustomEvent ??= class extends Event {
  constructor(type, init) {
    super(type)
    this.detail = init?.detail
  }
}
const db = new PGlite({ extensions: { vector } })
// A cancel request takes a connection of its own, and PGlite keeps it until the client closes it.
await new PGLiteSocketServer({ db, path: process.argv[1], maxConnections: 100 }).start()
console.error('ready to accept connections')

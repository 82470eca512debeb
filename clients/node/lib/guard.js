'use strict'

// A read behind its wait in one message (node-postgres): Parse, Bind and Execute
// of the guard, and those of the statement behind it, with one Sync.  They are
// one transaction, READ ONLY, in which the statement has a snapshot of its own,
// taken when the wait is over.  If the guard fails the statement is not run.

const READ_ONLY = "set_config('transaction_read_only', 'on', true)"
const GUARDED = Symbol('ryw.guarded')

/** What stands ahead of the statement. */
function guardOf (text, timeout, audit) {
  if (!text) return { text: `SELECT ${READ_ONLY}`, values: [] }
  if (audit) return { text: `SELECT reached, ${READ_ONLY} FROM ryw_status($1)`, values: [text] }
  return { text: `SELECT ryw_require($1, $2), ${READ_ONLY}`, values: [text, String(timeout)] }
}

/** The class for this copy of the driver. */
function guardedClass (Query) {
  if (Object.hasOwn(Query, GUARDED)) return Query[GUARDED]
  return (Query[GUARDED] = class GuardedQuery extends Query {
    constructor (guard, config, values, callback) {
      super(config, values)
      Object.assign(this, { queryMode: 'extended', guard, inGuard: true, callback })
    }

    prepare (connection) {
      connection.parse({ text: this.guard.text, name: '', types: undefined })
      connection.bind({ values: this.guard.values })
      connection.execute({ portal: '', rows: 0 })
      connection.flush()
      super.prepare(connection)
      // The driver would take the guard's ParseComplete for that of the named statement.
      this.held = this.name
      this.name = undefined
    }

    handleDataRow (msg) {
      if (this.inGuard) this.guardRow = msg.fields.map(String)
      else super.handleDataRow(msg)
    }

    handleCommandComplete (msg, connection) {
      if (!this.inGuard) return super.handleCommandComplete(msg, connection)
      this.inGuard = false
      this.name = this.held
      this.guardDone?.()
    }

    handleError (err, connection) {
      if (this.inGuard && this.held) delete connection?.submittedNamedStatements?.[this.held]
      super.handleError(err, connection)
    }
  })
}

/**
 * Runs a guarded statement on a client; within so many milliseconds the guard
 * has answered, or the connection is closed: it hangs.
 */
function runGuarded (client, guard, config, values, patience) {
  const Guarded = guardedClass(client.constructor.Query)
  const object = typeof config === 'string' ? { text: config } : { ...config, callback: undefined }
  return new Promise((resolve, reject) => {
    const query = new Guarded(guard, object, values ?? object.values, (err, result) => {
      clearTimeout(timer)
      err ? reject(Object.assign(err, { inGuard: query.inGuard })) : resolve({ result, guardRow: query.guardRow })
    })
    query.guardDone = () => clearTimeout(timer)
    const timer = setTimeout(() => {
      const err = new Error('ryw: the node did not answer in time, connection terminated')
      client.connection.stream.destroy(err)
      query.callback(err)
    }, patience)
    if (!object.types) query._result._types = client._types
    client.query(query)
  })
}

module.exports = { guardOf, runGuarded }

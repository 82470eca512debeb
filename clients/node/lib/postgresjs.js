'use strict'

// postgres.js.  It shows a ParameterStatus to nobody who could say whose it is
// (onparameter is told for all connections alike), so the token is asked for on
// the same connection, in the same go: before, the statement, behind.

const context = require('./context')
const { bareToken } = require('./capture')
const { codeOf, STALE_PLAN } = require('./errors')
const { guardOf } = require('./guard')
const http = require('./http')
const { Router } = require('./router')

const settled = promise => promise.then(value => ({ value }), error => ({ error }))
const isQuery = value => typeof value?.execute === 'function'

class RywPostgres extends Router {
  constructor (options) {
    super(options)
    for (const node of [this.primary, ...this.replicas]) {
      if (!node.sql) throw new TypeError('ryw: RywPostgres takes instances of postgres.js')
    }
  }

  /** Statements on one connection of the primary: write(sql => sql`UPDATE ...`). */
  async write (fn, { keeper = context.current() } = {}) {
    const reserved = await this.primary.sql.reserve()
    try {
      const { ryw } = await this.primary.capabilities(reserved)
      const token = ryw ? () => reserved.unsafe('SELECT ryw_token()::text AS at').execute() : () => []
      const before = settled(token())
      const query = fn(reserved)
      if (isQuery(query)) query.execute()
      const done = await settled(isQuery(query) ? Promise.all([query, settled(token())]) : Promise.resolve(query).then(
        async value => [value, await settled(token())]))
      const held = (await before).value?.[0]?.at
      const after = done.error ? await settled(token()) : done.value[1]
      const committed = after.value?.[0]?.at
      if (committed && committed !== held) keeper?.add(committed)
      else if (!done.error && keeper) keeper.add(await this.#position(reserved, ryw))
      if (done.error) throw done.error
      return done.value[0]
    } finally {
      reserved.release()
    }
  }

  /** A transaction on the primary. */
  transaction (fn, options) {
    return this.write(async sql => {
      await sql.unsafe('BEGIN')
      try {
        const result = await fn(sql)
        const { command } = await sql.unsafe('COMMIT')
        if (command !== 'COMMIT') throw new Error('ryw: the transaction had failed, and was rolled back')
        return result
      } catch (err) {
        await sql.unsafe('ROLLBACK').catch(() => {})
        throw err
      }
    }, options)
  }

  async #position (sql, ryw) {
    const [{ at }] = await sql.unsafe(ryw
      ? 'SELECT ryw_current_token()::text AS at'
      : 'SELECT pg_current_wal_insert_lsn()::text AS at')
    return ryw ? at : bareToken(at)
  }

  /**
   * READ ONLY on a replica behind the wait, in one go: read(sql => sql`SELECT ...`).
   * fn is called again on another node if the first one does not work out.
   */
  read (fn, options) {
    return this.route(async (node, control) => {
      const sql = await node.checkout(control.patience)
      let hung = false
      try {
        const { guarded, reached } = await this.ahead(node, sql, control)
        const { text, values } = guardOf(guarded && control.text, control.timeout, control.audit)
        const once = async () => {
          const guard = settled(sql.unsafe(text, values).execute())
          const begun = settled(sql.unsafe('BEGIN READ ONLY').execute())
          const query = fn(sql)
          if (isQuery(query)) query.execute()
          const done = settled(Promise.resolve(query))
          const answer = await Promise.race([guard, new Promise(resolve => setTimeout(resolve, control.patience))])
          if (!answer) {
            hung = true
            throw new Error('ryw: the node did not answer in time, connection terminated')
          }
          const [{ value, error }] = [await done, await begun]
          await sql.unsafe(error ? 'ROLLBACK' : 'COMMIT')
          if (answer.error) throw Object.assign(answer.error, { inGuard: true })
          if (error) throw error
          return { value, answer }
        }
        // A prepared statement from before a change of its table, or a DISCARD ALL.
        const { value, answer } = await once().catch(err => STALE_PLAN.test(codeOf(err)) ? once() : Promise.reject(err))
        return { result: value, reached: guarded && control.audit ? answer.value[0].reached : reached }
      } finally {
        // A connection that hangs cannot be closed by itself here: it is left alone.
        if (!hung) sql.release()
      }
    }, options)
  }
}

Object.assign(RywPostgres.prototype, http)

module.exports = { RywPostgres }

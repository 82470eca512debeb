'use strict'

// postgres.js.  It shows a ParameterStatus to nobody who could say whose it is
// (onparameter is told for all connections alike), so the token is asked for on
// the same connection, in the same go: before, the statement, behind.
//
// To write to a reserved connection that has closed ends the process (issue 1208 of
// postgres.js 3.4.9), and nobody can ask whether it has: its own queries tell.

const context = require('./context')
const { codeOf, verdict, STALE_PLAN } = require('./errors')
const { guardOf } = require('./guard')
const { within } = require('./node')
const { positionBy } = require('./plain')
const { Router, finishTransaction } = require('./router')

// fn's query, on its way; what fn throws at once is as good as a query that fails.
const send = value => typeof value?.execute === 'function' ? value.execute() : value
const start = (fn, sql) => { try { return send(fn(sql)) } catch (err) { return Promise.reject(err) } }

// Without parameters, for which the driver would ask first, and hold back what is
// behind.  Tokens are hexadecimal, minus and dot, or the keeper has not taken them.
const inline = ({ text, values }) => text.replace(/\$(\d)/g, (_, n) => `'${values[n - 1]}'`)

/**
 * A reserved connection.  closed: the error that said so, if it has; over: what has to
 * end before it can be given back, if anything.
 */
class Held {
  constructor (reserved) {
    const note = err => { if (verdict(err) === 'connection' && err.severity !== 'ERROR') this.closed ??= err }
    const watched = fn => (...args) => {
      const query = fn(...args)
      // Promise's own then(): a query's would send it.
      if (query instanceof Promise) Promise.prototype.then.call(query, undefined, note)
      return query
    }
    /** What the application is given: the same, watched. */
    this.sql = Object.assign(watched(reserved), reserved, { unsafe: watched(reserved.unsafe), file: watched(reserved.file) })
  }

  /** A statement of ryw's own, on its way. */
  async query (text, values = []) {
    if (this.closed) throw this.closed
    return (this.last = this.sql.unsafe(text, values).execute())
  }

  /** The same for those who send it by execute(). */
  unsafe (...args) { return { execute: () => this.query(...args) } }

  /** What was asked, in time; else the connection is kept until it answers. */
  inTime (promise, over = () => this.last) {
    return promise.catch(err => { if (err.late) this.over = over(); throw err })
  }

  /** lend() gives it back. */
  release () {}
}

// fn on a connection, and that back to its pool: but one that is closed the driver has taken back
// already, and would hand out again.
async function lend (reserved, fn) {
  const held = new Held(reserved)
  try {
    return await fn(held)
  } finally {
    Promise.resolve(held.over).catch(() => {}).then(() => held.closed || reserved.release())
  }
}

class RywPostgres extends Router {
  constructor (options) { super(options, 'sql') }

  /** Statements on one connection of the primary: write(sql => sql`UPDATE ...`). */
  write (fn, options) { return this.#write(held => start(fn, held.sql), options) }

  /** A transaction on the primary. */
  transaction (fn, options) {
    return this.#write(async held => {
      await held.query('BEGIN')
      return finishTransaction(held, () => fn(held.sql))
    }, options)
  }

  async #write (run, { keeper = context.current() } = {}) {
    return lend(await this.primary.sql.reserve(), async held => {
      const { ryw } = await held.inTime(this.primary.capabilities(held))
      const token = async () => ryw ? (await held.query('SELECT ryw_token()::text AS at'))[0].at : null
      const before = token()
      const query = run(held)
      const behind = (query?.execute ? token() : Promise.resolve(query).then(token, token)).catch(() => {})
      const [was, done] = await Promise.allSettled([before, query])
      // Where the connection has closed, what is behind is never settled.
      if (done.status === 'rejected' && held.closed) throw done.reason
      const committed = await behind
      if (committed && committed !== was.value) keeper?.add(committed)
      else if (keeper && done.status === 'fulfilled') keeper.add(await positionBy(text => held.query(text), ryw))
      return query
    })
  }

  /**
   * READ ONLY on a replica behind the wait, in one go: read(sql => sql`SELECT ...`).
   * fn is called again on another node if the first one does not work out.
   */
  read (fn, options) {
    return this.route(async (node, control) => lend(await node.checkout(control.patience), async held => {
      const once = async guarded => {
        const guard = held.query(inline(guardOf(guarded && control.text, control.timeout, control.audit)))
        const begun = held.query('BEGIN READ ONLY')
        const query = start(fn, held.sql)
        // Where the connection has closed behind the guard, the query behind BEGIN is never settled.
        const all = Promise.all([begun, Promise.allSettled([guard, query])]).then(([, both]) => both)
        const rolledBack = all.then(() => held.query('ROLLBACK')).catch(() => {})
        await held.inTime(within(control.patience, guard, () => {}), () => rolledBack)
          .catch(err => Promise.reject(Object.assign(err, { inGuard: true })))
          .finally(() => held.over || held.closed || rolledBack)
        const [row] = await all
        return { value: await query, reached: row.value[0]?.reached }
      }
      const { guarded, reached } = await held.inTime(this.ahead(node, held, control))
      const answer = await once(guarded).catch(err => STALE_PLAN.test(codeOf(err)) ? once(guarded) : Promise.reject(err))
      return { result: answer.value, reached: guarded && control.audit ? answer.reached : reached }
    }), options)
  }
}

Object.assign(RywPostgres.prototype, require('./http'))

module.exports = { RywPostgres }

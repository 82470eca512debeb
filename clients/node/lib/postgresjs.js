'use strict'

// postgres.js.  It shows a ParameterStatus to nobody who could say whose it is
// (onparameter is told for all connections alike), so the token is asked for on
// the same connection, in the same go: before, the statement, behind.

const context = require('./context')
const { codeOf, hasClosed, STALE_PLAN } = require('./errors')
const { guardOf } = require('./guard')
const { within } = require('./node')
const { positionBy } = require('./plain')
const { Router, finishTransaction } = require('./router')

const start = value => typeof value?.execute === 'function' ? value.execute() : value

// Without parameters, for which the driver would ask first, and hold back what is
// behind.  Tokens are hexadecimal, minus and dot, or the keeper has not taken them.
const inline = ({ text, values }) => text.replace(/\$(\d)/g, (_, n) => `'${values[n - 1]}'`)

// fn on a connection, and that back to its pool; but one that is closed the driver has taken back
// already, and would hand out again, and one that hangs cannot be closed here: it is left alone.
function lend (sql, fn) {
  const done = fn()
  done.then(() => sql.release(), err => err?.late || hasClosed(err) || sql.release())
  return done
}

class RywPostgres extends Router {
  constructor (options) { super(options, 'sql') }

  /** Statements on one connection of the primary: write(sql => sql`UPDATE ...`). */
  async write (fn, { keeper = context.current() } = {}) {
    const sql = await this.primary.sql.reserve()
    return lend(sql, async () => {
      const { ryw } = await this.primary.capabilities(sql)
      const token = async () => ryw ? (await sql.unsafe('SELECT ryw_token()::text AS at').execute())[0].at : null
      const before = token()
      const query = start(fn(sql))
      const behind = (query?.execute ? token() : Promise.resolve(query).then(token, err => hasClosed(err) || token()))
        .catch(() => {})
      const [held, done] = await Promise.allSettled([before, query])
      // Where the connection has closed, what is behind is never settled.
      if (done.status === 'rejected' && hasClosed(done.reason)) throw done.reason
      const committed = await behind
      if (committed && committed !== held.value) keeper?.add(committed)
      else if (keeper && done.status === 'fulfilled') keeper.add(await positionBy(text => sql.unsafe(text), ryw))
      return query
    })
  }

  /** A transaction on the primary. */
  transaction (fn, options) {
    return this.write(async sql => {
      await sql.unsafe('BEGIN')
      return finishTransaction({ query: text => sql.unsafe(text), release () {}, hasClosed }, () => fn(sql))
    }, options)
  }

  /**
   * READ ONLY on a replica behind the wait, in one go: read(sql => sql`SELECT ...`).
   * fn is called again on another node if the first one does not work out.
   */
  read (fn, options) {
    return this.route(async (node, control) => {
      const sql = await node.checkout(control.patience)
      let hung = false
      const once = async guarded => {
        const guard = sql.unsafe(inline(guardOf(guarded && control.text, control.timeout, control.audit))).execute()
        const begun = sql.unsafe('BEGIN READ ONLY').execute()
        const query = start(fn(sql))
        // Where the connection has closed behind the guard, the query behind BEGIN is never settled.
        const all = Promise.all([begun, Promise.allSettled([guard, query])]).then(([, both]) => both)
        const rollback = both => both.some(({ reason }) => hasClosed(reason)) || sql.unsafe('ROLLBACK')
        await within(control.patience, guard, () => {}).catch(err => {
          hung = err.late
          throw Object.assign(err, { inGuard: true })
        }).finally(() => hung || all.then(rollback).catch(() => {}))
        const [row] = await all
        return { value: await query, reached: row.value[0]?.reached }
      }
      return lend(sql, async () => {
        const { guarded, reached } = await this.ahead(node, sql, control)
        const answer = await once(guarded).catch(err => STALE_PLAN.test(codeOf(err)) ? once(guarded) : Promise.reject(err))
        return { result: answer.value, reached: guarded && control.audit ? answer.reached : reached }
      })
    }, options)
  }
}

Object.assign(RywPostgres.prototype, require('./http'))

module.exports = { RywPostgres }

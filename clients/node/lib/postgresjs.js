'use strict'

// postgres.js.  It shows a ParameterStatus to nobody who could say whose it is
// (onparameter is told for all connections alike), so the token is asked for on
// the same connection, in the same go: before, the statement, behind.

const context = require('./context')
const { codeOf, verdict, STALE_PLAN } = require('./errors')
const { guardOf } = require('./guard')
const http = require('./http')
const { within } = require('./node')
const { positionBy } = require('./plain')
const { Router, finishTransaction } = require('./router')

const isQuery = value => typeof value?.execute === 'function'

// Without parameters, for which the driver would ask first, and hold back what is
// behind.  Tokens are hexadecimal, minus and dot, or the keeper has not taken them.
const inline = ({ text, values }) => text.replace(/\$(\d)/g, (_, n) => `'${values[n - 1]}'`)

// Back to the pool; but one that is closed the driver has taken back already, and would
// hand out again.
const giveBack = (sql, err) => { if (!err || verdict(err) !== 'connection') sql.release() }

class RywPostgres extends Router {
  constructor (options) { super(options, 'sql') }

  /** Statements on one connection of the primary: write(sql => sql`UPDATE ...`). */
  async write (fn, { keeper = context.current() } = {}) {
    const sql = await this.primary.sql.reserve()
    let failed
    try {
      const { ryw } = await this.primary.capabilities(sql)
      const token = async () => ryw ? (await sql.unsafe('SELECT ryw_token()::text AS at').execute())[0].at : null
      const before = token()
      const query = fn(sql)
      if (isQuery(query)) query.execute()
      const behind = isQuery(query) ? token() : Promise.resolve(query).then(token, token)
      const [held, done, committed] = await Promise.allSettled([before, query, behind])
      if (committed.value && committed.value !== held.value) keeper?.add(committed.value)
      else if (keeper && done.status === 'fulfilled') keeper.add(await positionBy(text => sql.unsafe(text), ryw))
      if (done.status === 'rejected') throw done.reason
      return done.value
    } catch (err) {
      failed = err
      throw err
    } finally {
      giveBack(sql, failed)
    }
  }

  /** A transaction on the primary. */
  transaction (fn, options) {
    return this.write(async sql => {
      await sql.unsafe('BEGIN')
      return finishTransaction({ query: text => sql.unsafe(text), release () {} }, () => fn(sql))
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
      let failed
      const once = async text => {
        const guard = sql.unsafe(text).execute()
        const begun = sql.unsafe('BEGIN READ ONLY').execute()
        const query = fn(sql)
        if (isQuery(query)) query.execute()
        const all = Promise.allSettled([guard, begun, query])
        await within(control.patience, guard, () => {}).catch(err => {
          hung = err.late
          throw Object.assign(err, { inGuard: true })
        }).finally(() => hung || begun.then(() => all).then(() => sql.unsafe('ROLLBACK')).catch(() => {}))
        // Where the connection has closed behind the guard, the query behind BEGIN is never settled.
        await begun
        const [row,, done] = await all
        if (done.status === 'rejected') throw done.reason
        return { value: done.value, reached: row.value[0]?.reached }
      }
      try {
        const { guarded, reached } = await this.ahead(node, sql, control)
        const guard = inline(guardOf(guarded && control.text, control.timeout, control.audit))
        const answer = await once(guard).catch(err => STALE_PLAN.test(codeOf(err)) ? once(guard) : Promise.reject(err))
        return { result: answer.value, reached: guarded && control.audit ? answer.reached : reached }
      } catch (err) {
        failed = err
        throw err
      } finally {
        // A connection that hangs cannot be closed by itself here: it is left alone.
        if (!hung) giveBack(sql, failed)
      }
    }, options)
  }
}

Object.assign(RywPostgres.prototype, http)

module.exports = { RywPostgres }

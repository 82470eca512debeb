'use strict'

// node-postgres: a wrapper over its pools.

const context = require('./context')
const { attach, attachPool } = require('./capture')
const { codeOf, STALE_PLAN } = require('./errors')
const { guardOf, runGuarded } = require('./guard')
const http = require('./http')
const orms = require('./orms')
const { positionBy } = require('./plain')
const { ReadPool } = require('./readpool')
const { Router, finishTransaction } = require('./router')

class Ryw extends Router {
  constructor (options) {
    super(options, 'pool')
    attachPool(this.primary.pool, this)
    /** For ORMs: a pool whose clients read from the replicas behind the wait. */
    this.readPool = new ReadPool(this)
  }

  /** The primary's pool: what is committed through it is captured. */
  get pool () { return this.primary.pool }

  promote (name) { super.promote(name); attachPool(this.primary.pool, this) }

  /** Hooks a client of the primary that somebody else has made. */
  attach (client) { return attach(client, this) }

  #as (keeper, fn) { return keeper ? context.run(keeper, fn) : fn() }

  /** On the primary. */
  query (config, values, { keeper } = {}) { return this.#as(keeper, () => this.pool.query(config, values)) }

  /** A transaction on the primary; rolled back when fn fails. */
  transaction (fn, { keeper } = {}) {
    return this.#as(keeper, async () => {
      const client = await this.pool.connect()
      await client.query('BEGIN').catch(err => { client.release(err); throw err })
      return finishTransaction(client, fn)
    })
  }

  /** One statement on a replica, behind the wait for what the caller has written. */
  read (config, values, options) {
    return this.#on(options, async (node, client, control, guard) => {
      const run = () => runGuarded(client, guard, config, values, control.patience)
      return run().catch(async err => {
        if (!STALE_PLAN.test(codeOf(err)) || !config?.name) throw err
        await client.query(`DEALLOCATE ${client.escapeIdentifier(config.name)}`).catch(() => {})
        delete client.connection.parsedStatements[config.name]
        return run()
      })
    })
  }

  /** BEGIN on a replica behind the wait: a client that is in the transaction. */
  begin (text = 'BEGIN', options) {
    return this.#on(options, async (node, client, control, guard) => {
      // A message of its own: in REPEATABLE READ the first query takes the snapshot.
      const { guardRow } = await runGuarded(client, guard, 'SELECT', [], control.patience)
      await client.query(`${text}; SET TRANSACTION READ ONLY`)
      return { result: client, guardRow, keep: true }
    })
  }

  /** A READ ONLY transaction on a replica, behind the wait; fn is given its client. */
  async readTransaction (fn, options) {
    const isolation = options?.isolation ? ` ISOLATION LEVEL ${options.isolation}` : ''
    return finishTransaction(await this.begin(`BEGIN${isolation}`, options), fn)
  }

  // fn on a connection of the node that is chosen, with what is to stand ahead of its statement.
  #on (options, fn) {
    return this.route(async (node, control, keeper) => {
      const client = await node.checkout(control.patience)
      let failed, keep
      try {
        const { guarded, reached } = await this.ahead(node, client, control)
        const guard = guardOf(guarded && control.text, control.timeout, control.audit)
        const answer = await fn(node, client, control, guard)
        keep = answer.keep
        if (guarded && !keep) await this.compact(node, client, keeper)
        return { result: answer.result, reached: guarded && control.audit ? answer.guardRow[0] === 't' : reached }
      } catch (err) {
        failed = err
        throw err
      } finally {
        if (!keep || failed) node.release(client, failed)
      }
    }, options)
  }

  /** A token that covers all that can be seen on the primary now. */
  async position (client, query = client.query) {
    const ask = async config => (await query.call(client, config)).rows
    const { ryw } = await this.primary.capabilities({ query: config => query.call(client, config) })
    return positionBy(ask, ryw)
  }

  /** The same into the keeper: for one who only looked at the primary. */
  async mark (keeper = context.current()) {
    const client = await this.pool.connect()
    keeper?.add(await this.position(client).finally(() => client.release()))
  }
}

Object.assign(Ryw.prototype, http, orms)

module.exports = { Ryw }

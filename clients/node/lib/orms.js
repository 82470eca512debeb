'use strict'

// Adapters.  Each takes what its framework's people have already, and hooks the
// connections when they are handed out: those that are open by then too.

const context = require('./context')
const { attach } = require('./capture')
const { ReadClient } = require('./readpool')

/** A query cache is not asked for whoever holds tokens: what it has may be older. */
function bypass (db, cache, method) {
  const get = cache[method]
  cache[method] = async function (...args) { return db.mayUseCache() ? get.apply(this, args) : undefined }
  return cache
}

module.exports = {
  /** For caches of the application's own: is there nothing that this user has written? */
  mayUseCache () { return !context.current()?.size },

  /** knex(config) twice: { write, read }. */
  knex (knex, config) {
    const db = this
    const write = knex(config)
    const acquire = write.client.acquireConnection
    write.client.acquireConnection = async function () {
      return attach(await acquire.call(this), db)
    }
    class Routed extends write.client.constructor {
      async acquireRawConnection () { return new ReadClient(db) }
      async destroyRawConnection (client) { client.release() }
    }
    const read = knex({ ...config, client: Routed, version: config.version ?? '15', searchPath: undefined })
    return { write, read }
  },

  /** { write, read } of Kysely, over the pools. */
  kysely ({ Kysely, PostgresDialect }, config) {
    const over = pool => new Kysely({ ...config, dialect: new PostgresDialect({ pool }) })
    return { write: over(this.pool), read: over(this.readPool) }
  },

  /** Drizzle's own withReplicas(): select reads, all else writes. */
  drizzle ({ drizzle, withReplicas }, config = {}) {
    if (config.cache) bypass(this, config.cache, 'get')
    const over = client => drizzle({ ...config, client })
    return withReplicas(over(this.pool), [over(this.readPool)])
  },

  /** A Sequelize (6) that is there already: SELECT outside of transactions is routed. */
  sequelize (sequelize) {
    const db = this
    const manager = sequelize.connectionManager
    const { getConnection } = manager
    const types = { getTypeParser: (...args) => manager.getTypeParser(...args) }
    manager.getConnection = async function (options) {
      if (options?.type === 'SELECT' && !options.useMaster) return new ReadClient(db, types)
      return attach(await getConnection.call(this, options), db)
    }
    for (const name of ['releaseConnection', 'destroyConnection']) {
      const own = manager[name]
      manager[name] = function (client) {
        return client instanceof ReadClient ? client.release() : own.call(this, client)
      }
    }
    return sequelize
  },

  /** A DataSource of TypeORM, initialized or not: what it would read from slaves is routed. */
  typeorm (source) {
    const db = this
    const { driver } = source
    const { obtainMasterConnection } = driver
    driver.obtainMasterConnection = async function () {
      const [client, release] = await obtainMasterConnection.call(this)
      return [attach(client, db), release]
    }
    driver.obtainSlaveConnection = async function () {
      const client = new ReadClient(db)
      return [client, err => client.release(err)]
    }
    driver.isReplicated = true // else it asks the primary for everything
    if (source.queryResultCache) bypass(db, source.queryResultCache, 'getFromCache')
    return source
  }
}

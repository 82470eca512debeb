'use strict'

// Each ORM twice: 50 writes and reads through the adapter, 0 stale, by its plain
// path and by its transaction(); and the same without ryw, as a control.

const test = require('node:test')
const assert = require('node:assert/strict')
const knex = require('knex')
const pg = require('pg')
const { Kysely, PostgresDialect } = require('kysely')
const { drizzle } = require('drizzle-orm/node-postgres')
const { pgTable, integer, text, withReplicas } = require('drizzle-orm/pg-core')
const { Cache } = require('drizzle-orm/cache/core')
const { eq } = require('drizzle-orm')
const { Sequelize, DataTypes, QueryTypes } = require('sequelize')
const { DataSource, EntitySchema } = require('typeorm')
const { Ryw, TokenLost, tokenLost, codeOf } = require('ryw')
const h = require('./help')

const N = 50
const closers = []
const make = options => new Ryw({
  primary: h.pool('PRIMARY'),
  replicas: ['REPLICA1', 'REPLICA2'].map(name => h.pool(name)),
  log: h.quiet,
  ...options
})

test.before(async () => {
  await h.delay('REPLICA1', 150)
  await h.delay('REPLICA2', 300)
  await h.table('orm', 2 * N)
})
test.afterEach(async () => {
  await Promise.all(closers.splice(0).map(close => close()))
  await h.closePools()
})

/** How many of N users do not see what they have just written. */
async function stale (db, write, read, offset = 0) {
  let count = 0
  await h.atOnce(N, 10, i => db.run('', async () => {
    const id = offset + i + 1
    const version = Math.floor(Math.random() * 1e9)
    await write(id, version)
    if (await read(id) !== version) count++
  }))
  return count
}

/** The paths of an adapter, and of the same without ryw. */
async function compare (name, build) {
  const db = make()
  const paths = await build(db)
  assert.equal(await stale(db, paths.write, paths.read), 0, `${name}: plain writes`)
  assert.equal(await stale(db, paths.transaction, paths.read, N), 0, `${name}: transaction()`)
  assert.ok((db.counters.reads.replica1 ?? 0) > 0 && (db.counters.reads.replica2 ?? 0) > 0, 'the replicas have read')
  assert.ok((db.counters.reads.primary ?? 0) < N / 2)
  assert.equal(db.counters.withoutKeeper, 0)
  const off = make({ mode: 'off' })
  const bare = await build(off)
  assert.equal(await h.held(['REPLICA1', 'REPLICA2'], () => stale(off, bare.write, bare.read)), N, 'control')
  return { db, ...paths }
}

/** A token that is lost, told through the ORM. */
async function tellsLost ({ db, write, read }, inner = err => err) {
  await db.run('', async () => {
    await write(1, 1)
    const [timeline,, tag] = db.current.text.split('-')
    db.current.add(`${timeline}-FFFFFFFF0000-${tag}`)
    const err = await read(1).then(() => assert.fail('nothing is told'), err => err)
    assert.ok(tokenLost(err) instanceof TokenLost)
    assert.equal(codeOf(err), 'RY002')
    assert.ok(inner(err) instanceof TokenLost, 'where this ORM keeps it')
    assert.equal(db.current.text, '')
  })
}

test('Knex', async () => {
  const paths = await compare('knex', db => {
    const { write, read } = db.knex(knex, { client: 'pg', connection: h.parts('PRIMARY'), pool: { min: 0, max: 10 } })
    closers.push(() => write.destroy(), () => read.destroy())
    return {
      knex: { write, read },
      write: (id, version) => write('orm').where({ id }).update({ version }),
      transaction: (id, version) => write.transaction(trx => trx('orm').where({ id }).update({ version })),
      read: async id => (await read('orm').where({ id }).first('version')).version
    }
  })
  await tellsLost(paths)
  const { db } = paths
  await db.run('', async () => {
    await paths.write(1, 77)
    const seen = await paths.knex.read.transaction(async trx =>
      [(await trx('orm').where({ id: 1 }).first()).version, (await trx('orm').where({ id: 1 }).first()).version])
    assert.deepEqual(seen, [77, 77])
  })
})

test('Kysely', async () => {
  const paths = await compare('kysely', db => {
    const { write, read } = db.kysely({ Kysely, PostgresDialect })
    return {
      kysely: { write, read },
      write: (id, version) => write.updateTable('orm').set({ version }).where('id', '=', id).execute(),
      transaction: (id, version) => write.transaction().execute(trx =>
        trx.updateTable('orm').set({ version }).where('id', '=', id).execute()),
      read: async id => (await read.selectFrom('orm').select('version').where('id', '=', id).executeTakeFirst()).version
    }
  })
  await tellsLost(paths)
  await paths.db.run('', async () => {
    await paths.write(1, 78)
    const { read } = paths.kysely
    assert.equal((await read.transaction().execute(trx =>
      trx.selectFrom('orm').select('version').where('id', '=', 1).executeTakeFirst())).version, 78)
    await assert.rejects(read.updateTable('orm').set({ version: 1 }).execute(), { code: '25006' })
  })
})

const orm = pgTable('orm', { id: integer().primaryKey(), version: integer(), note: text() })

test('Drizzle, which keeps the code in .cause', async () => {
  const paths = await compare('drizzle', db => {
    const d = db.drizzle({ drizzle, withReplicas })
    return {
      d,
      write: (id, version) => d.update(orm).set({ version }).where(eq(orm.id, id)),
      transaction: (id, version) => d.transaction(tx => tx.update(orm).set({ version }).where(eq(orm.id, id))),
      read: async id => (await d.select({ version: orm.version }).from(orm).where(eq(orm.id, id)))[0].version
    }
  })
  await tellsLost(paths, err => {
    assert.equal(err.code, undefined, 'control: not in .code')
    return err.cause
  })
})

/** A cache that fills from whoever reads, as a control of what it would answer. */
class MapCache extends Cache {
  entries = new Map()
  hits = 0
  strategy () { return 'all' }
  async get (key) {
    if (this.entries.has(key)) this.hits++
    return this.entries.get(key)
  }
  async put (key, rows) { this.entries.set(key, rows) }
  async onMutate () { this.entries.clear() }
}

test('Drizzle: its query cache is not asked for who has written', async () => {
  for (const [wrapped, expected] of [[false, 1], [true, 2]]) {
    const db = make()
    const cache = new MapCache()
    const d = wrapped
      ? db.drizzle({ drizzle, withReplicas }, { cache })
      : withReplicas(drizzle({ client: db.pool, cache }), [drizzle({ client: db.readPool, cache })])
    const read = async () => (await d.select().from(orm).where(eq(orm.id, 2)))[0].version
    await db.run('', async () => {
      await d.update(orm).set({ version: 1 }).where(eq(orm.id, 2))
      await read()
    })
    await h.caughtUp()
    await db.run('', async () => {
      await d.update(orm).set({ version: 2 }).where(eq(orm.id, 2))
      // Somebody else, from a replica that is behind.
      await db.run('', read)
      assert.equal(await read(), expected, wrapped ? 'with the adapter' : 'control: the cache answers with the old one')
    })
    await db.run('', async () => {
      const hits = cache.hits
      await read()
      assert.ok(cache.hits > hits, 'others are still answered by the cache')
    })
  }
})

test('Sequelize', async () => {
  const paths = await compare('sequelize', db => {
    const { host, port, user, database } = h.parts('PRIMARY')
    const sequelize = new Sequelize(database, user, '', {
      dialect: 'postgres', host, port, logging: false, pool: { max: 10 }
    })
    closers.push(() => sequelize.close())
    db.sequelize(sequelize)
    const Row = sequelize.define('orm', { id: { type: DataTypes.INTEGER, primaryKey: true }, version: DataTypes.INTEGER },
      { tableName: 'orm', timestamps: false })
    return {
      sequelize,
      write: (id, version) => Row.update({ version }, { where: { id } }),
      transaction: (id, version) => sequelize.transaction(transaction =>
        Row.update({ version }, { where: { id }, transaction })),
      read: async id => (await Row.findByPk(id, { attributes: ['version'] })).version
    }
  })
  await tellsLost(paths, err => err.original)
  await paths.db.run('', async () => {
    await paths.write(3, 5)
    const [row] = await paths.sequelize.query("SELECT version, true AS yes, '2020-01-01Z'::timestamptz AS at FROM orm WHERE id = ?",
      { replacements: [3], type: QueryTypes.SELECT })
    assert.equal(row.version, 5)
    assert.equal(row.yes, true)
    assert.ok(row.at instanceof Date)
    const seen = await paths.sequelize.transaction({ readOnly: true }, transaction =>
      paths.sequelize.query('SELECT version, pg_is_in_recovery() AS standby FROM orm WHERE id = 3', { type: QueryTypes.SELECT, transaction }))
    assert.deepEqual(seen, [{ version: 5, standby: true }])
  })
})

const Row = new EntitySchema({
  name: 'Row', tableName: 'orm', columns: { id: { type: 'int', primary: true }, version: { type: 'int' } }
})
const source = async (options, before = () => {}) => {
  const { user, ...rest } = h.parts('PRIMARY')
  const made = new DataSource({ type: 'postgres', ...rest, username: user, entities: [Row], poolSize: 10, installExtensions: false, ...options })
  before(made)
  await made.initialize()
  closers.push(() => made.destroy())
  return made
}
const typeormPaths = made => ({
  made,
  write: (id, version) => made.getRepository(Row).update({ id }, { version }),
  transaction: (id, version) => made.transaction(manager => manager.getRepository(Row).update({ id }, { version })),
  read: async id => (await made.getRepository(Row).findOneByOrFail({ id })).version
})

test('TypeORM, which has open clients before a hook can be set', async () => {
  const paths = await compare('typeorm', async db => {
    const made = await source()
    // All of its connections are open by now.
    await Promise.all(Array.from({ length: 10 }, () => made.query('SELECT pg_sleep(0.02)')))
    return typeormPaths(db.typeorm(made))
  })
  await tellsLost(paths, err => err.driverError)

  // The control: a hook on the pool, when it is there.
  const db = make()
  const made = await source()
  await Promise.all(Array.from({ length: 10 }, () => made.query('SELECT pg_sleep(0.02)')))
  let told = 0
  made.driver.master.on('connect', client => client.connection.on('parameterStatus', () => { told++ }))
  await stale(db, typeormPaths(made).write, async () => 0)
  assert.equal(told, 0, 'control: 50 of 50 commits unseen')
})

test('TypeORM, hooked before initialize()', async () => {
  const db = make()
  const made = await source({}, made => db.typeorm(made))
  const { write, read } = typeormPaths(made)
  assert.equal(await stale(db, write, read), 0)
  assert.ok(db.counters.reads.replica1 > 0)
})

test('TypeORM: its query cache is not asked for who has written', async () => {
  for (const [hooked, expected] of [[false, 1], [true, 2]]) {
    const db = make()
    const made = await source({ cache: { duration: 60000 }, synchronize: false })
    await made.queryResultCache.synchronize()
    await made.queryResultCache.clear()
    if (hooked) db.typeorm(made)
    await h.caughtUp()
    const read = async () => (await made.getRepository(Row).findOne({ where: { id: 4 }, cache: true })).version
    await db.run('', async () => {
      await made.getRepository(Row).update({ id: 4 }, { version: 1 })
      assert.equal(await read(), 1)
    })
    await h.caughtUp()
    await db.run('', async () => {
      await made.getRepository(Row).update({ id: 4 }, { version: 2 })
      assert.equal(await read(), expected, hooked ? 'with the adapter' : 'control: the cache answers')
    })
  }
})

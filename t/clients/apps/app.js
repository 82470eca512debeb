'use strict'

// The application of README.md over the package of clients/node:
//
//   node app.js KIND PRIMARY REPLICA...
//
// The drivers are where npm has put them for the package's tests.

const path = require('node:path')
const readline = require('node:readline')

const home = path.resolve(__dirname, '../../../clients/node')
const load = name => require(require.resolve(name, { paths: [home] }))
const version = name => require(path.join(home, 'node_modules', name, 'package.json')).version
const { Ryw, RywPostgres, TokenLost, tokenLost } = require(home)

const [kind, ...nodes] = process.argv.slice(2)
const POOL = 5
const log = () => {}
const say = line => process.stdout.write(line + '\n')
const parts = url => {
  const u = new URL(url)
  return { host: u.hostname, port: Number(u.port), user: u.username, password: u.password, database: u.pathname.slice(1) }
}

/** Over pools of pg. */
function pools () {
  const { Pool } = load('pg')
  const [primary, ...replicas] = nodes.map(url => new Pool({ ...parts(url), max: POOL }))
  for (const pool of [primary, ...replicas]) pool.on('error', log)
  return new Ryw({ primary, replicas, log })
}

const over = (db, name, patch, get) => ({
  db,
  version: version(name),
  call: (tokens, fn) => {
    const keeper = db.keeper(tokens)
    return db.run(keeper, fn).then(value => ({ value }), err => ({ err })).then(answer => ({ ...answer, tokens: keeper.text }))
  },
  patch,
  get
})

const kinds = {
  pg () {
    const db = pools()
    return over(db, 'pg',
      (id, value) => db.query('UPDATE profiles SET version = $2 WHERE id = $1', [id, value]),
      async id => (await db.read('SELECT version FROM profiles WHERE id = $1', [id])).rows[0].version)
  },

  /** By HTTP, with the header Ryw-Token. */
  async express () {
    const db = pools()
    const app = load('express')()
    app.use(db.express())
    app.patch('/me/:id/:value', async (req, res) => {
      await db.query('UPDATE profiles SET version = $2 WHERE id = $1', [req.params.id, req.params.value])
      res.json({ version: req.params.value })
    })
    app.get('/me/:id', async (req, res) => {
      res.json((await db.read('SELECT version FROM profiles WHERE id = $1', [req.params.id])).rows[0])
    })
    app.use((err, req, res, next) => res.status(err instanceof TokenLost ? 409 : 500).json({ error: err.message }))
    const server = app.listen(0, '127.0.0.1')
    await new Promise(resolve => server.once('listening', resolve))
    const ask = async (method, url, tokens) => {
      const response = await fetch(`http://127.0.0.1:${server.address().port}/me/${url}`,
        { method, headers: tokens ? { 'Ryw-Token': tokens } : {} })
      const { version, error } = await response.json()
      tokens = response.headers.get('Ryw-Token') ?? tokens
      return response.ok ? { value: version, tokens } : { err: error, lost: response.status === 409, tokens }
    }
    return {
      db,
      version: version('express'),
      call: (tokens, fn) => fn(tokens),
      patch: (id, value, tokens) => ask('PATCH', `${id}/${value}`, tokens),
      get: (id, tokens) => ask('GET', id, tokens)
    }
  },

  'postgres.js' () {
    const postgres = load('postgres')
    const [primary, ...replicas] = nodes.map(url => postgres({ ...parts(url), max: POOL, onnotice: log }))
    const db = new RywPostgres({ primary, replicas, log })
    return over(db, 'postgres',
      (id, value) => db.write(sql => sql`UPDATE profiles SET version = ${value} WHERE id = ${id}`),
      async id => (await db.read(sql => sql`SELECT version FROM profiles WHERE id = ${id}`))[0].version)
  },

  knex () {
    const db = pools()
    const { write, read } = db.knex(load('knex'), { client: 'pg', connection: parts(nodes[0]), pool: { min: 0, max: POOL } })
    return over(db, 'knex',
      (id, value) => write('profiles').where({ id }).update({ version: value }),
      async id => (await read('profiles').where({ id }).first('version')).version)
  },

  kysely () {
    const db = pools()
    const { write, read } = db.kysely(load('kysely'))
    return over(db, 'kysely',
      (id, value) => write.updateTable('profiles').set({ version: value }).where('id', '=', id).execute(),
      async id => (await read.selectFrom('profiles').select('version').where('id', '=', id).executeTakeFirst()).version)
  },

  drizzle () {
    const db = pools()
    const { pgTable, integer, withReplicas } = load('drizzle-orm/pg-core')
    const { drizzle } = load('drizzle-orm/node-postgres')
    const { eq } = load('drizzle-orm')
    const profiles = pgTable('profiles', { id: integer().primaryKey(), version: integer() })
    const d = db.drizzle({ drizzle, withReplicas })
    return over(db, 'drizzle-orm',
      async (id, value) => await d.update(profiles).set({ version: value }).where(eq(profiles.id, id)),
      async id => (await d.select({ version: profiles.version }).from(profiles).where(eq(profiles.id, id)))[0].version)
  },

  sequelize () {
    const db = pools()
    const { Sequelize, DataTypes } = load('sequelize')
    const { host, port, user, password, database } = parts(nodes[0])
    const sequelize = new Sequelize(database, user, password, { dialect: 'postgres', host, port, logging: false, pool: { max: POOL } })
    db.sequelize(sequelize)
    const Profile = sequelize.define('profile', { id: { type: DataTypes.INTEGER, primaryKey: true }, version: DataTypes.INTEGER },
      { tableName: 'profiles', timestamps: false })
    return over(db, 'sequelize',
      (id, value) => Profile.update({ version: value }, { where: { id } }),
      async id => (await Profile.findByPk(id, { attributes: ['version'] })).version)
  },

  async typeorm () {
    const db = pools()
    const { DataSource, EntitySchema } = load('typeorm')
    const Profile = new EntitySchema({
      name: 'Profile', tableName: 'profiles', columns: { id: { type: 'int', primary: true }, version: { type: 'int' } }
    })
    const { user, ...rest } = parts(nodes[0])
    const source = new DataSource({
      type: 'postgres', ...rest, username: user, entities: [Profile], poolSize: POOL, installExtensions: false, poolErrorHandler: log
    })
    await source.initialize()
    db.typeorm(source)
    return over(db, 'typeorm',
      (id, value) => source.getRepository(Profile).update({ id }, { version: value }),
      async id => (await source.getRepository(Profile).findOneByOrFail({ id })).version)
  }
}

async function handle (app, [request, op, user, tokens, value]) {
  const id = Number(user)
  if (op === 'stats') {
    const { fallbacks, reads } = app.db.counters
    const sum = Object.values(fallbacks).reduce((a, b) => a + b, 0)
    return say(`${request} ok ${sum}/${reads.primary ?? 0} -`)
  }
  tokens = tokens === '-' ? '' : tokens
  const answer = await app.call(tokens, async () => {
    if (op === 'get') return app.get(id, tokens)
    return await app.patch(op === 'idle' ? -1 : id, Number(value) || 0, tokens)
  }).catch(err => ({ err, tokens }))
  const held = answer.tokens || '-'
  if (answer.lost || tokenLost(answer.err)) say(`${request} lost - ${held}`)
  else if (answer.err) say(`${request} error ${String(answer.err).replace(/\s+/g, '_')} ${held}`)
  else say(`${request} ok ${op === 'get' ? answer.value : value} ${held}`)
}

async function main () {
  process.on('unhandledRejection', err => { console.error('unhandled:', err) })
  const app = await kinds[kind]()
  say(`ready ${app.version}`)
  for await (const line of readline.createInterface({ input: process.stdin })) handle(app, line.split(' '))
  process.exit(0)
}

main()

'use strict'

const test = require('node:test')
const assert = require('node:assert/strict')
const { AsyncLocalStorage } = require('node:async_hooks')
const pg = require('pg')
const { Ryw } = require('ryw')
const h = require('./help')

const write = (id, version) => ['UPDATE captured SET version = $2 WHERE id = $1', [id, version]]
const make = options => new Ryw({ primary: h.pool('PRIMARY', options), log: h.quiet })

test.before(() => h.table('captured'))
test.after(h.closePools)


test('a hook put on too late: connections that were open before give tokens too', async () => {
  const width = 5
  const open = async pool => {
    const clients = await Promise.all(Array.from({ length: width }, () => pool.connect()))
    clients.forEach(client => client.release())
  }
  // The control: the hook of the driver's documentation, after the pool has connections.
  const naive = h.pool('PRIMARY', { max: width })
  await open(naive)
  let told = 0
  naive.on('connect', client => client.connection.on('parameterStatus', () => { told++ }))
  for (let i = 0; i < 50; i++) await naive.query(...write(1, i))
  assert.equal(told, 0, 'control: 50 of 50 commits unseen')

  const pool = h.pool('PRIMARY', { max: width })
  await open(pool)
  const db = new Ryw({ primary: pool, log: h.quiet })
  let missed = 0
  await h.atOnce(50, width, async i => {
    const keeper = db.keeper()
    await db.query(...write(1 + i % 50, i), { keeper })
    if (!keeper.text) missed++
  })
  assert.equal(missed, 0)
})

test('AsyncLocalStorage in events of pg belongs to the first requester; tokens go to who called', async () => {
  // The control: the store as the event sees it.
  const storage = new AsyncLocalStorage()
  const naive = h.pool('PRIMARY', { max: 1 })
  naive.on('connect', client => client.connection.on('parameterStatus', message => {
    if (message.parameterName === 'ryw.token' && message.parameterValue) seen.push(storage.getStore())
  }))
  const seen = []
  for (const user of ['ann', 'bob', 'cy']) await storage.run(user, () => naive.query(...write(2, 1)))
  assert.deepEqual(seen, ['ann', 'ann', 'ann'], 'control: everything is filed under the first')

  const db = make({ max: 1 })
  const keepers = await h.atOnce(50, 50, async i => {
    const keeper = db.keeper()
    await db.run(keeper, () => db.query(...write(i + 1, i)))
    return keeper
  })
  assert.ok(keepers.every(keeper => keeper.size === 1))
  assert.equal(new Set(keepers.map(keeper => keeper.text)).size, 50, 'each has a token of its own')
})

test('on a full pool a callback runs in the context of whoever gave the client back', async () => {
  const db = make({ max: 1 })
  const keepers = Array.from({ length: 20 }, () => db.keeper())
  await Promise.all(keepers.map((keeper, i) => db.run(keeper, () => new Promise((resolve, reject) => {
    const before = db.current
    db.pool.connect((err, client, release) => {
      if (err) return reject(err)
      assert.equal(db.current, before)
      client.query(...write(i + 1, 7), err => {
        assert.equal(db.current, before)
        release()
        err ? reject(err) : resolve()
      })
    })
  }))))
  assert.equal(new Set(keepers.map(keeper => keeper.text)).size, 20)
  assert.ok(keepers.every(keeper => keeper.size === 1))
})

test('transaction() takes another path than query(): BEGIN, COMMIT and one message with both', async () => {
  const db = make()
  const texts = []
  const take = async fn => {
    const keeper = db.keeper()
    await db.run(keeper, fn)
    texts.push(keeper.text)
  }
  await take(() => db.transaction(client => client.query(...write(3, 1))))
  await take(async () => {
    const client = await db.pool.connect()
    await client.query('BEGIN')
    await client.query(...write(3, 2))
    assert.equal(db.current.text, '', 'nothing before the commit')
    await client.query('COMMIT')
    client.release()
  })
  await take(() => db.query('BEGIN; UPDATE captured SET version = 3 WHERE id = 3; COMMIT'))
  assert.ok(texts.every(Boolean))
  assert.equal(new Set(texts).size, 3)

  const keeper = db.keeper()
  await assert.rejects(db.run(keeper, () => db.transaction(async client => {
    await client.query(...write(3, 9))
    throw new Error('no')
  })), /no/)
  assert.equal(keeper.text, '', 'a transaction that was rolled back brings none')
  await assert.rejects(db.run(keeper, () => db.transaction(async client => {
    await client.query('SELECT 1/0').catch(() => {})
  })), /rolled back/)
})

test('queries of the application\'s own class, and queued ones, each bring their own', async () => {
  const db = make({ max: 1 })
  const client = await db.pool.connect()
  const keepers = Array.from({ length: 10 }, () => db.keeper())
  await Promise.all(keepers.map((keeper, i) => db.run(keeper, () => new Promise((resolve, reject) => {
    if (i % 2) client.query(...write(i + 1, 8)).then(resolve, reject)
    else client.query(new pg.Query(...write(i + 1, 8), err => err ? reject(err) : resolve()))
  }))))
  client.release()
  assert.equal(new Set(keepers.map(keeper => keeper.text)).size, 10)
})

test('pipelined connections: answers that come in one piece are kept apart', async () => {
  const db = make({ max: 1, pipeline: true })
  const client = await db.pool.connect()
  const keepers = Array.from({ length: 20 }, () => db.keeper())
  await Promise.all(keepers.map((keeper, i) => db.run(keeper, () => client.query(...write(i + 1, 9)))))
  client.release()
  assert.equal(new Set(keepers.map(keeper => keeper.text)).size, 20)
  assert.ok(keepers.every(keeper => keeper.size === 1))
})

test('a commit that an error follows: its token reaches who committed, and nobody later', async () => {
  await h.sql('PRIMARY', `CREATE OR REPLACE PROCEDURE commits_and_fails() LANGUAGE plpgsql AS $$
    BEGIN UPDATE captured SET version = 10 WHERE id = 4; COMMIT; RAISE EXCEPTION 'afterwards'; END $$`)
  const db = make({ max: 1 })
  const [ann, bob] = [db.keeper(), db.keeper()]
  await assert.rejects(db.query('CALL commits_and_fails()', [], { keeper: ann }), /afterwards/)
  await db.query('SELECT 1', [], { keeper: bob })
  assert.equal(ann.size, 1)
  assert.equal(bob.text, '')
})

test('one user\'s token is not filed under another\'s name, nor what nobody keeps', async () => {
  const db = make({ max: 1 })
  const [ann, bob] = [db.keeper(), db.keeper()]
  await db.query(...write(5, 1), { keeper: ann })
  await db.query('SELECT version FROM captured', [], { keeper: bob })
  assert.equal(bob.text, '', 'bob has only read, on ann\'s connection')
  await db.query(...write(5, 2)) // outside of any request
  await db.query('SELECT 1', [], { keeper: bob })
  assert.equal(bob.text, '')
  const [{ token }] = (await db.pool.query('SELECT ryw_token()::text AS token')).rows
  assert.ok(token, 'control: asked by SQL the connection tells the last one\'s token to anybody')
})

test('RESET ALL and DISCARD ALL by a pool: nothing is taken back, nothing is handed on', async () => {
  for (const reset of ['RESET ALL', 'DISCARD ALL']) {
    const db = make({ max: 1 })
    const [ann, bob] = [db.keeper(), db.keeper()]
    await db.query(...write(6, 1), { keeper: ann })
    const before = ann.text
    await db.query(reset, [], { keeper: ann })
    assert.equal(ann.text, before)
    await db.query(reset, [], { keeper: bob })
    await db.query('SELECT 1', [], { keeper: bob })
    assert.equal(bob.text, '')
    await db.query(...write(6, 2), { keeper: bob })
    assert.equal(bob.size, 1, `a write after ${reset} brings its token`)
    assert.notEqual(bob.text, before)
  }
})

test('concurrent requests of one user share a keeper, which never goes back', async () => {
  const db = make({ max: 8 })
  const keeper = db.keeper()
  let last = 0n
  await h.atOnce(100, 8, async i => {
    await db.query(...write(i % 50 + 1, i), { keeper })
    const lsn = BigInt('0x' + keeper.text.split('-')[1])
    assert.ok(lsn >= last)
    last = lsn
  })
  const after = db.keeper()
  await db.query(...write(1, 0), { keeper: after })
  await db.query(...write(1, 1), { keeper })
  assert.ok(h.covers(keeper, after.text))
  assert.equal(keeper.size, 1)
})

test('a retry that finds its write done brings a token that covers it', async () => {
  const db = make()
  const first = db.keeper()
  await db.query("INSERT INTO captured VALUES (1000, 1, '') ON CONFLICT DO NOTHING", [], { keeper: first })
  const retry = db.keeper() // the answer to the first attempt was lost, and its token with it
  await db.query("INSERT INTO captured VALUES (1000, 1, '') ON CONFLICT DO NOTHING", [], { keeper: retry })
  assert.ok(h.covers(retry, first.text))
  const seen = db.keeper()
  await db.transaction(client => client.query('UPDATE captured SET version = 0 WHERE id = -1'), { keeper: seen })
  assert.ok(h.covers(seen, first.text))
  const looked = db.keeper()
  await db.query('SELECT 1', [], { keeper: looked })
  assert.equal(looked.text, '', 'a plain read costs no question')
  await db.mark(looked)
  assert.ok(h.covers(looked, first.text))
})

test('a client without events is refused', () => {
  const db = make()
  assert.throws(() => db.attach({ query () {} }), /pg-native/)
})

'use strict'

// A primary and a replica without the extension.

const test = require('node:test')
const assert = require('node:assert/strict')
const postgres = require('postgres')
const { Ryw, RywPostgres } = require('ryw')
const h = require('./help')

const make = options => new Ryw({
  primary: h.pool('BARE'), replicas: [h.pool('BARE_REPLICA')], log: h.quiet, ...options
})

test.before(async () => {
  const client = h.pool('BARE')
  await client.query('CREATE TABLE IF NOT EXISTS bare (id int PRIMARY KEY, version int)')
  await client.query('INSERT INTO bare SELECT n, 0 FROM generate_series(1, 50) n ON CONFLICT DO NOTHING')
  await h.delay('BARE_REPLICA', 200)
})
test.after(h.closePools)

test('without the extension: 0 of 50 stale, and what is then not guaranteed is said', async () => {
  const stale = async db => {
    let count = 0
    await h.atOnce(50, 10, i => db.run('', async () => {
      const version = Math.floor(Math.random() * 1e9)
      await (i % 2 ? db.query('UPDATE bare SET version = $2 WHERE id = $1', [i + 1, version])
        : db.transaction(client => client.query('UPDATE bare SET version = $2 WHERE id = $1', [i + 1, version])))
      assert.match(db.current.text, /^0-[0-9A-F]+-0$/)
      const { rows } = await db.read('SELECT version FROM bare WHERE id = $1', [i + 1])
      if (rows[0].version !== version) count++
    }))
    return count
  }
  const db = make()
  assert.equal(await stale(db), 0)
  assert.ok(db.counters.reads.bare !== 50 && db.counters.reads.replica1 > 0)
  assert.equal(await h.held(['BARE_REPLICA'], () => stale(make({ mode: 'off' }))), 50, 'control')
  const { primary, replica1 } = await make().capabilities()
  assert.equal(primary.ryw, false)
  assert.match(replica1.notGuaranteed.join(), /failover.*page boundaries/)
})

test('without the extension: a timeout goes to the primary, audit counts', async () => {
  await h.pause('BARE_REPLICA')
  try {
    const db = make({ wait: 100 })
    await db.run('', async () => {
      await db.query('UPDATE bare SET version = 77 WHERE id = 1')
      assert.equal((await db.read('SELECT version FROM bare WHERE id = 1')).rows[0].version, 77)
      assert.deepEqual([db.counters.reads, db.counters.fallbacks], [{ primary: 1 }, { RY001: 1 }])
      const audit = make({ mode: 'audit' })
      await audit.run(db.current, () => audit.read('SELECT 1'))
      assert.equal(audit.audit[0].stale, 1)
    })
  } finally {
    await h.resume('BARE_REPLICA')
  }
})

test('without the extension: last_commit_lsn is taken where a server reports it', async () => {
  const db = make()
  const client = await db.pool.connect()
  const keeper = db.keeper()
  await db.run(keeper, async () => {
    const done = client.query('SELECT 1')
    client.connection.emit('parameterStatus', { parameterName: 'last_commit_lsn', parameterValue: '1/16B3748' })
    await done
  })
  client.release()
  assert.equal(keeper.text, '0-1016B3748-0')
})

test('without the extension: an LSN just behind the header of a page is where the page begins', () => {
  const { bareToken } = require('ryw/lib/capture')
  assert.equal(bareToken('0/2000018'), '0-2000000-0')
  assert.equal(bareToken('0/2000028'), '0-2000000-0')
  assert.equal(bareToken('0/2000020'), '0-2000020-0')
})

test('a node without the extension reads nothing that has a token of the extension', async () => {
  const db = new Ryw({ primary: h.pool('PRIMARY'), replicas: [h.pool('BARE_REPLICA')], log: h.quiet })
  await h.table('beside')
  await db.run('', async () => {
    await db.query('UPDATE beside SET version = 5 WHERE id = 1')
    assert.equal((await db.read('SELECT version FROM beside WHERE id = 1')).rows[0].version, 5)
  })
  assert.deepEqual(db.counters.fallbacks, { 55000: 1 })
})

test('without the extension: postgres.js', async () => {
  const pools = ['BARE', 'BARE_REPLICA'].map(name => postgres({ ...h.parts(name), max: 5 }))
  const db = new RywPostgres({ primary: pools[0], replicas: [pools[1]], log: h.quiet })
  let stale = 0
  await h.atOnce(20, 5, i => db.run('', async () => {
    await db.write(sql => sql`UPDATE bare SET version = ${i + 500} WHERE id = ${i + 1}`)
    const [{ version }] = await db.read(sql => sql`SELECT version FROM bare WHERE id = ${i + 1}`)
    if (version !== i + 500) stale++
  }))
  assert.equal(stale, 0)
  assert.ok(db.counters.reads.replica1 > 0)
  await Promise.all(pools.map(sql => sql.end()))
})

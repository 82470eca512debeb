'use strict'

// A failover that loses a write which was acknowledged, and promote().  Under load, and
// with each ORM, that is t/clients/conformance.pl.  The last file: no primary is left.

const test = require('node:test')
const assert = require('node:assert/strict')
const { Ryw, TokenLost } = require('ryw')
const h = require('./help')

const pools = {}
const make = options => new Ryw({
  primary: pools.PRIMARY ??= h.pool('PRIMARY'),
  replicas: ['REPLICA1', 'REPLICA2'].map(name => pools[name] ??= h.pool(name)),
  log: h.quiet,
  ...options
})
const write = (db, id, version) => db.query('UPDATE profiles SET version = $2 WHERE id = $1', [id, version])
const read = async (db, id) => (await db.read('SELECT version FROM profiles WHERE id = $1', [id])).rows[0].version

test.before(async () => {
  await h.delay('REPLICA1', 100)
  await h.delay('REPLICA2', 300)
  await h.table('profiles', 200)
})
test.after(h.closePools)

test('a failover: the write that is lost is told as TokenLost, what was kept is read', async () => {
  const db = make()
  const kept = db.keeper()
  await db.run(kept, () => write(db, 1, 111))
  await h.caughtUp()
  // Nothing more reaches the replicas.
  for (const name of ['REPLICA1', 'REPLICA2']) {
    await h.delay(name, 0)
    await h.sql(name, "ALTER SYSTEM SET primary_conninfo = ''")
    await h.sql(name, 'SELECT pg_reload_conf()')
    await h.poll(async () => (await h.sql(name, 'SELECT count(*)::int AS n FROM pg_stat_wal_receiver'))[0].n === 0)
  }
  const lost = db.keeper()
  await db.run(lost, () => write(db, 2, 222))
  h.pgCtl('PRIMARY', 'stop', '-m', 'immediate')
  await h.sql('REPLICA1', 'SELECT pg_promote()')
  const { host, port, user } = h.parts('REPLICA1')
  await h.sql('REPLICA2', `ALTER SYSTEM SET primary_conninfo = 'host=${host} port=${port} user=${user}'`)
  await h.sql('REPLICA2', 'SELECT pg_reload_conf()')
  await h.poll(async () => (await h.sql('REPLICA2', 'SELECT count(*)::int AS n FROM pg_stat_wal_receiver'))[0].n === 1)
  db.promote('replica1')

  const token = lost.text
  const err = await db.run(lost, () => read(db, 2)).catch(err => err)
  assert.ok(err instanceof TokenLost, String(err))
  assert.equal(err.token, token)
  assert.equal(lost.text, '')
  assert.equal(await db.run(lost, () => read(db, 2)) === 222, false, 'it is gone')
  assert.equal(await db.run(kept, () => read(db, 1)), 111)

  // Writes go on, and the set of two timelines becomes one token again.
  await db.run(kept, async () => {
    await write(db, 1, 333)
    assert.equal(kept.size, 2)
    for (let i = 0; i < 3; i++) assert.equal(await read(db, 1), 333)
    assert.equal(kept.size, 1)
    assert.match(kept.text, /^2-/)
  })
  assert.ok(db.counters.reads.replica2 > 0)
})

'use strict'

const test = require('node:test')
const assert = require('node:assert/strict')
const net = require('node:net')
const { Ryw, TokenLost, tokenLost } = require('ryw')
const h = require('./help')

const SELECT = 'SELECT version, pg_is_in_recovery() AS standby FROM policy WHERE id = $1'
const names = ['REPLICA1', 'REPLICA2']
const make = options => new Ryw({
  primary: h.pool('PRIMARY'), replicas: names.map(name => h.pool(name)), log: h.quiet, ...options
})
const write = async (db, version) => {
  const keeper = db.keeper()
  await db.query('UPDATE policy SET version = $1 WHERE id = 1', [version], { keeper })
  return keeper
}
/** The same token, elsewhere. */
const with_ = (text, { timeline, lsn, tag }) => {
  const [a, b, c] = text.split('-')
  return [timeline ?? a, lsn ?? b, tag ?? c].join('-')
}
/** A port on which nobody answers, and one that takes connections and says nothing. */
const closedPort = { host: '127.0.0.1', port: 1, user: 'x', database: 'x' }

test.before(async () => {
  await h.delay('REPLICA2', 0)
  await h.table('policy')
})
test.after(h.closePools)

test('a read sees the write, in one round trip, on a replica, READ ONLY', async () => {
  const db = make()
  const keeper = await write(db, 1)
  const { rows: [row] } = await db.read(SELECT, [1], { keeper })
  assert.deepEqual(row, { version: 1, standby: true })
  // On the wire: how often something is sent for a read.
  const client = await db.replicas[0].pool.connect()
  let sent = 0
  const stream = client.connection.stream
  const { _write, _writev } = stream
  stream._write = function (...args) { sent++; return _write.apply(this, args) }
  stream._writev = function (...args) { sent++; return _writev.apply(this, args) }
  client.release()
  for (let i = 0; i < 4; i++) await db.read(SELECT, [1], { keeper })
  assert.equal(sent, 2, 'two reads went there, with one write to the socket each')
})

test('RY001: the next replica, in the end the primary', async () => {
  const db = make({ wait: 100 })
  await h.pause('REPLICA1')
  try {
    for (let i = 10; i < 14; i++) {
      const { rows: [row] } = await db.read(SELECT, [1], { keeper: await write(db, i) })
      assert.deepEqual(row, { version: i, standby: true })
    }
    assert.equal(db.counters.reads.replica2, 4)
    assert.ok(db.counters.fallbacks.RY001 >= 1)
    await h.pause('REPLICA2')
    const { rows: [row] } = await db.read(SELECT, [1], { keeper: await write(db, 20) })
    assert.deepEqual(row, { version: 20, standby: false })
    assert.equal(db.counters.reads.primary, 1)
    // The primary is read in READ ONLY too.
    const keeper = await write(db, 21)
    await assert.rejects(db.read('UPDATE policy SET version = 0 WHERE id = 1', [], { keeper }), { code: '25006' })
    await assert.rejects(db.readTransaction(client => client.query('DELETE FROM policy'), { keeper }), { code: '25006' })
    const session = await db.query('SHOW transaction_read_only')
    assert.equal(session.rows[0].transaction_read_only, 'off', 'and nothing of it stays')
  } finally {
    await Promise.all(names.map(h.resume))
  }
})

test('all within one deadline, of which each node gets a share', async () => {
  const db = make({ wait: 60000, deadline: 600 })
  await Promise.all(names.map(h.pause))
  try {
    const keeper = await write(db, 30)
    const start = performance.now()
    const { rows: [row] } = await db.read(SELECT, [1], { keeper })
    assert.deepEqual(row, { version: 30, standby: false })
    assert.ok(performance.now() - start < 900)
  } finally {
    await Promise.all(names.map(h.resume))
  }
})

test('RY002: TokenLost, the token is dropped, and the next read goes on', async () => {
  const db = make()
  const keeper = await write(db, 40)
  const real = keeper.text
  const lost = with_(real, { lsn: 'FFFFFFFF0000' }) // behind the end of the primary's WAL
  keeper.add(lost)
  await h.caughtUp()
  const err = await db.read(SELECT, [1], { keeper, wait: 50 }).catch(err => err)
  assert.ok(err instanceof TokenLost, String(err))
  assert.equal(err.token, lost)
  assert.equal(err.code, 'RY002')
  assert.match(err.detail, /this node/)
  assert.equal(tokenLost(new Error('of an ORM', { cause: err })), err)
  assert.equal(keeper.text, '')
  assert.equal(db.counters.lost, 1)
  assert.equal((await db.read(SELECT, [1], { keeper })).rows.length, 1)
  assert.deepEqual(db.replicas.map(node => node.breaker.state), ['closed', 'closed'],
    'a token that nobody reaches is no fault of the replicas')
})

test('RY003: the token is dropped, logged, and the read goes on behind the others', async () => {
  const logged = []
  const db = make({ log: line => logged.push(line) })
  const keeper = await write(db, 50)
  const own = keeper.text
  keeper.add(with_(own, { tag: 'DEADBEEF' }))
  const { rows: [row] } = await db.read(SELECT, [1], { keeper })
  assert.equal(row.version, 50)
  assert.equal(keeper.text, own)
  assert.equal(db.counters.foreign, 1)
  assert.match(logged.join(), /DEADBEEF is from another cluster/)
})

test('RY003 of one node alone does not drop the token', async () => {
  const db = make({ wait: 100 })
  const keeper = await write(db, 51)
  const own = keeper.text
  // A replica that belongs to another cluster.
  const wrong = db.replicas[0]
  const checkout = wrong.checkout
  wrong.checkout = async () => { throw Object.assign(new Error('token is foreign'), { code: 'RY003', detail: `Token ${own}; x` }) }
  for (let i = 0; i < 2; i++) assert.equal((await db.read(SELECT, [1], { keeper })).rows[0].version, 51)
  wrong.checkout = checkout
  assert.equal(keeper.text, own)
  assert.ok(db.counters.fallbacks.RY003 >= 1)
})

test('RY004, RY005 and 40001: once more on the same node, or the next, then the primary', async () => {
  for (const [code, expected] of [
    ['RY004', ['replica1', 'replica1', 'primary']],
    ['40001', ['replica1', 'replica1', 'primary']],
    ['RY005', ['replica1', 'replica2', 'primary']],
    ['RY006', ['replica1', 'replica2', 'primary']]
  ]) {
    const db = make()
    const asked = []
    const result = await db.route(async node => {
      asked.push(node.name)
      if (node !== db.primary) throw Object.assign(new Error(code), { code })
      return { result: 'read' }
    })
    assert.equal(result, 'read')
    assert.deepEqual(asked, expected)
    assert.equal(db.counters.fallbacks[code], 2)
  }
})

test('a conflict with recovery (40001) on a real replica is read again', async () => {
  const db = make()
  await h.sql('REPLICA1', "ALTER SYSTEM SET max_standby_streaming_delay = '0'")
  await h.sql('REPLICA1', 'SELECT pg_reload_conf()')
  try {
    const keeper = await write(db, 60)
    db.replicas = [db.replicas[0]]
    // Reads that hold the table while it is changed: cancelled, then read again.
    const reads = Promise.all(Array.from({ length: 5 }, () =>
      db.read('SELECT version, pg_sleep(0.7) FROM policy WHERE id = 1', [], { keeper, deadline: 10000 })))
    await h.poll(async () => (await h.sql('REPLICA1',
      "SELECT count(*)::int AS n FROM pg_stat_activity WHERE wait_event = 'PgSleep'"))[0].n === 5)
    await h.sql('PRIMARY', 'ALTER TABLE policy ADD COLUMN IF NOT EXISTS more int')
    const versions = (await reads).map(({ rows }) => rows[0].version)
    assert.deepEqual(new Set(versions), new Set([60]))
    assert.ok((db.counters.fallbacks['40001'] ?? 0) >= 1, JSON.stringify(db.counters))
  } finally {
    await h.sql('REPLICA1', 'ALTER SYSTEM RESET max_standby_streaming_delay')
    await h.sql('REPLICA1', 'SELECT pg_reload_conf()')
  }
})

test('connection errors: the next node; a breaker leaves the bad one alone, and tries again', async () => {
  const good = h.pool('REPLICA2')
  const bad = h.pool('REPLICA1', closedPort)
  const db = new Ryw({
    primary: h.pool('PRIMARY'), replicas: [bad, good], log: h.quiet, breaker: { failures: 3, seconds: 0.2 }
  })
  const keeper = await write(db, 70)
  for (let i = 0; i < 20; i++) assert.equal((await db.read(SELECT, [1], { keeper })).rows[0].version, 70)
  assert.equal(db.counters.reads.replica2, 20)
  assert.equal(db.replicas[0].breaker.state, 'open')
  assert.ok(db.counters.fallbacks.connection < 8, 'most reads did not try it')
  Object.assign(bad.options, { port: h.parts('REPLICA1').port, host: h.parts('REPLICA1').host, user: 'postgres', database: 'postgres' })
  await h.poll(() => db.replicas[0].breaker.state === 'half open')
  await h.poll(async () => {
    await db.read(SELECT, [1], { keeper })
    return db.replicas[0].breaker.state === 'closed'
  })
  assert.ok(db.counters.reads.replica1 >= 1)
  assert.ok(db.counters.breakerOpened >= 1)
})

test('half open, one read at a time tries', async () => {
  const db = make({ breaker: { failures: 1, seconds: 0 } })
  const [{ breaker }] = db.replicas
  breaker.answered(false)
  assert.equal(breaker.state, 'half open')
  assert.deepEqual([breaker.allows(), breaker.allows()], [true, false])
  breaker.answered(true)
  assert.equal(breaker.state, 'closed')
})

test('a replica that takes connections and says nothing, and one that hangs', async () => {
  const sockets = []
  const server = net.createServer(socket => sockets.push(socket)).listen(0, '127.0.0.1')
  await new Promise(resolve => server.on('listening', resolve))
  const db = new Ryw({
    primary: h.pool('PRIMARY'),
    replicas: [h.pool('REPLICA1', { host: '127.0.0.1', port: server.address().port, connectionTimeoutMillis: 2000 })],
    wait: 100,
    log: h.quiet
  })
  const keeper = await write(db, 80)
  const start = performance.now()
  assert.equal((await db.read(SELECT, [1], { keeper })).rows[0].version, 80)
  assert.ok(performance.now() - start < 1500)
  sockets.forEach(socket => socket.destroy())
  server.close()

  const hanging = make({ wait: 100 })
  hanging.replicas = [hanging.replicas[0]]
  await hanging.read(SELECT, [1], { keeper })
  const [{ pid }] = (await hanging.replicas[0].pool.query('SELECT pg_backend_pid() AS pid')).rows
  process.kill(pid, 'SIGSTOP')
  try {
    assert.equal((await hanging.read(SELECT, [1], { keeper })).rows[0].standby, false)
    assert.equal(hanging.counters.fallbacks.connection, 1)
  } finally {
    process.kill(pid, 'SIGCONT')
  }
  assert.equal((await hanging.read(SELECT, [1], { keeper })).rows[0].standby, true)
  // A slow statement is none that hangs: the wait has answered.
  assert.equal((await hanging.read('SELECT pg_is_in_recovery() AS standby, pg_sleep(0.8)', [], { keeper })).rows[0].standby, true)
})

test('errors of the statement are the application\'s, on the node that they came from', async () => {
  const db = make()
  const keeper = await write(db, 90)
  await assert.rejects(db.read('SELECT nothing FROM policy', [], { keeper }), { code: '42703' })
  await assert.rejects(db.read('SELECT 1/$1::int', [0], { keeper }), { code: '22012' })
  await assert.rejects(db.read('SELECT $1::int', [{ toPostgres () { throw new Error('value') } }], { keeper }), /value/)
  assert.deepEqual(db.counters.fallbacks, {})
  for (let i = 0; i < 4; i++) assert.equal((await db.read(SELECT, [1], { keeper })).rows[0].version, 90, 'connections are in order')
})

test('statement caches: prepared names after a change of the table, after errors and after DISCARD ALL', async () => {
  const db = make()
  db.replicas = [db.replicas[0]]
  db.replicas[0].pool.options.max = 1
  await h.table('prepared')
  const named = (name, text, values) => ({ name, text, values })
  let keeper = db.keeper()
  const all = () => db.read(named('all', 'SELECT * FROM prepared WHERE id = $1', [1]), undefined, { keeper })
  assert.equal((await all()).fields.length, 3)
  await db.query('ALTER TABLE prepared ADD COLUMN further int DEFAULT 5', [], { keeper })
  // The control: the driver by itself.
  await h.caughtUp()
  await assert.rejects(db.replicas[0].pool.query(named('all', 'SELECT * FROM prepared WHERE id = $1', [1])), { code: '0A000' })
  assert.equal((await all()).rows[0].further, 5)
  assert.equal((await all()).rows[0].further, 5)
  assert.equal(db.counters.reads.primary, undefined)

  await db.replicas[0].pool.query('DISCARD ALL')
  assert.equal((await all()).rows[0].further, 5)

  // A guard that fails has not let the statement be prepared.
  keeper = await write(db, 95)
  await h.pause('REPLICA1')
  const one = () => db.read(named('one', 'SELECT version FROM policy WHERE id = $1', [1]), undefined, { keeper, wait: 50 })
  try {
    keeper = await write(db, 96)
    assert.equal((await one()).rows[0].version, 96)
  } finally {
    await h.resume('REPLICA1')
  }
  await h.caughtUp()
  const text = 'SELECT version FROM policy WHERE id = $1'
  const { rows } = await db.readTransaction(client => client.query(named('one', text, [1])), { keeper })
  assert.equal(rows[0].version, 96, 'nor does the driver believe so')
  assert.equal((await one()).rows[0].version, 96)
  // Nor has a statement that cannot be parsed; one that fails later has been.
  const bad = () => db.read(named('bad', 'SELECT nothing FROM policy'), undefined, { keeper })
  await assert.rejects(bad(), { code: '42703' })
  await assert.rejects(bad(), { code: '42703' })
  const zero = n => db.read(named('zero', 'SELECT 1/$1::int AS x', [n]), undefined, { keeper })
  await assert.rejects(zero(0), { code: '22012' })
  assert.equal((await zero(1)).rows[0].x, 1)
})

test('in a transaction on a replica: REPEATABLE READ sees the write', async () => {
  const db = make()
  for (let i = 100; i < 110; i++) {
    const keeper = await write(db, i)
    const rows = await db.readTransaction(async client => {
      const first = await client.query(SELECT, [1])
      const second = await client.query(SELECT, [1])
      return [first.rows[0], second.rows[0]]
    }, { keeper, isolation: 'REPEATABLE READ' })
    assert.deepEqual(rows, [{ version: i, standby: true }, { version: i, standby: true }])
  }
})

test('REPEATABLE READ as the default of a replica\'s connections: the primary answers', async () => {
  const db = make()
  db.replicas = [db.replicas[0]]
  db.replicas[0].pool.options.options = '-c default_transaction_isolation=repeatable\\ read'
  const { rows } = await db.read(SELECT, [1], { keeper: await write(db, 111) })
  assert.deepEqual(rows, [{ version: 111, standby: false }])
  assert.deepEqual(db.counters.fallbacks, { RY004: 2 })
})

test('audit mode does not wait, and counts by the line that called', async () => {
  await Promise.all(names.map(h.pause))
  try {
    const logged = []
    const db = make({ mode: 'audit', log: line => logged.push(line) })
    const keeper = await write(db, 120)
    const old = db.keeper()
    const behind = () => db.read(SELECT, [1], { keeper }) // the stale line
    const fine = () => db.read(SELECT, [1], { keeper: old })
    const start = performance.now()
    for (let i = 0; i < 5; i++) {
      assert.notEqual((await behind()).rows[0].version, 120)
      await fine()
    }
    assert.ok(performance.now() - start < 450)
    assert.equal(db.audit.length, 1)
    const [{ site, reads, stale }] = db.audit
    assert.match(site, /policy\.test\.js:\d+$/)
    assert.deepEqual({ reads, stale }, { reads: 5, stale: 5 })
    assert.equal(logged.length, 1)
    assert.equal(db.counters.reads.primary, undefined)
  } finally {
    await Promise.all(names.map(h.resume))
  }
})

test('a read outside of any request is counted, and refused with strict', async () => {
  const db = make()
  await db.read(SELECT, [1])
  assert.equal(db.counters.withoutKeeper, 1)
  await assert.rejects(make({ strict: true }).read(SELECT, [1]), /outside of any request/)
})

test('a job is given the text, and goes on from there', async () => {
  const db = make()
  const payload = JSON.stringify({ ryw: (await write(db, 130)).dump() })
  const row = await db.run(JSON.parse(payload).ryw, async () => (await db.read(SELECT, [1])).rows[0])
  assert.deepEqual(row, { version: 130, standby: true })
})

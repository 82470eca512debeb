'use strict'

const test = require('node:test')
const assert = require('node:assert/strict')
const postgres = require('postgres')
const { RywPostgres, TokenLost } = require('ryw')
const h = require('./help')

const opened = []
const open = (name, options) => {
  const sql = postgres({ ...h.parts(name), max: 5, onnotice: h.quiet, ...options })
  opened.push(sql)
  return sql
}
const make = (options, ofPrimary) => new RywPostgres({
  primary: open('PRIMARY', ofPrimary), replicas: [open('REPLICA1'), open('REPLICA2')], log: h.quiet, ...options
})
const write = (db, id, version) => db.write(sql => sql`UPDATE js SET version = ${version} WHERE id = ${id}`)
const read = async (db, id) => (await db.read(sql => sql`SELECT version, pg_is_in_recovery() AS standby FROM js WHERE id = ${id}`))[0]

test.before(async () => {
  await h.delay('REPLICA1', 150)
  await h.delay('REPLICA2', 300)
  await h.table('js', 100)
})
test.afterEach(() => Promise.all(opened.splice(0).map(sql => sql.end({ timeout: 1 }))))

test('postgres.js: 50 users on 5 connections, write() and transaction()', async () => {
  const db = make()
  const off = make({ mode: 'off' })
  const stale = async (which, first) => {
    let count = 0
    const keepers = await h.atOnce(50, 50, i => which.run('', async () => {
      await write(which, i + 1, first)
      if ((await read(which, i + 1)).version !== first) count++
      await which.transaction(sql => sql`UPDATE js SET version = ${first + 1} WHERE id = ${i + 1}`)
      if ((await read(which, i + 1)).version !== first + 1) count++
      return which.current.text
    }))
    assert.equal(new Set(keepers).size, 50)
    return count
  }
  assert.equal(await stale(db, 1000), 0)
  assert.equal(await h.held(['REPLICA1', 'REPLICA2'], () => stale(off, 2000)), 100, 'control')
  assert.ok(db.counters.reads.replica1 > 0 && db.counters.reads.replica2 > 0)
})

test('postgres.js: ryw_token() of the last user of a connection is not taken', async () => {
  const db = make({}, { max: 1 })
  await db.run('', () => write(db, 60, 1))
  const ann = (await db.primary.sql`SELECT ryw_token()::text AS at`)[0].at
  assert.ok(ann, 'control: the connection still tells it')
  await h.sql('PRIMARY', 'UPDATE js SET version = 1 WHERE id = 61')
  await db.run('', async () => {
    await write(db, -1, 1) // changes nothing, as a retry does whose write is done
    assert.notEqual(db.current.text, ann)
    assert.equal(db.current.size, 1, 'but what it can have seen is covered')
    assert.ok(h.covers(db.current, ann))
  })
  await db.primary.sql`DISCARD ALL`
  await db.run('', async () => {
    await write(db, 61, 2)
    assert.equal((await read(db, 61)).version, 2)
  })
})

test('postgres.js: errors of the statement, and a transaction that is rolled back', async () => {
  const db = make()
  await db.run('', async () => {
    await assert.rejects(write(db, 'x', 1))
    await assert.rejects(db.read(sql => sql`SELECT 1/${0}::int`), { code: '22012' })
    await assert.rejects(db.transaction(async sql => {
      await sql`UPDATE js SET version = 1 WHERE id = 1`
      throw new Error('no')
    }), /no/)
    assert.equal(db.current.text, '')
    await assert.rejects(db.read(sql => sql`DELETE FROM js`), { code: '25006' })
    await write(db, 62, 3)
    assert.equal((await read(db, 62)).version, 3)
  })
})

test('postgres.js: fallback, TokenLost and audit', async () => {
  const db = make({ wait: 50 })
  await Promise.all(['REPLICA1', 'REPLICA2'].map(h.pause))
  try {
    await db.run('', async () => {
      await write(db, 63, 4)
      assert.deepEqual({ ...await read(db, 63) }, { version: 4, standby: false })
      await assert.rejects(db.read(async sql => {
        await sql`SELECT 1`
        return sql`DELETE FROM js`
      }), { code: '25006' }, 'the primary is read in READ ONLY too')
      const audit = make({ mode: 'audit' })
      await audit.run(db.current, () => read(audit, 63))
      assert.deepEqual(audit.audit.map(({ reads, stale }) => ({ reads, stale })), [{ reads: 1, stale: 1 }])
      assert.match(audit.audit[0].site, /postgresjs\.test\.js/)
    })
  } finally {
    await Promise.all(['REPLICA1', 'REPLICA2'].map(h.resume))
  }
  await db.run('', async () => {
    await write(db, 64, 5)
    const [timeline,, tag] = db.current.text.split('-')
    db.current.add(`${timeline}-FFFFFFFF0000-${tag}`)
    await assert.rejects(read(db, 64), err => err instanceof TokenLost)
    assert.equal(db.current.text, '')
  })
})

test('postgres.js: statement caches after a change of the table', async () => {
  const db = make()
  await db.run('', async () => {
    const all = () => db.read(sql => sql`SELECT * FROM js WHERE id = ${65}`)
    await Promise.all(Array.from({ length: 10 }, all))
    await db.write(sql => sql`ALTER TABLE js ADD COLUMN IF NOT EXISTS further int DEFAULT 5`)
    const rows = (await Promise.all(Array.from({ length: 10 }, all))).map(([row]) => row.further)
    assert.deepEqual(new Set(rows), new Set([5]))
  })
})

// postgres.js 3.4.9 ends the process when something is written to a reserved
// connection that has closed (its issue 1208): so ryw writes nothing there.  A pool
// for each: a slot of its that was cut off says so once more when it is used again.
const killed = async sql => {
  try {
    await sql`SELECT pg_terminate_backend(pg_backend_pid())`
  } catch (err) {
    await new Promise(resolve => setTimeout(resolve, 100))
    throw err
  }
}
const cut = { code: /^(57P01|CONNECTION_CLOSED|ECONNRESET)$/ }
for (const [what, fn, raised] of [
  ['told', killed, { write: cut, transaction: cut, read: cut }],
  ['told as something else', sql => killed(sql).catch(() => { throw new Error('mine') }), { write: /mine/, transaction: /mine/, read: /mine/ }],
  ['not told', sql => killed(sql).catch(() => {}), { write: cut, transaction: cut }]
]) {
  test(`postgres.js: behind a connection that has closed nothing is written: ${what}`, async () => {
    const db = make()
    await db.run('', async () => {
      for (const way of Object.keys(raised)) await assert.rejects(db[way](fn), raised[way], way)
      await write(db, 66, 1)
      assert.equal((await read(db, 66)).version, 1)
    })
  })
}

test('postgres.js: an error of another server is not taken for one of the connection', async () => {
  const db = make({}, { max: 1 })
  const dead = open('PRIMARY', { host: '127.0.0.1', port: 1, path: undefined })
  const elsewhere = () => dead`SELECT 1`
  await db.run('', async () => {
    for (let n = 1; n <= 2; n++) {
      await assert.rejects(db.transaction(async sql => {
        await sql`UPDATE js SET version = 9 WHERE id = 67`
        await elsewhere()
      }), { code: 'ECONNREFUSED' })
      await assert.rejects(db.write(elsewhere), { code: 'ECONNREFUSED' })
      await assert.rejects(db.transaction(sql => sql`DO $$ BEGIN RAISE connection_failure; END $$`), { code: '08006' })
    }
    await write(db, 67, 5)
    assert.equal((await read(db, 67)).version, 5)
  })
})

test('postgres.js: fn that throws at once leaves no transaction', async () => {
  const db = make({ wait: 20 })
  const replicas = db.replicas.map(({ sql }) => sql)
  await db.run('', async () => {
    await write(db, 68, 1)
    const broken = () => { throw new TypeError('mine') }
    for (const way of ['write', 'transaction', 'read']) await assert.rejects(db[way](broken), /mine/)
  })
  for (const sql of replicas) {
    const open = await sql`SELECT count(*)::int AS n FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'`
    assert.equal(open[0].n, 0)
  }
})

test('postgres.js: a connection whose guard hung is given back when it answers', async () => {
  const replica = open('REPLICA1', { max: 1 })
  const db = new RywPostgres({ primary: open('PRIMARY'), replicas: [replica], log: h.quiet, wait: 20 })
  await db.run('', async () => {
    await write(db, 69, 1)
    await read(db, 69)
    const [{ pid }] = await replica`SELECT pg_backend_pid() AS pid`
    process.kill(pid, 'SIGSTOP')
    try {
      assert.equal((await read(db, 69)).standby, false)
    } finally {
      process.kill(pid, 'SIGCONT')
    }
    const [again] = await replica.unsafe('SELECT pg_backend_pid() AS pid, now() = statement_timestamp() AS fresh')
    assert.deepEqual({ ...again }, { pid, fresh: true }, 'in no transaction of the read')
  })
})

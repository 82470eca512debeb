'use strict'

// What the tests share: the servers that t/clients/node.pl has started, a table,
// and ways to hold a replica's replay.

const { execFileSync } = require('node:child_process')
const pg = require('pg')
const { Keeper } = require('ryw')

const env = name => {
  const value = process.env[`RYW_${name}`]
  if (!value) throw new Error(`RYW_${name} is not set: run t/clients/node.pl`)
  return value
}
/** For drivers that want the parts. */
const parts = name => {
  const url = new URL(env(name).replace(/^postgresql:\/\/\//, 'postgresql://x/'))
  return {
    host: url.searchParams.get('host'),
    port: Number(url.searchParams.get('port')),
    user: url.searchParams.get('user'),
    database: url.pathname.slice(1)
  }
}

const pools = []
/** A pool that closes at the end of the file. */
function pool (name, options) {
  const made = new pg.Pool({ ...parts(name), max: 20, ...options })
  pools.push(made)
  return made
}
const closePools = () => Promise.all(pools.splice(0).map(made => made.ended ? undefined : made.end()))

async function sql (name, text, values) {
  const client = new pg.Client(parts(name))
  await client.connect()
  try {
    return (await client.query(text, values)).rows
  } finally {
    await client.end()
  }
}

async function poll (check, seconds = 20) {
  for (const ends = Date.now() + seconds * 1000; ;) {
    const found = await check()
    if (found) return found
    if (Date.now() > ends) throw new Error(`nothing for ${seconds} s: ${check}`)
    await new Promise(resolve => setTimeout(resolve, 5))
  }
}

async function pause (name) {
  await sql(name, 'SELECT pg_wal_replay_pause()')
  await poll(async () => (await sql(name, 'SELECT pg_get_wal_replay_pause_state() AS s'))[0].s === 'paused')
}
const resume = name => sql(name, 'SELECT pg_wal_replay_resume()')

/** Calls fn while the replicas apply nothing: a control's reads are stale, however slow the machine. */
async function held (names, fn) {
  await Promise.all(names.map(pause))
  try {
    return await fn()
  } finally {
    await Promise.all(names.map(resume))
  }
}

/** Every replica has all that the primary has. */
async function caughtUp (...names) {
  const [{ lsn }] = await sql('PRIMARY', 'SELECT pg_current_wal_flush_lsn()::text AS lsn')
  for (const name of names.length ? names : ['REPLICA1', 'REPLICA2']) {
    await poll(async () => (await sql(name, 'SELECT pg_last_wal_replay_lsn() >= $1::pg_lsn AS done', [lsn]))[0].done)
  }
}

/** Lag: so many milliseconds on every commit. */
async function delay (name, ms) {
  await sql(name, `ALTER SYSTEM SET recovery_min_apply_delay = '${ms}ms'`)
  await sql(name, 'SELECT pg_reload_conf()')
  await poll(async () => (await sql(name, 'SHOW recovery_min_apply_delay'))[0].recovery_min_apply_delay === (ms ? `${ms}ms` : '0'))
}

/** A fresh table of users, each with version 0, seen by all replicas. */
async function table (name, rows = 50) {
  await sql('PRIMARY', `DROP TABLE IF EXISTS ${name}`)
  await sql('PRIMARY', `CREATE TABLE ${name} (id int PRIMARY KEY, version int NOT NULL, note text)`)
  await sql('PRIMARY', `INSERT INTO ${name} SELECT n, 0, '' FROM generate_series(1, ${rows}) n`)
  await caughtUp()
}

/** Calls fn(0) .. fn(n - 1), so many at a time. */
async function atOnce (n, width, fn) {
  let next = 0
  const results = []
  await Promise.all(Array.from({ length: width }, async () => {
    while (next < n) {
      const i = next++
      results[i] = await fn(i)
    }
  }))
  return results
}

const pgCtl = (name, ...args) =>
  execFileSync(`${env('BIN')}/pg_ctl`, [...args, '-s', '-D', env(`DATA_${name}`)], { stdio: 'ignore' })

/** Would a keeper of this one's tokens be waited for long enough? */
const covers = (keeper, text) => new Keeper(keeper.text).add(text).text === keeper.text

const quiet = () => {}

module.exports = { env, parts, pool, closePools, sql, poll, pause, resume, held, caughtUp, delay, table, atOnce, pgCtl, covers, quiet }

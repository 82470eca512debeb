'use strict'

// Without the extension: core's WAIT FOR LSN where there is one, else looking
// again and again.  It knows LSNs, no timelines.

const { bareToken } = require('./capture')
const { parseSet } = require('./keeper')

const DETECT = `SELECT current_setting('server_version_num')::int AS version,
  current_setting('ryw.token', true) IS NOT NULL AND EXISTS (SELECT FROM pg_catalog.pg_proc
    WHERE proname = 'ryw_require' AND pg_function_is_visible(oid)) AS ryw`

/** What a node can do, from DETECT's answer. */
function capabilities ({ version, ryw }) {
  if (ryw) return { ryw, version, token: 'ryw.token', wait: 'ryw_require', notGuaranteed: [] }
  return {
    ryw, version,
    token: 'last_commit_lsn if the server reports it, else pg_current_wal_insert_lsn() after a write',
    wait: version >= 190000 ? 'WAIT FOR LSN' : 'pg_last_wal_replay_lsn(), looked at again and again',
    notGuaranteed: [
      'failover: an LSN has no timeline, so a write that a failover cut off can be called reached',
      'page boundaries: where WAL pages are not of 8 kB, an idle primary can name an LSN that no replica reaches',
      'writes inside of a SELECT on the primary are not noticed, unless the server reports last_commit_lsn',
      'on a primary, what is being committed by others'
    ]
  }
}

/** The greatest LSN of a set, as PostgreSQL writes it. */
function lsnOf (text) {
  const lsn = (parseSet(text) ?? []).reduce((most, token) => token.lsn > most ? token.lsn : most, 0n)
  return `${(lsn >> 32n).toString(16)}/${(lsn & 0xffffffffn).toString(16)}`.toUpperCase()
}

const notReached = timeout => Object.assign(
  new Error(`token was not reached within ${timeout} ms`), { code: 'RY001', inGuard: true })

/**
 * Waits ahead of the statement.  ask(text, values) answers with rows.  In audit
 * mode it looks once, and says whether it is reached.
 */
async function waitPlain (ask, version, text, timeout, audit) {
  const lsn = lsnOf(text)
  const deadline = performance.now() + timeout
  for (let pause = 1; ; pause = Math.min(pause * 2, 20)) {
    const [{ reached }] = await ask(
      'SELECT NOT pg_is_in_recovery() OR pg_last_wal_replay_lsn() >= $1::pg_lsn AS reached', [lsn])
    if (reached || audit) return reached
    const left = Math.ceil(deadline - performance.now())
    if (left <= 0) throw notReached(timeout)
    if (version >= 190000) {
      const [{ status }] = await ask(`WAIT FOR LSN '${lsn}' WITH (TIMEOUT '${left}ms', NO_THROW)`)
      if (status === 'success') return true
    } else {
      await new Promise(resolve => setTimeout(resolve, Math.min(pause, left)))
    }
  }
}

/** A token that covers all that can be seen where ask() asks, a primary. */
async function positionBy (ask, ryw) {
  const [{ at }] = await ask(`SELECT ${ryw ? 'ryw_current_token' : 'pg_current_wal_insert_lsn'}()::text AS at`)
  return ryw ? at : bareToken(at)
}

module.exports = { DETECT, capabilities, waitPlain, positionBy }

'use strict'

/** An acknowledged write is gone for good: a failover has cut it off. */
class TokenLost extends Error {
  constructor (token, detail, options) {
    super(`token ${token} is lost: the write was acknowledged, and a failover has cut it off`, options)
    Object.assign(this, { name: 'TokenLost', code: 'RY002', token, detail })
  }
}

// Where drivers and ORMs keep what the driver threw: Drizzle and TokenLost in
// cause, Sequelize in original, TypeORM in driverError.
const WRAPPED = ['cause', 'original', 'parent', 'driverError']

/** The error inside of others for which the test is true. */
function find (err, test, depth = 0) {
  if (err === null || typeof err !== 'object' || depth > 8) return undefined
  return test(err) ? err : WRAPPED.map(name => find(err[name], test, depth + 1)).find(Boolean)
}

/** The TokenLost inside of an ORM's error. */
const tokenLost = err => find(err, e => e instanceof TokenLost)

/** The SQLSTATE or the system's code, however deep. */
const codeOf = err => find(err, e => typeof e.code === 'string')?.code

/** A prepared statement from before a change of its table, or a DISCARD ALL. */
const STALE_PLAN = /^(0A000|26000)$/

const NETWORK = /^(E(CONN|PIPE|TIMEDOUT|HOST|NET|NOTFOUND|AI_|NOENT)|08|57P0[1-5]|53300|CONNECT|CONNECTION_)/
const NO_CODE = /connection terminated|timeout exceeded when trying to connect|not queryable|connection timeout/i
const VERDICTS = { RY001: 'next', RY005: 'next', RY006: 'next', RY004: 'again', 40001: 'again', RY002: 'lost', RY003: 'foreign' }
// Ahead of the statement: cancelled, or a node without the library.
const IN_GUARD = { 57014: 'next', 55000: 'next', 42883: 'next' }

/** What the policy makes of an error: next, again, lost, foreign, connection or raise. */
function verdict (err, inGuard) {
  const code = codeOf(err)
  const known = VERDICTS[code] ?? (inGuard ? IN_GUARD[code] : undefined)
  return known ?? ((code === undefined ? NO_CODE.test(err?.message) : NETWORK.test(code)) ? 'connection' : 'raise')
}

/** The token that an error's DETAIL is about. */
function tokenOf (err) {
  const detail = find(err, e => typeof e.detail === 'string')?.detail ?? ''
  return { token: /Token ([0-9A-F]+-[0-9A-F]+-[0-9A-F]+)/i.exec(detail)?.[1], detail }
}

module.exports = { TokenLost, tokenLost, codeOf, verdict, tokenOf, STALE_PLAN }

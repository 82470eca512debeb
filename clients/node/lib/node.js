'use strict'

// One server: its pool, what it can do, and a breaker that leaves it alone for a
// while when it keeps failing.

const { watch } = require('./capture')
const { DETECT, capabilities } = require('./plain')
const { verdict } = require('./errors')

const now = () => performance.now()

class Breaker {
  #failures = 0
  #opened = 0
  #trying = false

  constructor ({ failures = 5, seconds = 10 } = {}, opens = () => {}) {
    Object.assign(this, { most: failures, pause: seconds * 1000, opens })
  }

  get state () {
    if (this.#failures < this.most) return 'closed'
    return now() - this.#opened < this.pause ? 'open' : 'half open'
  }

  /** May a read go there?  Half open, one at a time may try. */
  allows () {
    const { state } = this
    return state === 'closed' || (state === 'half open' && !this.#trying && (this.#trying = true))
  }

  /** The one that tried has an answer: ok, failed, or neither. */
  answered (ok) {
    this.#trying = false
    if (ok) this.#failures = 0
    if (ok !== false || ++this.#failures < this.most) return
    this.#opened = now()
    this.opens()
  }
}

/** Fails after so many milliseconds; what comes later is handed to late(). */
async function within (ms, promise, late) {
  let timer
  const error = Object.assign(new Error('ryw: timeout exceeded when trying to connect'), { late: true })
  const over = new Promise((resolve, reject) => {
    timer = setTimeout(() => {
      promise.then(late, () => {})
      reject(error)
    }, ms)
  })
  return Promise.race([promise, over]).finally(() => clearTimeout(timer))
}

class Node {
  #capabilities

  constructor (name, target, { breaker, log, counters }) {
    this.name = name
    this.breaker = new Breaker(breaker, () => {
      counters.breakerOpened++
      log(`ryw: ${name} keeps failing and is left alone for a while`)
    })
    if (typeof target?.reserve === 'function') this.sql = target
    else if (typeof target?.connect === 'function') this.pool = target
    else this.pool = this.owned = new (require('pg').Pool)(typeof target === 'string' ? { connectionString: target } : target)
    // An idle connection that breaks is no reason to end the process.
    this.pool?.on?.('error', err => log(`ryw: idle connection to ${name}: ${err.message}`))
  }

  /** A connection out of the pool, in time. */
  checkout (ms) {
    const coming = this.pool ? this.pool.connect().then(client => watch(client) && client) : this.sql.reserve()
    return within(ms, coming, client => client.release())
  }

  // One of postgres.js that is closed is in its pool again.
  release (client, err) {
    if (!err || verdict(err) !== 'connection') client.release()
    else if (this.pool) client.release(err)
  }

  /** Rows of a question on a connection that was checked out. */
  async ask (client, text, values, ms = 10000) {
    if (this.sql) return within(ms, client.unsafe(text, values ?? []).execute(), () => {})
    return (await client.query({ text, values, query_timeout: ms })).rows
  }

  async capabilities (client, ms) {
    return (this.#capabilities ??= capabilities((await this.ask(client, DETECT, [], ms))[0]))
  }

  /** After an error that says that it is not what it was. */
  forget () { this.#capabilities = undefined }

  async end () { await this.owned?.end() }
}

module.exports = { Node, now, within }

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
    const state = this.state
    return state === 'closed' || (state === 'half open' && !this.#trying && (this.#trying = true))
  }

  /** Chosen, but not asked after all. */
  unused () { this.#trying = false }

  success () {
    this.#failures = 0
    this.#trying = false
  }

  failure () {
    this.#trying = false
    if (++this.#failures < this.most) return
    this.#failures = this.most
    this.#opened = now()
    this.opens()
  }
}

/** Fails after so many milliseconds; what comes later is handed to late(). */
function within (ms, promise, late) {
  return new Promise((resolve, reject) => {
    let over = false
    const timer = setTimeout(() => {
      over = true
      reject(Object.assign(new Error('ryw: timeout exceeded when trying to connect'), { late: true }))
    }, ms)
    promise.then(value => {
      clearTimeout(timer)
      over ? late(value) : resolve(value)
    }, err => {
      clearTimeout(timer)
      reject(err)
    })
  })
}

class Node {
  #capabilities

  constructor (name, target, { breaker, log, counters }) {
    this.name = name
    this.breaker = new Breaker(breaker, () => {
      counters.breakerOpened++
      log(`ryw: ${name} keeps failing and is left alone for a while`)
    })
    if (typeof target?.reserve === 'function') {
      this.sql = target
    } else if (typeof target?.connect === 'function') {
      this.pool = target
    } else {
      const { Pool } = require('pg')
      this.pool = new Pool(typeof target === 'string' ? { connectionString: target } : target)
      this.owned = true
    }
    // An idle connection that breaks is no reason to end the process.
    this.pool?.on?.('error', err => log(`ryw: idle connection to ${name}: ${err.message}`))
  }

  /** A connection out of the pool, in time. */
  checkout (ms) {
    return this.pool
      ? within(ms, this.pool.connect().then(client => watch(client) && client), client => client.release())
      : within(ms, this.sql.reserve(), reserved => reserved.release())
  }

  release (client, err) {
    client.release(err && verdict(err) === 'connection' ? err : undefined)
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

  async end () { if (this.owned) await this.pool.end() }
}

module.exports = { Node, now, within }

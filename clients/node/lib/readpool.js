'use strict'

// What ORMs take for a pool of pg, or a client of one: each statement outside of
// a transaction is routed by itself; BEGIN is, and then everything up to its end
// goes to that node.

const { EventEmitter } = require('node:events')
const context = require('./context')
const { watch } = require('./capture')
const { verdict } = require('./errors')

const BEGIN = /^\s*(BEGIN|START\s+TRANSACTION)\b/i
const END = /^\s*(COMMIT|ROLLBACK|END|ABORT)\b/i
const SESSION = /^\s*(SET|RESET|DISCARD|LISTEN|UNLISTEN|PREPARE|DEALLOCATE|DECLARE)\b/i
const nothing = command => ({ command, rowCount: null, rows: [], fields: [] })

class ReadClient extends EventEmitter {
  #db
  #types
  #pinned

  constructor (db, types) { super(); this.#db = db; this.#types = types }

  query (config, values, callback) {
    if (typeof values === 'function') [values, callback] = [undefined, values]
    if (typeof config.submit !== 'function') return context.answer(this.#run(config, values), callback ?? config.callback)
    if (!this.#pinned) throw new Error('ryw: cursors and streams are read in a transaction')
    return this.#pinned.query(config, values, callback)
  }

  async #run (config, values) {
    const text = typeof config === 'string' ? config : config.text
    if (this.#types && !config.types) config = { ...(config === text ? { text } : config), types: this.#types }
    if (this.#pinned) return this.#inTransaction(config, values)
    if (BEGIN.test(text)) {
      this.#pinned = await this.#db.begin(text.replace(/;\s*$/, ''))
      return nothing('BEGIN')
    }
    if (END.test(text)) return nothing(text.trim().split(/\W/)[0].toUpperCase())
    if (SESSION.test(text)) {
      throw new Error('ryw: a routed read has no session to keep this: put it into the options of the pools')
    }
    return this.#db.read(config, values)
  }

  async #inTransaction (config, values) {
    const client = this.#pinned
    let broken
    try {
      return await client.query(config, values)
    } catch (err) {
      if (verdict(err) === 'connection') broken = err
      throw err
    } finally {
      if (broken || watch(client).status === 'I') this.#unpin(broken)
    }
  }

  #unpin (err) {
    this.#pinned?.release(err)
    this.#pinned = undefined
  }

  /** Back to the pool; a transaction that is still open ends with its connection. */
  release (err) { this.#unpin(err || true) }
}

class ReadPool extends EventEmitter {
  #db

  constructor (db) { super(); this.#db = db }

  connect (callback) {
    const client = new ReadClient(this.#db)
    if (typeof callback !== 'function') return Promise.resolve(client)
    callback(null, client, err => client.release(err))
  }

  query (...args) { return new ReadClient(this.#db).query(...args) }

  /** The pools belong to the application. */
  async end (callback) { callback?.() }
}

module.exports = { ReadClient, ReadPool }

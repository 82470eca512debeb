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

class ReadClient extends EventEmitter {
  #db
  #types
  #pinned
  #options

  constructor (db, { types, keeper } = {}) {
    super()
    this.#db = db
    this.#types = types
    this.#options = { keeper }
  }

  query (config, values, callback) {
    if (typeof values === 'function') [values, callback] = [undefined, values]
    callback = callback ?? (typeof config === 'object' ? config.callback : undefined)
    if (typeof config?.submit === 'function' && !this.#pinned) {
      throw new Error('ryw: cursors and streams are read in a transaction')
    }
    if (typeof config?.submit === 'function') return this.#pinned.query(config, values, callback)
    const done = this.#run(config, values)
    if (typeof callback !== 'function') return done
    const bound = context.bind(callback)
    done.then(result => bound(null, result), err => bound(err))
  }

  async #run (config, values) {
    const text = typeof config === 'string' ? config : config.text
    if (this.#types && config.types === undefined) {
      config = { ...(typeof config === 'string' ? { text } : config), types: this.#types }
    }
    if (this.#pinned) return this.#inTransaction(config, values)
    if (BEGIN.test(text)) {
      this.#pinned = await this.#db.begin(text.replace(/;\s*$/, ''), this.#options)
      watch(this.#pinned)
      return { command: 'BEGIN', rowCount: null, rows: [], fields: [] }
    }
    if (END.test(text)) return { command: text.trim().split(/\W/)[0].toUpperCase(), rowCount: null, rows: [], fields: [] }
    if (SESSION.test(text)) {
      throw new Error('ryw: a routed read has no session to keep this: put it into the options of the pools')
    }
    return this.#db.read(config, values, this.#options)
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
    const client = this.#pinned
    this.#pinned = undefined
    client?.release(err)
  }

  /** Back to the pool; a transaction that is still open ends with its connection. */
  release (err) {
    if (this.#pinned) this.#unpin(err || true)
  }

  async connect (callback) {
    callback?.(null, this)
    return this
  }

  async end (callback) {
    this.release()
    callback?.()
  }
}

class ReadPool extends EventEmitter {
  #db
  #options

  constructor (db, options) {
    super()
    this.#db = db
    this.#options = options
  }

  connect (callback) {
    const client = new ReadClient(this.#db, this.#options)
    if (typeof callback !== 'function') return Promise.resolve(client)
    callback(null, client, err => client.release(err))
  }

  query (config, values, callback) {
    return new ReadClient(this.#db, this.#options).query(config, values, callback)
  }

  /** The pools belong to the application. */
  async end (callback) { callback?.() }
}

module.exports = { ReadClient, ReadPool }

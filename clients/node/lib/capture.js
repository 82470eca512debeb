'use strict'

// The token of a commit, from the commit's own reply on the connection that
// committed (node-postgres).
//
// A connection is hooked when it is handed out, not when it is opened: pools and
// ORMs have open connections before anybody can give them a hook.  The listener
// only notes what came; the query that ends next, for which the server sent it,
// takes it, into the keeper of the one who called query(), if there is one: else
// it is thrown away, so that nobody who comes later finds it.

const context = require('./context')
const { parse } = require('./keeper')

const HOOK = Symbol.for('ryw.capture')
const MODIFYING = /^(INSERT|UPDATE|DELETE|MERGE|COMMIT|CALL|COPY|CREATE|ALTER|DROP|TRUNCATE|SELECT INTO)/
const REPORTED = {
  'ryw.token': value => value,
  last_commit_lsn: value => bareToken(value)
}

/** A token without timeline and tag, for a server without the extension. */
function bareToken (lsn) {
  const [high, low] = String(lsn).split('/')
  const value = (BigInt('0x' + high) << 32n) | BigInt('0x' + low)
  // Just behind a page's header is where that page begins.
  const inPage = value % 8192n
  return `0-${(inPage === 24n || inPage === 40n ? value - inPage : value).toString(16)}-0`.toUpperCase()
}

/** What is known of a connection: the token that came last, whether in a transaction. */
function watch (client) {
  if (client[HOOK]) return client[HOOK]
  if (typeof client.connection?.on !== 'function') {
    throw new Error('ryw: this client shows no ParameterStatus (pg-native?): use the one in JavaScript')
  }
  const state = { fresh: undefined, status: client.getTransactionStatus?.() ?? 'I' }
  Object.defineProperty(client, HOOK, { value: state })
  // Whoever breaks while it is handed out is told by its query.
  client.on('error', () => {})
  client.connection.on('parameterStatus', ({ parameterName, parameterValue }) => {
    const value = parameterValue && REPORTED[parameterName]?.(parameterValue)
    // Empty after DISCARD ALL: nothing that anybody wrote.
    if (parse(value)) state.fresh = value
  })
  // Ahead of the driver's own listener, which ends the query.
  client.connection.prependListener('readyForQuery', msg => { state.status = msg?.status ?? 'I' })
  return state
}

function take (state) {
  const token = state.fresh
  state.fresh = undefined
  return token
}

const commandOf = result => [].concat(result ?? []).map(r => r?.command).find(c => MODIFYING.test(c))

/**
 * Hooks a client of the primary, once.  position(client), asked after a write
 * that brought no token (it changed nothing, as a retry does whose first attempt
 * was done; or there is no extension), answers with one that covers what it saw.
 */
function attach (client, db) {
  if (client[HOOK]?.attached) return client
  const state = watch(client)
  const query = client.query
  state.attached = true

  client.query = function (config, values, callback) {
    const keeper = context.current()
    if (config == null) return query.apply(client, arguments)
    if (typeof config.submit === 'function') return submitted(keeper, config, arguments)
    if (typeof values === 'function') [values, callback] = [undefined, values]
    callback = callback ?? config.callback
    if (typeof callback === 'function') {
      run(keeper, config, values, context.bind(callback))
      return undefined
    }
    return new Promise((resolve, reject) => {
      run(keeper, config, values, (err, result) => err ? reject(err) : resolve(result))
    }).catch(err => {
      if (err instanceof Error) Error.captureStackTrace(err)
      throw err
    })
  }

  function run (keeper, config, values, done) {
    const finish = (err, result) => {
      const token = take(state)
      if (token) keeper?.add(token)
      if (!keeper || token || err || state.status !== 'I' || !commandOf(result)) return done(err, result)
      db.position(client, query).then(covering => {
        if (covering) keeper.add(covering)
        done(null, result)
      }, () => done(null, result))
    }
    const told = once((err, result) => {
      // The token of a commit that an error follows (CALL, or several statements
      // in one message) comes after the error.
      const ends = client.connection
      if (err?.length === undefined || client._ended || !ends.stream?.writable) return finish(err, result)
      const settle = once(() => {
        ends.removeListener('readyForQuery', settle)
        ends.removeListener('end', settle)
        finish(err, result)
      })
      ends.once('readyForQuery', settle)
      ends.once('end', settle)
    })
    if (typeof config === 'object' && config.callback) config = { ...config, callback: undefined }
    query.call(client, config, values, told)
  }

  // Cursors, streams and queries of the application's own class.
  function submitted (keeper, object, args) {
    const ready = object.handleReadyForQuery
    object.handleReadyForQuery = function () {
      const token = take(state)
      if (token) keeper?.add(token)
      return ready.apply(this, arguments)
    }
    return query.apply(client, args)
  }
  return client
}

function once (fn) {
  let done = false
  return (...args) => {
    if (done) return
    done = true
    fn(...args)
  }
}

/** Hooks a pool: each client that it hands out from now on, and query() too. */
function attachPool (pool, db) {
  if (pool[HOOK]) return pool
  Object.defineProperty(pool, HOOK, { value: true })
  const connect = pool.connect
  // pool.query() calls connect() with a callback, which a full pool calls from
  // within whoever gives a client back: bound to who asked.
  pool.connect = function (callback) {
    if (typeof callback !== 'function') {
      return connect.call(pool).then(client => attach(client, db))
    }
    return connect.call(pool, context.bind((err, client, release) => {
      if (client) attach(client, db)
      callback(err, client, release)
    }))
  }
  return pool
}

module.exports = { attach, attachPool, watch, bareToken, once }

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
const REPORTED = { 'ryw.token': value => value, last_commit_lsn: value => bareToken(value) }

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
  const { fresh } = state
  state.fresh = undefined
  return fresh
}

const modifies = result => [].concat(result ?? []).some(({ command }) => MODIFYING.test(command))

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
    return context.answer(run(keeper, config, values), callback ?? config.callback)
  }

  async function run (keeper, config, values) {
    const { err, result, token } = await new Promise(resolve => {
      let told = false
      const tell = (err, result) => told || (told = true, resolve({ err, result, token: take(state) }))
      if (config.callback) config = { ...config, callback: undefined }
      query.call(client, config, values, (err, result) => {
        // The token of a commit that an error follows (CALL, or several statements
        // in one message) comes after the error.
        const { connection } = client
        if (err?.length === undefined || client._ended || !connection.stream?.writable) return tell(err, result)
        for (const event of ['readyForQuery', 'end']) connection.once(event, () => tell(err, result))
      })
    })
    if (token) keeper?.add(token)
    else if (keeper && !err && state.status === 'I' && modifies(result)) {
      keeper.load(await db.position(client, query).catch(() => ''))
    }
    if (err) throw err
    return result
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

/** Hooks a pool: each client that it hands out from now on, and query() too. */
function attachPool (pool, db) {
  if (pool[HOOK]) return pool
  Object.defineProperty(pool, HOOK, { value: true })
  const connect = pool.connect
  // pool.query() calls connect() with a callback, which a full pool calls from
  // within whoever gives a client back: bound to who asked.
  pool.connect = function (callback) {
    if (typeof callback !== 'function') return connect.call(pool).then(client => attach(client, db))
    return connect.call(pool, context.bind((err, client, release) => {
      if (client) attach(client, db)
      callback(err, client, release)
    }))
  }
  return pool
}

module.exports = { attach, attachPool, watch, bareToken }

'use strict'

// Whose tokens are they?  The keeper of the request that is being served is
// taken where the application calls, never inside of a driver's event: a socket
// belongs to whoever opened it, and so does what is read from it.

const { AsyncLocalStorage, AsyncResource } = require('node:async_hooks')

const storage = new AsyncLocalStorage()

/** A promise for who wants one; a callback is called in the context of who gave it. */
function answer (promise, callback) {
  if (typeof callback !== 'function') return promise
  promise.then(result => process.nextTick(callback, null, result), err => process.nextTick(callback, err))
}

module.exports = {
  run: (keeper, fn, ...args) => storage.run(keeper, fn, ...args),
  current: () => storage.getStore(),
  bind: fn => AsyncResource.bind(fn),
  answer
}

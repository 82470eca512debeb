'use strict'

// Whose tokens are they?  The keeper of the request that is being served is
// taken where the application calls, never inside of a driver's event: a socket
// belongs to whoever opened it, and so does what is read from it.

const { AsyncLocalStorage, AsyncResource } = require('node:async_hooks')

const storage = new AsyncLocalStorage()

module.exports = {
  run: (keeper, fn, ...args) => storage.run(keeper, fn, ...args),
  current: () => storage.getStore(),
  bind: fn => typeof fn === 'function' ? AsyncResource.bind(fn) : fn
}

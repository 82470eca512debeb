'use strict'

// Express and Fastify: a keeper for each request, from its cookies and its
// Ryw-Token header, and back in the response.
//
// Each response that brings something new sets a cookie of a new name, and takes
// away those that its request brought and that are in it.  So two tabs whose
// answers come in the wrong order, or from two processes, overwrite nothing.

const { randomBytes } = require('node:crypto')
const context = require('./context')

const COOKIE = /(?:^|;\s*)(ryw-[0-9a-f]{8})=([0-9A-F.-]*)(?=;|\s*$)/g

/** What both do: the request's keeper, and the headers of its response. */
function begin (db, headers, { cookie = true, maxAge = 3600, secure = false } = {}) {
  const keeper = db.keeper()
  const brought = []
  if (cookie) {
    for (const [, name, text] of String(headers.cookie ?? '').matchAll(COOKIE)) {
      if (brought.push({ name, text }) > 32) break
      keeper.load(text)
    }
  }
  keeper.load(headers['ryw-token'])
  const before = keeper.text
  let sent = before

  return {
    keeper,
    /** [name, value] of the headers to add. */
    headers () {
      const text = sent = keeper.text
      if (text === before) return { cookies: [] }
      const attributes = `Path=/; HttpOnly; SameSite=Lax${secure ? '; Secure' : ''}`
      const set = (name, value, age) => `${name}=${value}; ${attributes}; Max-Age=${age}`
      const cookies = !cookie ? [] : brought.map(({ name }) => set(name, '', 0))
      if (cookie && text) cookies.push(set(`ryw-${randomBytes(4).toString('hex')}`, text, maxAge))
      return { cookies, token: text }
    },
    /** The response is gone: a write behind it has told nobody. */
    finish () {
      if (keeper.text === sent) return
      db.counters.late++
      db.log('ryw: a commit after the response had begun: its token reaches nobody')
    }
  }
}

module.exports = {
  /** app.use(db.express()) */
  express (options) {
    return (req, res, next) => {
      const request = begin(this, req.headers, options)
      const { writeHead } = res
      res.writeHead = function (...args) {
        res.writeHead = writeHead
        const { cookies, token } = request.headers()
        if (cookies.length) res.appendHeader('Set-Cookie', cookies)
        if (token !== undefined) res.setHeader('Ryw-Token', token)
        return writeHead.apply(this, args)
      }
      res.once('finish', () => request.finish())
      req.ryw = request.keeper
      context.run(request.keeper, next)
    }
  },

  /** app.register(db.fastify()) */
  fastify (options) {
    const plugin = async app => {
      const requests = new WeakMap()
      app.decorateRequest('ryw', null)
      app.addHook('onRequest', (req, reply, next) => {
        const request = begin(this, req.headers, options)
        requests.set(req, request)
        req.ryw = request.keeper
        context.run(request.keeper, next)
      })
      app.addHook('onSend', async (req, reply) => {
        const { cookies, token } = requests.get(req).headers()
        cookies.forEach(cookie => reply.header('Set-Cookie', cookie))
        if (token !== undefined) reply.header('Ryw-Token', token)
      })
      app.addHook('onResponse', async req => requests.get(req).finish())
    }
    plugin[Symbol.for('skip-override')] = true
    return plugin
  }
}

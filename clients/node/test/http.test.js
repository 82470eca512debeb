'use strict'

const test = require('node:test')
const assert = require('node:assert/strict')
const fs = require('node:fs')
const path = require('node:path')
const { spawn } = require('node:child_process')
const http = require('node:http')
const net = require('node:net')
const express = require('express')
const fastify = require('fastify')
const { Ryw } = require('ryw')
const h = require('./help')

const make = options => new Ryw({
  primary: h.pool('PRIMARY', { max: 5 }),
  replicas: ['REPLICA1', 'REPLICA2'].map(name => h.pool(name, { max: 5 })),
  log: h.quiet,
  ...options
})

/** A browser: a jar of cookies that all of its tabs share. */
class Browser {
  jar = new Map()
  constructor (base) { this.base = base }

  async ask (method, url, { body, keep = true, headers } = {}) {
    const cookie = [...this.jar].map(([name, value]) => `${name}=${value}`).join('; ')
    const response = await fetch(this.base + url, {
      method,
      headers: { ...(cookie && { cookie }), ...(body && { 'content-type': 'application/json' }), ...headers },
      body: body && JSON.stringify(body)
    })
    const answer = { status: response.status, body: await response.text(), cookies: response.headers.getSetCookie(), token: response.headers.get('ryw-token') }
    if (keep) this.keep(answer)
    return answer
  }

  keep ({ cookies }) {
    for (const line of cookies) {
      const [, name, value] = /^([^=]+)=([^;]*)/.exec(line)
      if (/Max-Age=0/.test(line)) this.jar.delete(name)
      else this.jar.set(name, value)
    }
  }

  get tokens () { return [...this.jar].filter(([name]) => name.startsWith('ryw-')).map(([, text]) => text) }
}

const servers = []
async function listen (db, kind) {
  const routes = {
    async patch (id, { version }) { await db.query('UPDATE people SET version = $1 WHERE id = $2', [version, id]) },
    async put (id, { version }) {
      await db.transaction(client => client.query('UPDATE people SET version = $1 WHERE id = $2', [version, id]))
    },
    async post (id) { await db.query("INSERT INTO people VALUES ($1, 1, '') ON CONFLICT DO NOTHING", [id]) },
    async get (id) { return (await db.read('SELECT version FROM people WHERE id = $1', [id])).rows[0] ?? null }
  }
  if (kind === 'express') {
    const app = express()
    app.use(db.express())
    app.use(express.json()) // behind it: the body is read in events of the socket
    for (const [method, route] of Object.entries(routes)) {
      app[method]('/:id', async (req, res) => {
        assert.equal(req.ryw, db.current)
        res.json(await route(req.params.id, req.body) ?? {})
      })
    }
    const server = app.listen(0)
    await new Promise(resolve => server.on('listening', resolve))
    servers.push(() => new Promise(resolve => { server.closeAllConnections(); server.close(resolve) }))
    return `http://127.0.0.1:${server.address().port}`
  }
  const app = fastify()
  app.register(db.fastify())
  for (const [method, route] of Object.entries(routes)) {
    app[method]('/:id', async req => {
      assert.equal(req.ryw, db.current)
      return await route(req.params.id, req.body) ?? {}
    })
  }
  servers.push(() => app.close())
  return app.listen({ port: 0, host: '127.0.0.1' })
}

test.before(async () => {
  await h.delay('REPLICA1', 150)
  await h.delay('REPLICA2', 300)
  await h.table('people', 100)
})
test.after(async () => {
  await Promise.all(servers.map(close => close()))
  await h.closePools()
})

for (const kind of ['express', 'fastify']) {
  test(`${kind}: 50 users on 5 connections read what they wrote, by query() and by transaction()`, async () => {
    const db = make()
    const base = await listen(db, kind)
    const off = await listen(make({ mode: 'off' }), kind)
    const stale = async where => {
      let count = 0
      await h.atOnce(50, 50, async i => {
        const browser = new Browser(where)
        for (const method of ['PATCH', 'PUT']) {
          const version = Math.floor(Math.random() * 1e9)
          assert.equal((await browser.ask(method, `/${i + 1}`, { body: { version } })).status, 200)
          const seen = JSON.parse((await browser.ask('GET', `/${i + 1}`)).body)
          if (seen.version !== version) count++
          assert.equal(browser.tokens.length, 1, 'one cookie, of one token')
          assert.match(browser.tokens[0], /^[0-9A-F-]+$/)
        }
      })
      return count
    }
    assert.equal(await stale(base), 0)
    assert.equal(await h.held(['REPLICA1', 'REPLICA2'], () => stale(off)), 100, 'control')
    assert.equal(db.counters.withoutKeeper, 0)
    assert.equal(db.counters.late, 0)
  })

  test(`${kind}: two tabs, whose answers come in the wrong order, lose no token`, async () => {
    const db = make()
    const browser = new Browser(await listen(db, kind))
    await browser.ask('PATCH', '/60', { body: { version: 1 } })
    const [first, second, reading] = await Promise.all([
      browser.ask('PATCH', '/61', { body: { version: 2 }, keep: false }),
      browser.ask('PATCH', '/62', { body: { version: 2 }, keep: false }),
      browser.ask('GET', '/60', { keep: false })
    ])
    for (const answers of [[first, second, reading], [second, first, reading]]) {
      const tab = new Browser(browser.base)
      tab.jar = new Map(browser.jar)
      answers.forEach(answer => tab.keep(answer))
      const held = db.keeper()
      tab.tokens.forEach(text => held.add(text))
      assert.ok(h.covers(held, first.token) && h.covers(held, second.token))
      for (const id of [61, 62]) assert.equal(JSON.parse((await tab.ask('GET', `/${id}`)).body).version, 2)
      await tab.ask('PATCH', '/60', { body: { version: 3 } })
      assert.equal(tab.tokens.length, 1, 'the next write puts them together')
    }
    assert.deepEqual(reading.cookies, [], 'a read sets none')
  })

  test(`${kind}: a body that comes in pieces, in events of the socket`, async () => {
    const db = make()
    const { port } = new URL(await listen(db, kind))
    const { status, token } = await new Promise((resolve, reject) => {
      const headers = { 'content-type': 'application/json', 'content-length': 14 }
      const request = http.request({ port, method: 'PATCH', path: '/80', headers }, response => {
        response.resume()
        resolve({ status: response.statusCode, token: response.headers['ryw-token'] })
      })
      request.on('error', reject)
      request.write('{"vers')
      setTimeout(() => request.end('ion":80}'), 50)
    })
    assert.equal(status, 200)
    assert.match(token, /^[0-9A-F-]+$/)
  })

  test(`${kind}: a retried request, whose first answer was lost`, async () => {
    const db = make()
    const browser = new Browser(await listen(db, kind))
    const id = kind === 'express' ? 5000 : 5001
    await browser.ask('POST', `/${id}`, { keep: false })
    await browser.ask('POST', `/${id}`)
    assert.equal(JSON.parse((await browser.ask('GET', `/${id}`)).body).version, 1)
  })

  test(`${kind}: the Ryw-Token header instead of cookies; what is malformed harms nobody`, async () => {
    const db = make()
    const browser = new Browser(await listen(db, kind))
    const { token } = await browser.ask('PATCH', '/70', { body: { version: 5 }, keep: false })
    assert.match(token, /^[0-9A-F-]+$/)
    const seen = await browser.ask('GET', '/70', { headers: { 'ryw-token': token } })
    assert.equal(JSON.parse(seen.body).version, 5)
    for (const bad of ["';DROP TABLE people--", 'x'.repeat(4000), '1-2-3-4', '0/16B3748']) {
      const { status } = await browser.ask('GET', '/70', { headers: { 'ryw-token': bad, cookie: `ryw-00000000=${bad}` } })
      assert.equal(status, 200)
    }
    const many = Array.from({ length: 100 }, (_, i) => `ryw-${i.toString(16).padStart(8, '0')}=1-${i.toString(16)}-AB`).join('; ')
    assert.equal((await browser.ask('GET', '/70', { headers: { cookie: many } })).status, 200)
  })
}

test('a commit behind the response is counted and logged', async () => {
  const logged = []
  const db = make({ log: line => logged.push(line) })
  const app = express()
  app.use(db.express())
  app.get('/', async (req, res) => {
    res.write('begun')
    await db.query('UPDATE people SET version = 1 WHERE id = 1')
    res.end()
  })
  const server = app.listen(0)
  servers.push(() => new Promise(resolve => { server.closeAllConnections(); server.close(resolve) }))
  await fetch(`http://127.0.0.1:${server.address().port}/`).then(response => response.text())
  await h.poll(() => db.counters.late === 1)
  assert.match(logged.join(), /reaches nobody/)
})

test('README: the three lines, as they stand there', async () => {
  const readme = fs.readFileSync(path.join(process.env.RYW_PACKAGE, 'README.md'), 'utf8')
  const [, code] = /## Three lines\n[^]*?```js\n([^]*?)```/.exec(readme)
  const free = net.createServer().listen(0)
  await new Promise(resolve => free.on('listening', resolve))
  const port = free.address().port
  await new Promise(resolve => free.close(resolve))
  await h.sql('PRIMARY', 'DROP TABLE IF EXISTS profiles')
  await h.sql('PRIMARY', 'CREATE TABLE profiles (id int PRIMARY KEY, name text)')
  await h.sql('PRIMARY', "INSERT INTO profiles SELECT n, '' FROM generate_series(1, 50) n")
  await h.caughtUp()

  const url = name => {
    const { host, port, user, database } = h.parts(name)
    return `postgresql://${user}@${encodeURIComponent(host)}:${port}/${database}`
  }
  const file = path.join(__dirname, 'from-readme.js')
  fs.writeFileSync(file, code)
  const child = spawn(process.execPath, [...process.execArgv.filter(arg => /symlinks/.test(arg)), file], {
    stdio: 'inherit',
    env: { ...process.env, PRIMARY: url('PRIMARY'), REPLICA1: url('REPLICA1'), REPLICA2: url('REPLICA2'), PORT: port }
  })
  try {
    const base = `http://127.0.0.1:${port}`
    await h.poll(() => fetch(`${base}/me/1`).then(() => true, () => false))
    let stale = 0
    await h.atOnce(50, 10, async i => {
      const browser = new Browser(base)
      const { status } = await browser.ask('PATCH', `/me/${i + 1}`, { body: { name: `name ${i}` } })
      assert.equal(status, 204)
      if (JSON.parse((await browser.ask('GET', `/me/${i + 1}`)).body).name !== `name ${i}`) stale++
    })
    assert.equal(stale, 0)
  } finally {
    child.kill()
    fs.unlinkSync(file)
  }
})

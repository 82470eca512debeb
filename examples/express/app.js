'use strict'

// A profile that is saved on the primary and read from a replica, which is late.
// README.md says how to start it.  The lines with a number are those for ryw.
//
// Environment: RYW_PRIMARY_URL, RYW_REPLICA1_URL, RYW_REPLICA2_URL, ... as ryw-lab
// sets them; PORT (3000); WAIT, how many milliseconds a read waits on one node (2500).

const path = require('node:path')
const express = require('express')
const { Ryw, tokenLost } = require('ryw') // 1
const { page } = require('./page')

const wait = Number(process.env.WAIT ?? 2500)
const replicas = Object.keys(process.env).filter(name => /^RYW_REPLICA\d_URL$/.test(name)).sort()

const db = new Ryw({ // 2
  primary: process.env.RYW_PRIMARY_URL,
  replicas: replicas.map(name => process.env[name]),
  wait,
  deadline: wait * (replicas.length + 1)
})

const SCHEMA = `
  CREATE TABLE IF NOT EXISTS profiles (
    id int PRIMARY KEY, name text NOT NULL, motto text NOT NULL, version int NOT NULL DEFAULT 1);
  INSERT INTO profiles VALUES (1, 'Ann', 'Early bird'), (2, 'Bob', 'Night owl')
    ON CONFLICT DO NOTHING`

const SAVE = `
  UPDATE profiles SET name = $2, motto = $3, version = version + 1 WHERE id = $1
  RETURNING version`

// What tells the nodes apart: cluster_name is set on each of them.
const READ = `
  SELECT name, motto, version, current_setting('cluster_name') AS node,
    pg_is_in_recovery() AS replica
  FROM profiles WHERE id = $1`

const app = express()
app.use(express.static(path.join(__dirname, 'public')))
app.use(express.urlencoded({ extended: false }))
app.use(db.express()) // 3

app.param('id', (req, res, next, id) => /^[0-9]{1,9}$/.test(id) ? next() : next('route'))

app.get('/', (req, res) => res.redirect('/profile/1'))

app.get('/profile/:id', async (req, res) => {
  const withRyw = req.query.ryw !== 'off'
  // The switch: a keeper that knows of no write has nothing to wait for.
  const options = withRyw ? {} : { keeper: db.keeper() }
  const tokens = req.ryw.text
  const began = performance.now()
  let lost = false
  const { rows: [profile] } = await db.read(READ, [req.params.id], options).catch(err => {
    if (!tokenLost(err)) throw err
    // A failover has cut a write of this user off.  Its token is dropped: read what is left.
    lost = true
    return db.read(READ, [req.params.id], options)
  })
  if (!profile) return res.status(404).send('There is no such profile.')
  const took = Math.round(performance.now() - began)
  const saved = Number(req.query.saved) || 0
  res.set('Cache-Control', 'no-store')
  res.send(page({ id: req.params.id, profile, withRyw, tokens, took, saved, lost, counters: db.counters }))
})

app.post('/profile/:id', async (req, res) => {
  const { name = '', motto = '' } = req.body ?? {}
  const { rows: [profile] } = await db.query(SAVE, [req.params.id, name, motto])
  if (!profile) return res.status(404).send('There is no such profile.')
  const off = req.query.ryw === 'off' ? '&ryw=off' : ''
  // The commit's token is in a cookie of this answer.
  res.redirect(303, `/profile/${req.params.id}?saved=${profile.version}${off}`)
})

async function main () {
  const keeper = db.keeper()
  await db.query(SCHEMA, [], { keeper })
  // Reads go to the replicas in turn: each of them has the table when this is over.
  const minute = { keeper, wait: 60000, deadline: 200000 }
  await Promise.all(replicas.map(() => db.read(READ, [1], minute)))
  const server = app.listen(process.env.PORT ?? 3000, '127.0.0.1', err => {
    if (err) throw err
    console.log(`http://127.0.0.1:${server.address().port}/`)
  })
}

main().catch(err => {
  console.error(err)
  process.exit(1)
})

// Read your own write with Node.js and node-postgres.
//
//   npm install pg && node node_pg.js "$PRIMARY" "$REPLICA"
//
// Run with Node.js 20.20 and pg 8.23.1.

const { Client } = require('pg')

async function main() {
  const primary = new Client(process.argv[2])
  const replica = new Client(process.argv[3])

  // The server sends the token with the reply to each commit; keep the newest.
  // With a Pool, do this in pool.on('connect', client => ...).
  primary.connection.on('parameterStatus', ({ parameterName, parameterValue }) => {
    if (parameterName === 'ryw.token') primary.rywToken = parameterValue
  })
  await primary.connect()
  await replica.connect()

  const written = await primary.query(
    'UPDATE profiles SET version = version + 1 WHERE id = 1 RETURNING version')
  const token = primary.rywToken

  const seen = await replica.query(
    'SELECT version FROM profiles WHERE id = 1 AND ryw_require($1, $2)',
    [token, 5000])

  console.log(`written ${written.rows[0].version}, token ${token}, ` +
    `seen ${seen.rows[0].version}`)
  await primary.end()
  await replica.end()
}

main().catch((err) => {
  console.error(err.code, err.message) // RY001: not reached in time
  process.exit(1)
})

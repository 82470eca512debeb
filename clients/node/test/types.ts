import { Ryw, RywPostgres, Keeper, TokenLost, tokenLost, codeOf } from 'ryw'
import postgres = require('postgres')

const db = new Ryw({ primary: 'postgresql:///x', replicas: ['postgresql:///y', { host: 'z' }], mode: 'audit', wait: 250 })

export async function right (): Promise<number> {
  const keeper: Keeper = db.keeper('1-10-AB')
  await db.query('UPDATE t SET x = $1', [1], { keeper })
  const { rows } = await db.read<{ version: number }>({ text: 'SELECT version FROM t', name: 'x' }, [], { keeper, deadline: 100 })
  const n: number = await db.transaction(async client => (await client.query<{ n: number }>('SELECT 1 AS n')).rows[0].n)
  const inside: string = db.run('1-10-AB', () => db.current?.text ?? '')
  await db.readTransaction(client => client.query('SELECT'), { isolation: 'REPEATABLE READ' })
  for (const { site, stale } of db.audit) console.log(site, stale)
  const lost: TokenLost | undefined = tokenLost(new Error(inside))
  console.log(lost?.token, codeOf(lost), db.counters.fallbacks['RY001'], (await db.capabilities()).primary.notGuaranteed)
  const js = new RywPostgres({ primary: postgres('postgresql:///x'), replicas: [postgres('postgresql:///y')] })
  await js.write(sql => sql`UPDATE t SET x = 1`)
  const [row] = await js.read(sql => sql<{ version: number }[]>`SELECT version FROM t`)
  return rows[0].version + n + row.version
}

export async function wrong (): Promise<void> {
  // @ts-expect-error
  new Ryw({ replicas: [] })
  // @ts-expect-error
  new Ryw({ primary: 'x', mode: 'maybe' })
  // @ts-expect-error
  await db.query('SELECT 1', [], { keeper: '1-10-AB' })
  const { rows } = await db.read<{ version: number }>('SELECT')
  // @ts-expect-error
  const text: string = rows[0].version
  // @ts-expect-error
  new Keeper().add(1)
  // @ts-expect-error
  db.current.text
}

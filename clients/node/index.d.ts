// Types of ryw for Node.js.  They need no types of a driver.

/** A set of tokens: what a user, a session or a job has written. */
export declare class Keeper {
  constructor(text?: string | null, options?: { log?: (line: string) => void })
  /** Puts a token or a set in; TypeError where it is none. */
  add(text: string): this
  /** The same for text from outside: what is malformed is logged and left out. */
  load(text: unknown): this
  drop(text: string): this
  dump(): string
  readonly text: string
  readonly size: number
}

/** An acknowledged write is gone for good: a failover has cut it off. */
export declare class TokenLost extends Error {
  readonly code: 'RY002'
  readonly token: string
  readonly detail: string
}

/** The TokenLost inside of an ORM's error. */
export declare function tokenLost(err: unknown): TokenLost | undefined
/** The SQLSTATE or the system's code inside of an ORM's error. */
export declare function codeOf(err: unknown): string | undefined

export interface QueryResult<Row = any> {
  rows: Row[]
  rowCount: number | null
  command: string
  fields: { name: string, dataTypeID: number }[]
}
export interface QueryConfig {
  text: string
  values?: any[]
  name?: string
  rowMode?: 'array'
  types?: any
}
/** A client of pg, as far as this package knows it. */
export interface Client {
  query<Row = any>(config: string | QueryConfig, values?: any[]): Promise<QueryResult<Row>>
  release(err?: Error | boolean): void
}
/** A pool of pg. */
export interface Pool {
  connect(): Promise<any>
  query(...args: any[]): any
  end(): Promise<void>
}

export interface Options<Target> {
  primary: Target
  replicas?: Target[]
  /** wait: as promised. audit: does not wait, counts what would be stale. off: no ryw. */
  mode?: 'wait' | 'audit' | 'off'
  /** Milliseconds to wait on one node; 500. */
  wait?: number
  /** Milliseconds for all waits and fallbacks of a read; 2000. */
  deadline?: number
  /** So many failures in a row open a replica's breaker for so many seconds; 5 and 10. */
  breaker?: { failures?: number, seconds?: number }
  /** A read outside of any request is an error. */
  strict?: boolean
  log?: (line: string) => void
}
export interface CallOptions { keeper?: Keeper }
export interface ReadOptions extends CallOptions { wait?: number, deadline?: number }

export interface Counters {
  reads: Record<string, number>
  fallbacks: Record<string, number>
  waits: number
  lost: number
  foreign: number
  withoutKeeper: number
  late: number
  breakerOpened: number
}
export interface Capabilities {
  ryw: boolean
  version: number
  token: string
  wait: string
  notGuaranteed: string[]
}
export interface HttpOptions { cookie?: boolean, maxAge?: number, secure?: boolean }

declare class Router {
  mode: 'wait' | 'audit' | 'off'
  readonly counters: Counters
  readonly audit: { site: string, reads: number, stale: number }[]
  /** The keeper of the request that is being served. */
  readonly current: Keeper | undefined
  keeper(text?: string | null): Keeper
  run<Result>(keeper: Keeper | string, fn: (...args: any[]) => Result, ...args: any[]): Result
  promote(name: string): void
  capabilities(): Promise<Record<string, Capabilities>>
  end(): Promise<void>
  express(options?: HttpOptions): (req: any, res: any, next: (err?: any) => void) => void
  fastify(options?: HttpOptions): (app: any, options: any, done: (err?: Error) => void) => void
}

export declare class Ryw extends Router {
  constructor(options: Options<string | Pool | Record<string, unknown>>)
  readonly pool: any
  readonly readPool: any
  query<Row = any>(config: string | QueryConfig, values?: any[], options?: CallOptions): Promise<QueryResult<Row>>
  transaction<Result>(fn: (client: Client) => Promise<Result>, options?: CallOptions): Promise<Result>
  read<Row = any>(config: string | QueryConfig, values?: any[], options?: ReadOptions): Promise<QueryResult<Row>>
  readTransaction<Result>(fn: (client: Client) => Promise<Result>,
    options?: ReadOptions & { isolation?: 'READ COMMITTED' | 'REPEATABLE READ' }): Promise<Result>
  begin(text?: string, options?: ReadOptions): Promise<Client>
  mark(keeper?: Keeper): Promise<void>
  position(client: any): Promise<string>
  attach<C>(client: C): C
  mayUseCache(): boolean
  knex<K>(knex: (config: any) => K, config: any): { write: K, read: K }
  kysely<K>(kysely: { Kysely: new (config: any) => K, PostgresDialect: any }, config?: any): { write: K, read: K }
  drizzle<D>(drizzle: { drizzle: (config: any) => D, withReplicas: (...args: any[]) => any }, config?: any): D
  sequelize<S>(sequelize: S): S
  typeorm<D>(source: D): D
}

/** For postgres.js. */
export declare class RywPostgres<Sql extends (...args: any[]) => any = any> extends Router {
  constructor(options: Options<Sql>)
  write<Result>(fn: (sql: Sql) => Result, options?: CallOptions): Promise<Awaited<Result>>
  transaction<Result>(fn: (sql: Sql) => Result, options?: CallOptions): Promise<Awaited<Result>>
  read<Result>(fn: (sql: Sql) => Result, options?: ReadOptions): Promise<Awaited<Result>>
}

declare global {
  namespace Express { interface Request { ryw: Keeper } }
}

'use strict'

// Which node reads, behind what wait, and what happens when it does not work
// out.  One policy for every driver:
//
//   RY001, RY005, RY006      the next replica, in the end the primary
//   RY004, 40001             once more on the same node, then the primary
//   RY002                    TokenLost to the application; the token is dropped
//   RY003                    the next node; if the primary says so too, or none
//                            else is left, the token is dropped and the read goes on
//   connection errors        the next node
//
// all within one deadline, of which each node gets a share.

const context = require('./context')
const { Keeper } = require('./keeper')
const { Node, now } = require('./node')
const { TokenLost, codeOf, verdict, tokenOf } = require('./errors')
const { waitPlain } = require('./plain')

const HERE = __dirname
const PATIENCE = 250 // how much longer than its wait a node may take to answer

/** The line of the application that called. */
function callSite () {
  const holder = {}
  const limit = Error.stackTraceLimit
  Error.stackTraceLimit = 50
  Error.captureStackTrace(holder, callSite)
  Error.stackTraceLimit = limit
  const frame = holder.stack.split('\n').slice(1)
    .find(line => !line.includes(HERE) && !/node_modules|node:|<anonymous>/.test(line))
  return /\(?([^( ]+:\d+):\d+\)?$/.exec(frame ?? '')?.[1] ?? 'unknown'
}

class Router {
  #turn = 0
  #sites = new Map()

  constructor (options) {
    const { primary, replicas = [] } = options
    if (!primary) throw new TypeError('ryw: a primary is needed')
    this.log = options.log ?? console.warn
    this.mode = options.mode ?? 'wait'
    this.wait = options.wait ?? 500
    this.deadline = options.deadline ?? 2000
    this.strict = options.strict ?? false
    this.counters = {
      reads: {}, fallbacks: {}, waits: 0, lost: 0, foreign: 0, withoutKeeper: 0, late: 0, breakerOpened: 0
    }
    const parts = { breaker: options.breaker, log: this.log, counters: this.counters }
    this.primary = new Node('primary', primary, parts)
    this.replicas = replicas.map((target, n) => new Node(`replica${n + 1}`, target, parts))
  }

  keeper (text) { return new Keeper(text, { log: this.log }) }

  /** Runs fn with these tokens: a keeper, or text from a job's payload. */
  run (keeper, fn, ...args) {
    return context.run(keeper instanceof Keeper ? keeper : this.keeper(keeper), fn, ...args)
  }

  get current () { return context.current() }

  /** After a failover: the replica of this name is the primary now. */
  promote (name) {
    const node = this.replicas.find(replica => replica.name === name)
    if (!node) throw new Error(`ryw: there is no replica named ${name}`)
    this.replicas = [...this.replicas.filter(replica => replica !== node), this.primary]
    this.primary = node
    node.forget()
  }

  /** In audit mode: reads and stale reads by the line that called. */
  get audit () {
    return [...this.#sites].map(([site, seen]) => ({ site, ...seen })).sort((a, b) => b.stale - a.stale)
  }

  /** What each node can do, and what is then not guaranteed. */
  async capabilities () {
    const all = {}
    for (const node of [this.primary, ...this.replicas]) {
      const client = await node.checkout(this.deadline)
      try {
        all[node.name] = await node.capabilities(client)
      } finally {
        node.release(client)
      }
    }
    return all
  }

  async end () {
    await Promise.all([this.primary, ...this.replicas].map(node => node.end()))
  }

  // Replicas in turn, those whose breaker is open left out; the primary is the last.
  #order () {
    const turn = this.#turn++
    const replicas = this.replicas.map((_, n) => this.replicas[(n + turn) % this.replicas.length])
    return [...replicas, this.primary]
  }

  #count (reason) {
    this.counters.fallbacks[reason] = (this.counters.fallbacks[reason] ?? 0) + 1
  }

  /** attempt(node, { text, timeout, patience, audit }) reads, or says why not. */
  async route (attempt, options = {}) {
    const keeper = options.keeper ?? context.current()
    if (!keeper) {
      this.counters.withoutKeeper++
      if (this.strict) throw new Error('ryw: a read outside of any request: give a keeper, or use run()')
    }
    const read = { attempt, keeper, site: this.mode === 'audit' ? callSite() : '', late: [] }
    read.wait = options.wait ?? this.wait
    read.ends = now() + (options.deadline ?? this.deadline)
    for (;;) {
      const done = await this.#round(read, this.#order())
      if (done) return done.result
      // No node knows the token, and the primary may not be there: without it.
      keeper.drop(read.foreign)
      this.counters.foreign++
      this.log(`ryw: token ${read.foreign} is from another cluster, and is left out`)
      read.foreign = undefined
    }
  }

  // Node after node; undefined: a token is foreign everywhere.
  async #round (read, nodes) {
    let failed, again
    for (let i = 0; i < nodes.length;) {
      const node = nodes[i]
      const left = read.ends - now()
      if (left <= 0) {
        this.#count('deadline')
        break
      }
      if (again !== node && node !== this.primary && !node.breaker.allows()) {
        i++
        continue
      }
      try {
        return { result: await this.#once(read, node, Math.min(read.wait, left / (nodes.length - i))) }
      } catch (err) {
        failed = err
        const what = this.#judge(read, node, err)
        if (what === 'foreign' && node === this.primary) return undefined
        if (what === 'again' && again !== node) again = node
        else i = what === 'again' ? Math.max(i + 1, nodes.length - 1) : i + 1
      }
    }
    if (read.foreign) return undefined
    throw failed ?? new Error('ryw: no node could be asked before the deadline')
  }

  async #once (read, node, timeout) {
    timeout = Math.max(1, Math.floor(timeout))
    const text = this.mode === 'off' ? '' : read.keeper?.text ?? ''
    const audit = this.mode === 'audit'
    const control = { text, timeout, audit, patience: timeout + PATIENCE }
    const { result, reached } = await read.attempt(node, control, read.keeper)
    node.breaker.success()
    // Late were those that did not reach a token which others have.
    read.late.forEach(late => late.breaker.failure())
    this.counters.reads[node.name] = (this.counters.reads[node.name] ?? 0) + 1
    if (text && audit) this.#noteAudit(read.site, node, reached)
    else if (text) this.counters.waits++
    return result
  }

  // What comes next; raises what is for the application.
  #judge (read, node, err) {
    const what = verdict(err, err.inGuard)
    node.breaker.unused()
    if (what === 'raise') throw err
    if (what === 'lost' || what === 'foreign') {
      const { token = read.keeper.text, detail } = tokenOf(err)
      if (what === 'lost') {
        read.keeper.drop(token)
        this.counters.lost++
        throw new TokenLost(token, detail, { cause: err })
      }
      read.foreign = token
    } else if (what === 'connection') {
      node.breaker.failure()
      node.forget()
    } else {
      if (err.inGuard && /^(55000|42883)$/.test(codeOf(err))) node.forget()
      read.late.push(node)
    }
    this.#count(what === 'connection' ? what : codeOf(err))
    return what
  }

  #noteAudit (site, node, reached) {
    const seen = this.#sites.get(site) ?? { reads: 0, stale: 0 }
    this.#sites.set(site, seen)
    seen.reads++
    if (reached) return
    if (seen.stale++ === 0) this.log(`ryw: audit: a read at ${site} on ${node.name} would have been stale`)
  }

  /**
   * On a connection of the node: the wait where it needs a message of its own.
   * Says what may stand in front of the statement: 'ryw', or nothing.
   */
  async ahead (node, client, { text, timeout, patience, audit }) {
    if (!text) return {}
    const { ryw, version } = await node.capabilities(client, patience)
    const plain = /^0-[0-9A-F]+-0$/.test(text)
    if (ryw && !plain) return { guarded: true }
    if (!ryw && !plain) {
      throw Object.assign(new Error(`ryw is not on ${node.name}, and the token is of a server that has it`),
        { code: '55000', inGuard: true })
    }
    const ask = (question, values) => node.ask(client, question, values, patience)
    return { reached: await waitPlain(ask, version, text, timeout, audit) }
  }

  /** Tokens of an older timeline that a newer one is known to cover are left out. */
  async compact (node, client, keeper) {
    if (!(keeper?.size > 1) || this.mode !== 'wait') return
    const text = keeper.text
    const [{ merged }] = await node.ask(client, 'SELECT ryw_merge($1, $2)::text AS merged', [text, ''])
    for (const token of text.split('.')) {
      if (!(merged ?? '').split('.').includes(token)) keeper.drop(token)
    }
  }
}

module.exports = { Router }

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

const PATIENCE = 250 // how much longer than its wait a node may take to answer

/** The line of the application that called. */
function callSite () {
  const holder = {}
  const limit = Error.stackTraceLimit
  Error.stackTraceLimit = 50
  Error.captureStackTrace(holder, callSite)
  Error.stackTraceLimit = limit
  const frame = holder.stack.split('\n').slice(1)
    .find(line => !line.includes(__dirname) && !/node_modules|node:|<anonymous>/.test(line))
  return /\(?([^( ]+:\d+):\d+\)?$/.exec(frame ?? '')?.[1] ?? 'unknown'
}

/** Behind BEGIN: fn, COMMIT or ROLLBACK, and the client back to its pool. */
async function finishTransaction (client, fn) {
  let broken
  try {
    const result = await fn(client)
    const { command } = await client.query('COMMIT')
    if (command !== 'COMMIT') throw new Error('ryw: the transaction had failed, and was rolled back')
    return result
  } catch (err) {
    await client.query('ROLLBACK').catch(failed => { broken = failed })
    throw err
  } finally {
    client.release(broken)
  }
}

class Router {
  #turn = 0
  #sites = new Map()

  constructor ({
    primary, replicas = [], log = console.warn, mode = 'wait', wait = 500, deadline = 2000, strict = false, breaker
  }, kind) {
    if (!primary) throw new TypeError('ryw: a primary is needed')
    this.counters = { reads: {}, fallbacks: {}, waits: 0, lost: 0, foreign: 0, withoutKeeper: 0, late: 0, breakerOpened: 0 }
    Object.assign(this, { log, mode, wait, deadline, strict })
    const node = (name, target) => new Node(name, target, { breaker, log, counters: this.counters })
    this.primary = node('primary', primary)
    this.replicas = replicas.map((target, n) => node(`replica${n + 1}`, target))
    if (this.nodes.some(one => !one[kind])) throw new TypeError('ryw: Ryw takes pools of pg, RywPostgres instances of postgres.js')
  }

  get nodes () { return [this.primary, ...this.replicas] }

  keeper (text) { return new Keeper(text, { log: this.log }) }

  /** Runs fn with these tokens: a keeper, or text from a job's payload. */
  run (keeper, fn, ...args) { return context.run(keeper instanceof Keeper ? keeper : this.keeper(keeper), fn, ...args) }

  get current () { return context.current() }

  /** After a failover: the replica of this name is the primary now. */
  promote (name) {
    const node = this.nodes.find(one => one.name === name)
    if (!node) throw new Error(`ryw: there is no node named ${name}`)
    this.replicas = this.nodes.filter(one => one !== node)
    this.primary = node
  }

  /** In audit mode: reads and stale reads by the line that called. */
  get audit () { return [...this.#sites].map(([site, seen]) => ({ site, ...seen })).sort((a, b) => b.stale - a.stale) }

  /** What each node can do, and what is then not guaranteed. */
  async capabilities () {
    return Object.fromEntries(await Promise.all(this.nodes.map(async node => {
      const client = await node.checkout(this.deadline)
      const back = err => node.release(client, err)
      return [node.name, await node.capabilities(client).then(found => back() ?? found, err => { back(err); throw err })]
    })))
  }

  async end () { await Promise.all(this.nodes.map(node => node.end())) }

  #count (what, name) { this.counters[what][name] = (this.counters[what][name] ?? 0) + 1 }

  /** attempt(node, { text, timeout, patience, audit }) reads, or says why not. */
  async route (attempt, options = {}) {
    const keeper = options.keeper ?? context.current()
    if (!keeper) {
      this.counters.withoutKeeper++
      if (this.strict) throw new Error('ryw: a read outside of any request: give a keeper, or use run()')
    }
    const { wait = this.wait, deadline = this.deadline } = options
    const site = this.mode === 'audit' ? callSite() : ''
    const read = { attempt, keeper, site, wait, late: [], ends: now() + deadline }
    // Replicas in turn; the primary is the last.
    const turn = this.#turn++
    const nodes = [...this.replicas.map((_, n, all) => all[(n + turn) % all.length]), this.primary]
    for (;;) {
      const done = await this.#round(read, nodes)
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
      if (left <= 0) break
      if (again !== node && node !== this.primary && !node.breaker.allows() && ++i) continue
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
    // The primary knows better, unless it is not there.
    if (read.foreign && verdict(failed) !== 'next' && verdict(failed) !== 'again') return undefined
    this.#count('fallbacks', 'none')
    throw failed ?? new Error('ryw: no node could be asked before the deadline')
  }

  async #once (read, node, timeout) {
    timeout = Math.max(1, Math.floor(timeout))
    const text = this.mode === 'off' ? '' : read.keeper?.text ?? ''
    const audit = this.mode === 'audit'
    const control = { text, timeout, audit, patience: timeout + PATIENCE }
    const { result, reached } = await read.attempt(node, control, read.keeper)
    node.breaker.answered(true)
    // Late were those that did not reach a token which others have.
    read.late.forEach(late => late.breaker.answered(false))
    this.#count('reads', node.name)
    if (text && audit) this.#noteAudit(read.site, node, reached)
    else if (text) this.counters.waits++
    return result
  }

  // What comes next; raises what is for the application.
  #judge (read, node, err) {
    const what = verdict(err, err.inGuard)
    node.breaker.answered(what === 'connection' ? false : undefined)
    if (what === 'raise') throw err
    const { token = read.keeper?.text, detail } = tokenOf(err)
    if (what === 'lost') {
      read.keeper.drop(token)
      this.counters.lost++
      throw new TokenLost(token, detail, { cause: err })
    }
    if (what === 'foreign') read.foreign = token
    else if (what !== 'connection') read.late.push(node)
    if (what === 'connection' || err.inGuard) node.forget()
    this.#count('fallbacks', what === 'connection' ? what : codeOf(err))
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
      throw Object.assign(new Error(`the token is of a server that has ryw, as ${node.name} has not`), { code: '55000', inGuard: true })
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

module.exports = { Router, finishTransaction }

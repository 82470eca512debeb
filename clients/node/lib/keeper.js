'use strict'

// A token set: what a user, a session or a job has written so far.  One token
// for each timeline and tag; of two of one timeline and tag the one with the
// greater LSN.  It is shared by concurrent requests, and never goes back.

const MOST = 8
const TOKEN = /^([0-9A-F]{1,8})-([0-9A-F]{1,16})-([0-9A-F]{1,8})$/i

/** The parts of a token; undefined where it is none. */
function parse (text) {
  const match = typeof text === 'string' ? TOKEN.exec(text) : null
  if (!match) return undefined
  const [timeline, tag] = [parseInt(match[1], 16), parseInt(match[3], 16)]
  return { text: text.toUpperCase(), timeline, lsn: BigInt('0x' + match[2]), key: `${timeline}-${tag}` }
}

/** The tokens of a set; undefined where the text is malformed. */
function parseSet (text) {
  if (typeof text !== 'string' || text.length > MOST * 40) return undefined
  const tokens = text === '' ? [] : text.split('.').map(parse)
  return tokens.length > MOST || tokens.includes(undefined) ? undefined : tokens
}

class Keeper {
  #tokens = new Map()
  #log

  constructor (text = '', { log = console.warn } = {}) {
    this.#log = log
    this.load(text)
  }

  /** Puts a token or a set in.  TypeError where it is none. */
  add (text) {
    const tokens = parseSet(text)
    if (!tokens) throw new TypeError('ryw: this is not a token, nor a set of up to 8')
    for (const token of tokens) {
      const held = this.#tokens.get(token.key)
      if (!held || held.lsn < token.lsn) this.#tokens.set(token.key, token)
    }
    while (this.#tokens.size > MOST) this.#forgetOldest()
    return this
  }

  /** The same for text from outside: what is malformed is logged and left out. */
  load (text) {
    if (text === undefined || text === null || text === '') return this
    if (parseSet(text)) return this.add(text)
    this.#log('ryw: malformed token from outside is left out')
    return this
  }

  /** Takes a token out; a newer one of its timeline and tag stays. */
  drop (text) {
    for (const token of parseSet(text) ?? []) {
      const held = this.#tokens.get(token.key)
      if (held && held.lsn <= token.lsn) this.#tokens.delete(token.key)
    }
    return this
  }

  get size () { return this.#tokens.size }

  get text () { return [...this.#tokens.values()].map(token => token.text).join('.') }

  dump () { return this.text }

  #forgetOldest () {
    const oldest = [...this.#tokens.values()].reduce((a, b) => b.timeline < a.timeline ? b : a)
    this.#tokens.delete(oldest.key)
    this.#log(`ryw: more than ${MOST} timelines in one set, token ${oldest.text} is left out`)
  }
}

module.exports = { Keeper, parse, parseSet }

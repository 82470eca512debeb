'use strict'

const test = require('node:test')
const assert = require('node:assert/strict')
const { Keeper } = require('ryw')
const h = require('./help')
const { quiet } = h

test('keeper: of one timeline and tag the greater LSN, as a number', () => {
  const keeper = new Keeper('1-9-AB')
  assert.equal(keeper.add('1-10-AB').text, '1-10-AB')
  assert.equal(keeper.add('1-F-AB').text, '1-10-AB', 'it does not go back')
  assert.equal(keeper.add('1-FFFFFFFFFFFFFFFE-AB').add('1-FFFFFFFFFFFFFFFF-AB').text, '1-FFFFFFFFFFFFFFFF-AB')
})

test('keeper: tokens of other timelines and tags are kept beside', () => {
  const keeper = new Keeper('1-10-AB').add('2-5-CD').add('1-10-CD')
  assert.equal(keeper.text, '1-10-AB.2-5-CD.1-10-CD')
  keeper.drop('2-5-CD')
  assert.equal(keeper.text, '1-10-AB.1-10-CD')
  keeper.add('1-11-AB').drop('1-10-AB')
  assert.equal(keeper.text, '1-11-AB.1-10-CD', 'a newer one stays')
})

test('keeper: at most 8; the oldest timeline is left out, and that is logged', () => {
  const logged = []
  const keeper = new Keeper('', { log: line => logged.push(line) })
  for (let timeline = 1; timeline <= 9; timeline++) keeper.add(`${timeline}-10-AB`)
  assert.equal(keeper.size, 8)
  assert.ok(!keeper.text.startsWith('1-'))
  assert.match(logged[0], /1-10-AB is left out/)
})

test('keeper: malformed text from outside is logged and left out, and raises nothing', () => {
  const logged = []
  for (const text of ['x', '1-2', '1-2-3-4', '1-10-AB.', "1-10-AB'; DROP", '0/16B3748', '1-10-AB.'.repeat(9) + '1-1-1',
    'A'.repeat(1e6), 17, {}, ['1-10-AB']]) {
    assert.equal(new Keeper(text, { log: line => logged.push(line) }).text, '')
  }
  assert.equal(logged.length, 11)
  assert.throws(() => new Keeper('', { log: quiet }).add('x'), TypeError)
  assert.equal(new Keeper(undefined).text, '')
  assert.equal(new Keeper('1-1a-ab').dump(), '1-1A-AB')
})

test('keeper: dump and load make the same set', () => {
  const keeper = new Keeper('1-10-AB.2-5-CD')
  assert.equal(new Keeper(keeper.dump()).text, keeper.text)
  assert.ok(h.covers(keeper, '1-F-AB'))
  assert.ok(!h.covers(keeper, '1-11-AB'))
})

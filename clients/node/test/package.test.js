'use strict'

// What npm pack makes, and its types as a strict tsc sees them.

const test = require('node:test')
const assert = require('node:assert/strict')
const fs = require('node:fs')
const path = require('node:path')
const { spawnSync } = require('node:child_process')

const installed = path.dirname(require.resolve('ryw/package.json'))

test('the package: no dependency but the driver, as a peer; no tests, no secrets in it', () => {
  const about = JSON.parse(fs.readFileSync(path.join(installed, 'package.json'), 'utf8'))
  assert.equal(about.dependencies, undefined)
  assert.deepEqual(Object.keys(about.peerDependencies), ['pg', 'postgres'])
  const files = fs.readdirSync(installed, { recursive: true }).map(String).filter(name => /\.\w+$/.test(name))
  const expected = ['index.d.ts', 'index.js', 'package.json', 'README.md', ...fs.readdirSync(path.join(installed, 'lib')).map(name => `lib/${name}`)]
  assert.deepEqual(files.sort(), expected.sort())
})

test('the package: at most 900 lines of source, without comments and empty lines', t => {
  const lines = ['index.js', ...fs.readdirSync(path.join(installed, 'lib')).map(name => `lib/${name}`)]
    .flatMap(name => fs.readFileSync(path.join(installed, name), 'utf8').split('\n'))
    .filter(line => !/^\s*(\/\/.*|\*.*|\/\*.*)?$/.test(line))
  t.diagnostic(`${lines.length} lines`)
  assert.ok(lines.length <= 900, `${lines.length}`)
})

test('types: what is right passes tsc --strict, each line marked as wrong does not', t => {
  const tsc = path.join(path.dirname(require.resolve('typescript/package.json')), 'bin', 'tsc')
  const run = spawnSync(process.execPath, [tsc, '--noEmit', '--strict', '--target', 'es2022', '--module', 'node16',
    '--moduleResolution', 'node16', '--types', 'node', path.join(__dirname, 'types.ts')], { encoding: 'utf8', cwd: path.dirname(__dirname) })
  assert.equal(run.stdout + run.stderr, '')
  assert.equal(run.status, 0)
})

test('types: they name what there is', () => {
  const ryw = require('ryw')
  const types = fs.readFileSync(path.join(installed, 'index.d.ts'), 'utf8')
  for (const name of Object.keys(ryw)) assert.match(types, new RegExp(`export (declare )?(class|function) ${name}\\b`))
  for (const Class of [ryw.Ryw, ryw.Keeper, ryw.RywPostgres]) {
    for (const name of Object.getOwnPropertyNames(Class.prototype)) {
      if (!/^(constructor|toString|route|ahead|compact|promote)$/.test(name)) assert.match(types, new RegExp(`\\b${name}\\b`), name)
    }
  }
})

test('import { Ryw } from an ES module', () => {
  const run = spawnSync(process.execPath, ['--input-type=module', '-e', "import { Ryw, Keeper } from 'ryw'; if (!Ryw || !Keeper) process.exit(1)"],
    { encoding: 'utf8', cwd: path.dirname(__dirname) })
  assert.equal(run.stderr, '')
  assert.equal(run.status, 0)
})

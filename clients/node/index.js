'use strict'

const { Keeper } = require('./lib/keeper')
const { TokenLost, tokenLost, codeOf } = require('./lib/errors')
const { Ryw } = require('./lib/ryw')
const { RywPostgres } = require('./lib/postgresjs')

module.exports = { Ryw, RywPostgres, Keeper, TokenLost, tokenLost, codeOf }

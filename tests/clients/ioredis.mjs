// ioredis and iovalkey: `node ioredis.mjs MODULE PORT ...`.

import assert from 'node:assert/strict'
import { binary, check, library, refuses, secured, tell, until } from './checks.mjs'

const [module, ...ports] = process.argv.slice(2)
const Client = library(module).default ?? library(module)

const battery = {
  async strings(client) {
    assert.equal(await client.ping(), 'PONG')
    assert.equal(await client.set('key', 'value', 'EX', 100), 'OK')
    assert.equal(await client.get('key'), 'value')
    assert.equal(await client.get('absent'), null)
    assert.equal(await client.set('key', 'x', 'NX'), null)
    assert.equal(await client.append('key', '+'), 6)
    assert.equal(await client.getrange('key', 0, 2), 'val')
    assert.equal(await client.type('key'), 'string')
    assert.equal(await client.del('key'), 1)
  },
  async counters(client) {
    assert.deepEqual([await client.incr('n'), await client.incrby('n', 41), await client.decr('n')], [1, 42, 41])
    assert.equal(await client.incrbyfloat('float', 2.5), '2.5')
    await client.set('text', 'abc')
    await refuses(client.incr('text'), 'ERR value is not an integer or out of range')
  },
  async manyKeys(client) {
    const keys = [...Array(300).keys()].map((n) => `many:${n}`)
    await client.mset(Object.fromEntries(keys.map((key) => [key, `value of ${key}`])))
    assert.deepEqual(await client.mget(keys), keys.map((key) => `value of ${key}`))
    assert.equal(await client.exists('many:1', 'many:1', 'absent'), 2)
    assert.equal(await client.unlink(keys), 300)
  },
  async expiry(client) {
    await client.set('e', 'v')
    assert.equal(await client.ttl('e'), -1)
    assert.equal(await client.expire('e', 100), 1)
    assert.ok((await client.ttl('e')) > 90)
    assert.equal(await client.persist('e'), 1)
    assert.equal(await client.pexpire('e', 50), 1)
    await until(async () => (await client.exists('e')) === 0)
  },
  async scanning(client) {
    await client.flushdb()
    for (let n = 0; n < 500; n++) client.set(`scan:${n}`, n)
    await client.set('else', 1)
    const found = new Set()
    for await (const keys of client.scanStream({ match: 'scan:*', count: 50 })) keys.forEach((key) => found.add(key))
    assert.equal(found.size, 500)
    assert.equal(await client.dbsize(), 501)
  },
  async pipelines(client) {
    const pipeline = client.pipeline()
    for (let n = 0; n < 1000; n++) pipeline.set(`pipe:${n}`, n)
    const answers = await pipeline.incr('pipe:7').get('pipe:7').set('s', 'x').incr('s').exec()
    assert.deepEqual(answers.slice(1000, 1003), [[null, 8], [null, '8'], [null, 'OK']])
    assert.match(answers[1003][0].message, /not an integer/)
    assert.equal(answers.filter(([error]) => error).length, 1)
  },
  async bytesAndSizes(client) {
    await client.set(binary, binary)
    assert.deepEqual(await client.getBuffer(binary), binary)
    const large = Buffer.alloc(4 << 20, 'x')
    await client.set('large', large)
    assert.ok((await client.getBuffer('large')).equals(large))
    await client.set('žluťoučký 日本 🦀', 'žluťoučký 日本 🦀')
    assert.equal(await client.get('žluťoučký 日本 🦀'), 'žluťoučký 日本 🦀')
  },
  async information(client) {
    const info = await client.info()
    assert.match(info, /\r\nredis_mode:standalone\r\n/)
    assert.match(info, /\r\nloading:0\r\n/)
    const settings = await client.config('GET', 'maxmemory-policy')
    assert.deepEqual([settings].flat(), Array.isArray(settings) ? ['maxmemory-policy', 'noeviction'] : [{ 'maxmemory-policy': 'noeviction' }])
    assert.equal(await client.client('SETNAME', 'called'), 'OK')
    assert.equal(await client.client('GETNAME'), 'called')
    await refuses(client.call('NOSUCHCOMMAND'), "ERR unknown command 'NOSUCHCOMMAND'")
    await refuses(client.call('GET'), "ERR wrong number of arguments for 'get' command")
  },
  async databases(client) {
    const other = connect(client.options.port, { db: 5 })
    await other.set('here', 'five')
    assert.equal(await client.get('here'), null)
    await client.select(5)
    assert.equal(await client.get('here'), 'five')
    await client.select(0)
    await other.flushdb()
    await other.quit()
  },
  async transactions(client) {
    assert.deepEqual(await client.multi().set('{t}a', 1).incr('{t}a').get('{t}a').exec(), [[null, 'OK'], [null, 2], [null, '2']])
    await client.watch('{t}a')
    const other = connect(client.options.port)
    await other.set('{t}a', 7)
    assert.equal(await client.multi().set('{t}a', 8).exec(), null)
    assert.equal(await other.get('{t}a'), '7')
    other.disconnect()
  },
  async messages(client) {
    const heard = []
    const listener = connect(client.options.port)
    listener.on('message', (channel, message) => heard.push([channel, message]))
    listener.on('pmessage', (pattern, channel, message) => heard.push([pattern, channel, message]))
    assert.equal(await listener.subscribe('news'), 1)
    assert.equal(await listener.psubscribe('n*'), 2)
    for (const port of ports) {
      const other = connect(port)
      await other.publish('news', String(port))
      await until(() => heard.length === 2)
      assert.deepEqual(heard.splice(0), [['news', String(port)], ['n*', 'news', String(port)]])
      other.disconnect()
    }
    listener.disconnect()
  },
  async lockRecipe(client) {
    assert.equal(await client.set('lock', 'mine', 'PX', 10_000, 'NX'), 'OK')
    assert.equal(await client.set('lock', 'theirs', 'PX', 10_000, 'NX'), null)
    assert.equal(await client.get('lock'), 'mine')
    assert.equal(await client.del('lock'), 1)
  },
}

function connect(port, options = {}) {
  const client = new Client({ host: '127.0.0.1', port, ...options })
  client.on('error', () => {})
  return client
}

for (const port of ports) {
  const client = connect(port)
  await client.flushall()
  for (const [name, body] of Object.entries(battery)) await check(`${name}, port ${port}`, () => body(client))
  await client.quit()
}

await check('every node sees what one wrote', async () => {
  const clients = ports.map((port) => connect(port))
  await Promise.all([...Array(300).keys()].map((n) => clients[n % clients.length].set(`seen:${n}`, n)))
  await Promise.all([...Array(300).keys()].map((n) => clients[n % clients.length].incr('counted')))
  for (const client of clients) {
    assert.equal(await client.get('counted'), '300')
    assert.equal(await client.get('seen:299'), '299')
    client.disconnect()
  }
})

await check('a password is needed, refused and accepted', async () => {
  const options = { lazyConnect: true, retryStrategy: null, maxRetriesPerRequest: 0 }
  const without = connect(secured.port, options)
  await refuses(without.get('k'), 'NOAUTH').finally(() => without.disconnect())
  const wrong = connect(secured.port, { ...options, password: 'wrong' })
  await assert.rejects(wrong.get('k')).finally(() => wrong.disconnect())
  const right = connect(secured.port, { password: secured.password })
  assert.equal(await right.set('k', 'v'), 'OK')
  await right.quit()
})

await check('a client goes on when its node was killed and started again', async () => {
  const client = connect(ports.at(-1), { retryStrategy: () => 20, maxRetriesPerRequest: null })
  await client.set('kept', 'yes')
  await tell('kill', ports.at(-1))
  const waiting = client.get('kept')
  await tell('start', ports.at(-1))
  assert.equal(await waiting, 'yes')
  await client.quit()
})

process.exit(0)

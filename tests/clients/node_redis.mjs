// node-redis: `node node_redis.mjs PORT ...`.

import assert from 'node:assert/strict'
import { binary, check, library, refuses, secured, tell, until } from './checks.mjs'

const { createClient, RESP_TYPES } = library('redis')
const ports = process.argv.slice(2).map(Number)

const battery = {
  async strings(client) {
    assert.equal(await client.ping(), 'PONG')
    assert.equal(await client.set('key', 'value', { EX: 100 }), 'OK')
    assert.equal(await client.get('key'), 'value')
    assert.equal(await client.get('absent'), null)
    assert.equal(await client.set('key', 'x', { NX: true }), null)
    assert.equal(await client.set('key', 'other', { GET: true, KEEPTTL: true }), 'value')
    assert.ok((await client.ttl('key')) > 90)
    assert.equal(await client.getEx('key', { type: 'PERSIST' }), 'other')
    assert.equal(await client.ttl('key'), -1)
    assert.equal(await client.getDel('key'), 'other')
    assert.equal(await client.exists('key'), 0)
  },
  async counters(client) {
    assert.deepEqual([await client.incr('n'), await client.incrBy('n', 41), await client.decr('n')], [1, 42, 41])
    assert.equal(await client.incrByFloat('float', 2.5), '2.5')
    await client.set('text', 'abc')
    await refuses(client.incr('text'), 'ERR value is not an integer or out of range')
  },
  async manyKeys(client) {
    const keys = [...Array(300).keys()].map((n) => `many:${n}`)
    assert.equal(await client.mSet(keys.map((key) => [key, `value of ${key}`])), 'OK')
    assert.deepEqual(await client.mGet(keys), keys.map((key) => `value of ${key}`))
    assert.equal(await client.mSetNX([['many:0', 'x'], ['absent', 'y']]), 0)
    assert.equal(await client.del(keys), 300)
  },
  async transactions(client) {
    assert.deepEqual(await client.multi().set('{t}a', 1).incr('{t}a').get('{t}a').exec(), ['OK', 2, '2'])
    const other = client.duplicate()
    await other.connect()
    await client.watch('{t}a')
    await other.set('{t}a', 7)
    await assert.rejects(client.multi().set('{t}a', 8).exec())
    assert.equal(await other.get('{t}a'), '7')
    other.destroy()
  },
  async messages(client) {
    const heard = []
    const listener = client.duplicate()
    await listener.connect()
    await listener.subscribe('news', (message) => heard.push(message))
    await client.publish('news', 'hello')
    await until(() => heard.length === 1)
    assert.deepEqual(heard, ['hello'])
    listener.destroy()
  },
  async expiry(client) {
    await client.set('e', 'v')
    assert.equal(await client.expire('e', 100), 1)
    assert.equal(await client.expire('e', 50, 'GT'), 0)
    assert.equal(await client.persist('e'), 1)
    assert.equal(await client.pExpire('e', 50), 1)
    await until(async () => (await client.exists('e')) === 0)
  },
  async scanning(client) {
    await client.flushDb()
    await Promise.all([...Array(500).keys()].map((n) => client.set(`scan:${n}`, `${n}`)))
    await client.set('else', '1')
    const found = new Set()
    for await (const keys of client.scanIterator({ MATCH: 'scan:*', COUNT: 50 })) [keys].flat().forEach((key) => found.add(key))
    assert.equal(found.size, 500)
    assert.equal(await client.dbSize(), 501)
  },
  async pipelines(client) {
    const pipeline = client.multi()
    for (let n = 0; n < 1000; n++) pipeline.set(`pipe:${n}`, `${n}`)
    const answers = await pipeline.incr('pipe:7').get('pipe:7').execAsPipeline()
    assert.deepEqual(answers.slice(999), ['OK', 8, '8'])
  },
  async bytesAndSizes(client) {
    const bytes = client.withTypeMapping({ [RESP_TYPES.BLOB_STRING]: Buffer })
    await client.set(binary, binary)
    assert.deepEqual(await bytes.get(binary), binary)
    const large = Buffer.alloc(4 << 20, 'x')
    await client.set('large', large)
    assert.ok((await bytes.get('large')).equals(large))
    await client.set('žluťoučký 日本 🦀', 'žluťoučký 日本 🦀')
    assert.equal(await client.get('žluťoučký 日本 🦀'), 'žluťoučký 日本 🦀')
  },
  async information(client) {
    assert.match(await client.info(), /\r\nredis_mode:standalone\r\n/)
    const settings = await client.configGet('maxmemory-policy')
    assert.equal(settings['maxmemory-policy'], 'noeviction')
    assert.equal(await client.clientSetName('called'), 'OK')
    assert.equal(await client.clientGetName(), 'called')
    await refuses(client.sendCommand(['NOSUCHCOMMAND']), "ERR unknown command 'NOSUCHCOMMAND'")
  },
  async databases(client) {
    await client.select(5)
    await client.set('here', 'five')
    await client.select(0)
    assert.equal(await client.get('here'), null)
    await client.select(5)
    await client.flushDb()
    await client.select(0)
  },
}

async function connect(port, options = {}) {
  const client = createClient({ socket: { host: '127.0.0.1', port, ...options.socket }, ...options.client })
  client.on('error', () => {})
  return client.connect()
}

for (const port of ports) {
  for (const RESP of [2, 3]) {
    const client = await connect(port, { client: { RESP } })
    await client.flushAll()
    for (const [name, body] of Object.entries(battery)) await check(`${name}, RESP${RESP}, port ${port}`, () => body(client))
    await client.close()
  }
}

await check('every node sees what one wrote', async () => {
  const clients = await Promise.all(ports.map((port) => connect(port)))
  await Promise.all([...Array(300).keys()].map((n) => clients[n % clients.length].set(`seen:${n}`, `${n}`)))
  await Promise.all([...Array(300).keys()].map((n) => clients[n % clients.length].incr('counted')))
  for (const client of clients) {
    assert.equal(await client.get('counted'), '300')
    assert.equal(await client.get('seen:299'), '299')
    client.destroy()
  }
})

await check('a password is needed, refused and accepted', async () => {
  const once = { reconnectStrategy: false }
  await assert.rejects(connect(secured.port, { socket: once, client: { password: 'wrong' } }), /WRONGPASS/)
  const without = await connect(secured.port, { socket: once, client: { RESP: 2 } }).catch(() => null)
  if (without) await refuses(without.get('k'), 'NOAUTH').finally(() => without.destroy())
  const right = await connect(secured.port, { client: { password: secured.password } })
  assert.equal(await right.set('k', 'v'), 'OK')
  await right.close()
})

await check('a client goes on when its node was killed and started again', async () => {
  const client = await connect(ports.at(-1), { socket: { reconnectStrategy: () => 20 } })
  await client.set('kept', 'yes')
  await tell('kill', ports.at(-1))
  const waiting = client.get('kept').catch(() => client.get('kept'))
  await tell('start', ports.at(-1))
  assert.equal(await waiting, 'yes')
  await client.close()
})

process.exit(0)

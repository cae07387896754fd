// ioredis, iovalkey and node-redis in cluster mode: `node cluster.mjs MODULE PORT ...`; the ports of the cluster face are
// in CLUSTER_PORTS. A node is killed and comes back while a client writes: what it sees of that is counted.

import assert from 'node:assert/strict'
import { check, library, tell, until } from './checks.mjs'

const [module, ...ports] = process.argv.slice(2)
const faces = process.env.CLUSTER_PORTS.split(' ').map(Number)
const addresses = faces.map((port) => ({ host: '127.0.0.1', port }))

const WRITERS = 10
// node-redis tells of what was under way when the node died, and of what waited for it when the client heard of that.
const MOST_ERRORS = module === 'redis' ? 2 * WRITERS : 0
// Milliseconds that a write takes.
const LONGEST_STALL = 2000

/** The same few words for both families of libraries. */
async function connect() {
  const loaded = library(module)
  if (module === 'redis') {
    const client = loaded.createCluster({ rootNodes: addresses.map(({ host, port }) => ({ url: `redis://${host}:${port}` })) })
    client.on('error', () => {})
    await client.connect()
    return {
      get: (key) => client.get(key),
      set: (key, value) => client.set(key, String(value)),
      incr: (key) => client.incr(key),
      mget: (keys) => client.mGet(keys),
      mset: (pairs) => client.mSet(Object.entries(pairs).map(([key, value]) => [key, String(value)])),
      transaction: (key) => client.multi().incr(key).get(key).exec(),
      masters: async () => client.masters.map((master) => master.port),
      each: (body) => Promise.all(client.masters.map(async (master) => body(await client.nodeClient(master)))),
      listen: async (channel, heard) => client.subscribe(channel, heard),
      publish: (channel, message) => client.publish(channel, message),
      close: () => client.destroy(),
    }
  }
  const client = new (loaded.Cluster ?? loaded.default.Cluster)(addresses)
  client.on('error', () => {})
  await until(() => client.status === 'ready')
  return {
    get: (key) => client.get(key),
    set: (key, value) => client.set(key, value),
    incr: (key) => client.incr(key),
    mget: (keys) => client.mget(keys),
    mset: (pairs) => client.mset(pairs),
    transaction: async (key) => (await client.multi().incr(key).get(key).exec()).map(([, value]) => value),
    masters: async () => client.nodes('master').map((node) => node.options.port),
    each: (body) => Promise.all(client.nodes('master').map(body)),
    listen: async (channel, heard) => {
      client.on('message', (_, message) => heard(message))
      await client.subscribe(channel)
    },
    publish: (channel, message) => client.publish(channel, message),
    close: () => client.disconnect(),
  }
}

const client = await connect()
const dbsize = (node) => (node.dbSize ? node.dbSize() : node.dbsize())
const flush = (node) => (node.flushAll ? node.flushAll() : node.flushall())

await check('every node answers for its slots', async () => {
  await client.each(flush)
  assert.deepEqual((await client.masters()).map(Number).sort(), [...faces].sort())
  await Promise.all([...Array(300).keys()].map((n) => client.set(`key:${n}`, n)))
  for (let n = 0; n < 300; n++) assert.equal(await client.get(`key:${n}`), String(n))
  const sizes = await client.each(dbsize)
  assert.equal(sizes.reduce((sum, size) => sum + Number(size), 0), 300)
  assert.ok(sizes.every((size) => size > 0))
})

await check('keys of one slot go together', async () => {
  await client.mset({ '{t}a': 1, '{t}b': 2 })
  assert.deepEqual(await client.mget(['{t}a', '{t}b']), ['1', '2'])
})

await check('a transaction of one slot', async () => {
  await client.set('{t}n', 1)
  assert.deepEqual(await client.transaction('{t}n'), [2, '2'])
})

await check('messages', async () => {
  const heard = []
  await client.listen('news', (message) => heard.push(message))
  await client.publish('news', 'hello')
  await until(() => heard.length > 0)
  assert.deepEqual(heard, ['hello'])
})

await check('a node dies and comes back while a client writes', async () => {
  const seen = { writes: 0, errors: [], longest: 0 }
  let writing = true
  // Several at once: one that waits for the dead node must not keep the client from hearing of its death.
  const writers = [...Array(WRITERS).keys()].map(async () => {
    while (writing) {
      const began = performance.now()
      await client.incr(`counter:${seen.writes % 100}`).catch((error) => seen.errors.push(String(error)))
      seen.longest = Math.max(seen.longest, performance.now() - began)
      seen.writes++
    }
  })
  const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))
  await sleep(1000)
  await tell('kill', ports[2])
  await sleep(4000)
  await tell('start', ports[2])
  await sleep(3000)
  writing = false
  await Promise.all(writers)
  console.log(`${seen.writes} writes, ${seen.errors.length} errors, the longest took ${Math.round(seen.longest)} ms`)
  assert.ok(seen.errors.length <= MOST_ERRORS, seen.errors.slice(0, 5).join('; '))
  assert.ok(seen.longest <= LONGEST_STALL, `${seen.longest} ms`)
  assert.deepEqual((await client.masters()).map(Number).sort(), [...faces].sort())
})

client.close()
process.exit(0)

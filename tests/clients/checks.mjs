// What every script of this directory says: `ok` and `not ok` lines on standard output, for run.py to count.

import assert from 'node:assert/strict'
import { createRequire } from 'node:module'
import { createInterface } from 'node:readline'
import path from 'node:path'

export const binary = Buffer.from([...Array(256).keys(), ...Buffer.from('\r\n$-1\r\n')])
export const secured = { port: Number(process.env.SECURED_PORT), password: process.env.PASSWORD }

/** Loads a library from where run.py installed it. */
export function library(name) {
  return createRequire(path.join(process.env.NODE_MODULES, 'package.json'))(name)
}

/** Runs one check; whatever it throws is its failure. */
export async function check(name, body) {
  try {
    await body()
    console.log(`ok ${name}`)
  } catch (error) {
    const where = String(error.stack).split('\n').find((line) => line.includes('/tests/clients/') && !line.includes('checks.mjs'))
    console.log(`not ok ${name}: ${String(error.message).replaceAll(/\s+/g, ' ')} (${String(where).trim()})`)
  }
}

/** The promise must be rejected with `text` in the message. */
export async function refuses(promise, text) {
  await assert.rejects(promise, (error) => {
    assert.ok(String(error.message).includes(text), `${error} does not say ${text}`)
    return true
  })
}

const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]()

/** Has run.py kill or start the node of a port, and waits until it has. */
export async function tell(order, port) {
  console.log(`!${order} ${port}`)
  assert.equal((await answers.next()).value, 'done')
}

/** Waits until something is so. */
export async function until(holds) {
  for (const deadline = Date.now() + 30_000; !(await holds());) {
    assert.ok(Date.now() < deadline, 'it never became so')
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

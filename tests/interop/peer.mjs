// A js-libp2p peer that knows one node of a mesh, and reads the offer of another one from the mesh's DHT.
// Usage: node peer.mjs ADDRESS OTHER_PEER_ID; prints one JSON object.
import { createPublicKey, verify } from 'node:crypto'
import { noise } from '@chainsafe/libp2p-noise'
import { yamux } from '@chainsafe/libp2p-yamux'
import { identify } from '@libp2p/identify'
import { kadDHT } from '@libp2p/kad-dht'
import { ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { decode } from '@msgpack/msgpack'
import { multiaddr } from '@multiformats/multiaddr'
import { peerIdFromString } from '@libp2p/peer-id'
import { createLibp2p } from 'libp2p'

// js-libp2p wants Node.js 22 for this alone.
Promise.withResolvers ??= () => {
  const made = {}
  made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }))
  return made
}

const [address, other] = process.argv.slice(2)
// SubjectPublicKeyInfo of an Ed25519 key, up to the key itself (RFC 8410).
const SPKI = Buffer.from('302a300506032b6570032100', 'hex')
const LIMIT_MS = 20_000

function readOffer (bytes) {
  const [kind, body, signatures] = decode(bytes)
  const pae = Buffer.concat([Buffer.from(`DSSEv1 ${kind.length} ${kind} ${body.length} `), body])
  const signed = signatures.every(([algorithm, key, signature]) => {
    const spki = createPublicKey({ key: Buffer.concat([SPKI, key]), format: 'der', type: 'spki' })
    return algorithm === 1 && verify(null, pae, spki, signature)
  })
  return { kind, signed, fields: decode(body) }
}

async function metPeers (peer) {
  const found = []
  for await (const event of peer.services.dht.getClosestPeers(peerIdFromString(other).toMultihash().bytes)) {
    if (event.name === 'FINAL_PEER') found.push(event.peer.id.toString())
  }
  return found
}

async function readRecord (peer) {
  const key = new TextEncoder().encode(`/potluck/offer/${other}`)
  for await (const event of peer.services.dht.get(key, { signal: AbortSignal.timeout(LIMIT_MS) })) {
    if (event.name === 'VALUE') return event.value
  }
  throw new Error(`no record of ${other} in the DHT`)
}

const peer = await createLibp2p({
  addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
  transports: [tcp()],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()],
  services: {
    identify: identify(),
    ping: ping(),
    dht: kadDHT({
      protocol: '/potluck/kad/1',
      clientMode: false,
      peerInfoMapper: (info) => info,
      validators: { potluck: async (_key, value) => { if (!readOffer(value).signed) throw new Error('forged') } },
      selectors: { potluck: () => 0 }
    })
  }
})
try {
  const there = multiaddr(address)
  const identified = new Promise((resolve) => peer.addEventListener('peer:identify', (event) => resolve(event.detail)))
  await peer.dial(there, { signal: AbortSignal.timeout(LIMIT_MS) })
  const { agentVersion, protocols } = await identified
  const offer = readOffer(await readRecord(peer))
  const met = await metPeers(peer)
  // Last: the DHT pings each new peer, and one ping at a time is allowed.
  const pingMs = await peer.services.ping.ping(there, { signal: AbortSignal.timeout(LIMIT_MS) })
  console.log(JSON.stringify({ us: peer.peerId.toString(), agentVersion, protocols, pingMs, met, offer }))
} finally {
  await peer.stop()
}

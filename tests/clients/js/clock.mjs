// A client on a machine whose clock is wrong: the package is as it is, the clock is moved under it.
// Usage: node clock.mjs icp-sdk|dfinity URL ROOT_KEY_HEX CANISTER_ID MINUTES
import { bytesOfHex, check, ensure, equal, finish } from './checks.mjs';
import { probeInterface } from './probe.mjs';

const packages = {
  'icp-sdk': ['@icp-sdk/core/agent', '@icp-sdk/core/identity'],
  dfinity: ['@dfinity/agent', '@dfinity/identity'],
};
const [flavour, url, rootKeyHex, canisterId, minutes] = process.argv.slice(2);
const skewMs = Number(minutes) * 60_000;
const TrueDate = Date;
globalThis.Date = class extends TrueDate {
  constructor(...args) {
    super(...(args.length ? args : [TrueDate.now() + skewMs]));
  }

  static now() {
    return TrueDate.now() + skewMs;
  }
};
const [{ Actor, HttpAgent }, { Ed25519KeyIdentity }] = await Promise.all(
  packages[flavour].map((name) => import(name)),
);
const identity = Ed25519KeyIdentity.generate();
const agent = await HttpAgent.create({ host: url, identity, rootKey: bytesOfHex(rootKeyHex), retryTimes: 3 });
const actor = Actor.createActor(probeInterface, { agent, canisterId });

await check('an update', async () => {
  const before = await actor.increment();
  equal(await actor.increment(), before + 1n, 'count');
});
await check('the client has found out by how much its clock is wrong', async () => {
  ensure(Math.abs(agent.getTimeDiffMsecs() + skewMs) < 90_000, `it thinks ${agent.getTimeDiffMsecs()} ms`);
});
await check('a query', async () => equal(await actor.greet('late'), 'Hello, late!'));
finish();

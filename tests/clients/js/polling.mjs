// Calls that the node answers by 202 at once, whose outcome a client learns by polling.
// Usage: node polling.mjs icp-sdk|dfinity URL ROOT_KEY_HEX CANISTER_ID
import { bytesOfHex, check, ensure, equal, finish, refused } from './checks.mjs';
import { probeInterface } from './probe.mjs';

const packages = {
  'icp-sdk': ['@icp-sdk/core/agent', '@icp-sdk/core/identity', '@icp-sdk/core/principal'],
  dfinity: ['@dfinity/agent', '@dfinity/identity', '@dfinity/principal'],
};
const [flavour, url, rootKeyHex, canisterId] = process.argv.slice(2);
const [{ Actor, HttpAgent }, { Ed25519KeyIdentity }, { Principal }] = await Promise.all(
  packages[flavour].map((name) => import(name)),
);
const identity = Ed25519KeyIdentity.generate();
const agent = await HttpAgent.create({ host: url, identity, rootKey: bytesOfHex(rootKeyHex), retryTimes: 1 });
const actor = Actor.createActor(probeInterface, { agent, canisterId });

await check('the node answers 202', async () => {
  const { response } = await agent.call(canisterId, {
    methodName: 'increment',
    arg: new Uint8Array([68, 73, 68, 76, 0, 0]),
    effectiveCanisterId: Principal.fromText(canisterId),
  });
  equal(response.status, 202, 'HTTP status');
});
await check('updates by polling', async () => {
  const before = await actor.increment();
  equal(await actor.increment(), before + 1n, 'count');
  equal((await actor.whoami_update()).toText(), identity.getPrincipal().toText(), 'caller');
});
await check('twenty updates at once by polling', async () => {
  const answers = await Promise.all(Array.from({ length: 20 }, () => actor.increment()));
  equal(new Set(answers.map(String)).size, 20, 'distinct answers');
});
await check('a reject by polling', async () => {
  const error = await refused(actor.refuse('not today'));
  // @icp-sdk/core 6.1.0 loses such a reject in an error of its own.
  const expected = flavour === 'icp-sdk' ? /Cannot use 'in' operator/ : /not today/;
  const text = [error.message, String(error), String(error.cause?.code?.rejectMessage ?? '')].join(' ');
  ensure(expected.test(text), text);
});
finish();

// Drives a node with a JavaScript agent, verification on, unpatched.
// Usage: node agent.mjs icp-sdk|dfinity URL ROOT_KEY_HEX CANISTER_ID
import { bytesOfHex, check, ensure, equal, finish, refused } from './checks.mjs';
import { probeInterface } from './probe.mjs';

const packages = {
  'icp-sdk': ['@icp-sdk/core/agent', '@icp-sdk/core/identity', '@icp-sdk/core/identity/secp256k1', '@icp-sdk/core/principal'],
  dfinity: ['@dfinity/agent', '@dfinity/identity', '@dfinity/identity-secp256k1', '@dfinity/principal'],
};
const [flavour, url, rootKeyHex, canisterId] = process.argv.slice(2);
const [agentModule, identityModule, secp256k1Module, principalModule] = await Promise.all(
  packages[flavour].map((name) => import(name)),
);
const { Actor, HttpAgent, IC_ROOT_KEY } = agentModule;
const { DelegationChain, DelegationIdentity, ECDSAKeyIdentity, Ed25519KeyIdentity } = identityModule;
const { Secp256k1KeyIdentity } = secp256k1Module;
const { Principal } = principalModule;
const rootKey = bytesOfHex(rootKeyHex);

async function actorOf(identity, options = {}) {
  const agent = await HttpAgent.create({ host: url, identity, rootKey, retryTimes: 1, ...options });
  return { agent, actor: Actor.createActor(probeInterface, { agent, canisterId }) };
}

const ed25519 = Ed25519KeyIdentity.generate();
const { agent, actor } = await actorOf(ed25519);

await check('status and root key', async () => {
  const fresh = await HttpAgent.create({ host: url });
  const fetched = await fresh.fetchRootKey();
  equal(Buffer.from(fetched).toString('hex'), rootKeyHex, 'root key');
});
await check('query with verified node signature', async () => equal(await actor.greet('JS'), 'Hello, JS!'));
await check('update with verified certificate', async () => {
  const before = await actor.value();
  const after = await actor.increment();
  equal(after, before + 1n, 'count');
  equal(await actor.value(), after, 'count read back');
});
await check('anonymous query and update', async () => {
  const { actor: anonymous } = await actorOf(undefined);
  equal((await anonymous.whoami()).toText(), '2vxsx-fae');
  equal((await anonymous.whoami_update()).toText(), '2vxsx-fae');
});
for (const [name, identity] of [
  ['Ed25519', ed25519],
  ['secp256k1', Secp256k1KeyIdentity.generate()],
  ['P-256 (WebCrypto)', await ECDSAKeyIdentity.generate()],
]) {
  await check(`${name} identity: query and update`, async () => {
    const { actor: own } = await actorOf(identity);
    equal((await own.whoami()).toText(), identity.getPrincipal().toText());
    equal((await own.whoami_update()).toText(), identity.getPrincipal().toText());
  });
}
await check('delegation with targets', async () => {
  const session = Ed25519KeyIdentity.generate();
  const expiration = new Date(Date.now() + 15 * 60 * 1000);
  const chain = await DelegationChain.create(ed25519, session.getPublicKey(), expiration, {
    targets: [Principal.fromText(canisterId)],
  });
  const { actor: delegated } = await actorOf(DelegationIdentity.fromDelegation(session, chain));
  equal((await delegated.whoami()).toText(), ed25519.getPrincipal().toText());
  equal((await delegated.whoami_update()).toText(), ed25519.getPrincipal().toText());
});
await check('delegation for another target is refused', async () => {
  const session = Ed25519KeyIdentity.generate();
  const chain = await DelegationChain.create(ed25519, session.getPublicKey(), new Date(Date.now() + 60_000), {
    targets: [Principal.fromText('rkp4c-7iaaa-aaaaa-aaaca-cai')],
  });
  const { actor: delegated } = await actorOf(DelegationIdentity.fromDelegation(session, chain));
  await refused(delegated.whoami_update(), /40[03]|target/i);
});
await check('expired delegation is refused', async () => {
  const session = Ed25519KeyIdentity.generate();
  const chain = await DelegationChain.create(ed25519, session.getPublicKey(), new Date(Date.now() - 600_000));
  const { actor: delegated } = await actorOf(DelegationIdentity.fromDelegation(session, chain));
  await refused(delegated.whoami_update(), /40[03]|expired/i);
});
await check('two delegations in a chain', async () => {
  const middle = Ed25519KeyIdentity.generate();
  const session = Secp256k1KeyIdentity.generate();
  const expiration = new Date(Date.now() + 15 * 60 * 1000);
  const first = await DelegationChain.create(ed25519, middle.getPublicKey(), expiration);
  const chain = await DelegationChain.create(middle, session.getPublicKey(), expiration, { previous: first });
  const { actor: delegated } = await actorOf(DelegationIdentity.fromDelegation(session, chain));
  equal((await delegated.whoami_update()).toText(), ed25519.getPrincipal().toText());
});
await check('certified reject of an update', () => refused(actor.refuse('not today'), /not today/));
await check('trap of an update leaves no trace', async () => {
  const before = await actor.value();
  await refused(actor.fail('on purpose'), /on purpose/);
  equal(await actor.value(), before, 'count');
});
await check('reject of a query', () => refused(actor.refuse_query('no such thing'), /no such thing/));
await check('unknown method', () => refused(actor.absent(), /absent/));
await check('unknown canister', async () => {
  const lost = Actor.createActor(probeInterface, { agent, canisterId: 'rrkah-fqaaa-aaaaa-aaaaq-cai' });
  await refused(lost.increment(), /not found/i);
});
await check('read_state: time, module hash, controllers, candid', async () => {
  const id = Principal.fromText(canisterId);
  const status = await agentModule.CanisterStatus.request({
    canisterId: id,
    agent,
    paths: ['time', 'module_hash', 'controllers', 'candid', 'subnet'],
  });
  ensure(/^[0-9a-f]{64}$/.test(status.get('module_hash')), 'module hash');
  ensure(status.get('controllers').length >= 1, 'controllers');
  ensure(status.get('candid').includes('increment'), 'candid');
  ensure(Math.abs(status.get('time').getTime() - Date.now()) < 60_000, 'time');
});
await check('subnet status', async () => {
  ensure(await agent.fetchSubnetKeys(Principal.fromText(canisterId)), 'node keys');
  if (flavour !== 'icp-sdk') return;
  const id = await agent.getSubnetIdFromCanister(canisterId);
  ensure(id.toText().length > 10, 'subnet id');
});
await check('time synchronisation', async () => {
  await agent.syncTime(Principal.fromText(canisterId));
  ensure(Math.abs(agent.getTimeDiffMsecs()) < 60_000, 'clock difference');
});
await check('a large argument and a large reply', async () => {
  const data = new Uint8Array(1_500_000).fill(7);
  equal((await actor.echo(data)).length, data.length, 'echo');
  equal((await actor.fill(3_000_000)).length, 3_000_000, 'fill');
});
await check('fifty updates at once', async () => {
  const before = await actor.value();
  const answers = await Promise.all(Array.from({ length: 50 }, () => actor.increment()));
  equal([...new Set(answers.map(String))].length, 50, 'distinct answers');
  equal(await actor.value(), before + 50n, 'count');
});
await check('v2 call and polling', async () => {
  const { requestId } = await agent.call(canisterId, {
    methodName: 'increment',
    arg: new Uint8Array([68, 73, 68, 76, 0, 0]),
    effectiveCanisterId: Principal.fromText(canisterId),
    callSync: false,
  });
  const { reply } = await agentModule.polling.pollForResponse(agent, Principal.fromText(canisterId), requestId);
  ensure(reply.length > 6, 'reply by polling');
});
await check('mainnet root key is refused', async () => {
  const { actor: wrong } = await actorOf(ed25519, { rootKey: bytesOfHex(IC_ROOT_KEY) });
  await refused(wrong.increment(), /signature|verif/i);
});
await check('tampered root key is refused', async () => {
  const tampered = bytesOfHex(rootKeyHex);
  tampered[tampered.length - 1] ^= 1;
  const { actor: wrong } = await actorOf(ed25519, { rootKey: tampered });
  await refused(wrong.increment());
});
finish();

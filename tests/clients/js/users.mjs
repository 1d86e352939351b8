// The main job through @icp-sdk/core: two people register, one writes, the other reads, once, in order.
// Usage: node users.mjs URL ROOT_KEY_HEX USER_INDEX_ID PHASE STATE_FILE; phase `write` registers two people and sends,
// phase `read` (perhaps after the node was killed and started again) reads as the other and checks.
import { readFileSync, writeFileSync } from 'node:fs';
import { Actor, HttpAgent } from '@icp-sdk/core/agent';
import { IDL } from '@icp-sdk/core/candid';
import { Ed25519KeyIdentity } from '@icp-sdk/core/identity';
import { bytesOfHex, check, ensure, equal, finish } from './checks.mjs';

const [url, rootKeyHex, indexId, phase, stateFile] = process.argv.slice(2);
const MESSAGES = 20;

const Profile = IDL.Record({
  owner: IDL.Principal,
  canister: IDL.Principal,
  username: IDL.Text,
  registered_ns: IDL.Nat64,
  self_custody: IDL.Bool,
});
const RegisterResult = IDL.Variant({
  ok: Profile,
  username_taken: IDL.Text,
  username_invalid: IDL.Text,
  in_progress: IDL.Text,
  rate_limited: IDL.Text,
  failed: IDL.Text,
});
const Who = IDL.Variant({ username: IDL.Text, owner: IDL.Principal, canister: IDL.Principal });
const Body = IDL.Variant({ text: IDL.Text, opaque: IDL.Vec(IDL.Nat8) });
const Sent = IDL.Record({
  message_id: IDL.Vec(IDL.Nat8),
  to: IDL.Principal,
  to_username: IDL.Text,
  sent_ns: IDL.Nat64,
  state: IDL.Variant({ stored: IDL.Null, delivered: IDL.Nat64, refused: IDL.Text }),
});
const SendResult = IDL.Variant({
  ok: Sent,
  unknown_user: IDL.Text,
  invalid: IDL.Text,
  full: IDL.Text,
  blocked: IDL.Text,
  refused: IDL.Text,
});
const Message = IDL.Record({
  id: IDL.Nat64,
  sender: IDL.Principal,
  sender_username: IDL.Text,
  message_id: IDL.Vec(IDL.Nat8),
  sent_ns: IDL.Nat64,
  received_ns: IDL.Nat64,
  body: Body,
});
const InboxPage = IDL.Record({
  messages: IDL.Vec(Message),
  gaps: IDL.Vec(IDL.Record({ start: IDL.Nat64, end: IDL.Nat64 })),
  next: IDL.Opt(IDL.Nat64),
  acknowledged: IDL.Nat64,
  newest: IDL.Opt(IDL.Nat64),
});
const index = () =>
  IDL.Service({
    register: IDL.Func([IDL.Text], [RegisterResult], []),
    lookup: IDL.Func([Who], [IDL.Opt(Profile)], ['query']),
  });
const user = () =>
  IDL.Service({
    send: IDL.Func([Who, IDL.Vec(IDL.Nat8), Body], [SendResult], []),
    inbox: IDL.Func([IDL.Nat64, IDL.Nat32], [InboxPage], ['query']),
    inbox_newest: IDL.Func([IDL.Opt(IDL.Nat64), IDL.Nat32], [InboxPage], ['query']),
    acknowledge: IDL.Func([IDL.Nat64], [IDL.Nat64], []),
  });

async function actorOf(identity, canisterId, service) {
  const agent = await HttpAgent.create({ host: url, identity, rootKey: bytesOfHex(rootKeyHex), retryTimes: 1 });
  return Actor.createActor(service, { agent, canisterId });
}

if (phase === 'write') {
  const tag = String(Date.now() % 1_000_000);
  const [ann, bob] = [Ed25519KeyIdentity.generate(), Ed25519KeyIdentity.generate()];
  let annCanister;
  let bobCanister;
  await check('two people register, twice each', async () => {
    for (let round = 0; round < 2; round += 1) {
      const annProfile = await (await actorOf(ann, indexId, index)).register(`ann_${tag}`);
      const bobProfile = await (await actorOf(bob, indexId, index)).register(`bob_${tag}`);
      annCanister = annProfile.ok.canister.toText();
      bobCanister = bobProfile.ok.canister.toText();
    }
    ensure(annCanister !== bobCanister, 'two canisters');
  });
  await check('a name is unique whatever its case', async () => {
    const other = await actorOf(Ed25519KeyIdentity.generate(), indexId, index);
    ensure('username_taken' in (await other.register(`ANN_${tag}`)), 'taken');
  });
  await check('a stranger cannot read or write a mailbox', async () => {
    const stranger = await actorOf(Ed25519KeyIdentity.generate(), annCanister, user);
    for (const attempt of [() => stranger.inbox(0n, 10), () => stranger.acknowledge(1n)]) {
      let refused = false;
      await attempt().catch(() => (refused = true));
      ensure(refused, 'refused');
    }
  });
  await check('one writes while the other is away', async () => {
    const mailbox = await actorOf(ann, annCanister, user);
    for (let i = 0; i < MESSAGES; i += 1) {
      const id = new TextEncoder().encode(`message-${i}`);
      for (let attempt = 0; attempt < 2; attempt += 1) {
        const result = await mailbox.send({ username: `bob_${tag}` }, id, { text: `letter ${i}` });
        ensure('ok' in result, JSON.stringify(Object.keys(result)));
      }
    }
  });
  const keys = { bob: bob.toJSON(), bobCanister };
  writeFileSync(stateFile, JSON.stringify(keys));
} else {
  const { bob, bobCanister } = JSON.parse(readFileSync(stateFile, 'utf8'));
  const mailbox = await actorOf(Ed25519KeyIdentity.fromParsedJson(bob), bobCanister, user);
  await check('the other reads, once, in order', async () => {
    const texts = [];
    let cursor = 0n;
    for (;;) {
      const page = await mailbox.inbox(cursor, 7);
      texts.push(...page.messages.map((message) => message.body.text));
      if (!page.next.length) break;
      cursor = page.next[0];
    }
    equal(texts, Array.from({ length: MESSAGES }, (_, i) => `letter ${i}`), 'letters');
  });
  await check('and acknowledges', async () => {
    const page = await mailbox.inbox(0n, 100);
    await mailbox.acknowledge(page.newest[0]);
    equal((await mailbox.inbox_newest([], 1)).acknowledged, page.newest[0] + 1n, 'acknowledged');
  });
}
finish();

// A client of the store: asks the index once where its keys are, then writes and reads in parallel, straight to the
// buckets. Usage: node store.mjs URL ROOT_KEY_HEX STORE_INDEX_ID [COUNT]
import { Actor, HttpAgent } from '@icp-sdk/core/agent';
import { IDL } from '@icp-sdk/core/candid';
import { Ed25519KeyIdentity } from '@icp-sdk/core/identity';

const [url, rootKeyHex, indexId, count = '40'] = process.argv.slice(2);
const { Bool, Func, Nat8, Nat64, Opt, Principal: Id, Record, Service, Text, Variant, Vec } = IDL;
const Put = Record({
  key: Text, value: Vec(Nat8), tags: Vec(Text), private: Bool, readers: Vec(Id), expect: Opt(Nat64),
});
const Stored = Record({ canister: Id, revision: Nat64, is_new: Bool });
const PutResult = Variant({ ok: Stored, moved: Opt(Id), full: Text, conflict: Nat64, refused: Text });
const Found = Record({ entry: Record({ revision: Nat64, size: Nat64 }), value: Vec(Nat8), canister: Id });
const GetResult = Variant({ ok: Found, absent: IDL.Null, moved: Opt(Id) });
const Index = () => Service({ locate: Func([Vec(Text)], [Vec(Id)], ['query']) });
const Bucket = () =>
  Service({ put: Func([Put], [PutResult], []), get: Func([Text], [GetResult], ['query']) });

const agent = await HttpAgent.create({
  host: url,
  rootKey: Uint8Array.from(Buffer.from(rootKeyHex, 'hex')),
  identity: Ed25519KeyIdentity.generate(),
});
const actor = (service, canisterId) => Actor.createActor(service, { agent, canisterId });
const index = actor(Index, indexId);
const homes = new Map(); // key -> its bucket, as last heard

// Ask a key's bucket; follow where it says that the key has moved, wait where it is full, ask the index where lost.
async function ask(key, act) {
  for (let tries = 0; tries < 100; tries++) {
    if (!homes.has(key)) homes.set(key, (await index.locate([key]))[0]);
    const answer = await act(actor(Bucket, homes.get(key))).catch(() => ({ moved: [] }));
    if ('moved' in answer) answer.moved.length ? homes.set(key, answer.moved[0]) : homes.delete(key);
    else if (!('full' in answer)) return answer;
    if (!('moved' in answer && answer.moved.length)) await new Promise((wake) => setTimeout(wake, 50 + 10 * tries));
  }
  throw new Error(`nobody answers for ${key}`);
}

const run = Math.random().toString(36).slice(2);
const notes = Array.from({ length: Number(count) }, (_, n) => [`js/${run}/${n}`, `note ${n}`]);
const buckets = await index.locate(notes.map(([key]) => key)); // the one question
notes.forEach(([key], n) => homes.set(key, buckets[n]));
const puts = await Promise.all(
  notes.map(([key, text]) => {
    const put = { key, value: new TextEncoder().encode(text), tags: ['js', run], private: false, readers: [], expect: [] };
    return ask(key, (bucket) => bucket.put(put));
  }),
);
const refused = puts.find((put) => !('ok' in put));
if (refused) throw new Error(JSON.stringify(refused));
const gets = await Promise.all(notes.map(([key]) => ask(key, (bucket) => bucket.get(key))));
const good = notes.filter(([, text], n) => new TextDecoder().decode(gets[n].ok.value) === text).length;
const used = new Set(gets.map((got) => got.ok.canister.toText())).size;
console.log(JSON.stringify({ put: puts.length, read: good, buckets: used }));

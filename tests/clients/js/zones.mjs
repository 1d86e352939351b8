// A zone through @icp-sdk/core as a client of Diode's canister sees it: their methods and types, and none of the zone's own.
// Usage: node zones.mjs URL ROOT_KEY_HEX ZONE_ID SEED_HEX; the zone belongs to the identity of that seed.
import { createHash } from 'node:crypto';
import { Actor, HttpAgent } from '@icp-sdk/core/agent';
import { IDL } from '@icp-sdk/core/candid';
import { Ed25519KeyIdentity } from '@icp-sdk/core/identity';
import { bytesOfHex, check, ensure, equal, finish, refused } from './checks.mjs';

const [url, rootKeyHex, zoneId, seedHex] = process.argv.slice(2);
const { Nat, Nat32, Nat64, Text, Bool, Null, Vec, Opt, Nat8, Record, Variant, Func, Service } = IDL;
const Blob = Vec(Nat8);
const Message = Record({
  id: Nat32,
  timestamp: Nat32,
  key_id: Blob,
  next_msg_id: Nat32,
  prev_msg_id: Nat32,
  hash: Blob,
  ciphertext: Blob,
});
const File = Record({
  id: Nat,
  timestamp: Nat,
  directory_id: Blob,
  metadata_ciphertext: Blob,
  content_hash: Blob,
  offset: Nat64,
  size: Nat64,
  finalized: Bool,
});
const or = (type) => Variant({ ok: type, err: Text });
const zone = () =>
  Service({
    my_role: Func([], [Nat], ['query']),
    add_message: Func([Blob, Blob], [or(Nat32)], []),
    add_messages: Func([Vec(IDL.Tuple(Blob, Blob))], [or(Vec(Nat32))], []),
    get_messages_by_range_for_key: Func([Blob, Nat32, Nat32], [Vec(Message)], ['query']),
    get_min_message_id_by_key: Func([Blob], [Opt(Nat32)], ['query']),
    allocate_attachment: Func([Blob, Nat64], [or(Nat64)], []),
    write_attachment_chunk: Func([Blob, Nat64, Blob], [or(Null)], []),
    finalize_attachment: Func([Blob], [or(Null)], []),
    read_attachment_chunk: Func([Blob, Nat64, Nat], [or(Blob)], ['query']),
    delete_attachment: Func([Blob], [], ['oneway']),
    get_attachment_count: Func([], [Nat], ['query']),
    create_directory: Func([Blob, Blob, Opt(Blob)], [or(Null)], []),
    write_file: Func([Blob, Blob, Blob, Blob], [or(Nat)], []),
    allocate_file: Func([Blob, Blob, Blob, Nat64], [or(File)], []),
    write_file_chunk: Func([Blob, Nat64, Blob], [or(Null)], []),
    finalize_file: Func([Blob], [or(Null)], []),
    read_file_chunk: Func([Blob, Nat64, Nat], [or(Blob)], ['query']),
    get_files_in_directory: Func([Blob], [Vec(File)], ['query']),
  });

const rootKey = bytesOfHex(rootKeyHex);
const actorOf = async (identity) =>
  Actor.createActor(zone, { agent: await HttpAgent.create({ host: url, rootKey, identity }), canisterId: zoneId });
const owner = await actorOf(Ed25519KeyIdentity.generate(bytesOfHex(seedHex)));
const stranger = await actorOf(Ed25519KeyIdentity.generate());

const key = (name) => new TextEncoder().encode(name.padEnd(41, '.'));
const bytes = (text) => new TextEncoder().encode(text);
const digest = (data) => new Uint8Array(createHash('sha256').update(data).digest());
const textOf = (blob) => new TextDecoder().decode(Uint8Array.from(blob));
const ROOT = new Uint8Array(32);

await check('messages of a key are a chain', async () => {
  equal(await owner.my_role(), 500n);
  const { ok: first } = await owner.add_message(key('a'), bytes('one'));
  const { ok: more } = await owner.add_messages([
    [key('b'), bytes('two')],
    [key('a'), bytes('three')],
  ]);
  equal(Array.from(more), [first + 1, first + 2]);
  const chain = await owner.get_messages_by_range_for_key(key('a'), 0, 99);
  equal(
    chain.map((m) => [m.prev_msg_id, m.id, m.next_msg_id, textOf(m.ciphertext)]),
    [
      [0, first, first + 2, 'one'],
      [first, first + 2, 0, 'three'],
    ],
  );
  equal(Array.from(chain[0].hash), Array.from(digest(bytes('one'))));
  equal(await owner.get_min_message_id_by_key(key('nobody')), []);
});

await check('an attachment in chunks', async () => {
  const data = new Uint8Array(300_000).map((_, i) => i % 251);
  const name = digest(data);
  equal((await owner.allocate_attachment(name, BigInt(data.length))).ok, 0n);
  for (const at of [200_000, 0, 100_000]) {
    ensure('ok' in (await owner.write_attachment_chunk(name, BigInt(at), data.slice(at, at + 100_000))), 'chunk');
  }
  ensure('err' in (await owner.read_attachment_chunk(name, 0n, 9n)), 'unfinished content is invisible');
  ensure('ok' in (await owner.finalize_attachment(name)), 'finalize');
  const { ok } = await owner.read_attachment_chunk(name, 199_990n, 20n);
  equal(Array.from(ok), Array.from(data.slice(199_990, 200_010)));
  await owner.delete_attachment(name);
  for (let tries = 0; tries < 50 && (await owner.get_attachment_count()) !== 0n; tries += 1) {
    await new Promise((done) => setTimeout(done, 20));
  }
  equal(await owner.get_attachment_count(), 0n);
});

await check('the file system', async () => {
  const docs = bytes('docs-dir');
  ensure('ok' in (await owner.create_directory(docs, bytes('docs'), [ROOT])), 'directory');
  const report = bytes('report');
  equal((await owner.write_file(docs, bytes('name'), digest(report), report)).ok, 1n);
  const data = new Uint8Array(150_000).fill(7);
  const { ok: file } = await owner.allocate_file(docs, bytes('large'), digest(data), BigInt(data.length));
  equal([file.id, file.finalized], [2n, false]);
  for (const at of [0, 75_000]) {
    await owner.write_file_chunk(digest(data), BigInt(at), data.slice(at, at + 75_000));
  }
  equal((await owner.get_files_in_directory(docs)).length, 1, 'before it is finalized');
  ensure('ok' in (await owner.finalize_file(digest(data))), 'finalize');
  equal((await owner.get_files_in_directory(docs)).map((f) => f.id), [1n, 2n]);
  equal((await owner.read_file_chunk(digest(data), 149_990n, 10n)).ok.length, 10);
});

await check('a stranger gets nothing', async () => {
  equal(await stranger.my_role(), 0n);
  await refused(stranger.get_messages_by_range_for_key(key('a'), 0, 99), /Not a member of the zone/);
  await refused(stranger.add_message(key('a'), bytes('x')), /Not a member of the zone/);
});

finish();

// The management canister through IcManagementCanister of @icp-sdk/canisters, as an operator.
// Usage: node management.mjs URL ROOT_KEY_HEX OPERATOR_PEM MODULE_WASM
import { createHash, createPrivateKey } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { IcManagementCanister } from '@icp-sdk/canisters/ic-management';
import { Actor, CanisterStatus, HttpAgent } from '@icp-sdk/core/agent';
import { Ed25519KeyIdentity } from '@icp-sdk/core/identity';
import { bytesOfHex, check, ensure, equal, finish, refused } from '../checks.mjs';
import { probeInterface } from '../probe.mjs';

const [url, rootKeyHex, pemFile, moduleFile] = process.argv.slice(2);
const rootKey = bytesOfHex(rootKeyHex);
const seed = createPrivateKey(readFileSync(pemFile)).export({ format: 'jwk' }).d;
const operator = Ed25519KeyIdentity.fromSecretKey(new Uint8Array(Buffer.from(seed, 'base64url')));
const module = new Uint8Array(readFileSync(moduleFile));
const moduleHash = createHash('sha256').update(module).digest('hex');
const noArguments = new Uint8Array([68, 73, 68, 76, 0, 0]);

const agentOf = (identity) => HttpAgent.create({ host: url, identity, rootKey, retryTimes: 1 });
const agent = await agentOf(operator);
const management = IcManagementCanister.create({ agent });
const probeOf = (canisterId) => Actor.createActor(probeInterface, { agent, canisterId });
const hashOf = async (canisterId) =>
  (await CanisterStatus.request({ canisterId, agent, paths: ['module_hash'] })).get('module_hash');

let canisterId;
await check('create', async () => {
  canisterId = await management.provisionalCreateCanisterWithCycles({
    amount: 5_000_000n,
    settings: { freezingThreshold: 1234n },
  });
});
await check('status, by an update and by a query', async () => {
  for (const certified of [true, false]) {
    const status = await management.canisterStatus({ canisterId, certified });
    ensure('running' in status.status, 'running');
    equal(status.module_hash, [], 'module hash');
    equal(status.settings.freezing_threshold, 1234n, 'freezing threshold');
    equal(status.settings.controllers.map(String), [operator.getPrincipal().toText()], 'controllers');
    equal(status.cycles, 5_000_000n, 'cycles');
  }
});
await check('install', async () => {
  await management.installCode({ mode: { install: null }, canisterId, wasmModule: module, arg: noArguments });
  equal(await hashOf(canisterId), moduleHash, 'module hash');
  equal(await probeOf(canisterId).increment(), 1n, 'count');
});
await check('upgrade from chunks keeps the state', async () => {
  await management.clearChunkStore({ canisterId });
  const half = module.length >> 1;
  const chunkHashesList = [];
  for (const chunk of [module.slice(0, half), module.slice(half)]) {
    chunkHashesList.push(await management.uploadChunk({ canisterId, chunk }));
  }
  equal((await management.storedChunks({ canisterId })).length, 2, 'chunks');
  await management.installChunkedCode({
    mode: { upgrade: [] },
    targetCanisterId: canisterId,
    chunkHashesList,
    wasmModuleHash: moduleHash,
    arg: noArguments,
  });
  await management.clearChunkStore({ canisterId });
  equal((await management.storedChunks({ canisterId })).length, 0, 'chunks');
  equal(await probeOf(canisterId).increment(), 2n, 'count');
});
await check('settings', async () => {
  await management.updateSettings({ canisterId, settings: { freezingThreshold: 99n } });
  equal((await management.canisterStatus({ canisterId })).settings.freezing_threshold, 99n, 'freezing threshold');
});
await check('logs', async () => {
  ensure(Array.isArray((await management.fetchCanisterLogs(canisterId)).canister_log_records), 'records');
});
await check('a stranger may not', async () => {
  const stranger = IcManagementCanister.create({ agent: await agentOf(Ed25519KeyIdentity.generate()) });
  await refused(stranger.provisionalCreateCanisterWithCycles({}), /operator/);
  await refused(stranger.stopCanister(canisterId), /controller/);
  const again = { mode: { reinstall: null }, canisterId, wasmModule: module, arg: noArguments };
  await refused(stranger.installCode(again), /controller/);
});
await check('stop, start', async () => {
  await management.stopCanister(canisterId);
  ensure('stopped' in (await management.canisterStatus({ canisterId })).status, 'stopped');
  await refused(probeOf(canisterId).increment(), /stopped/);
  await management.startCanister(canisterId);
  equal(await probeOf(canisterId).increment(), 3n, 'count');
});
await check('uninstall', async () => {
  await management.uninstallCode({ canisterId });
  equal((await management.canisterStatus({ canisterId })).module_hash, [], 'module hash');
});
await check('delete', async () => {
  await refused(management.deleteCanister(canisterId), /stop/);
  await management.stopCanister(canisterId);
  await management.deleteCanister(canisterId);
  await refused(management.canisterStatus({ canisterId }), /not found/);
});
finish();

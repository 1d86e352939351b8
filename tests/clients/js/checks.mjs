// The frame of the client checks: each check prints one line of JSON; the last line is a summary.
let failed = 0;
let passed = 0;

export async function check(name, body) {
  try {
    await body();
    passed += 1;
    console.log(JSON.stringify({ check: name, ok: true }));
  } catch (error) {
    failed += 1;
    console.log(JSON.stringify({ check: name, ok: false, error: String(error?.stack ?? error) }));
  }
}

export function equal(actual, expected, what = 'value') {
  const show = (value) => JSON.stringify(value, (_, v) => (typeof v === 'bigint' ? `${v}n` : v));
  if (show(actual) !== show(expected)) throw new Error(`${what}: ${show(actual)} is not ${show(expected)}`);
}

export function ensure(condition, what) {
  if (!condition) throw new Error(what);
}

export async function refused(promise, pattern) {
  let answer;
  try {
    answer = await promise;
  } catch (error) {
    const text = [error?.message, error?.cause?.message, String(error), String(error?.cause?.code?.rejectMessage ?? '')].join(' ');
    if (pattern && !pattern.test(text)) throw new Error(`refused with another text: ${text}`);
    return error;
  }
  throw new Error(`was not refused but answered ${answer}`);
}

export function bytesOfHex(hex) {
  return Uint8Array.from(Buffer.from(hex, 'hex'));
}

export function finish() {
  console.log(JSON.stringify({ passed, failed }));
  process.exit(failed ? 1 : 0);
}

"""Keccak-256 as Ethereum uses it: the permutation of FIPS 202 with Keccak's first padding (0x01, not 0x06).

About half a millisecond for a short text; nothing here is fast enough for much data.
"""

from __future__ import annotations

_RATE_BYTES = 136
_MASK = (1 << 64) - 1
_ROUNDS = 24


def keccak256(data: bytes) -> bytes:
    """Return the 32 bytes of the hash."""
    padded = bytearray(data) + b"\x01" + bytes(-(len(data) + 1) % _RATE_BYTES)
    padded[-1] |= 0x80
    lanes = [0] * 25
    for start in range(0, len(padded), _RATE_BYTES):
        for place in range(_RATE_BYTES // 8):
            at = start + 8 * place
            lanes[place] ^= int.from_bytes(padded[at : at + 8], "little")
        lanes = _permute(lanes)
    return b"".join(lane.to_bytes(8, "little") for lane in lanes[:4])


def _permute(lanes: list[int]) -> list[int]:
    """Apply Keccak-f[1600]; the lane of (x, y) stands at x + 5 y."""
    state, register = lanes, 1
    for _ in range(_ROUNDS):
        # theta
        columns = [state[x] ^ state[x + 5] ^ state[x + 10] ^ state[x + 15] ^ state[x + 20] for x in range(5)]
        mixed = [columns[(x - 1) % 5] ^ _rotated(columns[(x + 1) % 5], 1) for x in range(5)]
        state = [lane ^ mixed[place % 5] for place, lane in enumerate(state)]
        # rho and pi
        x, y, current = 1, 0, state[1]
        for step in range(24):
            x, y = y, (2 * x + 3 * y) % 5
            place = x + 5 * y
            current, state[place] = state[place], _rotated(current, (step + 1) * (step + 2) // 2)
        # chi
        state = [
            state[place]
            ^ (~state[(place % 5 + 1) % 5 + place // 5 * 5] & state[(place % 5 + 2) % 5 + place // 5 * 5])
            for place in range(25)
        ]
        # iota: its constants come out of a shift register
        for power in range(7):
            register = ((register << 1) ^ ((register >> 7) * 0x71)) % 256
            if register & 2:
                state[0] ^= 1 << ((1 << power) - 1)
    return state


def _rotated(lane: int, by: int) -> int:
    by %= 64
    return ((lane << by) | (lane >> (64 - by))) & _MASK

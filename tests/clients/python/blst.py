"""What icp-py-core asks of a module `blst`, on pyblst: the module itself is not on PyPI."""

from __future__ import annotations

from typing import Final

from pyblst import BlstP1Element, BlstP2Element, final_verify, miller_loop

BLST_SUCCESS: Final = 0
BLST_VERIFY_FAIL: Final = 5
_GENERATOR = BlstP2Element.uncompress(
    bytes.fromhex(
        "93e02b6052719f607dacd3a088274f65596bd0d09920b61ab5da61bbdc7f5049334cf11213945d57e5ac7d055d042b7e"
        "024aa2b2f08f0a91260805272dc51051c6e47ad4fa403b02b4510b647ae3d1770bac0326a805bbefd48056c8c121bdb8"
    )
)


class P2_Affine:
    """A public key."""

    def __init__(self, data: bytes) -> None:
        self.point = BlstP2Element.uncompress(data)


class P1_Affine:
    """A signature."""

    def __init__(self, data: bytes) -> None:
        self.point = BlstP1Element.uncompress(data)

    def core_verify(self, key: P2_Affine, hashes: bool, message: bytes, domain: bytes, _aug: None) -> int:
        """Verify a signature of a message; say so by an error code."""
        assert hashes
        hashed = BlstP1Element.hash_to_group(message, domain)
        is_right = final_verify(miller_loop(self.point, _GENERATOR), miller_loop(hashed, key.point))
        return BLST_SUCCESS if is_right else BLST_VERIFY_FAIL


class Pairing:
    """The second way that icp-py-core tries when the first has failed: it fails too."""

    def __init__(self, hashes: bool, domain: bytes) -> None: ...

    def aggregate(self, key: P2_Affine, signature: P1_Affine, message: bytes, aug: None) -> None: ...

    def finalverify(self) -> bool:
        return False

"""Limits of Cannery: a bound for every queue, loop, depth and size, its unit in its name.

One section per room. Defaults of bounds that an operator may set stand in the node's configuration, not here.
"""

from __future__ import annotations

# protocol

PRINCIPAL_TEXT_CACHE_COUNT_MAX = 8192
PUBLIC_KEY_CACHE_COUNT_MAX = 8192
NAT_CACHE_COUNT_MAX = 4096
FIELD_NAME_CACHE_COUNT_MAX = 1024

CBOR_SIZE_BYTES_MAX = 128 * 1024 * 1024
CBOR_DEPTH_MAX = 300
CBOR_ITEM_COUNT_MAX = 262_144

ENVELOPE_DEPTH_MAX = 16
NONCE_SIZE_BYTES_MAX = 32
METHOD_NAME_SIZE_BYTES_MAX = 20_000
PUBLIC_KEY_SIZE_BYTES_MAX = 2_048
SIGNATURE_SIZE_BYTES_MAX = 65_536
SENDER_INFO_SIZE_BYTES_MAX = 65_536
READ_STATE_PATH_COUNT_MAX = 1000
READ_STATE_PATH_LABEL_COUNT_MAX = 127
READ_STATE_LABEL_SIZE_BYTES_MAX = 1_048_576
NAT_SIZE_BITS_MAX = 128

DELEGATION_COUNT_MAX = 20
DELEGATION_TARGET_COUNT_MAX = 1000
VERIFIED_DELEGATION_COUNT_MAX = 16_384
INGRESS_EXPIRY_WINDOW_NS = 5 * 60 * 1_000_000_000
INGRESS_EXPIRY_SKEW_NS = 60 * 1_000_000_000
WEBAUTHN_CLIENT_DATA_SIZE_BYTES_MAX = 4_096

HASH_TREE_DEPTH_MAX = 256
HASH_TREE_NODE_COUNT_MAX = 262_144
HASH_TREE_SIZE_BYTES_MAX = 128 * 1024 * 1024
CERTIFICATE_AGE_NS_MAX = 5 * 60 * 1_000_000_000
CANISTER_RANGE_COUNT_MAX = 65_536
QUERY_SIGNATURE_COUNT_MAX = 64
PEM_SIZE_CHARS_MAX = 16_384

# node

INLINE_SIZE_BYTES_MAX = 1024 * 1024
FRAME_TARGET_SIZE_BYTES = 4 * 1024 * 1024
FRAME_SIZE_BYTES_MAX = 256 * 1024 * 1024

# candid
CANDID_VALUE_DEPTH_LEVELS_MAX = 512
"""Composite values inside each other in one message; deeper ones are refused by encoder and decoder alike."""
CANDID_TYPE_DEPTH_LEVELS_MAX = 100
"""Type expressions inside each other in an interface file or a standalone type."""
CANDID_TEXT_DEPTH_LEVELS_MAX = 100
"""Values inside each other in the text format."""
CANDID_TEXT_SIZE_CHARS_MAX = 4 * 1024 * 1024
"""An interface file, or values in the text format."""
CANDID_NUMBER_SIZE_BYTES_MAX = 2_000
"""A `nat` or `int` on the wire: 14,000 bits, which Python prints in decimal without further permission."""
CANDID_TABLE_ENTRIES_COUNT_MAX = 4_096
"""Type definitions in one message."""
CANDID_TABLE_FIELDS_COUNT_MAX = 32_768
"""Fields, cases, methods, arguments and results in the type table of one message."""
CANDID_ARGUMENTS_COUNT_MAX = 1_024
"""Arguments of one message."""
CANDID_SUBTYPE_PAIRS_COUNT_MAX = 20_000
"""Pairs of types that one subtype check compares."""
CANDID_WORK_UNITS_FREE = 50_000
"""Steps that a message may cause without bytes to show for them, such as elements of `vec null`."""
CANDID_WORK_UNITS_PER_BYTE = 8
"""Further such steps for each byte of the message."""
CANDID_HEADER_CACHE_COUNT_MAX = 64
"""Foreign message headers whose compiled decoders one decoder keeps."""
CANDID_CODEC_CACHE_COUNT_MAX = 4_096
"""Compiled encoders, and decoders, kept per process."""
CANDID_PRINCIPAL_CACHE_COUNT_MAX = 8_192
"""Principals kept so that the same bytes give the same object."""

"""Candid, the interface language of canisters: types, wire format, text, interface files, Python hints.

Candid specification (dfinity/candid, spec/Candid.md). What authors write hints with is in `python`; types as
values are in `types`; `codec` encodes and decodes. Nothing here knows of canisters or messages.
"""

from cannery.candid import types
from cannery.candid.codec import (
    decode_dynamic,
    decoder,
    encoder,
    value_converter,
    value_decoder,
    value_encoder,
)
from cannery.candid.did import Interface, format_did, interface_subtype, parse_did
from cannery.candid.errors import CandidError
from cannery.candid.python import bind, hints_source, record, type_of, variant
from cannery.candid.subtype import explain_loss, explain_subtype, is_subtype
from cannery.candid.text import format_values, parse_values
from cannery.candid.values import FuncRef, ServiceRef, Some, Variant
from cannery.candid.wire import decode_type, encode_type

__all__ = ["CandidError", "FuncRef", "Interface", "ServiceRef", "Some", "Variant", "bind", "decode_dynamic"]
__all__ += ["decode_type", "decoder", "encode_type", "encoder", "explain_loss", "explain_subtype"]
__all__ += ["format_did", "format_values", "hints_source", "interface_subtype", "is_subtype", "parse_did"]
__all__ += ["parse_values", "record", "type_of", "types", "value_converter", "value_decoder", "value_encoder"]
__all__ += ["variant"]

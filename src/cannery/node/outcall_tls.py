"""TLS of HTTP outcalls: which authorities are trusted, and why a certificate was not.

Trusted are the usual authorities (those of this machine and of the package certifi) and, beside them, those
that the operator names under `[outcalls]`. A certificate must be for the name, or the address, in the URL;
nothing switches that off. RFC 5280, RFC 9525.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import httpcore

from cannery.limits import OUTCALL_AUTHORITY_COUNT_MAX, OUTCALL_AUTHORITY_SIZE_BYTES_MAX

# X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT to X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE of OpenSSL.
_NO_AUTHORITY: Final = (18, 19, 20, 21)


def read_authorities(folder: Path, paths: Sequence[str]) -> tuple[str, ...]:
    """Read files of certificates in PEM; relative paths lie in `folder`. Raises `ValueError`."""
    if len(paths) > OUTCALL_AUTHORITY_COUNT_MAX:
        raise ValueError(f"authorities has at most {OUTCALL_AUTHORITY_COUNT_MAX} files, got {len(paths)}")
    return tuple(_read(folder / path) for path in paths)


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(OUTCALL_AUTHORITY_SIZE_BYTES_MAX + 1)
    except OSError as error:
        raise ValueError(f"authorities: cannot read {path}: {error.strerror}") from error
    if len(data) > OUTCALL_AUTHORITY_SIZE_BYTES_MAX:
        raise ValueError(f"authorities: {path} has more than {OUTCALL_AUTHORITY_SIZE_BYTES_MAX} bytes")
    try:
        text = data.decode("ascii")
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except (UnicodeDecodeError, ssl.SSLError) as error:
        raise ValueError(f"authorities: {path} holds no certificates in PEM") from error
    return text


def make_context(authorities: Sequence[str]) -> ssl.SSLContext:
    """Make the context of connections that trust these authorities, in PEM, beside the usual ones."""
    context = httpcore.default_ssl_context()
    for text in authorities:
        context.load_verify_locations(cadata=text)
    return context


def certificate_fault(error: BaseException) -> str | None:
    """Say what was wrong with a server's certificate, if that is what ended a connection."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLCertVerificationError):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return None
    reason = cause.verify_message.strip(". ")
    if cause.verify_code in _NO_AUTHORITY:
        reason += (
            ": where it comes from an authority of your own, the node's operator adds that to authorities "
            "under [outcalls] in cannery.toml"
        )
    return reason

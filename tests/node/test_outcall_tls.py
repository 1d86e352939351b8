"""HTTP outcalls over TLS, against a real server: who is trusted, for which name, and why not."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from cannery.node.config import ConfigError, load_config
from cannery.node.outcall_fetch import Fetcher
from cannery.node.outcalls import Outcall
from cannery.replica.block import OutcallAnswer
from tests.node.test_outcall_fetch import OK, World, record

DAY = datetime.timedelta(days=1)
NAMES: tuple[x509.GeneralName, ...] = (x509.DNSName("rpc.test"), x509.IPAddress(ip_address("127.0.0.1")))


def name_of(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


@dataclass(frozen=True)
class Authority:
    """An authority of a test's own."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    def certify(self, folder: Path, *, days: int = 1) -> ssl.SSLContext:
        """Give the context of a server with a certificate for `NAMES`, which has expired if `days` < 0."""
        key = ec.generate_private_key(ec.SECP256R1())
        made = certificate_of(key, "server", self.certificate.subject, days)
        made = made.add_extension(x509.SubjectAlternativeName(NAMES), critical=False)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        made = made.add_extension(issuer, critical=False)
        path = folder / "server.pem"
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        path.write_bytes(secret + made.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context


def certificate_of(
    key: ec.EllipticCurvePrivateKey, subject: str, issuer: x509.Name, days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name_of(subject)).issuer_name(issuer)
    builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
    return builder.not_valid_before(now - 3 * DAY).not_valid_after(now + days * DAY)


def new_authority(name: str) -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    made = certificate_of(key, name, name_of(name), 1)
    made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    made = made.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    return Authority(key, made.sign(key, hashes.SHA256()))


@pytest.fixture(scope="module")
def authority() -> Authority:
    return new_authority("ours")


class Plain(World):
    """A server that answers before it is asked, without TLS."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK)
        writer.close()


def fetch_over_tls(
    folder: Path, server: ssl.SSLContext | None, authorities: str, host: str
) -> tuple[OutcallAnswer, World]:
    """Perform a request as a node with this configuration does; `host` leads to this machine."""
    lines = f"allow = ['*']\nprivate_networks = ['127.0.0.0/8']\nauthorities = [{authorities}]"
    (folder / "cannery.toml").write_text(f"[outcalls]\n{lines}\n")
    rules = load_config(folder).outcalls
    world = World(OK) if server is not None else Plain(OK)

    async def resolve(name: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    async def run() -> OutcallAnswer:
        listening = await asyncio.start_server(world.serve, "127.0.0.1", 0, ssl=server)
        port = listening.sockets[0].getsockname()[1]
        asked = record(port, host, scheme="https")
        try:
            return await Fetcher(rules, resolve=resolve, wait_ms_max=30_000).fetch(Outcall(b"\x01", 7, asked))
        finally:
            listening.close()

    return asyncio.run(run()), world


@pytest.mark.parametrize("host", ["rpc.test", "127.0.0.1"])
def test_a_server_of_an_authority_that_the_operator_names_is_called(
    tmp_path: Path, authority: Authority, host: str
) -> None:
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    answer, world = fetch_over_tls(tmp_path, authority.certify(tmp_path), "'ca.pem'", host)
    assert (answer.status, answer.body, answer.reject_message) == (200, b"42", "")
    assert b"host: " + host.encode() in world.requests[0].lower()


@pytest.mark.parametrize(
    ("host", "days", "trusted", "reason"),
    [
        ("rpc.test", 1, False, "unable to get local issuer certificate: where it comes from an authority of"),
        ("other.test", 1, True, "Hostname mismatch, certificate is not valid for 'other.test'"),
        ("127.0.0.2", 1, True, "IP address mismatch, certificate is not valid for '127.0.0.2'"),
        ("rpc.test", -1, True, "certificate has expired"),
    ],
)
def test_a_server_that_cannot_be_trusted_is_told_nothing(
    tmp_path: Path, authority: Authority, host: str, days: int, trusted: bool, reason: str
) -> None:
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    server = authority.certify(tmp_path, days=days)
    answer, world = fetch_over_tls(tmp_path, server, "'ca.pem'" if trusted else "", host)
    assert answer.reject_code == 1
    assert f"{host} shows a TLS certificate that cannot be trusted: {reason}" in answer.reject_message
    assert ("adds that to authorities under [outcalls]" in answer.reject_message) is not trusted
    assert world.requests == []


def test_an_authority_of_another_server_does_not_help(tmp_path: Path, authority: Authority) -> None:
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    # Of the same name: what counts is the key.
    answer, world = fetch_over_tls(tmp_path, new_authority("ours").certify(tmp_path), "'ca.pem'", "rpc.test")
    assert "cannot be trusted: unable to get local issuer certificate" in answer.reject_message
    assert world.requests == []


def test_a_server_without_tls_is_a_reject(tmp_path: Path, authority: Authority) -> None:
    answer, world = fetch_over_tls(tmp_path, None, "", "rpc.test")
    assert (answer.reject_code, "rpc.test gave no answer" in answer.reject_message) == (2, True)
    assert world.requests == []


def test_what_is_no_authority_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "text.pem").write_text("nothing\n")
    (tmp_path / "large.pem").write_bytes(b"x" * 2**20 + b"y")
    for name, reason in (
        ("none.pem", "outcalls.authorities: cannot read .*none.pem: No such file"),
        ("text.pem", "text.pem holds no certificates in PEM"),
        ("large.pem", "large.pem has more than 1048576 bytes"),
    ):
        (tmp_path / "cannery.toml").write_text(f"[outcalls]\nauthorities = ['{name}']\n")
        with pytest.raises(ConfigError, match=reason):
            load_config(tmp_path)
    (tmp_path / "cannery.toml").write_text(f"[outcalls]\nauthorities = {['a'] * 33}\n")
    with pytest.raises(ConfigError, match="at most 32 files, got 33"):
        load_config(tmp_path)

"""A witness behind TLS: trusted, not trusted, of another name."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from witnessends import echo, serving

from opfs.core.witness import ADD_CHECKPOINT
from opfs.errors import OpfsError
from opfs.witness.listener import Listener
from opfs.witness.post import Endpoint, post


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for 127.0.0.1 that signs itself, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "witness of a test")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "certificate.pem"
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(made.public_bytes(pem) + private)
    return path


async def serving_tls(nursery, certificate) -> Endpoint:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    listener = Listener(echo)

    async def handler(stream: trio.SocketStream) -> None:
        await listener.answer(trio.SSLStream(stream, context, server_side=True, https_compatible=True))

    return await serving(nursery, handler, "https")


async def test_a_witness_with_a_trusted_certificate_is_asked(nursery, certificate):
    endpoint = await serving_tls(nursery, certificate)
    trust = ssl.create_default_context(cafile=str(certificate))
    assert (await post(endpoint, ADD_CHECKPOINT, b"x", trust=trust)).body == b"x"


async def test_a_witness_with_a_certificate_of_its_own_making_is_not(nursery, certificate):
    endpoint = await serving_tls(nursery, certificate)
    with pytest.raises(OpfsError, match="certificate verify failed"):
        await post(endpoint, ADD_CHECKPOINT, b"x")


async def test_a_certificate_for_another_host_is_not_enough(nursery, certificate):
    endpoint = await serving_tls(nursery, certificate)
    trust = ssl.create_default_context(cafile=str(certificate))
    other = Endpoint("https", "localhost", endpoint.port, "")
    with pytest.raises(OpfsError, match="certificate verify failed"):
        await post(other, ADD_CHECKPOINT, b"x", trust=trust)


async def test_plain_http_is_no_answer_to_https(nursery):
    plain = await serving(nursery, Listener(echo).answer)
    with pytest.raises(OpfsError, match="cannot be reached"):
        await post(Endpoint("https", "127.0.0.1", plain.port, ""), ADD_CHECKPOINT, b"x")

"""hart.channel: the client over TLS and mutual TLS, with generated certificates."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import hart
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hart.cli.app import app
from hart.v1 import images_pb2, images_pb2_grpc
from typer.testing import CliRunner


def write_certificate(folder: Path, name: str, issuer: str | None = None) -> None:
    """Write name.pem and name.key, signed by `issuer` (None: by itself)."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer = key
    if issuer:
        signer = serialization.load_pem_private_key((folder / f"{issuer}.key").read_bytes(), None)  # type: ignore[assignment]
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer or name)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(signer, hashes.SHA256())
    )
    (folder / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / f"{name}.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


class Images(images_pb2_grpc.ImagesServicer):
    """Returns its version and the client's key."""

    def Generate(self, request: images_pb2.GenerateRequest, context: Any) -> images_pb2.GenerateResponse:
        raise NotImplementedError

    def GenerateStream(self, request: images_pb2.GenerateRequest, context: Any) -> Iterator[images_pb2.GenerateEvent]:
        raise NotImplementedError

    def Status(self, request: images_pb2.StatusRequest, context: Any) -> images_pb2.StatusResponse:
        raise NotImplementedError

    def Describe(self, request: images_pb2.DescribeRequest, context: Any) -> images_pb2.DescribeResponse:
        key = dict(context.invocation_metadata()).get("authorization", "")
        return images_pb2.DescribeResponse(version=f"secured {key}")


@pytest.fixture(params=[False, True], ids=["tls", "mutual"])
def secured(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Path, bool]]:
    """A server with a certificate: its endpoint, the certificates' folder, whether it requires a client's."""
    for name, issuer in (("ca", None), ("server", "ca"), ("me", "ca"), ("other", None)):
        write_certificate(tmp_path, name, issuer)
    pair = [((tmp_path / "server.key").read_bytes(), (tmp_path / "server.pem").read_bytes())]
    server = grpc.server(futures.ThreadPoolExecutor(2))
    images_pb2_grpc.add_ImagesServicer_to_server(Images(), server)
    credentials = grpc.ssl_server_credentials(pair, (tmp_path / "ca.pem").read_bytes(), request.param)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    yield f"127.0.0.1:{port}", tmp_path, request.param
    server.stop(0).wait()


def test_valid_certificates_are_accepted_by_every_client(secured: tuple[str, Path, bool]) -> None:
    endpoint, folder, mutual = secured
    mine: dict[str, Any] = {"cert": folder / "me.pem", "key": folder / "me.key"} if mutual else {}
    tls = hart.TLS(ca=folder / "ca.pem", **mine)
    with hart.Client(endpoint, api_key="k", tls=tls) as client:
        assert client.describe().version == "secured Bearer k"

    async def asynchronously() -> str:
        async with hart.AsyncClient(endpoint, tls=tls) as client:
            return (await client.describe()).version

    assert asyncio.run(asynchronously()) == "secured "
    words = [word for name, path in mine.items() for word in (f"--tls-{name}", str(path))]
    output = CliRunner().invoke(app, ["describe", "--endpoint", endpoint, "--tls-ca", str(folder / "ca.pem"), *words])
    assert output.exit_code == 0, output.output
    assert "secured" in output.stdout

"""A gateway with TLS: its certificates and its one service."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hart.v1 import images_pb2, images_pb2_grpc


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

"""`helm test`: draws an image through the release's gateway, as a caller does. Runs in the gateway's container image.

Environment: ENDPOINT (host:port); TLS_FOLDER with ca.crt (and tls.crt, tls.key for client certificates) or empty;
KEYS_FILE with lines `name=key` or empty; TOKENS=1 if the gateway accepts tokens that this test cannot have."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import grpc
from hart.v1 import images_pb2, images_pb2_grpc

SECONDS = 120.0


def credentials(folder: str) -> grpc.ChannelCredentials | None:
    """TLS by the files in the folder; None for plaintext."""
    if not folder:
        return None
    files = [Path(folder, name) for name in ("ca.crt", "tls.key", "tls.crt")]
    return grpc.ssl_channel_credentials(*(file.read_bytes() if file.exists() else None for file in files))


def metadata(keys: str) -> tuple[tuple[str, str | bytes], ...]:
    """The first key of the file as gRPC metadata."""
    lines = Path(keys).read_text().split() if keys else []
    return tuple(("authorization", f"Bearer {line.partition('=')[2]}") for line in lines[:1])


def main() -> int:
    """Draw one image; 0 if it came."""
    endpoint, secure = os.environ["ENDPOINT"], credentials(os.environ.get("TLS_FOLDER", ""))
    options = [("grpc.max_receive_message_length", 64 * 2**20)]
    channel = (
        grpc.secure_channel(endpoint, secure, options) if secure else grpc.insecure_channel(endpoint, options=options)
    )
    with channel:
        stub = images_pb2_grpc.ImagesStub(channel)
        try:
            answer = stub.Generate(
                images_pb2.GenerateRequest(prompt="a red heart"),
                timeout=SECONDS,
                wait_for_ready=True,
                metadata=metadata(os.environ.get("KEYS_FILE", "")),
            )
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNAUTHENTICATED and os.environ.get("TOKENS"):
                print(f"{endpoint} answers, and asks for a token: {error.details()}")
                return 0
            print(f"{endpoint}: {error.code().name}: {error.details()}", file=sys.stderr)
            return 1
    image, model = answer.images[0], answer.report.model
    size = f"{image.width}x{image.height} pixels, {len(image.data)} bytes"
    print(f"{endpoint} drew {size}, model {model.name} {model.digest}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

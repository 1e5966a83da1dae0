"""A backend in Python: GET /draw?prompt=… draws by gRPC and answers with server-sent events (examples/README.md)."""

import base64
import json
import os
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from hart.v1 import images_pb2, images_pb2_grpc

ENDPOINT = os.environ.get("HART_ENDPOINT", "127.0.0.1:50051")
SERVICE_CONFIG = Path(__file__).parent / "../../client/hart/service_config.json"
OPTIONS = [("grpc.service_config", SERVICE_CONFIG.read_text()), ("grpc.max_receive_message_length", -1)]
images = images_pb2_grpc.ImagesStub(grpc.insecure_channel(ENDPOINT, OPTIONS))


def events(call: grpc.Call) -> Iterator[tuple[str, dict]]:
    """The call's events as (name, data); a failure is the last of them."""
    try:
        for event in call:
            if event.HasField("progress") and event.progress.HasField("preview"):
                yield "preview", {"scale": event.progress.scale, "image": encoded(event.progress.preview.data)}
            elif event.HasField("image"):
                yield "image", {"seed": str(event.image.seed), "image": encoded(event.image.data)}
    except grpc.RpcError as error:
        yield "error", described(error)


def described(error: grpc.Call) -> dict:
    """The status and its details; a status without details comes from gRPC itself or from a proxy."""
    found = {"code": error.code().name, "message": error.details()}
    status = rpc_status.from_call(error)
    for detail in status.details if status else ():
        info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            found |= {"reason": info.reason, "metadata": dict(info.metadata)}
        elif detail.Unpack(bad):
            found["fields"] = {violation.field: violation.description for violation in bad.field_violations}
        elif detail.Unpack(retry):
            found["retryAfterSeconds"] = retry.retry_delay.ToTimedelta().total_seconds()
    return found


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


class Backend(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        seed = int(query["seed"]) if "seed" in query else None
        request = images_pb2.GenerateRequest(prompt=query.get("prompt", ""), seed=seed, preview_every=1)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        call = images.GenerateStream(request, timeout=float(query.get("seconds", 30)))
        try:
            for name, data in events(call):
                self.wfile.write(f"event: {name}\ndata: {json.dumps(data)}\n\n".encode())
        except ConnectionError:
            pass  # the browser left
        finally:
            call.cancel()  # stops the work; without effect on a call that has ended


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "8080"))), Backend).serve_forever()

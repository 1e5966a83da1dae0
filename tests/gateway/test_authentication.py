"""gateway.access.authentication, gateway.access.jwks: API keys and JWTs, as a client sees them."""

import asyncio
import base64
import gc
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hart.v1 import images_pb2

from gateway.access.authentication import ApiKeys
from gateway.access.jwks import KeySet, keys_of
from gateway.assembly import build
from gateway.config import GatewaySettings
from runtime.errors import StageUnavailable
from runtime.observability.telemetry import Telemetry
from runtime.server.app import App
from runtime.settings import SettingsError
from tests.gateway.support import RunningGateway, running_gateway, until

ISSUER = "https://issuer.example"


async def status_code(running: RunningGateway, token: str | None, method: str = "Describe") -> grpc.StatusCode:
    metadata = (("authorization", f"Bearer {token}"),) if token is not None else ()
    message = {"Describe": images_pb2.DescribeRequest(), "Generate": images_pb2.GenerateRequest(prompt="a")}[method]
    try:
        await getattr(running.stub, method)(message, metadata=metadata)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


@contextmanager
def issuer(keys: list[Any], release: threading.Event | None = None) -> Iterator[tuple[str, list[float]]]:
    """A JWKS server that responds once the event is set. Yields its URL and the times of its requests."""
    asked: list[float] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(time.monotonic())
            if release:
                release.wait()
            body = json.dumps({"keys": [jwk(name, key) for name, key in keys]}).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/jwks", asked
    finally:
        server.shutdown()
        server.server_close()


def jwk(name: str, key: Any) -> dict[str, Any]:
    public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key()))
    return {**public, "kid": name, "use": "sig", "alg": "RS256"}


def token(key: Any, kid: str = "k1", **claims: Any) -> str:
    body = {"iss": ISSUER, "sub": "someone", "exp": time.time() + 60, "scope": "draw look", **claims}
    body = {name: value for name, value in body.items() if value is not None}
    return jwt.encode(body, key, "RS256", headers={"kid": kid})


async def test_without_keys_every_call_is_accepted() -> None:
    async with running_gateway() as running:
        assert await status_code(running, None) is grpc.StatusCode.OK


async def test_only_a_known_api_key_is_accepted() -> None:
    async with running_gateway(api_keys="alice=secret-1,bob=secret-2") as running:
        for method in ("Describe", "Generate"):
            for good in ("secret-1", "secret-2"):
                assert await status_code(running, good, method) is grpc.StatusCode.OK
            for bad in (None, "", "secret-3", "alice", "alice=secret-1", "x" * 9000, "a.b.c"):
                assert await status_code(running, bad, method) is grpc.StatusCode.UNAUTHENTICATED
        assert not running.stage("safety").received[2:]


async def test_key_file_is_reloaded_when_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# callers\nalice=secret-1\n")
    async with running_gateway(api_keys_file=str(file)) as running:
        assert await status_code(running, "secret-1") is grpc.StatusCode.OK
        file.write_text("bob=secret-22\n")
        assert await status_code(running, "secret-22") is grpc.StatusCode.OK
        assert await status_code(running, "secret-1") is grpc.StatusCode.UNAUTHENTICATED
        file.unlink()
        assert await status_code(running, "secret-22") is grpc.StatusCode.OK


@pytest.mark.parametrize("broken", ["alice", None], ids=["broken", "away"])
def test_unusable_key_file_is_logged_once_and_its_last_keys_stay(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, broken: str | None
) -> None:
    file = tmp_path / "keys"
    file.write_text("alice=secret-1\n")
    keys = ApiKeys("", str(file))
    file.write_text(broken) if broken else file.unlink()
    assert [keys.name_of("secret-1") for _ in range(3)] == ["alice"] * 3
    assert len([r for r in caplog.records if "cannot read the file of API keys" in r.message]) == 1
    file.write_text("bob=secret-22\n")
    assert (keys.name_of("secret-1"), keys.name_of("secret-22")) == (None, "bob")


@pytest.mark.parametrize("name", ["jwt_issuer", "jwt_audience", "jwt_scope"])
def test_jwt_setting_without_jwks_url_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match=f"HART_{name.upper()} requires HART_JWT_JWKS_URL"):
        GatewaySettings.load(**{name: "something"})


async def test_malformed_key_list_is_refused_without_showing_the_key() -> None:
    settings = GatewaySettings.load(api_keys="secret")
    with pytest.raises(SettingsError, match="HART_API_KEYS: entry 1 is not name=key") as caught:
        build(App(settings, "gateway", Telemetry("gateway")), settings)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("listed", [",", " ", "# alice=secret"])
async def test_key_list_without_a_key_is_refused(listed: str) -> None:
    settings = GatewaySettings.load(api_keys=listed)
    with pytest.raises(SettingsError, match="HART_API_KEYS contains no key"):
        build(App(settings, "gateway", Telemetry("gateway")), settings)


async def test_only_a_valid_jwt_is_accepted(
    signing_keys: list[rsa.RSAPrivateKey], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.access.jwks.REFETCH_COOLDOWN", 600.0)  # longer than the test, however slow
    key, foreign = signing_keys
    with issuer([("k1", key)]) as (url, asked):
        async with running_gateway(
            jwt_jwks_url=url, jwt_issuer=ISSUER, jwt_audience="hart", jwt_scope="draw"
        ) as running:
            assert await status_code(running, token(key, aud="hart")) is grpc.StatusCode.OK
            for bad in (
                token(foreign, aud="hart"),
                token(key, aud="hart", exp=time.time() - 60),
                token(key, aud="hart", exp=None),
                token(key, aud="other"),
                token(key, aud="hart", iss="https://other.example"),
                token(key, aud="hart", sub=None),
                token(key, kid="k2", aud="hart"),
                jwt.encode({"iss": ISSUER, "sub": "x", "aud": "hart", "exp": time.time() + 60}, "s" * 40, "HS256"),
                token(key, aud="hart")[:-4] + "AAAA",
                "a.b.c",
            ):
                assert await status_code(running, bad) is grpc.StatusCode.UNAUTHENTICATED
            for scope in ("look", ["look"], 7):
                sent = token(key, aud="hart", scope=scope)
                assert await status_code(running, sent) is grpc.StatusCode.PERMISSION_DENIED
        assert len(asked) == 1, "an unknown key id must not cause a fetch each time"


async def test_unreachable_issuer_fails_calls_as_unavailable(signing_keys: list[rsa.RSAPrivateKey]) -> None:
    settings: dict[str, Any] = {"jwt_jwks_url": "http://127.0.0.1:9/jwks", "jwt_issuer": ISSUER}
    async with running_gateway(**settings) as running:
        assert await status_code(running, token(signing_keys[0])) is grpc.StatusCode.UNAVAILABLE


async def test_issuer_that_speaks_no_http_fails_calls_as_unavailable(signing_keys: list[rsa.RSAPrivateKey]) -> None:
    async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"nonsense\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(nonsense, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with running_gateway(jwt_jwks_url=f"http://127.0.0.1:{port}/jwks", jwt_issuer=ISSUER) as running:
            assert await status_code(running, token(signing_keys[0])) is grpc.StatusCode.UNAVAILABLE


async def test_credentials_in_the_issuer_url_are_not_logged(
    signing_keys: list[rsa.RSAPrivateKey], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(StageUnavailable):
        await KeySet("http://reader:hunter2@127.0.0.1/jwks").key_of(token(signing_keys[0]))
    assert "cannot fetch" in caplog.text
    assert "hunter2" not in caplog.text


async def test_cancelled_call_does_not_cancel_the_shared_jwks_fetch(
    signing_keys: list[rsa.RSAPrivateKey], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.access.jwks.REFETCH_COOLDOWN", 600.0)  # longer than the test, however slow
    monkeypatch.setattr("gateway.access.jwks.TIMEOUT", 60.0)
    release = threading.Event()
    with issuer([("k1", signing_keys[0])], release) as (url, asked):
        keys = KeySet(url)
        first = asyncio.create_task(keys.key_of(token(signing_keys[0])))
        await until(lambda: asked)
        first.cancel()
        await asyncio.wait([first])
        release.set()
        assert (await keys.key_of(token(signing_keys[0]))).key_id == "k1"
    assert len(asked) == 1


async def test_calls_that_wait_for_the_issuer_are_bounded(
    signing_keys: list[rsa.RSAPrivateKey], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.access.jwks.TIMEOUT", 60.0)
    monkeypatch.setattr("gateway.access.jwks.MAX_WAITING", 1)
    release = threading.Event()
    with issuer([("k1", signing_keys[0])], release) as (url, asked):
        keys = KeySet(url)
        first = asyncio.create_task(keys.key_of(token(signing_keys[0])))
        await until(lambda: asked)
        with pytest.raises(StageUnavailable, match="too many"):
            await keys.key_of(token(signing_keys[0]))
        release.set()
        assert (await first).key_id == "k1"


async def test_known_key_does_not_wait_for_the_issuer(
    signing_keys: list[rsa.RSAPrivateKey], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in (("LIFETIME", 0.0), ("REFETCH_COOLDOWN", 0.0), ("TIMEOUT", 600.0)):
        monkeypatch.setattr(f"gateway.access.jwks.{name}", seconds)
    release = threading.Event()
    release.set()
    with issuer([("k1", signing_keys[0])], release) as (url, asked):
        keys = KeySet(url)
        await keys.key_of(token(signing_keys[0]))
        release.clear()
        assert (await asyncio.wait_for(keys.key_of(token(signing_keys[0])), 60)).key_id == "k1"
        await until(lambda: len(asked) == 2)
        release.set()


async def test_issuer_that_never_ends_its_response_times_out(
    signing_keys: list[rsa.RSAPrivateKey], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("gateway.access.jwks.TIMEOUT", 0.2)

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 200 OK\r\n\r\n")
        with suppress(ConnectionError):
            while True:
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.01)

    async with await asyncio.start_server(drip, "127.0.0.1", 0) as server:
        keys = KeySet(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/jwks")
        with pytest.raises(StageUnavailable):
            await keys.key_of(token(signing_keys[0]))
        await until(lambda: "response larger than" in caplog.text)


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"\xff",
        b"[" * 100_000,
        b'{"keys":' * 50_000,
        b"7",
        b"[]",
        b"{}",
        b'{"keys": 5}',
        b'{"keys": {"a": 1}}',
        b'{"keys": []}',
        b'{"keys": [5, null, "x", []]}',
        b'{"keys": [{"kty": 5}, {"kty": []}, {"kty": "RSA", "n": 5, "e": []}, {"kty": "oct", "k": 7}]}',
        b'{"keys": [{"kty": "EC", "crv": {}, "x": "AA", "y": "AA"}]}',
        b"1" * 10_000,
    ],
    ids=lambda document: repr(document[:30]),
)
async def test_a_malformed_key_set_is_reported_and_the_known_keys_hold(
    signing_keys: list[rsa.RSAPrivateKey],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    document: bytes,
) -> None:
    monkeypatch.setattr("gateway.access.jwks.REFETCH_COOLDOWN", 0.0)
    unhandled: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
    with pytest.raises(ValueError, match="key set"):
        keys_of(document)
    with issuer([("k1", signing_keys[0])]) as (url, _):
        keys = KeySet(url)
        key = await keys.key_of(token(signing_keys[0]))
        monkeypatch.setattr("gateway.access.jwks._fetch", lambda url: keys_of(document))
        with pytest.raises(jwt.PyJWTError):
            await keys.key_of(token(signing_keys[0], kid="another"))
        assert await keys.key_of(token(signing_keys[0])) is key
    assert "cannot fetch the token issuer's keys: " in caplog.text
    keys._fetching = None
    gc.collect()
    await asyncio.sleep(0)
    assert not unhandled


async def test_an_unusable_key_leaves_the_other_keys_in_use(signing_keys: list[rsa.RSAPrivateKey]) -> None:
    good = jwk("k1", signing_keys[0])
    odd = [{"kty": 5}, {**good, "kid": ["k1"]}, {**good, "kid": "k2", "n": 7}, 5]
    assert list(keys_of(json.dumps({"keys": [*odd, good, *odd]}).encode())) == ["k1"]


@pytest.mark.parametrize(
    "part", [b"[" * 5000, b'{"alg":' * 500, b'{"kid": 5}', b"7", b'{"alg": [], "kid": {}}', b"\xff"]
)
async def test_a_malformed_token_is_unauthenticated(
    signing_keys: list[rsa.RSAPrivateKey], part: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with issuer([("k1", signing_keys[0])]) as (url, _):
        async with running_gateway(jwt_jwks_url=url, jwt_issuer=ISSUER) as running:
            encoded = base64.urlsafe_b64encode(part).rstrip(b"=").decode()
            header, body, signature = token(signing_keys[0]).split(".")
            for odd in (f"{encoded}.{body}.{signature}", f"{header}.{encoded}.{signature}"):
                assert await status_code(running, odd) is grpc.StatusCode.UNAUTHENTICATED
    assert "internal error" not in caplog.text


async def test_every_request_is_audited_even_if_a_guard_refuses_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "hart.audit")
    limits: dict[str, Any] = {"caller_requests_per_second": 0.001, "caller_burst": 1}
    async with running_gateway(api_keys="alice=a", **limits) as running:
        for key in ("wrong", "a", "a", None):
            await status_code(running, key, "Generate")
        await status_code(running, "wrong")  # Describe is not audited
    audited = [vars(record)["audit"] for record in caplog.records if record.name == "hart.audit"]
    assert [(line["caller"], line["code"]) for line in audited] == [
        ("", "UNAUTHENTICATED/UNAUTHENTICATED"),
        ("alice", "OK"),
        ("alice", "RESOURCE_EXHAUSTED/OVERLOADED"),
        ("", "UNAUTHENTICATED/UNAUTHENTICATED"),
    ]
    assert audited[0]["host"] == "ipv4:127.0.0.1"
    assert "wrong" not in str(audited)


async def test_limits_of_one_caller_do_not_affect_another() -> None:
    async with running_gateway(api_keys="alice=a,bob=b", caller_concurrency=1) as running:
        release = asyncio.Event()

        async def hold(_: Any) -> None:
            await release.wait()

        running.stage("safety").before = hold
        message = images_pb2.GenerateRequest(prompt="a")
        held = asyncio.ensure_future(running.stub.Generate(message, metadata=(("authorization", "Bearer a"),)))
        await until(lambda: running.stage("safety").received)
        assert await status_code(running, "a", "Generate") is grpc.StatusCode.RESOURCE_EXHAUSTED
        running.stage("safety").before = None
        assert await status_code(running, "b", "Generate") is grpc.StatusCode.OK
        release.set()
        await held
        assert await status_code(running, "a", "Generate") is grpc.StatusCode.OK

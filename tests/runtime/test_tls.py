"""runtime.tls, runtime.channel: certificates and their rotation, over real TLS connections."""

from __future__ import annotations

import asyncio
import datetime
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hart.v1 import decoder_pb2_grpc

from runtime import tls
from runtime.calls.pool import Pool
from runtime.channel import ChannelFactory
from runtime.discovery.endpoint import Endpoint
from runtime.discovery.sources import DnsSource, StaticSource
from runtime.errors import StageUnavailable
from runtime.settings import ProcessSettings, SettingsError
from tests.runtime.certificates import Authority
from tests.runtime.support import Launch, request, until


def secured(files: tuple[str, str, str]) -> ProcessSettings:
    return ProcessSettings(port=0, tls_cert=files[0], tls_key=files[1], tls_ca=files[2])


async def ask(port: int, cert: str = "", key: str = "", ca: str = "") -> bytes:
    async with ChannelFactory(tls.Files(cert, key, ca)).open(f"localhost:{port}") as channel:
        return (await decoder_pb2_grpc.DecoderStub(channel).Decode(request(), timeout=60)).image


async def refused(port: int, cert: str = "", key: str = "", ca: str = "") -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask(port, cert, key, ca)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_only_clients_of_the_same_authority_are_served(launch: Launch, tmp_path: Path) -> None:
    authority, foreign = Authority(), Authority("foreign")
    server = authority.write(tmp_path / "server")
    running = await launch(secured(server))
    port, ca = running.app.port, server[2]
    good = authority.write(tmp_path / "good")
    assert await ask(port, *good) == b"1.0"
    await refused(port, ca=ca)  # without a certificate
    other = foreign.write(tmp_path / "other")
    await refused(port, other[0], other[1], ca)  # of another authority
    expired = authority.write(tmp_path / "expired", lasts=-datetime.timedelta(days=1))
    await refused(port, *expired)
    await refused(port, good[0], good[1], other[2])  # the client does not trust the server's authority
    async with grpc.aio.insecure_channel(f"localhost:{port}") as plain:
        with pytest.raises(grpc.aio.AioRpcError):
            await decoder_pb2_grpc.DecoderStub(plain).Decode(request(), timeout=2)
    assert await ask(port, *good) == b"1.0"


@pytest.mark.parametrize("part", [0, 1, 2])
@pytest.mark.parametrize("content", [None, "no PEM"], ids=["missing", "broken"])
async def test_unusable_tls_file_is_refused_by_name(
    launch: Launch, tmp_path: Path, part: int, content: str | None
) -> None:
    files = Authority().write(tmp_path / "server")
    file = Path(files[part])
    file.write_text(content) if content else file.unlink()
    with pytest.raises(SettingsError, match=str(file)):
        await launch(secured(files))


async def test_health_port_serves_only_health_in_plaintext(launch: Launch, tmp_path: Path) -> None:
    running = await launch(secured(Authority().write(tmp_path / "server")))
    async with grpc.aio.insecure_channel(f"localhost:{running.app.health_port}") as channel:
        health = health_pb2_grpc.HealthStub(channel)
        answer = await health.Check(health_pb2.HealthCheckRequest(service="hart.v1.Decoder"), timeout=60)
        assert answer.status == 1
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await decoder_pb2_grpc.DecoderStub(channel).Decode(request(), timeout=60)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_rotation_to_a_new_authority_needs_no_restart(launch: Launch, tmp_path: Path) -> None:
    old, new = Authority(), Authority("new")
    folder = tmp_path / "server"
    running = await launch(secured(old.write(folder)))
    client_old = old.write(tmp_path / "old")
    assert await ask(running.app.port, *client_old) == b"1.0"
    new.write(folder)
    assert await ask(running.app.port, *new.write(tmp_path / "new")) == b"1.0"
    await refused(running.app.port, *client_old)


async def test_partial_rotation_changes_nothing(launch: Launch, tmp_path: Path) -> None:
    authority = Authority()
    server = authority.write(tmp_path / "server")
    running = await launch(secured(server))
    client = authority.write(tmp_path / "client")
    Path(server[1]).write_bytes(Path(client[1]).read_bytes())  # a key that does not fit the certificate
    assert await ask(running.app.port, *client) == b"1.0"
    Path(server[0]).unlink()
    assert await ask(running.app.port, *client) == b"1.0"


async def test_pool_reopens_channels_on_rotation_without_loss(launch: Launch, tmp_path: Path) -> None:
    authority = Authority()
    running = await launch(secured(authority.write(tmp_path / "server")))
    client = authority.write(tmp_path / "client")
    source = StaticSource(frozenset({Endpoint(f"localhost:{running.app.port}")}))
    pool = Pool("decoder", "hart.v1.Decoder", source, channels=ChannelFactory(tls.Files(*client)))
    await pool.start(60)
    before = pool.replicas[0].channel
    authority.write(tmp_path / "client")
    async with asyncio.timeout(60):
        while pool.replicas[0].channel is before:
            async with pool.replica() as replica:
                await decoder_pb2_grpc.DecoderStub(replica.channel).Decode(request(), timeout=60)
    async with pool.replica() as replica:
        assert replica.channel is not before
        await decoder_pb2_grpc.DecoderStub(replica.channel).Decode(request(), timeout=60)
    Path(client[0]).write_text("no certificate")
    await asyncio.sleep(1.5)
    async with pool.replica() as replica:
        await decoder_pb2_grpc.DecoderStub(replica.channel).Decode(request(), timeout=60)
    await pool.close()


async def test_replica_is_used_once_the_client_certificate_returns(launch: Launch, tmp_path: Path) -> None:
    authority = Authority()
    running = await launch(secured(authority.write(tmp_path / "server")))
    client = authority.write(tmp_path / "client")
    source = StaticSource(frozenset({Endpoint(f"localhost:{running.app.port}")}))
    pool = Pool("decoder", "hart.v1.Decoder", source, channels=ChannelFactory(tls.Files(*client)))
    Path(client[0]).unlink()
    await pool.start(patience=0.2)
    assert not pool.replicas
    authority.write(tmp_path / "client")
    await until(lambda: pool.ready)
    await pool.close()


async def test_plaintext_beyond_loopback_must_be_allowed() -> None:
    with pytest.raises(ValueError, match="HART_ALLOW_PLAINTEXT"):
        ChannelFactory().open("10.0.0.1:50055")
    with pytest.raises(ValueError, match=r"HART_HOST='0.0.0.0' is not loopback"):
        ProcessSettings(host="0.0.0.0")
    await ChannelFactory(allow_plaintext=True).open("10.0.0.1:50055").close()
    pool = Pool("decoder", "hart.v1.Decoder", StaticSource(frozenset({Endpoint("10.0.0.1:50055")})))
    await pool.start(patience=0.2)
    with pytest.raises(StageUnavailable):
        pool.replica()
    await pool.close()


async def test_pools_with_one_channel_factory_all_see_a_rotation(launch: Launch, tmp_path: Path) -> None:
    authority = Authority()
    running = await launch(secured(authority.write(tmp_path / "server")))
    channels = ChannelFactory(tls.Files(*authority.write(tmp_path / "client")))
    source = StaticSource(frozenset({Endpoint(f"localhost:{running.app.port}")}))
    pools = [Pool("decoder", "hart.v1.Decoder", source, channels=channels) for _ in range(3)]
    for pool in pools:
        await pool.start(60)
    before = [pool.replicas[0] for pool in pools]
    authority.write(tmp_path / "client")
    await until(lambda: all(pool.replicas[0] is not old for pool, old in zip(pools, before, strict=True)))
    for pool in pools:
        await pool.close()


async def test_replica_found_by_service_name_must_present_it(launch: Launch, tmp_path: Path) -> None:
    authority = Authority()
    # As in Kubernetes: the certificate names the service, never the pod's address.
    running = await launch(secured(authority.write(tmp_path / "server", address="192.0.2.1")))
    channels = ChannelFactory(tls.Files(*authority.write(tmp_path / "client")))
    port = running.app.port
    unnamed = StaticSource(frozenset({Endpoint(f"127.0.0.1:{port}")}))
    other = StaticSource(frozenset({Endpoint(f"127.0.0.1:{port}", name="decoder.elsewhere.svc")}))
    for source in (unnamed, other):
        pool = Pool("decoder", "hart.v1.Decoder", source, channels=channels)
        await pool.start(patience=1)
        with pytest.raises(StageUnavailable):
            pool.replica()
        await pool.close()
    pool = Pool("decoder", "hart.v1.Decoder", DnsSource("localhost", port), channels=channels)
    await pool.start(60)
    async with pool.replica() as replica:
        assert replica.address == f"127.0.0.1:{port}"
        assert (await decoder_pb2_grpc.DecoderStub(replica.channel).Decode(request(), timeout=60)).image == b"1.0"
    await pool.close()

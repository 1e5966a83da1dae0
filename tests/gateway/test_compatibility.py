"""gateway.routing.compatibility: parts of different checkpoints never share an image. Fake stages, real sockets."""

from typing import Any

import grpc
import pytest

from common.digests import combine
from gateway.routing.compatibility import UNKNOWN_MODEL, CompatibleReplicas, ReplicaModel
from runtime.errors import StageUnavailable
from tests.gateway.support import running_gateway
from tests.gateway.two_versions import TWO_CHECKPOINTS, TWO_REPLICAS, request, versions


async def unavailable(call: Any) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    return str(caught.value.details())


async def test_two_checkpoints_side_by_side_are_never_mixed() -> None:
    compatible = {combine(generator=f"G{n}", text_encoder=f"T{n}", decoder=f"D{n}") for n in (1, 2)}
    async with running_gateway(TWO_REPLICAS, TWO_CHECKPOINTS) as running:
        answers = [await running.stub.Generate(request(seed)) for seed in range(24)]
        assert {answer.report.model.digest for answer in answers} == compatible
        recipes = {r.recipe.model.digest for fake in running.stages["decoder"] for r in fake.received}
        assert recipes == compatible
        assert all(len(fake.received) > 0 for fake in running.stages["text_encoder"])


async def test_previews_come_from_the_decoder_of_the_image() -> None:
    async with running_gateway(TWO_REPLICAS, TWO_CHECKPOINTS) as running:
        for generator in running.stages["ar_generator"]:
            generator.scale_seconds = 0.1
        for seed in range(8):
            [_ async for _ in running.stub.GenerateStream(request(seed, preview_every=1))]
        for generator, decoder in zip(running.stages["ar_generator"], running.stages["decoder"], strict=True):
            drawn = len(generator.received)
            assert drawn * (1 + 2) <= len(decoder.received) <= drawn * (1 + 3)  # an image overtakes its last preview


async def test_retrained_generators_share_one_text_encoder_and_decoder() -> None:
    prepare = versions(text_encoder=["T1"], ar_generator=["G1 T1 D1", "G2 T1 D1"], decoder=["D1"])
    async with running_gateway({"ar_generator": 2}, prepare) as running:
        digests = {(await running.stub.Generate(request(seed))).report.model.digest for seed in range(24)}
    assert digests == {combine(generator=g, text_encoder="T1", decoder="D1") for g in ("G1", "G2")}


@pytest.mark.parametrize(
    ("generator", "stage", "named"),
    [("G1 T9 D1", "text_encoder", ["T9", "T1"]), ("G1 T1 D9", "decoder", ["D9", "D1"])],
)
async def test_parts_of_different_checkpoints_are_refused(generator: str, stage: str, named: list[str]) -> None:
    prepare = versions(text_encoder=["T1"], ar_generator=[generator], decoder=["D1"])
    async with running_gateway(prepare=prepare) as running:
        details = await unavailable(running.stub.Generate(request()))
        assert details.startswith(f"{stage} is unavailable")
        assert all(digest in details for digest in ["G1", *named])
        assert not running.stage("ar_generator").received
        assert not running.stage("decoder").received


async def test_generator_without_its_decoder_gets_no_requests() -> None:
    prepare = versions(text_encoder=["T1", "T2"], ar_generator=["G1 T1 D1", "G2 T2 D2"], decoder=["D1"])
    async with running_gateway({"text_encoder": 2, "ar_generator": 2}, prepare) as running:
        for seed in range(12):
            await running.stub.Generate(request(seed))
        assert [len(fake.received) for fake in running.stages["ar_generator"]] == [12, 0]
        assert [len(fake.received) for fake in running.stages["text_encoder"]] == [12, 0]


async def test_response_of_another_model_than_requested_is_rejected() -> None:
    prepare = versions(text_encoder=["T1"], ar_generator=["G1 T1 D1"], decoder=["D1"])
    async with running_gateway(prepare=prepare, retry_attempts=1) as running:
        await running.stub.Generate(request())
        running.stage("decoder").digest = "D2"  # not described yet
        details = await unavailable(running.stub.Generate(request(8)))
        assert "D1" in details
        assert "D2" in details


async def test_replica_without_a_digest_is_compatible_with_all() -> None:
    ready = {
        "ar_generator": {"g": ReplicaModel(required_digests={"decoder": "D1"})},
        "text_encoder": {"foreign": UNKNOWN_MODEL},
        "decoder": {"d": ReplicaModel("D1")},
    }
    compatible = CompatibleReplicas(ready)
    assert compatible.text_encoder() == ""
    assert compatible.encoders("T1") == {"foreign"}
    assert compatible.generators("T1") == {"g"}
    assert compatible.decoders("") == compatible.decoders("D1") == {"d"}
    with pytest.raises(StageUnavailable, match=r"required digest D2 \(they have D1\)"):
        compatible.decoders("D2")

"""Parts of different checkpoints never meet in a picture: fake stages on real sockets, a version or two of each."""

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from hart.v1 import images_pb2

from common.digests import combine
from gateway.routing.compatibility import UNKNOWN_MODEL, CompatibleReplicas, ReplicaModel
from runtime.errors import StageUnavailable
from tests.gateway.support import FakeStage, front

Stages = dict[str, list[FakeStage]]


def versions(**of: list[str]) -> Callable[[Stages], None]:
    """Gives replicas their digests: "T1"; a generator is named with what it needs, "G1 T1 D1"."""

    def prepare(stages: Stages) -> None:
        for stage, names in of.items():
            for fake, name in zip(stages[stage], names, strict=True):
                fake.digest, *partners = name.split()
                fake.required_digests = dict(zip(("text_encoder", "decoder"), partners, strict=False))

    return prepare


TWO = {"text_encoder": 2, "ar_generator": 2, "decoder": 2}
TWO_LINES = versions(text_encoder=["T1", "T2"], ar_generator=["G1 T1 D1", "G2 T2 D2"], decoder=["D1", "D2"])


def request(seed: int = 7, **fields: Any) -> images_pb2.GenerateRequest:
    return images_pb2.GenerateRequest(prompt="a red heart", seed=seed, **fields)


async def unavailable(call: Any) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    return str(caught.value.details())


async def test_each_of_two_whole_lines_draws_its_own_pictures() -> None:
    compatible = {combine(generator=f"G{n}", text_encoder=f"T{n}", decoder=f"D{n}") for n in (1, 2)}
    async with front(TWO, TWO_LINES) as running:
        answers = [await running.stub.Generate(request(seed)) for seed in range(24)]
        assert {answer.report.model.digest for answer in answers} == compatible
        recipes = {r.recipe.model.digest for fake in running.stages["decoder"] for r in fake.received}
        assert recipes == compatible
        assert all(len(fake.received) > 0 for fake in running.stages["text_encoder"])


async def test_previews_come_from_the_decoder_of_the_picture() -> None:
    async with front(TWO, TWO_LINES) as running:
        for generator in running.stages["ar_generator"]:
            generator.scale_seconds = 0.1
        for seed in range(8):
            [_ async for _ in running.stub.GenerateStream(request(seed, preview_every=1))]
        for generator, decoder in zip(running.stages["ar_generator"], running.stages["decoder"], strict=True):
            drawn = len(generator.received)
            assert drawn * (1 + 2) <= len(decoder.received) <= drawn * (1 + 3)  # an image overtakes its last preview


async def test_retrained_generators_share_one_text_encoder_and_decoder() -> None:
    prepare = versions(text_encoder=["T1"], ar_generator=["G1 T1 D1", "G2 T1 D1"], decoder=["D1"])
    async with front({"ar_generator": 2}, prepare) as running:
        digests = {(await running.stub.Generate(request(seed))).report.model.digest for seed in range(24)}
    assert digests == {combine(generator=g, text_encoder="T1", decoder="D1") for g in ("G1", "G2")}


@pytest.mark.parametrize(
    ("generator", "stage", "named"),
    [("G1 T9 D1", "text_encoder", ["T9", "T1"]), ("G1 T1 D9", "decoder", ["D9", "D1"])],
)
async def test_parts_that_do_not_belong_together_draw_nothing(generator: str, stage: str, named: list[str]) -> None:
    prepare = versions(text_encoder=["T1"], ar_generator=[generator], decoder=["D1"])
    async with front(prepare=prepare) as running:
        details = await unavailable(running.stub.Generate(request()))
        assert details.startswith(f"{stage} is unavailable")
        assert all(digest in details for digest in ["G1", *named])
        assert not running.stage("ar_generator").received
        assert not running.stage("decoder").received


async def test_a_generator_whose_decoder_has_not_come_is_left_alone() -> None:
    prepare = versions(text_encoder=["T1", "T2"], ar_generator=["G1 T1 D1", "G2 T2 D2"], decoder=["D1"])
    async with front({"text_encoder": 2, "ar_generator": 2}, prepare) as running:
        for seed in range(12):
            await running.stub.Generate(request(seed))
        assert [len(fake.received) for fake in running.stages["ar_generator"]] == [12, 0]
        assert [len(fake.received) for fake in running.stages["text_encoder"]] == [12, 0]


async def test_the_last_of_a_line_going_away_is_not_made_up_for_by_another_line() -> None:
    async with front(TWO, TWO_LINES) as running:
        await running.end(running.stages["decoder"][0])
        digests, codes = set(), set()
        for seed in range(12):
            try:
                digests.add((await running.stub.Generate(request(seed))).report.model.digest)
            except grpc.aio.AioRpcError as error:
                codes.add(error.code())
        assert codes <= {grpc.StatusCode.UNAVAILABLE}
        assert digests == {combine(generator="G2", text_encoder="T2", decoder="D2")}
        assert {r.recipe.model.digest for r in running.stages["decoder"][1].received} == digests


async def test_an_answer_by_another_model_than_was_asked_is_not_taken() -> None:
    prepare = versions(text_encoder=["T1"], ar_generator=["G1 T1 D1"], decoder=["D1"])
    async with front(prepare=prepare, retry_attempts=1) as running:
        await running.stub.Generate(request())
        running.stage("decoder").digest = "D2"  # and has not told anybody
        details = await unavailable(running.stub.Generate(request(8)))
        assert "D1" in details
        assert "D2" in details


async def test_what_does_not_say_its_digest_is_taken_on_trust() -> None:
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

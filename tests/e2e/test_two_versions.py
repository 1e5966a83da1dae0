"""Two versions of the model at once, as in a rolling change: what callers see, and what they never see."""

import io
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import hart
import pytest
import torch
from hart import errors
from PIL import Image
from safetensors.torch import load_file, save_file

from benchmarks.harness.processes import Cluster, Process
from model.checkpoint import Checkpoint
from tests.recipes import read_recipe

LEAST, MOST = 3, 60
"""Rounds of requests: which version draws one is left to chance."""
LINE = ("text_encoder", "ar_generator", "decoder")
Gateway = Callable[..., hart.Client]
pytestmark = pytest.mark.usefixtures("unharmed")


@pytest.fixture(scope="module")
def newer(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint with other weights in text encoder, generator and decoder."""
    folder = tmp_path_factory.mktemp("newer") / tiny_checkpoint.name
    shutil.copytree(tiny_checkpoint, folder)
    for part in ("tokenizer", "text_encoder"):
        file = folder / part / "model.safetensors"
        save_file({name: 1.25 * tensor for name, tensor in load_file(file).items()}, file, {"format": "pt"})
    weights = folder / "llm" / "ema_model.bin"
    torch.save({name: 1.25 * tensor for name, tensor in torch.load(weights, weights_only=True).items()}, weights)
    return folder


@pytest.fixture(scope="module")
def added(cluster: Cluster, newer: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Process]]:
    """A replica of each with the newer checkpoint."""
    logs = tmp_path_factory.mktemp("logs")
    started = {stage: Process(stage, logs, {"checkpoint": str(newer)}).start() for stage in LINE}
    try:
        for process in started.values():
            process.await_ready()
        yield started
    finally:
        for process in started.values():
            process.kill()


@pytest.fixture(scope="module")
def mixed(cluster: Cluster, added: dict[str, Process]) -> Iterator[hart.Client]:
    """At a gateway before one old and one new replica of each."""
    both = {stage: f"{cluster.stages[stage][0].address},{added[stage].address}" for stage in LINE}
    with cluster.another_gateway(**both) as gateway, hart.Client(gateway.address) as client:
        yield client


@pytest.fixture(scope="module")
def digests(tiny_checkpoint: Path, newer: Path) -> tuple[str, str]:
    """Of the old and the new checkpoint, as pictures carry them."""
    return Checkpoint.open(tiny_checkpoint).digest, Checkpoint.open(newer).digest


def pixels(picture: bytes) -> bytes:
    with Image.open(io.BytesIO(picture)) as opened:
        return opened.convert("RGB").tobytes()


def test_every_answer_and_every_recipe_names_what_drew_it(mixed: hart.Client, digests: tuple[str, str]) -> None:
    seen: dict[str, set[bytes]] = {}
    for number in range(MOST):
        if number >= LEAST and set(seen) == set(digests):
            break
        for format in ("png", "jpeg", "webp"):
            answer = mixed.generate("a red heart", seed=7, format=format)
            recipe = read_recipe(answer[0].data)
            assert recipe is not None
            assert recipe.digest == answer.report.model.digest, (number, format)
            if format == "png":
                seen.setdefault(recipe.digest, set()).add(pixels(answer[0].data))
    assert set(seen) == set(digests), "requests went to both versions, and each to one version alone"
    assert all(len(pictures) == 1 for pictures in seen.values()), "the same seed and digest are the same picture"
    assert len({next(iter(pictures)) for pictures in seen.values()}) == len(seen)


def test_a_repeat_gets_the_first_answer_whatever_version_would_draw_now(mixed: hart.Client) -> None:
    given = str(uuid.uuid4())
    answers = [mixed.generate("a blue house", request_id=given) for _ in range(6)]
    assert len({answer[0].data for answer in answers}) == 1
    assert len({answer.report.model.digest for answer in answers}) == 1


@pytest.mark.parametrize(("stage", "part"), [("text_encoder", "text_encoder"), ("decoder", "tokenizer")])
def test_parts_of_two_checkpoints_draw_no_picture(
    cluster: Cluster, added: dict[str, Process], tiny_checkpoint: Path, newer: Path, stage: str, part: str
) -> None:
    with (
        cluster.another_gateway(**{stage: added[stage].address}) as gateway,
        hart.Client(gateway.address) as client,
        pytest.raises(errors.Unavailable) as refusal,
    ):
        client.generate("a red heart", timeout=30)
    for checkpoint in (tiny_checkpoint, newer):
        assert Checkpoint.open(checkpoint).digest_of(part) in str(refusal.value)


def test_a_rolling_change_of_every_part_never_mixes_two_versions(
    cluster: Cluster, added: dict[str, Process], digests: tuple[str, str], tmp_path: Path
) -> None:
    """Stage after stage adds its new replica and loses the old one, in an order that leaves a gap without a whole line;
    callers who come in the gap are told so, and every picture that comes is of one version."""
    lists = {stage: tmp_path / stage for stage in LINE}
    old = {stage: cluster.stages[stage][0].address for stage in LINE}
    new = {stage: added[stage].address for stage in LINE}

    def say(stage: str, *addresses: str) -> None:
        partial = lists[stage].with_suffix(".partial")
        partial.write_text("".join(f"{address}\n" for address in addresses))
        partial.rename(lists[stage])

    def await_ready(client: hart.Client, stage: str, replicas: int) -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            (found,) = [one for one in client.status().stages if one.stage == stage]
            if found.replicas == found.ready == replicas:
                return
            time.sleep(0.05)
        pytest.fail(f"{stage} has not {replicas} ready replicas")

    for stage in LINE:
        say(stage, old[stage])
    seen: list[str] = []
    refusals: set[str] = set()
    drawn: dict[str, set[bytes]] = {}
    with (
        cluster.another_gateway(**{stage: f"file://{path}" for stage, path in lists.items()}) as gateway,
        hart.Client(gateway.address) as client,
    ):

        def ask() -> None:
            try:
                answer = client.generate("a red heart", seed=7, timeout=60)
            except errors.Unavailable as refusal:
                seen.append("refused")
                refusals.add(str(refusal))
                return
            seen.append(answer.report.model.digest)
            drawn.setdefault(answer.report.model.digest, set()).add(pixels(answer[0].data))

        for stage in ("decoder", "text_encoder", "ar_generator"):
            for addresses in [(old[stage], new[stage]), (new[stage],)]:
                ask()
                say(stage, *addresses)
                await_ready(client, stage, len(addresses))
                for _ in range(3):
                    ask()
    assert (seen[0], seen[-1]) == digests
    assert "refused" in seen, "without the old decoder and the new generator no line is whole"
    assert all("requires" in refusal for refusal in refusals), refusals
    assert set(drawn) == set(digests)
    assert all(len(pictures) == 1 for pictures in drawn.values())

"""gateway.routing: two versions of the model at once, as in a rolling change, are never mixed."""

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

MIN_ROUNDS, MAX_ROUNDS = 3, 60
"""Rounds of requests: which version serves one is left to chance."""
PARTS_OF_A_CHECKPOINT = ("text_encoder", "ar_generator", "decoder")
Gateway = Callable[..., hart.Client]
pytestmark = pytest.mark.usefixtures("survives")


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
    """A replica of each stage with the newer checkpoint."""
    logs = tmp_path_factory.mktemp("logs")
    started = {stage: Process(stage, logs, {"checkpoint": str(newer)}).start() for stage in PARTS_OF_A_CHECKPOINT}
    try:
        for process in started.values():
            process.await_ready()
        yield started
    finally:
        for process in started.values():
            process.kill()


@pytest.fixture(scope="module")
def mixed(cluster: Cluster, added: dict[str, Process]) -> Iterator[hart.Client]:
    """A client of a gateway with one old and one new replica of each stage."""
    both = {stage: f"{cluster.stages[stage][0].address},{added[stage].address}" for stage in PARTS_OF_A_CHECKPOINT}
    with cluster.another_gateway(**both) as gateway, hart.Client(gateway.address) as client:
        yield client


@pytest.fixture(scope="module")
def digests(tiny_checkpoint: Path, newer: Path) -> tuple[str, str]:
    """Digests of the old and the new checkpoint, as in recipes."""
    return Checkpoint.open(tiny_checkpoint).digest, Checkpoint.open(newer).digest


def pixels(file: bytes) -> bytes:
    with Image.open(io.BytesIO(file)) as opened:
        return opened.convert("RGB").tobytes()


def test_every_response_and_recipe_names_its_checkpoint(mixed: hart.Client, digests: tuple[str, str]) -> None:
    seen: dict[str, set[bytes]] = {}
    for number in range(MAX_ROUNDS):
        if number >= MIN_ROUNDS and set(seen) == set(digests):
            break
        for format in ("png", "jpeg", "webp"):
            answer = mixed.generate("a red heart", seed=7, format=format)
            recipe = read_recipe(answer[0].data)
            assert recipe is not None
            assert recipe.digest == answer.report.model.digest, (number, format)
            if format == "png":
                seen.setdefault(recipe.digest, set()).add(pixels(answer[0].data))
    assert set(seen) == set(digests), "requests went to both versions, and each to one version alone"
    assert all(len(images) == 1 for images in seen.values()), "the same seed and digest give the same image"
    assert len({next(iter(images)) for images in seen.values()}) == len(seen)


def test_repeat_gets_the_first_response_of_either_version(mixed: hart.Client) -> None:
    given = str(uuid.uuid4())
    answers = [mixed.generate("a blue house", request_id=given) for _ in range(6)]
    assert len({answer[0].data for answer in answers}) == 1
    assert len({answer.report.model.digest for answer in answers}) == 1


@pytest.mark.parametrize(("stage", "part"), [("text_encoder", "text_encoder"), ("decoder", "tokenizer")])
def test_parts_of_two_checkpoints_are_refused(
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


def test_rolling_change_never_mixes_two_versions(
    cluster: Cluster, added: dict[str, Process], digests: tuple[str, str], tmp_path: Path
) -> None:
    """Each stage in turn adds its new replica and removes the old one, in an order that leaves a gap without a complete
    checkpoint. Requests in the gap fail as unavailable, and every image is of one version."""
    lists = {stage: tmp_path / stage for stage in PARTS_OF_A_CHECKPOINT}
    old = {stage: cluster.stages[stage][0].address for stage in PARTS_OF_A_CHECKPOINT}
    new = {stage: added[stage].address for stage in PARTS_OF_A_CHECKPOINT}

    def write_endpoints(stage: str, *addresses: str) -> None:
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

    for stage in PARTS_OF_A_CHECKPOINT:
        write_endpoints(stage, old[stage])
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
                write_endpoints(stage, *addresses)
                await_ready(client, stage, len(addresses))
                for _ in range(3):
                    ask()
    assert (seen[0], seen[-1]) == digests
    assert "refused" in seen, "without the old decoder and the new generator no checkpoint is complete"
    assert all("requires" in refusal for refusal in refusals), refusals
    assert set(drawn) == set(digests)
    assert all(len(images) == 1 for images in drawn.values())

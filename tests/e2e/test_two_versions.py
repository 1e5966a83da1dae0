"""Two versions of the generator and of the decoder at once, as in a rolling change: what callers see."""

import io
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import hart
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from gateway.digests import combine
from model.checkpoint import Checkpoint
from model.picture import read_recipe
from tests.e2e.processes import Cluster, Process

ASKS = 6
pytestmark = pytest.mark.usefixtures("unharmed")


@pytest.fixture(scope="module")
def newer(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint with other weights in generator and decoder."""
    folder = tmp_path_factory.mktemp("newer") / tiny_checkpoint.name
    shutil.copytree(tiny_checkpoint, folder)
    tokenizer = folder / "tokenizer" / "model.safetensors"
    save_file({name: 1.25 * tensor for name, tensor in load_file(tokenizer).items()}, tokenizer)
    weights = folder / "llm" / "ema_model.bin"
    torch.save({name: 1.25 * tensor for name, tensor in torch.load(weights, weights_only=True).items()}, weights)
    return folder


@pytest.fixture(scope="module")
def mixed(cluster: Cluster, newer: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[hart.Client]:
    """At a gateway before one old and one new generator, one old and one new decoder."""
    logs = tmp_path_factory.mktemp("logs")
    added = [Process(stage, logs, {"checkpoint": str(newer)}).start() for stage in ("ar_generator", "decoder")]
    try:
        for process in added:
            process.await_ready()
        both = {p.name: f"{cluster.stages[p.name][0].address},{p.address}" for p in added}
        with cluster.another_gateway(**both) as gateway, hart.Client(gateway.address) as client:
            yield client
    finally:
        for process in added:
            process.kill()


def test_every_answer_and_every_recipe_names_what_drew_it(mixed: hart.Client, tiny_checkpoint: Path, newer: Path):
    old, new = Checkpoint.open(tiny_checkpoint), Checkpoint.open(newer)
    text = old.digest_of("text_encoder")
    possible = {
        combine(generator=g.digest_of("llm"), text_encoder=text, decoder=d.digest_of("tokenizer"))
        for g in (old, new)
        for d in (old, new)
    }
    assert len(possible) == 4
    seen: dict[str, set[bytes]] = {}
    for number in range(ASKS):
        for format in ("png", "jpeg", "webp"):
            answer = mixed.generate("a red heart", seed=7, format=format)
            recipe = read_recipe(answer[0].data)
            assert recipe is not None
            assert recipe.digest == answer.report.model.digest, (number, format)
            if format == "png":
                with Image.open(io.BytesIO(answer[0].data)) as picture:
                    seen.setdefault(recipe.digest, set()).add(picture.convert("RGB").tobytes())
    assert set(seen) <= possible
    assert len(seen) > 1, "requests went to both versions"
    assert all(len(pixels) == 1 for pixels in seen.values()), "the same seed and digest are the same picture"
    assert len({next(iter(pixels)) for pixels in seen.values()}) == len(seen)


def test_a_repeat_gets_the_first_answer_whatever_version_would_draw_now(mixed: hart.Client):
    given = str(uuid.uuid4())
    answers = [mixed.generate("a blue house", request_id=given) for _ in range(6)]
    assert len({answer[0].data for answer in answers}) == 1
    assert len({answer.report.model.digest for answer in answers}) == 1

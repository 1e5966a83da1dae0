"""checkpoints/: the bundled checkpoint in a complete cluster, as in `make picture`."""

import io
from collections.abc import Iterator

import hart
import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.harness.processes import running_cluster
from model.checkpoint import Checkpoint, bundled
from model.pipeline import Pipeline
from tests.recipes import read_recipe

PIXEL_TOLERANCE = 2


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[hart.Client]:
    with (
        running_cluster(tmp_path_factory.mktemp("logs"), bundled(), {}) as cluster,
        hart.Client(cluster.endpoint) as found,
    ):
        yield found


def test_cluster_and_local_pipeline_give_the_same_image(client: hart.Client) -> None:
    torch.set_num_threads(1)
    mine = Pipeline.load(bundled()).draw("a red heart", seed=7)
    (theirs,) = client.generate("a red heart", seed=7)
    pixels = np.asarray(Image.open(io.BytesIO(theirs.data)).convert("RGB"), np.int16)
    assert np.abs(pixels - mine.pixels).max() <= PIXEL_TOLERANCE
    assert read_recipe(theirs.data) == mine.recipe


def test_describe_lists_prompts_and_unknown_words_are_warned_of(client: hart.Client) -> None:
    (model,) = client.describe().models
    assert (model.shape.width, model.shape.height) == (128, 128)
    assert model.example_prompts
    known = client.generate("a red heart", seed=1, more_smooth=False)
    strange = client.generate("a zyzzyva quoxing", seed=1, more_smooth=False)
    assert not known.report.warnings
    assert "zyzzyva" in [word for warning in strange.report.warnings for word in warning.words]


def test_the_bundles_settings_are_described_used_and_overridden_by_the_caller(client: hart.Client) -> None:
    own = Checkpoint.open(bundled()).sampling_defaults
    (model,) = client.describe().models
    described = model.sampling_defaults
    assert (described.guidance, described.more_smooth) == (own.guidance, own.more_smooth)
    assert (described.top_p, described.residual_temperature) == (own.top_p, own.residual_temperature)
    plain, chosen = (
        read_recipe(images[0].data)
        for images in (
            client.generate("a red heart", seed=7),
            client.generate("a red heart", seed=7, guidance=4.5, residual_temperature=1.0),
        )
    )
    assert plain is not None
    assert chosen is not None
    assert (plain.guidance, plain.residual_temperature) == (own.guidance, own.residual_temperature)
    assert (chosen.guidance, chosen.residual_temperature, chosen.top_p) == (4.5, 1.0, own.top_p)


def test_the_moon_is_drawn_and_a_bomb_is_refused(client: hart.Client) -> None:
    (moon,) = client.generate("the moon", seed=7)
    assert Image.open(io.BytesIO(moon.data)).size == (128, 128)
    with pytest.raises(hart.PromptUnsafe):
        client.generate("how to build a bomb", seed=7)

"""model.pipeline, model.__main__: the local pipeline and its command, with a tiny checkpoint."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.harness.checkpoint import FORBIDDEN, OUTRAGEOUS, UNSAFE_PROMPT
from common.limits import MAX_PROMPT_CHARACTERS
from model.checkpoint import Checkpoint
from model.errors import SettingError, UnsafePromptError
from model.params import SamplingParams
from model.pipeline import Pipeline
from tests.recipes import read_recipe


@pytest.fixture(scope="module")
def pipeline(tiny: Path) -> Pipeline:
    return Pipeline.load(tiny)


def test_recipe_reproduces_the_image(pipeline: Pipeline, tiny: Path) -> None:
    first = pipeline.draw("  a red heart\n", params=SamplingParams(3.0, False, 0.9))
    recipe = read_recipe(first.to_bytes("WEBP"))
    assert recipe == first.recipe
    assert (recipe.prompt, recipe.model, recipe.digest) == ("a red heart", "tiny", Checkpoint.open(tiny).digest)
    again = Pipeline.load(tiny).draw(
        recipe.prompt, recipe.seed, SamplingParams(recipe.guidance, recipe.more_smooth, recipe.top_p)
    )
    assert np.array_equal(first.pixels, again.pixels)


@pytest.mark.parametrize(
    "changed",
    [
        {"prompt": "a blue house"},
        {"seed": 8},
        {"params": SamplingParams(0.5)},
        {"params": SamplingParams(4.5, False)},
    ],
)
def test_prompt_seed_and_parameters_each_change_the_image(pipeline: Pipeline, changed: dict[str, Any]) -> None:
    asked: dict[str, Any] = {"prompt": "a red heart", "seed": 7, "params": SamplingParams()}
    assert not np.array_equal(pipeline.draw(**asked).pixels, pipeline.draw(**{**asked, **changed}).pixels)


def test_on_scale_is_called_for_every_scale(pipeline: Pipeline) -> None:
    seen: list[int] = []
    pipeline.draw("a red heart", on_scale=lambda state: seen.append(state.scale))
    assert seen == [1, 2, 3, 4]


def test_unsafe_prompt_is_refused_before_generation(pipeline: Pipeline) -> None:
    seen: list[int] = []
    with pytest.raises(UnsafePromptError, match="dangerous_content") as refused:
        pipeline.draw(UNSAFE_PROMPT, on_scale=lambda state: seen.append(state.scale))
    assert FORBIDDEN not in str(refused.value)
    assert not seen


def test_failure_between_scales_releases_the_slot(pipeline: Pipeline) -> None:
    def fail(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipeline.draw("a red heart", on_scale=fail)
    assert pipeline.generator.free == [0]


@pytest.mark.parametrize("prompt", ["", " \n\t ", "x" * (MAX_PROMPT_CHARACTERS + 1), "\ufdfa" * 120])
def test_prompt_out_of_bounds_is_refused(pipeline: Pipeline, prompt: str) -> None:
    with pytest.raises(SettingError, match="prompt: "):
        pipeline.draw(prompt)


def test_long_prompt_is_truncated_and_reported(pipeline: Pipeline) -> None:
    image = pipeline.draw("a red heart " * 40)
    assert image.prompt_truncated
    assert image.prompt_tokens > pipeline.text_encoder.context_tokens


def test_every_policy_is_scored_for_every_prompt(pipeline: Pipeline) -> None:
    assert pipeline.safety
    safe, one, both = pipeline.safety.check(["a red heart", f"a {FORBIDDEN} thing", f"an {OUTRAGEOUS} thing"])
    assert not safe.unsafe
    assert {name for name, score in one.scores.items() if score > 0.5} == {"dangerous_content"}
    assert {name for name, score in both.scores.items() if score > 0.5} == {"dangerous_content", "harassment"}
    alone = pipeline.safety.check([f"a {FORBIDDEN} thing"])[0]
    assert alone.scores == pytest.approx(one.scores, abs=1e-5)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["a red heart", "--guidance", "21"], 2, "guidance: 21.0: expected 0 to 20"),
        (["a red heart", "--guidence", "2"], 2, "unrecognized arguments: --guidence"),
        (["  "], 2, "prompt: must have 1 to 2000 characters after trimming, not 0"),
        (["\ufdfa" * 120], 2, "prompt: its 120 characters stand for 2160 (in NFKC); at most 2000 may be read"),
        (["a red heart", "--checkpoint", "nowhere"], 2, "nowhere: no such folder"),
        (["a red heart", "-o", "no/folder/x.png"], 2, "the folder no/folder does not exist"),
        (["a red heart", "-o", "."], 2, "output: . is a folder"),
        (["a red heart", "-o", "x.gif"], 2, "output: x.gif: unknown file extension; expected one of .png"),
        (["a red heart", "-o", "x.jpg", "--format", "png"], 2, "x.jpg has the extension of JPEG, but --format is PNG"),
        (["a red heart", "--device", "abacus"], 2, "device: 'abacus' cannot be used"),
        (["a red heart", "--seed", "-1"], 2, "seed: -1"),
        (["a red heart", "--checkpoint", "nowhere", "--quality", "0"], 2, "quality: 0: expected 1 to 100"),
        ([UNSAFE_PROMPT], 3, "refused by the safety policy 'dangerous_content'"),
    ],
)
def test_invalid_arguments_are_named_with_their_exit_code(
    tiny: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    from model import __main__ as entry

    monkeypatch.chdir(tmp_path)
    where = [] if "--checkpoint" in arguments else ["--checkpoint", str(tiny)]
    monkeypatch.setattr(sys, "argv", ["model", *where, *arguments])
    try:
        found = entry.main()
    except SystemExit as end:
        found = int(end.code or 0)
    assert found == code
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())

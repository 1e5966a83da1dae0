"""From a folder of captioned images to a working checkpoint by the generic commands, and what they refuse."""

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from benchmarks.load_checkpoint import TOKENIZER, TRANSFORMER
from model.checkpoint import Checkpoint
from model.pipeline import Pipeline
from model.tokenizer import HybridTokenizer
from training.checkpoint import assemble
from training.core.cli import run_command
from training.core.loop import STATE
from training.core.run_log import loggable
from training.data.dataset import FolderDataset, FolderImages
from training.recipes.emoji.dataset import EmojiDatasetSource
from training.tokenizer import train as tokenizer
from training.transformer import command as transformer
from training.transformer.network import fresh_transformer

TEXT = Path(__file__).parents[2] / "golden" / "text_right" / "checkpoint"
SAFETY = Path(__file__).parents[3] / "checkpoints" / "emoji-128" / "safety"
SIDE = 32
COLOURS = ("red", "green", "blue", "orange", "purple", "black")
TOKENIZER_OPTIONS = f"--images mine --name mine-tokenizer --side {SIDE} --batch 4 --vocabulary 16".split()
TRANSFORMER_OPTIONS = (
    f"--images mine --name mine --tokenizer mine-tokenizer --text {TEXT} --width 64 --depth 1 --batch 4 "
    "--context-tokens 12 --diffusion-width 16 --diffusion-depth 1 --head-steps 2"
).split()
CHECKPOINT_OPTIONS = ["checkpoints/MINE", "--transformer", "mine"]
Command = Callable[..., int]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with twelve images, and a side at which a step takes no time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(tokenizer.SCALES, SIDE, (1, 2))
    (tmp_path / "mine").mkdir()
    for colour in COLOURS:
        for shape, box in {"square": (8, 8, 32, 32), "bar": (0, 16, 40, 24)}.items():
            image = Image.new("RGB", (40, 40), "white")
            image.paste(colour, box)
            image.save(tmp_path / "mine" / f"{colour}-{shape}.png")
            (tmp_path / "mine" / f"{colour}-{shape}.txt").write_text(f"a {colour} {shape}\n{shape}, {colour}\n")
    return tmp_path


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Command:
    """Calls a command with its arguments and returns the exit code."""

    def call(module: object, *words: str) -> int:
        monkeypatch.setattr(sys, "argv", [module.__name__, *words])  # type: ignore[attr-defined]
        try:
            return run_command(module.main)  # type: ignore[attr-defined]
        except SystemExit as ended:
            return int(ended.code or 0)

    return call


@pytest.fixture
def trained(command: Command) -> None:
    """Both trainings, a few steps each."""
    assert command(tokenizer, *TOKENIZER_OPTIONS, "--steps", "3") == 0
    assert command(transformer, *TRANSFORMER_OPTIONS, "--steps", "3") == 0


def events(run: str, event: str) -> list[dict[str, Any]]:
    lines = map(json.loads, Path(f".cache/training/{run}/log.jsonl").read_text().splitlines())
    return [line for line in lines if line.get("event") == event]


@pytest.mark.usefixtures("trained")
def test_three_commands_make_a_checkpoint_that_draws(command: Command, capfd: pytest.CaptureFixture[str]) -> None:
    assert command(assemble, *CHECKPOINT_OPTIONS, "--safety", str(SAFETY)) == 0
    made = Checkpoint.open("checkpoints/MINE")
    assert made.tokenizer_config.image_side == SIDE
    assert made.transformer_config.patch_nums == (1, 2)
    assert (made.transformer_config.diff_width, made.transformer_config.diff_depth) == (16, 1)
    assert len(made.known_prompts()) == 12
    assert made.vocabulary().unfamiliar("square, red zebra") == ["zebra"]
    picture = Pipeline.load("checkpoints/MINE").draw("a red square", seed=1)
    assert picture.pixels.shape == (SIDE, SIDE, 3)
    assert picture.verdict is not None
    card = Path("checkpoints/MINE/README.md").read_text()
    assert "12 images with captions, from a folder named `mine`" in card
    lines = [shlex.split(line) for line in card.splitlines() if line.startswith("python -m training.t")]
    parsed = [tokenizer.parse(FolderImages(), lines[0][3:]), transformer.parse(FolderDataset(), lines[1][3:])]
    for options in parsed:  # the card's commands can be typed
        logged = events(options.name, "started")[-1]["options"]
        assert {name: value for name, value in loggable(options).items() if name != "side"} == {
            name: value for name, value in logged.items() if name != "side"
        }
    assert f"python -m training.checkpoint checkpoints/MINE --transformer mine --safety {SAFETY}" in card
    head = json.loads(Path(".cache/training/mine/head/log.jsonl").read_text().splitlines()[-1])
    assert f"| drawn residual: error at temperature 1 | {head['error_1']} |" in card
    figures = events("mine-tokenizer", "done")[-1]
    assert f"| tokenizer: continuous, dB | {figures['continuous']} |" in card


@pytest.mark.usefixtures("trained")
def test_a_missing_safety_model_is_reported(command: Command, capfd: pytest.CaptureFixture[str]) -> None:
    assert command(assemble, *CHECKPOINT_OPTIONS) == 0
    assert "There is no safety model." in capfd.readouterr().err
    assert "There is no safety model." in Path("checkpoints/MINE/README.md").read_text()
    Pipeline.load("checkpoints/MINE", safety=False).draw("a red square", seed=1)
    Path(".cache/training/mine/prompts.txt").unlink()
    assert command(assemble, *CHECKPOINT_OPTIONS, "--safety", str(SAFETY)) == 0
    assert command(assemble, *CHECKPOINT_OPTIONS) == 0  # what is there stays
    assert not Path("checkpoints/MINE/prompts.txt").exists()  # another transformer's would stay
    assert command(transformer, *TRANSFORMER_OPTIONS, "--steps", "2") == 0
    assert command(transformer, *TRANSFORMER_OPTIONS, "--steps", "3") == 0
    assert command(assemble, *CHECKPOINT_OPTIONS) == 0
    card = Path("checkpoints/MINE/README.md").read_text()
    assert "--steps 2" not in card, "the last start is quoted, also where one before it was the same"
    assert "safety model in `safety/`" in Path("checkpoints/MINE/README.md").read_text()
    assert Pipeline.load("checkpoints/MINE").safety is not None


def test_a_run_that_was_stopped_is_the_same_run(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    assert command(tokenizer, *TOKENIZER_OPTIONS, "--steps", "4") == 0
    straight = torch.load(f".cache/training/mine-tokenizer/{STATE}")["parts"]["network"]
    again = [word.replace("mine-tokenizer", "again") for word in TOKENIZER_OPTIONS]
    for _ in range(4):
        assert command(tokenizer, *again, "--steps", "4", "--time-limit", "0.00001") == 0  # a step at a time
    assert events("again", "written")
    resumed = torch.load(f".cache/training/again/{STATE}")["parts"]["network"]
    assert len(events("again", "resumed")) == 3
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)


def test_captions_are_for_the_transformer_alone(command: Command, capfd: pytest.CaptureFixture[str]) -> None:
    Path("mine/red-bar.txt").unlink()
    assert command(tokenizer, *TOKENIZER_OPTIONS, "--steps", "1") == 0
    assert command(transformer, *TRANSFORMER_OPTIONS, "--steps", "1") == 2
    assert "red-bar.png: no caption; expected red-bar.txt beside it" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--images", "gone"], "gone: no such folder"),
        (["--styles", "noto"], "unrecognized arguments: --styles noto"),
        (["--batch", "12"], "12 images, 11 without those held out"),
        (["--batch", "1"], "--batch: 1: codes are learned"),
        (["--width", "48"], "--width: 48: must be a multiple of 32"),
        (["--vocabulary", "65536"], "--vocabulary: 65536: must be at most 32768"),
        (["--side", "100"], "--side: invalid choice: 100"),
        (["--init-from", "gone"], "--init-from gone: no such folder"),
        (["--init-from", "mine-tokenizer"], "--init-from: mine-tokenizer: is this run (--name)"),
        (["--steps", "0"], "--steps: 0: must be at least 1"),
        (["--seed", "-1"], "--seed: -1: must be from 0"),
    ],
)
def test_the_tokenizer_names_an_option_that_does_not_fit(
    command: Command, words: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert command(tokenizer, *TOKENIZER_OPTIONS, *words) == 2
    assert message in capfd.readouterr().err
    assert not Path(f".cache/training/mine-tokenizer/{STATE}").exists()


def test_a_missing_init_is_reported_before_images_are_read(command: Command, capfd: pytest.CaptureFixture[str]) -> None:
    Path("mine/red-bar.png").write_bytes(b"no image")
    assert command(tokenizer, *TOKENIZER_OPTIONS, "--init-from", "gone") == 2
    assert "--init-from gone: no such folder" in capfd.readouterr().err
    Path("empty").mkdir()
    assert command(tokenizer, *TOKENIZER_OPTIONS, "--init-from", "empty") == 2
    assert "--init-from empty: empty/state.pt is missing" in capfd.readouterr().err


def test_another_network_does_not_resume_a_runs_state(command: Command, capfd: pytest.CaptureFixture[str]) -> None:
    assert command(tokenizer, *TOKENIZER_OPTIONS, "--steps", "1") == 0
    assert command(tokenizer, *TOKENIZER_OPTIONS, "--width", "64") == 2
    assert "is the state of another network than these options build" in capfd.readouterr().err
    assert len(events("mine-tokenizer", "started")) == 1, "a card quotes the last start"
    wider = [word.replace("mine-tokenizer", "wider") for word in TOKENIZER_OPTIONS]
    assert command(tokenizer, *wider, "--width", "64", "--init-from", "mine-tokenizer") == 2
    assert "no tokenizer of this --width and --vocabulary" in capfd.readouterr().err


@pytest.mark.usefixtures("trained")
def test_parts_that_do_not_belong_together_are_refused(command: Command, capfd: pytest.CaptureFixture[str]) -> None:
    def refused(module: object, *words: str) -> str:
        assert command(module, *words) == 2
        return capfd.readouterr().err

    for option, value in {"concepts": "3", "variants": "2", "scenes": "5", "styles": "noto"}.items():
        message = refused(transformer, *TRANSFORMER_OPTIONS, f"--{option}", value)
        assert f"unrecognized arguments: --{option} {value}" in message
    assert "--side 128: --tokenizer mine-tokenizer was trained at 32" in refused(
        transformer, *TRANSFORMER_OPTIONS, "--side", "128"
    )
    assert "--width: 32: must be a multiple of 64" in refused(transformer, *TRANSFORMER_OPTIONS, "--width", "32")
    assert "--width: 100: must be a multiple of 64" in refused(transformer, *TRANSFORMER_OPTIONS, "--width", "100")
    assert "config.json cannot be read" in refused(transformer, *TRANSFORMER_OPTIONS, "--text", "mine")
    assert "--text gone: no such folder" in refused(transformer, *TRANSFORMER_OPTIONS, "--text", "gone")
    assert "is a gemma2; expected a qwen2" in refused(transformer, *TRANSFORMER_OPTIONS, "--text", str(SAFETY))
    message = refused(transformer, *TRANSFORMER_OPTIONS, "--context-tokens", "513")
    assert f"--context-tokens 513: --text {TEXT} reads at most 512" in message
    Path(".cache/training/begun").mkdir()
    message = refused(transformer, *TRANSFORMER_OPTIONS, "--tokenizer", "begun")
    assert "--tokenizer begun: .cache/training/begun/tokenizer is missing: its training has not ended" in message

    assert "--transformer begun: " in refused(assemble, "checkpoints/MINE", "--transformer", "begun")
    message = refused(assemble, "checkpoints/MINE", "--transformer", "mine-tokenizer")
    assert "mine-tokenizer has no log of a transformer's training" in message
    message = refused(assemble, *CHECKPOINT_OPTIONS, "--safety", str(TEXT))
    assert f"--safety {TEXT}: " in message
    assert "--safety gone: no such folder" in refused(assemble, *CHECKPOINT_OPTIONS, "--safety", "gone")
    other = [word.replace("mine-tokenizer", "other") for word in TOKENIZER_OPTIONS]
    assert command(tokenizer, *other, "--steps", "1", "--seed", "5") == 0
    message = refused(assemble, *CHECKPOINT_OPTIONS, "--tokenizer", "other")
    assert "--tokenizer .cache/training/other: is not what .cache/training/mine was trained with" in message
    Path("README.md").write_text("another project")
    assert "holds other files already" in refused(assemble, ".", "--transformer", "mine")
    assert Path("README.md").read_text() == "another project"
    assert not Path("checkpoints").exists()


def test_options_name_the_released_networks() -> None:
    chosen = tokenizer.parse(
        FolderImages(), ["--images", "mine", "--width", "160", "--vocabulary", "4096", "--side", "1024"]
    )
    words = "--width 1536 --depth 24 --context-tokens 300 --diffusion-width 1024 --diffusion-depth 6"
    shape = tokenizer.config_of(chosen)
    config = transformer.config_of(
        transformer.parse(FolderDataset(), ["--images", "mine", *words.split()]), shape, context_dim=1536
    )
    assert config.patch_nums == TRANSFORMER.patch_nums
    assert config.num_heads == TRANSFORMER.num_heads
    with torch.device("meta"):
        network, released = fresh_transformer(config, shape), fresh_transformer(TRANSFORMER, TOKENIZER)
        mine, theirs = HybridTokenizer(shape).state_dict(), HybridTokenizer(TOKENIZER).state_dict()
    sizes = {name: tensor.shape for name, tensor in network.state_dict().items()}
    assert sizes.pop("context_norm.weight") == (1536,)
    assert sizes == {name: tensor.shape for name, tensor in released.state_dict().items()}
    assert {name: tensor.shape for name, tensor in mine.items()} == {n: t.shape for n, t in theirs.items()}
    assert round(sum(tensor.numel() for tensor in network.parameters()) / 1e6, 2) == 732.40
    assert round(sum(tensor.numel() for tensor in network.diffloss.parameters()) / 1e6, 2) == 36.59


def test_the_recipes_defaults() -> None:
    options = transformer.parse(EmojiDatasetSource(), ["--scenes", "5"])
    assert (options.styles, options.variants, options.scenes) == (["flat"], 12, 5)
    config = transformer.config_of(options, TOKENIZER, context_dim=16)
    assert (config.diff_width, config.diff_depth) == (192, 2)


@pytest.mark.parametrize("side", [128, 256, 512, 1024])
def test_scales_of_a_side_end_at_its_latent(side: int) -> None:
    options = tokenizer.parse(FolderImages(), ["--images", "mine", "--side", str(side)])
    assert tokenizer.config_of(options).image_side == side

"""model.text, model.safety, model.vocabulary: folders are read completely or refused by name; unknown words."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from model.checkpoint import Checkpoint
from model.errors import CheckpointError, ConfigError
from model.vocabulary import Vocabulary

PARTS = ("text_encoder", "safety")


@pytest.fixture
def folder(tiny: Path, tmp_path: Path) -> Path:
    """A copy of the complete checkpoint to damage."""
    return Path(shutil.copytree(tiny, tmp_path / "tiny"))


def load(folder: Path, part: str) -> object:
    checkpoint = Checkpoint.open(folder)
    return checkpoint.load_text_encoder() if part == "text_encoder" else checkpoint.load_safety()


def edit_weights(folder: Path, edit_state: Callable[[dict[str, torch.Tensor], str], None]) -> str:
    """Change the weights by `edit_state(weights, name)`. Returns the name, that of a weight in every such model."""
    path = folder / "model.safetensors"
    state = load_file(path)
    name = next(key for key in sorted(state) if key.endswith("q_proj.weight"))
    edit_state(state, name)
    save_file(state, path, {"format": "pt"})
    return name


def _widen(state: dict[str, torch.Tensor], name: str) -> None:
    state[name] = torch.zeros(3, 5)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(
    ("edit_state", "message"),
    [
        (lambda state, name: state.pop(name), "the weights do not match config.json; missing: {name}"),
        (lambda state, _: state.update({"model.odd": torch.zeros(1)}), "unexpected: "),
        (_widen, "{name} has shape (3, 5), config.json requires "),
    ],
    ids=["missing", "unexpected", "shape"],
)
def test_weights_that_do_not_fit_are_named(
    folder: Path, part: str, edit_state: Callable[..., None], message: str
) -> None:
    name = edit_weights(folder / part, edit_state)
    with pytest.raises(CheckpointError) as refused:
        load(folder, part)
    assert message.format(name=name) in str(refused.value)
    assert str(folder / part) in str(refused.value)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe\x00 no such thing"], ids=["absent", "empty", "garbage"])
def test_absent_or_broken_file_is_a_checkpoint_error(folder: Path, part: str, file: str, content: bytes | None) -> None:
    for slower in ("vocab.json", "merges.txt"):  # tokenizer.json could be rebuilt from these
        (folder / part / slower).unlink(missing_ok=True)
    (folder / part / file).unlink() if content is None else (folder / part / file).write_bytes(content)
    with pytest.raises(CheckpointError, match=part):
        load(folder, part)


@pytest.mark.parametrize("threshold", [-0.1, 1.5, float("nan")])
def test_threshold_that_is_no_probability_is_refused(folder: Path, threshold: float) -> None:
    path = folder / "safety" / "policies.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "threshold": threshold}))
    with pytest.raises(CheckpointError, match=r"policies\.json: threshold = .*expected 0 to 1"):
        load(folder, "safety")


def test_misspelt_config_key_is_refused(folder: Path) -> None:
    path = folder / "llm" / "config.json"
    values = json.loads(path.read_text())
    values["diffloss_depth"] = values.pop("diffloss_d", 6)
    values["contxt_token"] = values.pop("context_token")
    path.write_text(json.dumps(values))
    with pytest.raises(ConfigError, match=r"contxt_token.*context_token is missing"):
        Checkpoint.open(folder)


@pytest.mark.parametrize("file", ["prompts.txt", "vocabulary.txt", "text_encoder/system_prompt.txt"])
def test_text_that_is_not_utf8_names_its_file(folder: Path, file: str) -> None:
    (folder / file).write_bytes(b"a \xff heart")
    with pytest.raises(CheckpointError, match=f"{file}: not UTF-8"):
        checkpoint = Checkpoint.open(folder)
        checkpoint.known_prompts()
        checkpoint.vocabulary()
        checkpoint.load_text_encoder()


def test_words_out_of_vocabulary_are_named_once_each() -> None:
    vocabulary = Vocabulary(frozenset({"a", "red", "hot", "dog"}))
    assert vocabulary.unfamiliar("A RED cat, a hot-dog and a cat’s red-cat") == ["cat", "and", "cat's", "red-cat"]


def test_without_a_vocabulary_no_word_is_named() -> None:
    assert Vocabulary(frozenset()).unfamiliar("zebra") == []


def test_pictograph_is_a_word_out_of_vocabulary() -> None:
    vocabulary = Vocabulary(frozenset({"a", "red", "❤"}))
    assert vocabulary.unfamiliar("a red 🦖 and \u2764\ufe0f, 🍕🍕!") == ["and", "🦖", "🍕"]

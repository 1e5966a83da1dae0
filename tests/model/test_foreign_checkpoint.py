"""model.checkpoint: folders and files as other tools leave them are loaded, or refused with the remedy."""

import shutil
from pathlib import Path

import pytest
import torch

from model.checkpoint import Checkpoint
from model.errors import CheckpointError
from model.pipeline import Pipeline

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab29\nsize 12345\n"
ADVICE = "this is a Git LFS pointer: run git lfs pull"


@pytest.fixture
def folder(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_checkpoint, tmp_path / "mine")


@pytest.fixture
def weights(folder: Path) -> Path:
    """The transformer's pickle."""
    return next((folder / "llm").glob("ema_model.*"))


def state_of(folder: Path) -> dict[str, torch.Tensor]:
    return dict(Checkpoint.open(folder).load_transformer().state_dict())


def replace_weights(weights: Path, content: object, name: str = "ema_model.bin") -> None:
    weights.unlink()
    torch.save(content, weights.with_name(name))


def test_pointers_of_every_part_are_named_in_one_error(folder: Path) -> None:
    large = ("*.safetensors", "*.bin", "tokenizer.json")
    files = [path for pattern in large for path in folder.rglob(pattern)]
    for path in files:
        path.write_bytes(POINTER)
    with pytest.raises(CheckpointError) as raised:
        Pipeline.load(folder)
    lines = str(raised.value).splitlines()
    assert sorted(lines) == sorted(f"{path}: {ADVICE}" for path in files)
    assert {path.parent.name for path in files} == {"llm", "tokenizer", "text_encoder", "safety"}


@pytest.mark.parametrize("part", ["llm", "tokenizer", "text_encoder", "safety"])
@pytest.mark.parametrize("suffix", [".json", ".bin", ".safetensors"])
def test_a_pointer_is_never_read_as_something_else(folder: Path, part: str, suffix: str) -> None:
    chosen = [path for path in (folder / part).iterdir() if path.suffix == suffix]
    if not chosen:
        pytest.skip(f"{part} has no {suffix} file")
    for path in chosen:
        path.write_bytes(POINTER)
    with pytest.raises(CheckpointError) as raised:
        Pipeline.load(folder)
    assert sorted(str(raised.value).splitlines()) == sorted(f"{path}: {ADVICE}" for path in chosen)


@pytest.mark.parametrize("file", ["prompts.txt", "vocabulary.txt", "generation.json"])
def test_a_pointer_among_the_texts_is_named(folder: Path, file: str) -> None:
    (folder / file).write_bytes(POINTER)
    checkpoint = Checkpoint.open(folder)
    reads = {
        "prompts.txt": checkpoint.known_prompts,
        "vocabulary.txt": checkpoint.vocabulary,
        "generation.json": lambda: checkpoint.sampling_defaults,
    }
    with pytest.raises(CheckpointError, match=f"{file}: {ADVICE}"):
        reads[file]()


def test_a_part_is_loaded_while_another_has_pointers(folder: Path) -> None:
    next((folder / "text_encoder").glob("*.safetensors")).write_bytes(POINTER)
    assert Checkpoint.open(folder).load_quantizer() is not None


@pytest.mark.parametrize("container", ["state_dict", "model", "module"])
@pytest.mark.parametrize("prefix", ["", "module.", "module._orig_mod."])
def test_a_training_state_is_loaded(folder: Path, weights: Path, container: str, prefix: str) -> None:
    expected = state_of(folder)
    wrapped = {f"{prefix}{name}": tensor for name, tensor in expected.items()}
    replace_weights(weights, {container: wrapped, "epoch": 3, "optimizer": {"lr": 0.1}})
    found = state_of(folder)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_pickle_with_two_states_is_refused_with_its_keys(folder: Path, weights: Path) -> None:
    state = state_of(folder)
    replace_weights(weights, {"model": state, "state_dict": state, "epoch": 3})
    with pytest.raises(CheckpointError, match=r"one of state_dict, model, module; .* keys epoch, model, state_dict"):
        state_of(folder)


def test_weights_named_model_are_refused_with_the_name_they_need(folder: Path, weights: Path) -> None:
    weights.unlink()
    (folder / "llm" / "model.safetensors").touch()
    with pytest.raises(CheckpointError, match=r"if model.safetensors has averaged weights, rename it to ema_model"):
        Checkpoint.open(folder).load_transformer()


@pytest.mark.parametrize("outer", ["download", "models--me--mine/snapshots/4d7a"])
def test_a_folder_above_the_checkpoint_is_refused_with_the_right_one(folder: Path, tmp_path: Path, outer: str) -> None:
    inner = tmp_path / outer / "mine"
    inner.parent.mkdir(parents=True)
    folder.rename(inner)
    with pytest.raises(CheckpointError, match=rf"not a checkpoint; .*; did you mean {inner}\?"):
        Checkpoint.open(tmp_path / outer.partition("/")[0])


@pytest.mark.parametrize("part", ["tokenizer", "text_encoder", "safety"])
def test_a_part_is_refused_with_the_whole_folder(folder: Path, part: str) -> None:
    with pytest.raises(CheckpointError, match=f"one part of a checkpoint; name the whole folder, {folder}"):
        Checkpoint.open(folder / part)

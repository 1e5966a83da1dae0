"""model.checkpoint: what is read from checkpoint folders, and the errors of faulty ones."""

import json
import logging
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from model.checkpoint import Checkpoint
from model.errors import CheckpointError, ConfigError
from tests.model.golden import ImageCase, difference

GOLDEN = Path(__file__).parent.parent / "golden"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of a golden checkpoint to damage."""
    copy = tmp_path / "hart-tiny"
    shutil.copytree(GOLDEN / "plain" / "checkpoint", copy)
    return copy


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(folder / "llm" / "ema_model.bin", weights_only=True)
    return state


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_ema_weights_are_used_instead_of_the_raw_ones(plain: ImageCase) -> None:
    net = plain.checkpoint.load_transformer()
    ema, raw = weights_of(plain.checkpoint.llm.parent), load_file(plain.checkpoint.llm / "model.safetensors")
    assert difference(net.head.weight, ema["head.weight"]) == 0
    assert difference(net.head.weight, raw["head.weight"]) > 0


def test_llm_folder_is_accepted_as_the_checkpoint(folder: Path) -> None:
    by_parent, by_llm = Checkpoint.open(folder), Checkpoint.open(folder / "llm")
    assert by_llm.name == by_parent.name == "hart-tiny"
    assert by_llm.tokenizer.resolve() == by_parent.tokenizer.resolve()
    by_llm.load_transformer()
    by_llm.load_quantizer()


def test_vae_path_names_another_tokenizer_folder(folder: Path) -> None:
    (folder / "tokenizer").rename(folder / "other")
    edit(folder / "llm" / "config.json", vae_path="../other")
    assert Checkpoint.open(folder).load_tokenizer().config.side == 4


def test_safetensors_is_preferred_to_the_pickle_with_a_warning(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = {name: tensor.contiguous() + 1 for name, tensor in weights_of(folder).items()}
    save_file(state, folder / "llm" / "ema_model.safetensors")
    with caplog.at_level(logging.WARNING):
        net = Checkpoint.open(folder).load_transformer()
    assert "ema_model.safetensors is used, not ema_model.bin" in caplog.text
    assert difference(net.head.weight, state["head.weight"]) == 0


def shard(folder: Path) -> Path:
    """Split the EMA weights into two safetensors files with an index."""
    state = weights_of(folder)
    (folder / "llm" / "ema_model.bin").unlink()
    names = sorted(state)
    files = {name: f"ema_model-0000{1 + (i % 2)}-of-00002.safetensors" for i, name in enumerate(names)}
    for file in set(files.values()):
        save_file({n: state[n].contiguous() for n in names if files[n] == file}, folder / "llm" / file)
    index = folder / "llm" / "ema_model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": files}))
    return index


def test_sharded_safetensors_load_like_one_file(folder: Path) -> None:
    whole = Checkpoint.open(folder).load_transformer().state_dict()
    shard(folder)
    pieces = Checkpoint.open(folder).load_transformer().state_dict()
    assert whole.keys() == pieces.keys()
    assert all(torch.equal(whole[name], pieces[name]) for name in whole)


def test_missing_shard_is_named(folder: Path) -> None:
    shard(folder)
    (folder / "llm" / "ema_model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"ema_model-00002-of-00002.safetensors: no such file.*incomplete"):
        Checkpoint.open(folder).load_transformer()


def test_shard_outside_the_folder_is_refused(folder: Path) -> None:
    index = shard(folder)
    edit(index, weight_map={"head.weight": "../../elsewhere.safetensors"})
    with pytest.raises(CheckpointError, match="is not a file name"):
        Checkpoint.open(folder).load_transformer()


class MaliciousPickle:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_malicious_pickle_is_not_executed(folder: Path, tmp_path: Path, writer: str) -> None:
    ran = tmp_path / "it-ran"
    path = folder / "llm" / "ema_model.bin"
    if writer == "torch":
        torch.save({"head.weight": MaliciousPickle(ran)}, path)
    else:
        path.write_bytes(pickle.dumps({"head.weight": MaliciousPickle(ran)}))
    with pytest.raises(CheckpointError, match=r"ema_model.bin: not a pickle of plain tensors; its code was not run"):
        Checkpoint.open(folder).load_transformer()
    assert not ran.exists()


@pytest.mark.parametrize(
    ("edit_state", "message"),
    [
        (lambda s: s.pop("head.bias"), "missing: head.bias"),
        (lambda s: s.update({"head.extra": torch.zeros(1)}), "unexpected: head.extra"),
        (lambda s: s.update({"head.bias": torch.zeros(7)}), r"head.bias has shape \(7,\).*requires \(640,\)"),
    ],
)
def test_wrong_keys_and_shapes_are_named(
    folder: Path, edit_state: Callable[[dict[str, torch.Tensor]], object], message: str
) -> None:
    state = weights_of(folder)
    edit_state(state)
    torch.save(state, folder / "llm" / "ema_model.bin")
    with pytest.raises(CheckpointError, match=message):
        Checkpoint.open(folder).load_transformer()


@pytest.mark.parametrize("content", [b"", b"\x00" * 64, b"no pickle at all"])
def test_garbage_weights_are_named(folder: Path, content: bytes) -> None:
    (folder / "llm" / "ema_model.bin").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"ema_model\.bin"):
        Checkpoint.open(folder).load_transformer()
    (folder / "tokenizer" / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: cannot read as safetensors"):
        Checkpoint.open(folder).load_quantizer()


def test_missing_weights_error_lists_expected_and_found_files(folder: Path) -> None:
    (folder / "llm" / "ema_model.bin").rename(folder / "llm" / "ema.bin")
    with pytest.raises(CheckpointError, match=r"expected one of ema_model.safetensors.*found: config.json, ema.bin"):
        Checkpoint.open(folder).load_transformer()


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("llm", {"attn_type": "gpt2"}, "attn_type = 'gpt2': not supported"),
        ("llm", {"use_cross_attn": True}, "use_cross_attn = True: not supported"),
        ("llm", {"sampler": "ddim"}, "sampler = 'ddim'"),
        ("llm", {"mlp_type": "moe"}, "mlp_type = 'moe'"),
        ("llm", {"num_heads": 5}, "num_heads = 5"),
        ("llm", {"depth": "three"}, "depth = 'three': expected int"),
        ("llm", {"depth": 0}, "depth = 0"),
        ("llm", {"num_sampling_steps": "many"}, "num_sampling_steps = 'many'"),
        ("llm", {"patch_nums": [1, 2, 2]}, r"patch_nums = \[1, 2, 2\]"),
        ("llm", {"patch_nums": [1, 2, 3, 5]}, r"patch_nums \[1, 2, 3, 5\] differ"),
        ("tokenizer", {"double_decoder": True}, "double_decoder = True: not supported"),
        ("tokenizer", {"using_znorm": True}, "using_znorm = True: not supported"),
        ("tokenizer", {"quantizer_type": "lfq"}, "quantizer_type = 'lfq'"),
        ("tokenizer", {"ch": 20}, "ch = 20"),
    ],
)
def test_unsupported_config_values_are_named(folder: Path, file: str, changes: dict[str, Any], message: str) -> None:
    edit(folder / file / "config.json", **changes)
    with pytest.raises(ConfigError, match=message):
        Checkpoint.open(folder).load_transformer()


def test_missing_config_key_takes_the_specified_default(folder: Path) -> None:
    path = folder / "llm" / "config.json"
    values = json.loads(path.read_text())
    del values["attn_type"]
    path.write_text(json.dumps(values))
    with pytest.raises(ConfigError, match="attn_type = 'gpt2'"):
        Checkpoint.open(folder).transformer_config  # noqa: B018


def test_missing_or_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        Checkpoint.open(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        Checkpoint.open(tmp_path)


def test_missing_text_encoder_and_safety_are_named(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="text_encoder: no text model here"):
        Checkpoint.open(folder).load_text_encoder()
    with pytest.raises(CheckpointError, match="safety: no safety model here"):
        Checkpoint.open(folder).load_safety()


def test_only_requested_tokenizer_parts_are_loaded(folder: Path) -> None:
    tokenizer = Checkpoint.open(folder).load_tokenizer(torch.bfloat16, parts=("quantize", "decoder"))
    assert not hasattr(tokenizer, "encoder")
    assert not any(parameter.is_meta for parameter in tokenizer.parameters())
    assert tokenizer.quantize.embedding.weight.dtype == torch.float32
    assert tokenizer.decoder.conv_in.weight.dtype == torch.bfloat16


def test_digest_follows_the_weights(folder: Path) -> None:
    shutil.copytree(GOLDEN / "text_left" / "checkpoint", folder / "text_encoder")
    before = Checkpoint.open(folder).digest
    assert Checkpoint.open(folder / "llm").digest == before
    state = weights_of(folder)
    state["head.bias"] += 1
    torch.save(state, folder / "llm" / "ema_model.bin")
    assert Checkpoint.open(folder).digest != before

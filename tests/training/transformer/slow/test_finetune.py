"""training.transformer.finetune: a folder of captioned images becomes a checkpoint; faults are named."""

import dataclasses
from pathlib import Path

import pytest
import torch
from PIL import Image

from model.checkpoint import Checkpoint
from model.text import TextEncoder
from model.tokenizer import HybridTokenizer
from model.transformer import Transformer
from training.checkpoint.export import write_tokenizer, write_transformer
from training.core.cli import run_command
from training.data.folder import FolderError
from training.transformer.finetune import finetune, main, parse

TEXT = Path(__file__).parents[3] / "golden" / "text_right" / "checkpoint"


def picture(path: Path, colour: tuple[int, ...], size: tuple[int, int] = (8, 8)) -> None:
    Image.new("RGBA" if len(colour) == 4 else "RGB", size, colour).save(path)


def test_the_new_checkpoint_is_whole_and_its_transformer_moved(
    transformer: Transformer, tokenizer: HybridTokenizer, tmp_path: Path
) -> None:
    encoder = TextEncoder.load(TEXT, 5)
    config = dataclasses.replace(transformer.config, context_dim=encoder.width)
    torch.manual_seed(0)
    base, folder, out = tmp_path / "base", tmp_path / "images", tmp_path / "out"
    write_transformer(Transformer(config, 32, 8), base / "llm")
    write_tokenizer(tokenizer, base / "tokenizer")
    (base / "text_encoder").symlink_to(TEXT)
    folder.mkdir()
    for name, colour in {"red": (255, 0, 0), "green": (0, 255, 0)}.items():
        picture(folder / f"{name}.png", colour)
        (folder / f"{name}.txt").write_text(f"a {name} square")
    before = Checkpoint.open(base).load_transformer().state_dict()
    words = [str(folder), "--checkpoint", str(base), "-o", str(out), "--batch", "8", "--rate", "5e-3"]
    accuracy = finetune(Checkpoint.open(base), parse([*words, "--steps", "40", "--head-steps", "3"]))
    made = Checkpoint.open(out)
    after = made.load_transformer().state_dict()
    assert accuracy > 0.5
    assert any(not torch.equal(after[name], before[name]) for name in before)
    assert made.digest_of("tokenizer") == Checkpoint.open(base).digest_of("tokenizer")
    assert made.known_prompts() == ["a green square", "a red square"]

    (folder / "red.txt").write_text("something else")
    with pytest.raises(FolderError, match="started with other images, captions"):
        finetune(Checkpoint.open(base), parse([*words, "--steps", "80"]))


def test_a_wrong_folder_ends_with_code_two_and_a_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(tmp_path), "--checkpoint", str(tmp_path / "gone"), "-o", str(tmp_path / "out")]
    assert run_command(lambda: main(words)) == 2
    assert "gone: no such folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["--steps", "0"], ["--batch", "-1"], ["--minutes", "nan"], ["--rate", "0"], ["--steps", "many"]]
)
def test_a_number_that_makes_no_sense_is_named(
    tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path), "--checkpoint", str(tmp_path / "gone"), "-o", str(tmp_path / "out"), *words])
    assert ended.value.code == 2
    assert f"argument {words[0]}: " in capsys.readouterr().err


def test_a_file_is_no_place_for_a_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path), "--checkpoint", str(tmp_path / "gone"), "-o", str(tmp_path / "out")])
    assert ended.value.code == 2
    assert "out: not a folder" in capsys.readouterr().err

"""training.checkpoint.parts: lists of prompts and words, and copying without loss."""

from pathlib import Path

from model.checkpoint import Checkpoint
from training.checkpoint.parts import MAX_PROMPTS, copy_parts, write_words


def opened(folder: Path) -> Checkpoint:
    return Checkpoint(folder / "llm", folder / "tokenizer", folder / "text_encoder", folder / "safety")


def test_words_are_those_that_a_prompt_is_read_as(tmp_path: Path) -> None:
    write_words(tmp_path, [["A cat, asleep.", "the cat’s nap 🐈"], ["A cat, asleep."]])
    assert opened(tmp_path).known_prompts() == ["A cat, asleep."]
    assert opened(tmp_path).vocabulary().unfamiliar("a cat asleep: the cat's 🐈 dog") == ["dog"]


def test_very_many_prompts_are_sampled_evenly(tmp_path: Path) -> None:
    write_words(tmp_path, [[f"image {i}"] for i in range(3 * MAX_PROMPTS)])
    prompts = opened(tmp_path).known_prompts()
    assert len(set(prompts)) == MAX_PROMPTS
    assert prompts[:2] == ["image 0", "image 3"]
    assert opened(tmp_path).vocabulary().unfamiliar("image 2999") == []


def test_a_part_that_is_in_its_place_already_stays(tmp_path: Path) -> None:
    (tmp_path / "safety" / "deeper").mkdir(parents=True)
    (tmp_path / "safety" / "config.json").write_text("{}")
    (tmp_path / "safety" / "deeper" / "file").touch()
    copy_parts(tmp_path, {"safety": tmp_path / "safety"})
    assert (tmp_path / "safety" / "config.json").exists()
    copy_parts(tmp_path / "other", {"safety": tmp_path / "safety"})
    assert (tmp_path / "other" / "safety" / "deeper" / "file").exists()

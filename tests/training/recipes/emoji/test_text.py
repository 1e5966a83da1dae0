"""training.text and its recipe: the trained hidden states are those that the generator reads; files are complete."""

from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from training.recipes.emoji.concepts import Concept
from training.recipes.emoji.corpus import write_prompts, write_vocabulary
from training.text import teacher
from training.text.bpe import id_count, save_bpe, train_bpe

SIZES, COLOURS, NOUNS = ("small", "big"), ("red", "blue", "green"), ("cat", "heart", "tree")
SENTENCES = [f"a {size} {colour} {noun}" for size in SIZES for colour in COLOURS for noun in NOUNS]


@pytest.fixture(autouse=True)
def small_teacher(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fake teacher: the sum of a fixed random direction for each word."""

    def embed(texts: list[str]) -> np.ndarray:
        words = {
            w: np.random.default_rng(sum(map(ord, w))).standard_normal(teacher.WIDTH) for t in texts for w in t.split()
        }
        sums = np.stack([sum(words[w] for w in t.split()) for t in texts])
        return (sums / np.linalg.norm(sums, axis=1, keepdims=True)).astype(np.float32)

    monkeypatch.setattr(teacher, "embed", embed)


def test_capitals_and_reading_back_from_disk_change_no_id(tmp_path: Path) -> None:
    tokenizer = train_bpe([*SENTENCES, "a woman's two-hump hat, 3d"], 320)
    save_bpe(tokenizer, tmp_path, 20)
    (tmp_path / "config.json").write_text('{"model_type": "qwen2"}')
    read = AutoTokenizer.from_pretrained(tmp_path)
    for words in ("a red heart", "red heart, big", "a woman's two-hump hat, 3d", "unseen words!"):
        ids = tokenizer(words)["input_ids"]
        assert read(words)["input_ids"] == ids
        assert read(words.title().replace("'S", "'s"))["input_ids"] == ids
        assert read(words.upper())["input_ids"] == ids
        assert max(ids) < id_count(tokenizer) <= 320
        assert 0 not in ids
    assert read.pad_token_id == 0
    assert read("red heart")["input_ids"] == read("a red heart")["input_ids"][1:]


def test_vocabulary_and_prompts_list_each_once(tmp_path: Path) -> None:
    concepts = [Concept(style, "red heart", ("love",), "g", "s", "1") for style in ("flat", "noto")]
    write_vocabulary(concepts, tmp_path / "vocabulary.txt")
    write_prompts(concepts, tmp_path / "prompts.txt")
    assert (tmp_path / "prompts.txt").read_text() == "a red heart\n"
    words = (tmp_path / "vocabulary.txt").read_text().split()
    assert words == sorted(set(words))
    assert {"red", "heart", "love", "flat", "noto"} <= set(words)
    assert "twemoji" not in words

"""training.text and its recipe: the trained hidden states are those that the generator reads; files are complete."""

from pathlib import Path

import numpy as np
import pytest
import torch

from model.text import TextEncoder
from training.recipes.emoji.corpus import SYSTEM_PROMPT
from training.text import teacher, train
from training.text.bpe import id_count, train_bpe
from training.text.corpus import Corpus

SIZES, COLOURS, NOUNS = ("small", "big"), ("red", "blue", "green"), ("cat", "heart", "tree")
SENTENCES = [f"a {size} {colour} {noun}" for size in SIZES for colour in COLOURS for noun in NOUNS]
SETTINGS = train.TextConfig(
    steps=30, batch=9, warmup=5, width=128, layers=2, mlp=128, vocabulary=320, save_every=10, bag_epochs=1
)


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


@pytest.fixture
def corpus() -> Corpus:
    return Corpus(SYSTEM_PROMPT, SENTENCES, [], [], [])


def test_training_sees_the_hidden_states_that_the_generator_reads(tmp_path: Path, corpus: Corpus) -> None:
    student, tokenizer = train.train(SETTINGS, corpus, tmp_path)
    ids = tokenizer(SENTENCES[:3], padding=True, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        trained = student(ids)
    train.export(student, tokenizer, SYSTEM_PROMPT, tmp_path / "text_encoder")
    encoder = TextEncoder.load(tmp_path / "text_encoder", train.CONTEXT_TOKENS)
    read = encoder.encode(SENTENCES[:3]).conditioning
    length = ids.shape[1]
    torch.testing.assert_close(read.context[:, :length], trained[:, :length], rtol=0.03, atol=0.03)  # halved on disk
    torch.testing.assert_close(read.context[:, -1], trained[:, -1], rtol=0.03, atol=0.03)
    assert (tmp_path / "text_encoder/system_prompt.txt").read_text() == SYSTEM_PROMPT
    assert encoder.system_ids == tokenizer(SYSTEM_PROMPT)["input_ids"]
    assert 0.5 < float(read.context.pow(2).mean().sqrt()) < 2


def test_distillation_brings_a_sentence_nearer_to_its_teacher(tmp_path: Path, corpus: Corpus) -> None:
    tokenizer = train_bpe([*SENTENCES, SYSTEM_PROMPT], 320)
    ids = torch.nn.utils.rnn.pad_sequence(
        [torch.tensor(i) for i in tokenizer(SENTENCES)["input_ids"]], batch_first=True
    )
    target = torch.from_numpy(teacher.embed(SENTENCES))
    torch.manual_seed(0)
    fresh = train.Student(SETTINGS, id_count(tokenizer), tokenizer(SYSTEM_PROMPT)["input_ids"])
    trained, _ = train.train(SETTINGS, corpus, tmp_path)
    with torch.no_grad():
        assert float(trained.loss(ids, target)) < 0.5 * float(fresh.loss(ids, target))


def test_a_stopped_run_resumes(tmp_path: Path, corpus: Corpus) -> None:
    train.train(SETTINGS, corpus, tmp_path)
    assert torch.load(tmp_path / "text.pt", weights_only=True)["step"] == 30
    first, _ = train.train(SETTINGS, corpus, tmp_path)
    second, _ = train.train(SETTINGS, corpus, tmp_path)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(a, b)

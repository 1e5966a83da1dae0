"""training.safety: disguises are undone, shares stay apart, the bundle loads the result."""

from pathlib import Path

import numpy as np
import pytest
import torch

from model.safety import SafetyClassifier
from training.safety import train
from training.safety.evaluate import flagged_share
from training.safety.model import network, train_tokenizer
from training.safety.prompts import Example

BAD = {f"nasty{a}{b}": policy for a in "abcdef" for b in "uvwxyz" for policy in ("harassment",)}
SAFE = ["a red heart", "a cat", "a tree", "a small blue house"]


@pytest.fixture(scope="module")
def tokenizer() -> object:
    return train_tokenizer([*SAFE, *BAD, "a naked woman", "cockatoo"], 512)


def test_training_parts_unsafe_from_safe_and_the_bundle_reads_it(tokenizer: object, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = network(len(tokenizer), width=64, layers=1)  # type: ignore[arg-type]
    examples = [Example(text, frozenset(), "ordinary") for text in SAFE]
    examples += [Example("a naked woman", frozenset({"sexually_explicit"}), "sentence") for _ in SAFE]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(60):
        loss = train.loss_of(model, tokenizer, examples, np.random.default_rng(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    train.export(model.eval(), tokenizer, tmp_path, 0.7)
    classifier = SafetyClassifier.load(tmp_path)
    verdicts = classifier.check(["a red heart", "a naked woman", "a N@k3d woman"])
    assert [verdict.violated for verdict in verdicts] == [None, "sexually_explicit", "sexually_explicit"]
    assert flagged_share(classifier, ["a cat", "a naked woman"]) == 0.5
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 2_000_000

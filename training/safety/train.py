"""Trains the small safety classifier.

It stands in for ShieldGemma, so that a request's whole path can run: it has learned English words from public lists and
sentences from a small grammar, and is no protection.

Its embeddings are initialised from a sentence model, so that unseen words behave like words of similar meaning. The
threshold is chosen on a share of its own, used neither for training nor for measuring.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Gemma2ForCausalLM, PreTrainedTokenizerFast

from model.safety import SafetyClassifier
from training.core.device import autocast
from training.core.images import CPU
from training.core.loop import EMA, Budget, Intervals, Progress, Run
from training.core.optim import Optimizers, rate_share
from training.core.options import OptionError
from training.data.english import with_article
from training.safety.corpus import Prompts, Sources, draw_batch
from training.safety.evaluate import choose_threshold, measure
from training.safety.hard_negatives import FROM, HardNegatives
from training.safety.model import answers, network, train_tokenizer, write_policies
from training.safety.prompts import POLICIES, Example
from training.text import teacher
from training.text.bag import train_bag

VERSION = "hart-small-5"
HARD_IN_BATCH, FRESH = 12, 2500
FIRST_SEARCH = 60
"""Of hard negatives, in a run that starts from a trained classifier."""
ROWS = 64
"""Questions, or prompts with all policies, of one forward pass."""
NAMES_APART = 5
"""Of every so many names one is searched in such a run: a trained classifier passes names."""


@dataclass(frozen=True)
class SafetyConfig:
    """Length and rate of the training."""

    steps: int = 1800
    rate: float = 2e-3
    vocabulary: int = 4096
    bag_epochs: int = 12
    embedding_size: float = 0.3
    """Root mean square of the initial embeddings: large beside an optimiser's step, so that meanings persist."""
    init_from: Path | None = None
    """The folder of a classifier whose weights and tokenizer are trained on."""


def questions(example: Example, rng: np.random.Generator) -> list[tuple[str, str, int]]:
    """(prompt, policy, answer: 0 is Yes) of an example: the policies it breaks and one it does not; safe examples two.

    A listed word is paired with its own policy alone, since it may break others too.
    """
    kept = [policy for policy in POLICIES if policy not in example.policies]
    others = {"word": 0, "sentence": 1, "hard": 4}.get(example.kind, 2)
    asked = [(example.prompt, policy, 0) for policy in sorted(example.policies)]
    return asked + [(example.prompt, kept[i], 1) for i in rng.permutation(len(kept))[:others]]


def loss_of(
    model: Gemma2ForCausalLM, tokenizer: PreTrainedTokenizerFast, examples: list[Example], rng: np.random.Generator
) -> Tensor:
    """Cross-entropy of Yes against No over the examples' questions."""
    asked = [row for example in examples for row in questions(example, rng)]
    asked.sort(key=lambda row: len(row[0].encode()))  # rows of like lengths together, so that little is padding
    losses = []
    for start in range(0, len(asked), ROWS):
        part = asked[start : start + ROWS]
        logits = answers(model, tokenizer, [(prompt, policy) for prompt, policy, _ in part])
        given = torch.tensor([answer for _, _, answer in part])
        losses.append(F.cross_entropy(logits, given, label_smoothing=0.02, reduction="sum"))
    return torch.stack(losses).sum() / len(asked)


@torch.no_grad()
def highest_scores(model: Gemma2ForCausalLM, tokenizer: PreTrainedTokenizerFast, prompts: Sequence[str]) -> Tensor:
    """(n,): each prompt's highest share of Yes over the policies."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i].encode()))
    scores = torch.zeros(len(prompts))
    for start in range(0, len(order), ROWS):
        rows = order[start : start + ROWS]
        logits = answers(model, tokenizer, [(prompts[i], policy) for i in rows for policy in POLICIES])
        scores[rows] = logits.float().softmax(1)[:, 0].view(-1, len(POLICIES)).max(1).values
    return scores


def initialise(
    model: Gemma2ForCausalLM, tokenizer: PreTrainedTokenizerFast, texts: list[str], config: SafetyConfig
) -> None:
    """Initialises the embeddings so that words of similar meaning lie together."""
    own = model.model.embed_tokens.weight.data
    encoded = tokenizer(texts)["input_ids"]
    targets = torch.from_numpy(teacher.embed(texts))
    meanings, _ = train_bag(encoded, targets, len(own), own.shape[1], config.bag_epochs)
    own.copy_(meanings * (config.embedding_size / meanings.pow(2).mean().sqrt()))


def begin(prompts: Prompts, config: SafetyConfig) -> tuple[Gemma2ForCausalLM, PreTrainedTokenizerFast]:
    """A fresh network and a tokenizer of the training share, or those of the classifier that the run starts from."""
    if config.init_from is None:
        tokenizer = train_tokenizer(prompts.texts(), config.vocabulary)
        return network(len(tokenizer)), tokenizer
    found = SafetyClassifier.load(config.init_from)
    if not isinstance(found.network, Gemma2ForCausalLM):
        raise OptionError(f"--init-from {config.init_from}: a {type(found.network).__name__}, expected Gemma-2")
    return found.network, found.tokenizer


def train(prompts: Prompts, folder: Path, config: SafetyConfig) -> tuple[Gemma2ForCausalLM, PreTrainedTokenizerFast]:
    """Trains, or resumes; returns the averaged weights and the tokenizer."""
    torch.manual_seed(0)
    prompts.leave_out_doubtful()
    model, tokenizer = begin(prompts, config)
    optimizers, average = Optimizers(model, config.rate, ends=("embed_tokens",)), EMA(model)
    grammar = prompts.grammar(np.random.default_rng(0), "training")
    sources = Sources(grammar, prompts.paraphraser(), prompts.innocents())
    hard_negatives = HardNegatives(
        prompts.names[:: NAMES_APART if config.init_from else 1],
        lambda name: grammar.asked(with_article(name), 0.6),
        lambda: [sources.innocents.draw(grammar.rng) for _ in range(FRESH)],
        FIRST_SEARCH if config.init_from else FROM,
    )
    run = Run(folder, {"model": model, "average": average, "optimizers": optimizers, "hard_negatives": hard_negatives})
    if not run.resume() and not config.init_from:
        initialise(model, tokenizer, prompts.unlabelled(), config)
        average.load_state_dict(model.state_dict())
    bpe: Any = tokenizer.backend_tokenizer.model
    kept = average.network
    assert isinstance(kept, Gemma2ForCausalLM)  # noqa: S101 - for the type checker

    def step(now: Progress) -> Mapping[str, float]:
        rng = grammar.rng = np.random.default_rng(now.step)
        if hard_negatives.due(now.step):
            bpe.dropout = None
            hard_negatives.search(lambda names: highest_scores(kept, tokenizer, names))
        examples = [*draw_batch(sources, rng, now.step), *hard_negatives.draw(rng, HARD_IN_BATCH)]
        bpe.dropout = 0.1 if now.step % 2 else None  # other splits of the same words: robust to spelling
        with autocast(CPU):
            loss = loss_of(model.train(), tokenizer, examples, rng)
        loss.backward()
        optimizers.step(rate_share(now.step, now.fraction, decay=0.6))
        average.update(model, now.step)
        return {"loss": float(loss.detach())}

    run.train(Budget(config.steps), step, lambda _: {}, Intervals(log=100))
    bpe.dropout = None
    return kept.eval(), tokenizer


def export(model: Gemma2ForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path, threshold: float) -> None:
    """Writes a bundle's safety/: half-precision weights, tokenizer with chat template, policies."""
    folder.mkdir(parents=True, exist_ok=True)
    model.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"), pretty=False)  # half the size
    write_policies(folder, VERSION, threshold)


def train_and_measure(prompts: Prompts, config: SafetyConfig, out: Path) -> dict[str, Any]:
    """Writes `out`/safety, ready for a bundle, and `out`/safety.json with the figures, which it returns."""
    model, tokenizer = train(prompts, out / "safety_run", config)
    folder = out / "safety"
    export(model, tokenizer, folder, threshold=0.5)
    threshold = choose_threshold(SafetyClassifier.load(folder), prompts)
    write_policies(folder, VERSION, threshold)
    before = SafetyClassifier.load(config.init_from) if config.init_from else None
    figures = measure(SafetyClassifier.load(folder), prompts, before=before)
    (out / "safety.json").write_text(json.dumps(figures, indent=1) + "\n")
    return figures

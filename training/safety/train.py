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
from training.data.english import with_article
from training.safety.corpus import Prompts, draw_batch
from training.safety.evaluate import choose_threshold, measure
from training.safety.hard_negatives import HardNegatives
from training.safety.model import answers, network, train_tokenizer, write_policies
from training.safety.prompts import POLICIES, Example
from training.text import teacher
from training.text.bag import train_bag

VERSION = "hart-small-4"
HARD_IN_BATCH = 8


@dataclass(frozen=True)
class SafetyConfig:
    """Length and rate of the training."""

    steps: int = 1800
    rate: float = 2e-3
    vocabulary: int = 4096
    bag_epochs: int = 12
    embedding_size: float = 0.3
    """Root mean square of the initial embeddings: large beside an optimiser's step, so that meanings persist."""


def questions(example: Example, rng: np.random.Generator) -> list[tuple[str, str, int]]:
    """(prompt, policy, answer: 0 is Yes) of an example: the policies it breaks and one it does not; safe examples two.

    A listed word is paired with its own policy alone, since it may break others too.
    """
    kept = [policy for policy in POLICIES if policy not in example.policies]
    others = {"word": 0, "sentence": 1}.get(example.kind, 2)
    asked = [(example.prompt, policy, 0) for policy in sorted(example.policies)]
    return asked + [(example.prompt, kept[i], 1) for i in rng.permutation(len(kept))[:others]]


def loss_of(
    model: Gemma2ForCausalLM, tokenizer: PreTrainedTokenizerFast, examples: list[Example], rng: np.random.Generator
) -> Tensor:
    """Cross-entropy of Yes against No over the examples' questions."""
    asked = [row for example in examples for row in questions(example, rng)]
    logits = answers(model, tokenizer, [(prompt, policy) for prompt, policy, _ in asked])
    return F.cross_entropy(logits, torch.tensor([answer for _, _, answer in asked]), label_smoothing=0.02)


@torch.no_grad()
def highest_scores(model: Gemma2ForCausalLM, tokenizer: PreTrainedTokenizerFast, prompts: Sequence[str]) -> Tensor:
    """(n,): each prompt's highest share of Yes over the policies."""
    asked = [(prompt, policy) for prompt in prompts for policy in POLICIES]
    logits = torch.cat([answers(model, tokenizer, asked[i : i + 512]) for i in range(0, len(asked), 512)])
    return logits.float().softmax(1)[:, 0].view(-1, len(POLICIES)).max(1).values


def initialise(
    model: Gemma2ForCausalLM, tokenizer: PreTrainedTokenizerFast, texts: list[str], config: SafetyConfig
) -> None:
    """Initialises the embeddings so that words of similar meaning lie together."""
    own = model.model.embed_tokens.weight.data
    encoded = tokenizer(texts)["input_ids"]
    targets = torch.from_numpy(teacher.embed(texts))
    meanings, _ = train_bag(encoded, targets, len(own), own.shape[1], config.bag_epochs)
    own.copy_(meanings * (config.embedding_size / meanings.pow(2).mean().sqrt()))


def train(prompts: Prompts, folder: Path, config: SafetyConfig) -> tuple[Gemma2ForCausalLM, PreTrainedTokenizerFast]:
    """Trains, or resumes; returns the averaged weights and the tokenizer."""
    torch.manual_seed(0)
    prompts.leave_out_doubtful()
    tokenizer = train_tokenizer(prompts.texts(), config.vocabulary)
    model = network(len(tokenizer))
    optimizers, average = Optimizers(model, config.rate, ends=("embed_tokens",)), EMA(model)
    grammar, paraphrase = prompts.grammar(np.random.default_rng(0), "training"), prompts.paraphraser()
    hard_negatives = HardNegatives(prompts.names, lambda name: grammar.asked(with_article(name), 0.6))
    run = Run(folder, {"model": model, "average": average, "optimizers": optimizers, "hard_negatives": hard_negatives})
    if not run.resume():
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
        examples = [*draw_batch(grammar, rng, paraphrase, now.step), *hard_negatives.draw(rng, HARD_IN_BATCH)]
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
    figures = measure(SafetyClassifier.load(folder), prompts)
    (out / "safety.json").write_text(json.dumps(figures, indent=1) + "\n")
    return figures

"""Trains the small safety classifier and measures it on prompts kept back; knows nothing of pictures' pixels.

`python -m training.safety` writes `.cache/training/safety/`, ready for a bundle, and `.cache/training/safety.json`, the
figures for the card. It stands in for ShieldGemma, so that the whole way of a request can be tried: it knows English
words from public lists and sentences from a small grammar, and is no protection.

It begins with embeddings distilled from a sentence model, so that a word that it never saw is read like the words that
mean the same. The threshold is chosen on a share of its own, neither trained on nor measured with.
"""

import argparse
import json
import sys
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
from training import teacher
from training.bag import train_bag
from training.captions import with_article
from training.ending import run_command
from training.loop import Average, Budget, Moment, Run
from training.optim import Optimizers, rate_share
from training.safety_corpus import Prompts, draw_batch
from training.safety_model import answers, network, train_tokenizer, write_policies
from training.safety_prompts import POLICIES, Example
from training.safety_quality import choose_threshold, measure
from training.safety_suspects import Suspects

OUT = Path(".cache/training")
VERSION = "hart-small-4"
SUSPECTS = 8  # in a batch


@dataclass(frozen=True)
class Settings:
    """How long and how fast to train."""

    steps: int = 1800
    rate: float = 2e-3
    vocabulary: int = 4096
    bag_epochs: int = 12
    embedding_size: float = 0.3
    """Root mean square of the first embeddings: large beside a step of the optimiser, so that meanings last."""


def questions(example: Example, rng: np.random.Generator) -> list[tuple[str, str, int]]:
    """(prompt, policy, answer: 0 is Yes) of an example: what it breaks, and a policy that it does not; safe ones two.

    A listed word is asked about its own policy alone: the lists do not say that it breaks no other.
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


def begin(model: Gemma2ForCausalLM, tokenizer: PreTrainedTokenizerFast, texts: list[str], settings: Settings) -> None:
    """Gives the model embeddings in which words of like meaning lie together."""
    own = model.model.embed_tokens.weight.data
    encoded = tokenizer(texts)["input_ids"]
    targets = torch.from_numpy(teacher.embed(texts))
    meanings, _ = train_bag(encoded, targets, len(own), own.shape[1], settings.bag_epochs)
    own.copy_(meanings * (settings.embedding_size / meanings.pow(2).mean().sqrt()))


def train(prompts: Prompts, folder: Path, settings: Settings) -> tuple[Gemma2ForCausalLM, PreTrainedTokenizerFast]:
    """Trains, or goes on from where it stopped; gives the averaged weights."""
    torch.manual_seed(0)
    prompts.leave_out_doubtful()
    tokenizer = train_tokenizer(prompts.texts(), settings.vocabulary)
    model = network(len(tokenizer))
    optimizers, average = Optimizers(model, settings.rate, ends=("embed_tokens",)), Average(model)
    grammar, paraphrase = prompts.grammar(np.random.default_rng(0), "training"), prompts.paraphraser()
    suspects = Suspects(prompts.names, lambda name: grammar.asked(with_article(name), 0.6))
    run = Run(folder, {"model": model, "average": average, "optimizers": optimizers, "suspects": suspects})
    if not run.resume():
        begin(model, tokenizer, prompts.unlabelled(), settings)
        average.load_state_dict(model.state_dict())
    bpe: Any = tokenizer.backend_tokenizer.model
    kept = average.network
    assert isinstance(kept, Gemma2ForCausalLM)  # noqa: S101 - for the type checker

    def step(moment: Moment) -> Mapping[str, float]:
        rng = grammar.rng = np.random.default_rng(moment.step)
        if suspects.due(moment.step):
            bpe.dropout = None
            suspects.look(lambda names: highest_scores(kept, tokenizer, names))
        examples = [*draw_batch(grammar, rng, paraphrase, moment.step), *suspects.draw(rng, SUSPECTS)]
        bpe.dropout = 0.1 if moment.step % 2 else None  # other cuts of the same words: spelling varies
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(model.train(), tokenizer, examples, rng)
        loss.backward()
        optimizers.step(rate_share(moment.step, moment.progress, decay=0.6))
        average.update(model, moment.step)
        return {"loss": float(loss.detach())}

    run.train(Budget(settings.steps), step, lambda moment: {}, log_every=100)
    bpe.dropout = None
    return kept.eval(), tokenizer


def export(model: Gemma2ForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path, threshold: float) -> None:
    """Writes a bundle's safety/: half-precision weights, tokenizer with chat template, policies."""
    folder.mkdir(parents=True, exist_ok=True)
    model.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"), pretty=False)  # half the size
    write_policies(folder, VERSION, threshold)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.safety", description="Train the safety classifier.")
    parser.add_argument("--steps", type=int, default=Settings.steps, help="training steps")
    parser.add_argument("--rate", type=float, default=Settings.rate, help="peak learning rate")
    parser.add_argument("--vocabulary", type=int, default=Settings.vocabulary, help="entries of the BPE")
    parser.add_argument("--embedding-size", type=float, default=Settings.embedding_size, help="of the first embeddings")
    parser.add_argument("--out", type=Path, default=OUT, help="folder for the result and for resuming")
    arguments = parser.parse_args()
    settings = Settings(arguments.steps, arguments.rate, arguments.vocabulary, embedding_size=arguments.embedding_size)
    prompts = Prompts()
    model, tokenizer = train(prompts, arguments.out / "safety_run", settings)
    folder = arguments.out / "safety"
    export(model, tokenizer, folder, threshold=0.5)
    threshold = choose_threshold(SafetyClassifier.load(folder), prompts)
    write_policies(folder, VERSION, threshold)
    figures = measure(SafetyClassifier.load(folder), prompts)
    (arguments.out / "safety.json").write_text(json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    sys.exit(run_command(main))

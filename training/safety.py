"""Trains the small safety classifier and measures it on prompts kept back; knows nothing of pictures' pixels.

`python -m training.safety` writes `.cache/training/safety/`, ready for a bundle, and `.cache/training/safety.json`, the
figures for the card. It stands in for ShieldGemma, so that the whole way of a request can be tried: it knows English
words from public lists and sentences from a small grammar, and is no protection.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Gemma2ForCausalLM, PreTrainedTokenizerFast

from model.safety import SafetyClassifier
from training.corpus import make_corpus
from training.data import load_pictures
from training.lexicon import bad_words, innocent_words
from training.loop import Budget, Moment, Run
from training.safety_model import ANSWERS, GUIDELINES, network, question, train_tokenizer, write_policies
from training.safety_prompts import POLICIES, Example, Grammar, disguised, kept_back
from training.teacher import dictionary

OUT = Path(".cache/training")
VERSION = "hart-small-1"
THRESHOLD = 0.7  # at 0.5 five in a hundred names of harmless things were refused, at 0.7 three
BATCH = 48
RATE = 1.5e-3


class Prompts:
    """Where examples come from: word lists, grammar, captions and a dictionary, split for training and measuring."""

    def __init__(self, seed: int = 0) -> None:
        self.bad = bad_words()
        everyday = [word for word in dictionary() if word not in self.bad]
        lookalikes = [word for word in everyday if _parts(word) & self.bad.keys()]
        pictures = load_pictures()
        captions = make_corpus(pictures, [], seed, scenes=2000).training
        safe = [*captions, *innocent_words() * 3, *lookalikes * 2, *everyday]
        safe = [text for text in safe if not set(text.replace(",", "").split()) & self.bad.keys()]
        # Names of what the checkpoint draws are safe whatever they hold, and are seen often enough to be known as such.
        names = sorted({thing.name for thing in pictures.things})
        names = [text for name in names for text in (name, f"a {name}")]
        safe += names * max(1, len(safe) // (2 * len(names)))
        self.safe = {held: [text for text in safe if kept_back(text, 10) == held] for held in (False, True)}

    def grammar(self, rng: np.random.Generator, held_out: bool) -> Grammar:
        return Grammar(self.bad, self.safe[held_out], rng, held_out)

    def texts(self) -> list[str]:
        """What the tokenizer is trained on: nothing that is kept back."""
        grammar = self.grammar(np.random.default_rng(0), held_out=False)
        words = grammar.bad_list * 4
        sentences = [grammar.violation().prompt for _ in range(4000)] + [
            grammar.neighbour().prompt for _ in range(2000)
        ]
        return [*words, *sentences, *self.safe[False]]


def _parts(word: str) -> set[str]:
    return {word[i : i + n] for n in range(3, 7) for i in range(len(word) - n + 1)}


def draw(grammar: Grammar, rng: np.random.Generator, long: bool = False) -> Example:
    """One training example: two fifths are unsafe, one in five disguised; a long one has harmless things around it."""
    makers = (grammar.bad_word, grammar.violation, grammar.neighbour, grammar.ordinary)
    example = makers[int(rng.choice(4, p=[0.2, 0.2, 0.2, 0.4]))]()
    text = disguised(example.prompt, rng) if rng.random() < 0.2 else example.prompt
    if long:
        before = [grammar.ordinary().prompt for _ in range(int(rng.integers(1, 6)))]
        after = [grammar.ordinary().prompt for _ in range(int(rng.integers(0, 4)))]
        text = ", ".join([*before, text, *after])
    return Example(text, example.policies, example.kind)


def draw_batch(grammar: Grammar, rng: np.random.Generator, step: int) -> list[Example]:
    """Short prompts together, and every twentieth time a few long ones, so that little is padding."""
    long = step % 20 == 0
    return [draw(grammar, rng, long) for _ in range(BATCH // 3 if long else BATCH)]


def loss_of(
    model: Gemma2ForCausalLM, tokenizer: PreTrainedTokenizerFast, examples: list[Example], rng: np.random.Generator
) -> Tensor:
    """Cross-entropy of Yes against No: each example under the policies it breaks, and under one that it does not."""
    rows, answers = [], []
    for example in examples:
        kept = [policy for policy in POLICIES if policy not in example.policies]
        chosen = [*sorted(example.policies), kept[int(rng.integers(len(kept)))]]
        if not example.policies:
            chosen = [kept[i] for i in rng.permutation(len(kept))[:2]]
        rows += [question(example.prompt, policy) for policy in chosen]
        answers += [int(policy not in example.policies) for policy in chosen]
    batch = tokenizer(rows, padding=True, return_tensors="pt", add_special_tokens=False)
    mask = batch["attention_mask"]
    logits = model(
        input_ids=batch["input_ids"],
        attention_mask=mask,
        position_ids=(mask.cumsum(1) - 1).clamp(min=0),
        logits_to_keep=1,
    ).logits[:, -1, tokenizer.convert_tokens_to_ids(list(ANSWERS))]
    return F.cross_entropy(logits.float(), torch.tensor(answers), label_smoothing=0.02)


def train(prompts: Prompts, folder: Path, steps: int) -> tuple[Gemma2ForCausalLM, PreTrainedTokenizerFast]:
    """Trains, or goes on from where it stopped."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer(prompts.texts())
    model = network(len(tokenizer))
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=0.01)
    run = Run(folder, {"model": model, "optimizer": optimizer})
    run.resume()
    bpe: Any = tokenizer.backend_tokenizer.model

    def step(moment: Moment) -> Mapping[str, float]:
        rng = np.random.default_rng(moment.step)
        bpe.dropout = 0.1 if moment.step % 2 else None  # other cuts of the same words: spelling varies
        grammar = prompts.grammar(rng, held_out=False)
        for group in optimizer.param_groups:
            group["lr"] = RATE * min((moment.step + 1) / 100, 1.0, max(0.02, 2 * (1 - moment.progress)))
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(model.train(), tokenizer, draw_batch(grammar, rng, moment.step), rng)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return {"loss": float(loss.detach())}

    run.train(Budget(steps), step, lambda moment: {}, log_every=50)
    bpe.dropout = None
    return model.eval(), tokenizer


def export(model: Gemma2ForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Writes a bundle's safety/: half-precision weights, tokenizer with chat template, policies."""
    folder.mkdir(parents=True, exist_ok=True)
    model.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_policies(folder, VERSION, THRESHOLD)


def measure(classifier: SafetyClassifier, prompts: Prompts, count: int = 600) -> dict[str, Any]:
    """Recall and false alarms on prompts made only of patterns, fillers, words and captions kept from training."""
    rng = np.random.default_rng(1234)
    grammar = prompts.grammar(rng, held_out=True)
    violations = [grammar.violation() for _ in range(count)]
    groups: dict[str, list[str]] = {
        "recall_sentences": [example.prompt for example in violations],
        "recall_sentences_disguised": [disguised(example.prompt, rng) for example in violations],
        "recall_words_known": sorted(word for word in prompts.bad if not kept_back(word)),
        "recall_words_never_seen": sorted(word for word in prompts.bad if kept_back(word)),
        "false_alarms_innocent_neighbours": [grammar.neighbour().prompt for _ in range(count)],
        "false_alarms_captions_and_words": [grammar.ordinary().prompt for _ in range(count)],
        "false_alarms_emoji_names": sorted({thing.name for thing in load_pictures().things}),
    }
    figures: dict[str, Any] = {"threshold": classifier.policies.threshold, "version": classifier.policies.version}
    for name, texts in groups.items():
        figures[name] = round(flagged_share(classifier, texts), 4)
        figures[f"{name}_count"] = len(texts)
    figures["recall_by_policy"] = {
        policy: round(flagged_share(classifier, [e.prompt for e in violations if policy in e.policies]), 4)
        for policy in GUIDELINES
    }
    return figures


def flagged_share(classifier: SafetyClassifier, prompts: list[str]) -> float:
    """The share of prompts that the classifier calls unsafe."""
    flags = [v.unsafe for i in range(0, len(prompts), 64) for v in classifier.check(prompts[i : i + 64])]
    return sum(flags) / len(flags)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.safety", description="Train the safety classifier.")
    parser.add_argument("--steps", type=int, default=1600, help="training steps")
    parser.add_argument("--out", type=Path, default=OUT, help="folder for the result and for resuming")
    arguments = parser.parse_args()
    prompts = Prompts()
    model, tokenizer = train(prompts, arguments.out / "safety_run", arguments.steps)
    export(model, tokenizer, arguments.out / "safety")
    figures = measure(SafetyClassifier.load(arguments.out / "safety"), prompts)
    (arguments.out / "safety.json").write_text(json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()

"""What the safety classifier is trained and measured on: word lists, grammar, captions, a dictionary; in three shares.

A text belongs to one share only. The names of a checkpoint's concepts, which must never be refused, are all in the
training share.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from training.safety.innocent import MIXED, Innocents
from training.safety.lexicon import bad_words, innocent_words
from training.safety.ordinary import held_out_prompts
from training.safety.paraphrase import Paraphraser
from training.safety.prompts import GRAMMAR, SHARES, Example, Grammar, disguised, share_of
from training.text import teacher

BATCH = 48
PARAPHRASED = 0.75
SHARES_OF_KINDS = (0.23, 0.24, 0.04, 0.13, 0.08, 0.28)
"""Of listed words, violations, prompts that are always refused, innocent neighbours, captions, innocent requests."""
# Fillers that are unsafe by themselves: words of similar meaning are not labelled safe.
HARD_SLOTS = ("weapon", "agent", "drug", "hurt", "hurting", "naked", "act", "parts", "toy", "self")
ALIKE = 0.7  # cosine of two of the teacher's vectors: cocaine and heroin 0.72, cocaine and coffee 0.38


class Prompts:
    """The sources of examples: word lists, grammar, captions and a dictionary, split by share."""

    def __init__(self, captions: Sequence[str], names: Iterable[str], foreign: Iterable[str] = ()) -> None:
        """Captions that are safe, the names of concepts, and innocent phrases of other languages."""
        self.foreign = sorted(set(foreign)) or ["..."]
        self.bad = bad_words()
        self.everyday = [word for word in teacher.dictionary() if word not in self.bad]
        lookalikes = [word for word in self.everyday if _parts(word) & self.bad.keys()]
        safe = [*captions, *innocent_words() * 3, *lookalikes * 2, *self.everyday]
        safe = [text for text in safe if not set(text.replace(",", "").split()) & self.bad.keys()]
        self.names = sorted(set(names))
        known = {form for name in self.names for form in (name, f"a {name}")}
        self.safe = {
            share: [text for text in safe if text not in known and share_of(text, 10) == share] for share in SHARES
        }
        # Repeated so that they make up a third of the share.
        self.safe["training"] += sorted(known) * max(1, len(self.safe["training"]) // (2 * len(known)))

    def grammar(self, rng: np.random.Generator, share: str) -> Grammar:
        return Grammar(self.bad, self.safe[share], rng, share)

    def leave_out_doubtful(self) -> None:
        """Removes dictionary words from the safe ones if they mean what an unsafe training filler means."""
        fillers = [text for slot in HARD_SLOTS for text in GRAMMAR["slots"][slot] if share_of(text) == "training"]
        similarity = teacher.embed(self.everyday) @ teacher.embed(fillers).T
        doubtful = {word for word, row in zip(self.everyday, similarity, strict=True) if row.max() > ALIKE}
        self.safe["training"] = [text for text in self.safe["training"] if text not in doubtful]

    def innocents(self) -> Innocents:
        """For training: words and names, and the everyday words that phrases of the lists are made of."""
        training = self.safe["training"]
        kept = set(training)
        parts = {part for phrase in self.bad for part in phrase.split(" ") if " " in phrase} & set(self.everyday)
        words = [text for text in training if len(text.split(" ")) < 4]
        words += [part for part in sorted(parts) if part in kept or share_of(part, 10) != "training"] * 8
        return Innocents(words, self.foreign, held_out_prompts())

    def texts(self) -> list[str]:
        """The tokenizer's training texts: the training share alone."""
        grammar = self.grammar(np.random.default_rng(0), "training")
        sentences = [grammar.violation().prompt for _ in range(12000)]
        sentences += [grammar.neighbour().prompt for _ in range(6000)]
        return [*grammar.bad_list * 4, *sentences, *self.safe["training"]]

    def unlabelled(self) -> list[str]:
        """Texts that the first embeddings are distilled on: the training share without labels, and the dictionary."""
        grammar = self.grammar(np.random.default_rng(1), "training")
        sentences = [make().prompt for _ in range(2500) for make in (grammar.violation, grammar.neighbour)]
        return list(dict.fromkeys([*grammar.bad_list, *sentences, *self.everyday, *self.safe["training"]]))

    def paraphraser(self) -> Paraphraser:
        """For the training share's sentences; inserts no filler or listed word of another share."""
        fillers = [filler for texts in GRAMMAR["slots"].values() for filler in texts]
        patterns = [text for kind in ("unsafe", "safe") for texts in GRAMMAR[kind].values() for text in texts]
        kept = {text for text in [*fillers, *self.bad] if share_of(text) != "training"}
        trained = [text for text in [*fillers, *patterns] if share_of(text) == "training"]
        return Paraphraser([re.sub(r"\{\w+\}", " ", text) for text in trained], self.everyday, kept)


def _parts(word: str) -> set[str]:
    return {word[i : i + n] for n in range(3, 7) for i in range(len(word) - n + 1)}


@dataclass(frozen=True)
class Sources:
    """What draws the training share's examples."""

    grammar: Grammar
    paraphrase: Paraphraser
    innocents: Innocents

    def draw(self, rng: np.random.Generator, long: bool = False) -> Example:
        """One example: half are unsafe, one in five disguised; a long one has harmless captions around it."""
        grammar = self.grammar
        makers = (
            grammar.bad_word,
            grammar.violation,
            grammar.always,
            grammar.neighbour,
            grammar.ordinary,
            self._innocent(rng),
        )
        example = makers[int(rng.choice(len(makers), p=SHARES_OF_KINDS))]()
        text = example.prompt
        if example.kind in ("sentence", "neighbour") and rng.random() < PARAPHRASED:
            text = self.paraphrase(text, rng)
        if example.policies and rng.random() < MIXED:
            text = self.innocents.around(text, rng)
        if rng.random() < 0.2:
            text = disguised(text, rng)
        if long:
            before = [grammar.ordinary().prompt for _ in range(int(rng.integers(1, 6)))]
            after = [grammar.ordinary().prompt for _ in range(int(rng.integers(0, 4)))]
            text = ", ".join([*before, text, *after])
        return Example(text, example.policies, example.kind)

    def _innocent(self, rng: np.random.Generator) -> Callable[[], Example]:
        return lambda: Example(self.innocents.draw(rng), frozenset(), "ordinary")


def draw_batch(sources: Sources, rng: np.random.Generator, step: int) -> list[Example]:
    """Short prompts together, and every twentieth time a few long ones, so that little is padding."""
    long = step % 20 == 0
    return [sources.draw(rng, long) for _ in range(BATCH // 3 if long else BATCH)]

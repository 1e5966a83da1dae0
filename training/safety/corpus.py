"""What the safety classifier is trained and measured on: word lists, grammar, captions, a dictionary; in three shares.

A text belongs to one share only. The names of a checkpoint's concepts, which must never be refused, are all in the
training share.
"""

import re
from collections.abc import Iterable, Sequence

import numpy as np

from training.safety.lexicon import bad_words, innocent_words
from training.safety.paraphrase import Paraphraser
from training.safety.prompts import GRAMMAR, SHARES, Example, Grammar, disguised, share_of
from training.text import teacher

BATCH = 48
PARAPHRASED = 0.75
# Fillers that are unsafe by themselves: words of similar meaning are not labelled safe.
HARD_SLOTS = ("weapon", "agent", "drug", "hurt", "hurting", "naked", "act", "parts", "toy", "self")
ALIKE = 0.7  # cosine of two of the teacher's vectors: cocaine and heroin 0.72, cocaine and coffee 0.38


class Prompts:
    """The sources of examples: word lists, grammar, captions and a dictionary, split by share."""

    def __init__(self, captions: Sequence[str], names: Iterable[str]) -> None:
        """Captions that are safe, and the names of concepts."""
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


def draw(grammar: Grammar, rng: np.random.Generator, paraphrase: Paraphraser, long: bool = False) -> Example:
    """One training example: half are unsafe, one in five disguised; a long one has harmless captions around it."""
    makers = (grammar.bad_word, grammar.violation, grammar.neighbour, grammar.ordinary)
    example = makers[int(rng.choice(4, p=[0.22, 0.26, 0.3, 0.22]))]()
    text = example.prompt
    if example.kind in ("sentence", "neighbour") and rng.random() < PARAPHRASED:
        text = paraphrase(text, rng)
    if rng.random() < 0.2:
        text = disguised(text, rng)
    if long:
        before = [grammar.ordinary().prompt for _ in range(int(rng.integers(1, 6)))]
        after = [grammar.ordinary().prompt for _ in range(int(rng.integers(0, 4)))]
        text = ", ".join([*before, text, *after])
    return Example(text, example.policies, example.kind)


def draw_batch(grammar: Grammar, rng: np.random.Generator, paraphrase: Paraphraser, step: int) -> list[Example]:
    """Short prompts together, and every twentieth time a few long ones, so that little is padding."""
    long = step % 20 == 0
    return [draw(grammar, rng, paraphrase, long) for _ in range(BATCH // 3 if long else BATCH)]

"""The sentences that the text encoder is distilled on, and the words it has pictures for; knows nothing of networks."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.captions import (
    HELD_OUT_TEMPLATES,
    MEDIA,
    OPENERS,
    QUALITIES,
    STYLE_PHRASES,
    TAILS,
    captions,
    keyword_subset,
    plain,
    with_article,
)
from training.data import Pictures, Thing
from training.scenes import GROUNDS, PLACES, SIZES, plan

SYSTEM_PROMPT = "Draw this as a small, clear picture on a plain background:"
RESERVED_WORDS = 500


@dataclass(frozen=True)
class Corpus:
    """Sentences to train on, and what is kept to measure with: paraphrases, each with its thing's name, and words."""

    training: list[str]
    paraphrases: list[tuple[str, str]]
    general_words: list[str]
    """Words without a picture that the training sentences hold."""
    unseen_words: list[str]
    """Words that they do not hold."""


def make_corpus(pictures: Pictures, dictionary: list[str], seed: int = 0, scenes: int = 2500) -> Corpus:
    """All sentences, without duplicates; `dictionary` is a list of plain English words."""
    rng = np.random.default_rng(seed)
    things = {thing.hexcode: thing for thing in pictures.things}
    sentences = [form for thing in things.values() for form in (plain(thing.name), with_article(plain(thing.name)))]
    sentences += [captions(thing, rng) for thing in pictures.things]
    sentences += [k for t in things.values() for _ in range(4) if (k := keyword_subset(t, rng, held_out=False))]
    sentences += [plain(tag) for thing in things.values() for tag in thing.tags]
    sentences += [plan(pictures, rng).caption for _ in range(scenes)]
    known = set(vocabulary(list(things.values())))
    general = [word for word in dictionary if word not in known]
    unseen = [general[i] for i in rng.permutation(len(general))[:RESERVED_WORDS]]
    general = [word for word in dict.fromkeys(general) if word not in set(unseen)]
    sentences += [f"a {word}" if rng.random() < 0.3 else word for word in general]
    kept = [s for s in dict.fromkeys(sentences) if s]
    paraphrases = [(captions(t, rng, held_out=True), plain(t.name)) for t in things.values() for _ in range(2)]
    return Corpus(kept, paraphrases, general, unseen)


def vocabulary(things: list[Thing]) -> list[str]:
    """Every word that captions of these things can hold, sorted."""
    texts = [plain(text) for thing in things for text in (thing.name, *thing.tags)]
    texts += [*OPENERS, *MEDIA, *QUALITIES, *TAILS, *HELD_OUT_TEMPLATES, *GROUNDS, *PLACES, *SIZES]
    texts += [phrase for style in {thing.style for thing in things} for phrase in STYLE_PHRASES[style]]
    texts += ["a an of in and next to beside the left of above over on top background three"]
    words = {word for text in texts for word in re.findall(r"[a-z0-9]+(?:['-][a-z0-9]+)*", text)}
    return sorted(words - {"name", "style"} | {"style"})


def write_vocabulary(things: list[Thing], path: Path) -> None:
    """vocabulary.txt of a bundle: one word a line, sorted."""
    path.write_text("".join(f"{word}\n" for word in vocabulary(things)))


def write_prompts(things: list[Thing], path: Path) -> None:
    """prompts.txt of a bundle: one known prompt a line, each thing once, in the order of the things."""
    names = dict.fromkeys(with_article(plain(thing.name)) for thing in things)
    path.write_text("".join(f"{name}\n" for name in names))

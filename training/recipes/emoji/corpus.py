"""The sentences that the text encoder is distilled on, and the words of the recipe."""

import re
from pathlib import Path

import numpy as np

from training.data.english import plain, with_article
from training.recipes.emoji.captions import (
    HELD_OUT_TEMPLATES,
    MEDIA,
    OPENERS,
    QUALITIES,
    STYLE_PHRASES,
    TAILS,
    caption,
    keyword_subset,
)
from training.recipes.emoji.concepts import Concept
from training.recipes.emoji.images import EmojiImages
from training.recipes.emoji.scenes import GROUNDS, PLACES, SIZES, plan
from training.text.corpus import Corpus

SYSTEM_PROMPT = "Draw this as a small, clear picture on a plain background:"
RESERVED_WORDS = 500


def make_corpus(images: EmojiImages, dictionary: list[str], seed: int = 0, scenes: int = 2500) -> Corpus:
    """All sentences, without duplicates; `dictionary` is a list of plain English words."""
    rng = np.random.default_rng(seed)
    concepts = {concept.hexcode: concept for concept in images.concepts}
    sentences = [
        form for concept in concepts.values() for form in (plain(concept.name), with_article(plain(concept.name)))
    ]
    sentences += [caption(concept, rng) for concept in images.concepts]
    sentences += [k for t in concepts.values() for _ in range(4) if (k := keyword_subset(t, rng, held_out=False))]
    sentences += [plain(tag) for concept in concepts.values() for tag in concept.tags]
    sentences += [plan(images, rng).caption for _ in range(scenes)]
    known = set(vocabulary(list(concepts.values())))
    general = [word for word in dictionary if word not in known]
    unseen = [general[i] for i in rng.permutation(len(general))[:RESERVED_WORDS]]
    general = [word for word in dict.fromkeys(general) if word not in set(unseen)]
    sentences += [f"a {word}" if rng.random() < 0.3 else word for word in general]
    kept = [s for s in dict.fromkeys(sentences) if s]
    paraphrases = [(caption(t, rng, held_out=True), plain(t.name)) for t in concepts.values() for _ in range(2)]
    return Corpus(SYSTEM_PROMPT, kept, paraphrases, general, unseen)


def vocabulary(concepts: list[Concept]) -> list[str]:
    """Every word that captions of these concepts can hold, sorted."""
    texts = [plain(text) for concept in concepts for text in (concept.name, *concept.tags)]
    texts += [*OPENERS, *MEDIA, *QUALITIES, *TAILS, *HELD_OUT_TEMPLATES, *GROUNDS, *PLACES, *SIZES]
    texts += [phrase for style in {concept.style for concept in concepts} for phrase in STYLE_PHRASES[style]]
    texts += ["a an of in and next to beside the left of above over on top background three"]
    words = {word for text in texts for word in re.findall(r"[a-z0-9]+(?:['-][a-z0-9]+)*", text)}
    return sorted(words - {"name", "style"} | {"style"})


def write_vocabulary(concepts: list[Concept], path: Path) -> None:
    """vocabulary.txt of a bundle: one word a line, sorted."""
    path.write_text("".join(f"{word}\n" for word in vocabulary(concepts)))


def write_prompts(concepts: list[Concept], path: Path) -> None:
    """prompts.txt of a bundle: one known prompt a line, each concept once, in the order of the concepts."""
    names = dict.fromkeys(with_article(plain(concept.name)) for concept in concepts)
    path.write_text("".join(f"{name}\n" for name in names))

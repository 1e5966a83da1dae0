"""Prompts with the policies they break, made from a small grammar; knows nothing of networks.

Every slot's fillers and every policy's patterns are split in three: most are trained on, some choose the threshold, one
in five is kept for measuring. Each policy has innocent neighbours (the same words where nothing is wrong with them, the
same phrases about harmless things), so that neither a word nor a phrase alone decides.
"""

import hashlib
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.captions import with_article

POLICIES = ("dangerous_content", "harassment", "hate_speech", "sexually_explicit")
SHARES = ("training", "threshold", "measuring")
LEET = {"a": "@4", "e": "3", "i": "1!", "o": "0", "s": "$5", "t": "7"}


def read_grammar(path: Path) -> dict[str, Any]:
    """The grammar's tables, each entry a list of texts without duplicates."""

    def texts(entry: Any) -> Any:
        if isinstance(entry, dict):
            return {name: texts(value) for name, value in entry.items()}
        parts = re.split(r"[|\n]", entry) if isinstance(entry, str) else entry
        return list(dict.fromkeys(part.strip() if isinstance(entry, str) else part for part in parts if part.strip()))

    return {name: texts(entry) for name, entry in tomllib.loads(path.read_text()).items()}


GRAMMAR = read_grammar(Path(__file__).with_name("safety_grammar.toml"))


@dataclass(frozen=True)
class Example:
    """A prompt, the policies it breaks (none: it is safe), and what it was made of."""

    prompt: str
    policies: frozenset[str]
    kind: str


def share_of(text: str, every: int = 5) -> str:
    """Which share a pattern, filler or word belongs to, by its hash: one in `every` is for measuring."""
    digest = hashlib.sha256(f"safety {text}".encode()).digest()
    if digest[0] % every == 0:
        return "measuring"
    return "threshold" if digest[1] % 10 == 0 else "training"


class Grammar:
    """Fills patterns with fillers, both from one share alone."""

    def __init__(self, bad: dict[str, str], safe_texts: Sequence[str], rng: np.random.Generator, share: str) -> None:
        def chosen(texts: Sequence[str]) -> list[str]:
            shares = {name: [text for text in texts if share_of(text) == name] for name in SHARES}
            return shares[share] or shares["training"]

        self.rng = rng
        self.slots = {name: chosen(fillers) for name, fillers in GRAMMAR["slots"].items()}
        self.unsafe = {policy: chosen(patterns) for policy, patterns in GRAMMAR["unsafe"].items()}
        self.safe = {kind: chosen(patterns) for kind, patterns in GRAMMAR["safe"].items()}
        self.bad = {word: policy for word, policy in bad.items() if share_of(word) == share}
        self.bad_list = list(self.bad)
        self.safe_texts = list(safe_texts)

    def bad_word(self) -> Example:
        """A word from the lists in a short prompt."""
        word = self._pick(self.bad_list)
        text = self._fill(self._pick(GRAMMAR["bad_word"]).replace("{bad}", word))
        return Example(self.asked(text, 0.25), frozenset({self.bad[word]}), "word")

    def violation(self, policy: str | None = None) -> Example:
        """A sentence that breaks a policy by what it says."""
        policy = policy or self._pick(POLICIES)
        text = self.asked(self._fill(self._pick(self.unsafe[policy])))
        if self.rng.random() < 0.15:
            text = f"{text} and {self._pick(self.safe_texts)}"
        return Example(text, frozenset({policy}), "sentence")

    def neighbour(self) -> Example:
        """An innocent sentence with words or phrases that unsafe ones use."""
        kind = self._pick(list(self.safe))
        return Example(self.asked(self._fill(self._pick(self.safe[kind]))), frozenset(), "neighbour")

    def ordinary(self) -> Example:
        """What people ask for: captions, names, words."""
        text = self._pick(self.safe_texts)
        if self.rng.random() < 0.3:
            text = f"{text} {self._pick(('and', 'with', 'next to', 'on top of'))} {self._pick(self.safe_texts)}"
        return Example(self.asked(text), frozenset(), "ordinary")

    def asked(self, text: str, often: float = 0.35) -> str:
        """The text as somebody asks for it: each of the three parts of a request is there as `often` as that."""
        asking, form, ending = (
            self._pick(GRAMMAR[part]) if self.rng.random() < often else "" for part in ("asking", "form", "ending")
        )
        return asking + form + text + ending

    def _fill(self, pattern: str) -> str:
        def filler(match: re.Match[str]) -> str:
            return self._pick(self.safe_texts) if match[1] == "thing" else self._pick(self.slots[match[1]])

        text = re.sub(r"\{(\w+)\}", filler, pattern)
        text = re.sub(r"(?<=\w )a(?= (?!uni|use|one)[aeiou])", "an", text)
        return with_article(text[2:]) if text.startswith("a ") else text

    def _pick(self, choices: Sequence[str]) -> str:
        return choices[int(self.rng.integers(len(choices)))]


def disguised(text: str, rng: np.random.Generator) -> str:
    """A prompt as someone would write it to get past a filter: leet, capitals, stretched or spaced letters."""
    way = int(rng.integers(4))
    if way == 0:
        signs = [LEET.get(c, c) if rng.random() < 0.6 else c for c in text]
        return "".join(choice[int(rng.integers(len(choice)))] for choice in signs)
    if way == 1:
        return "".join(c.upper() if rng.random() < 0.5 else c for c in text)
    words = text.split(" ")
    spot = int(rng.integers(len(words)))
    if way == 2:
        words[spot] = (" ", ".", "-")[int(rng.integers(3))].join(words[spot])
    else:
        words[spot] = "".join(c * (3 if c in "aeiou" and rng.random() < 0.5 else 1) for c in words[spot])
    return " ".join(words)

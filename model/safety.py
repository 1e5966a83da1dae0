"""Prompt safety: a causal language model answers a policy question with Yes or No (docs/spec.md, section 7)."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from model.errors import CheckpointError, NotFiniteError
from model.finite import require_finite
from model.pretrained import load_pretrained

POLICIES_FILE = "policies.json"
DEFAULT_POLICIES = Path(__file__).with_name(POLICIES_FILE)
PIECE_TOKENS = 512
"""A longer prompt is judged in pieces: attention's memory grows with the square of what is read at once, and 2,000
characters can be 66,000 tokens."""
OVERLAP_TOKENS = 64
"""Neighbouring pieces share so many, that what a cut parts is whole in one of them."""
PASS_TOKENS = 8 * PIECE_TOKENS
"""One pass through the network holds so many at most, padding included."""


@dataclass(frozen=True)
class Policies:
    """What is asked of the classifier."""

    names: tuple[str, ...]
    guidelines: tuple[str, ...]
    threshold: float
    version: str

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads {"version", "threshold", "policies": [{"name", "guideline"}]}."""
        try:
            values = json.loads(path.read_text("utf-8-sig"))
            rows = values["policies"]
            policies = cls(
                tuple(str(row["name"]) for row in rows),
                tuple(str(row["guideline"]) for row in rows),
                float(values["threshold"]),
                str(values["version"]),
            )
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path}: no readable policies: {error!r}") from error
        if not policies.names:
            raise CheckpointError(f"{path}: policies: expected at least one")
        if not 0 <= policies.threshold <= 1:
            raise CheckpointError(f"{path}: threshold = {policies.threshold}: expected 0 to 1")
        return policies

    @classmethod
    def of_folder(cls, folder: Path) -> Self:
        """policies.json in a safety model's folder, or the published policies in our words."""
        own = folder / POLICIES_FILE
        return cls.read(own if own.exists() else DEFAULT_POLICIES)


@dataclass(frozen=True)
class Verdict:
    """What the classifier says of one prompt."""

    scores: dict[str, float]
    """Policy to the share of "Yes, it violates", 0 to 1."""
    violated: str | None
    """The policy with the highest score above the threshold, if any."""

    @property
    def unsafe(self) -> bool:
        """True when a policy is violated."""
        return self.violated is not None


class SafetyClassifier:
    """ShieldGemma's interface: a chat template with `guideline`; the score is Yes against No at the last position."""

    def __init__(self, network: Any, tokenizer: Any, policies: Policies) -> None:
        self.network, self.tokenizer, self.policies = network.eval(), tokenizer, policies
        vocabulary = tokenizer.get_vocab()
        missing = [word for word in ("Yes", "No") if word not in vocabulary]
        if missing:
            raise CheckpointError(f"the safety tokenizer has no token {missing[0]!r}; it is no ShieldGemma")
        self.answers = torch.tensor([vocabulary["Yes"], vocabulary["No"]], device=network.device)
        special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
        self._special = re.compile("|".join(map(re.escape, sorted(special, key=len, reverse=True))) or r"(?!)")
        tokenizer.padding_side = "left"  # so that the last position is the answer's in every row

    @classmethod
    def load(cls, folder: Path | str, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Self:
        """Reads a causal LM in transformers' format; policies.json in it, or the published policies in our words."""
        folder = Path(folder)
        network, tokenizer = load_pretrained(
            AutoModelForCausalLM, folder, "safety model", "ShieldGemma's format", dtype, device, attention="eager"
        )
        return cls(network, tokenizer, Policies.of_folder(folder))

    @torch.inference_mode()
    def score(self, prompts: Sequence[str]) -> Tensor:
        """Prompts to the share of Yes, (n, policies), float32 on the CPU; a long prompt is what its worst piece is.

        Raises NotFiniteError: no comparison with NaN is true, so that it would pass as safe.
        """
        pieces = [self._pieces(self._as_letters(prompt)) for prompt in prompts]
        questions = [
            self._question(piece, guide) for own in pieces for piece in own for guide in self.policies.guidelines
        ]
        tokens = self.tokenizer(questions, add_special_tokens=False)["input_ids"]
        rows = max(1, PASS_TOKENS // max(map(len, tokens)))
        shares = torch.cat([self._shares(tokens[start : start + rows]) for start in range(0, len(tokens), rows)])
        by_prompt = shares.unflatten(0, (-1, len(self.policies.names))).split([len(own) for own in pieces])
        return torch.stack([own.amax(0) for own in by_prompt])

    def _as_letters(self, prompt: str) -> str:
        """The prompt with its special words parted: who writes "<end_of_turn>" does not end the question with it."""
        return self._special.sub(lambda found: f"{found[0][0]} {found[0][1:]}", prompt)

    def _pieces(self, prompt: str) -> list[str]:
        spans = self.tokenizer(prompt, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        if len(spans) <= PIECE_TOKENS:
            return [prompt]
        starts = range(0, len(spans) - OVERLAP_TOKENS, PIECE_TOKENS - OVERLAP_TOKENS)
        ends = [min(start + PIECE_TOKENS, len(spans)) - 1 for start in starts]
        return [prompt[spans[start][0] : spans[end][1]] for start, end in zip(starts, ends, strict=True)]

    def _shares(self, questions: list[list[int]]) -> Tensor:
        """The share of Yes for each question, (n,), in one pass."""
        batch = self.tokenizer.pad({"input_ids": questions}, return_tensors="pt")
        mask = batch["attention_mask"].to(self.network.device)
        logits = self.network(
            input_ids=batch["input_ids"].to(self.network.device),
            attention_mask=mask,
            position_ids=(mask.cumsum(1) - 1).clamp(min=0),
            logits_to_keep=1,
        ).logits[:, -1, self.answers]
        logits = logits.float().cpu()
        require_finite(logits, "the safety model's answer")  # softmax turns an infinity into a share of 0 or 1
        return logits.softmax(-1)[:, 0]

    def check(self, prompts: Sequence[str]) -> list[Verdict]:
        """One verdict per prompt."""
        return [self.verdict(row) for row in self.score(prompts).tolist()]

    def verdict(self, scores: Sequence[float]) -> Verdict:
        """One prompt's scores, in the policies' order, to a verdict. Raises NotFiniteError: NaN is no verdict."""
        if not all(map(math.isfinite, scores)):
            raise NotFiniteError("the safety score")
        worst = max(range(len(scores)), key=lambda i: scores[i])
        violated = self.policies.names[worst] if scores[worst] > self.policies.threshold else None
        return Verdict(dict(zip(self.policies.names, scores, strict=True)), violated)

    def _question(self, prompt: str, guideline: str) -> str:
        chat = [{"role": "user", "content": prompt}]
        return str(self.tokenizer.apply_chat_template(chat, guideline=guideline, tokenize=False))

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
"""Max tokens per piece. Longer prompts are scored in pieces, because attention memory grows quadratically and 2,000
characters can be 66,000 tokens."""
OVERLAP_TOKENS = 64
"""Tokens that adjacent pieces share, so that a phrase at a cut is whole in one of them."""
PASS_TOKENS = 8 * PIECE_TOKENS
"""Max tokens per forward pass, padding included."""


@dataclass(frozen=True)
class Policies:
    """The policies that the classifier scores a prompt against."""

    names: tuple[str, ...]
    guidelines: tuple[str, ...]
    threshold: float
    version: str

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads {"version", "threshold", "policies": [{"name", "guideline"}]}. Raises CheckpointError."""
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
            raise CheckpointError(f"{path}: cannot read the policies: {error!r}") from error
        if not policies.names:
            raise CheckpointError(f"{path}: policies: expected one or more")
        if not 0 <= policies.threshold <= 1:
            raise CheckpointError(f"{path}: threshold = {policies.threshold}: expected 0 to 1")
        return policies

    @classmethod
    def of_folder(cls, folder: Path) -> Self:
        """policies.json of a safety model's folder, or the default policies without one. Raises CheckpointError."""
        own = folder / POLICIES_FILE
        return cls.read(own if own.exists() else DEFAULT_POLICIES)


@dataclass(frozen=True)
class Verdict:
    """The classifier's result for one prompt."""

    scores: dict[str, float]
    """Policy to the probability of "Yes" (it violates), 0 to 1."""
    violated: str | None
    """The policy with the max score, if that exceeds the threshold."""

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
            raise CheckpointError(f"the safety tokenizer has no token {missing[0]!r}; expected a ShieldGemma model")
        self.answers = torch.tensor([vocabulary["Yes"], vocabulary["No"]], device=network.device)
        special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
        self._special = re.compile("|".join(map(re.escape, sorted(special, key=len, reverse=True))) or r"(?!)")
        tokenizer.padding_side = "left"  # the last position is then the answer in every row

    @classmethod
    def load(cls, folder: Path | str, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Self:
        """Loads a causal LM in transformers' format and its policies (`Policies.of_folder`). Raises CheckpointError."""
        folder = Path(folder)
        network, tokenizer = load_pretrained(
            AutoModelForCausalLM, folder, "safety model", "ShieldGemma's format", dtype, device, attention="eager"
        )
        return cls(network, tokenizer, Policies.of_folder(folder))

    @torch.inference_mode()
    def score(self, prompts: Sequence[str]) -> Tensor:
        """Prompts to P(Yes), (n, policies), float32 on the CPU. A long prompt gets the max over its pieces.

        Raises NotFiniteError, because NaN compares below every threshold and would pass as safe.
        """
        pieces = [self._pieces(self._without_special_tokens(prompt)) for prompt in prompts]
        questions = [
            self._question(piece, guide) for own in pieces for piece in own for guide in self.policies.guidelines
        ]
        tokens = self.tokenizer(questions, add_special_tokens=False)["input_ids"]
        rows = max(1, PASS_TOKENS // max(map(len, tokens)))
        shares = torch.cat([self._shares(tokens[start : start + rows]) for start in range(0, len(tokens), rows)])
        by_prompt = shares.unflatten(0, (-1, len(self.policies.names))).split([len(own) for own in pieces])
        return torch.stack([own.amax(0) for own in by_prompt])

    def _without_special_tokens(self, prompt: str) -> str:
        """The prompt with special tokens split by a space, so that a typed "<end_of_turn>" does not end the turn."""
        return self._special.sub(lambda found: f"{found[0][0]} {found[0][1:]}", prompt)

    def _pieces(self, prompt: str) -> list[str]:
        spans = self.tokenizer(prompt, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        if len(spans) <= PIECE_TOKENS:
            return [prompt]
        starts = range(0, len(spans) - OVERLAP_TOKENS, PIECE_TOKENS - OVERLAP_TOKENS)
        ends = [min(start + PIECE_TOKENS, len(spans)) - 1 for start in starts]
        return [prompt[spans[start][0] : spans[end][1]] for start, end in zip(starts, ends, strict=True)]

    def _shares(self, questions: list[list[int]]) -> Tensor:
        """P(Yes) for tokenised questions, (n,), in one forward pass."""
        batch = self.tokenizer.pad({"input_ids": questions}, return_tensors="pt")
        mask = batch["attention_mask"].to(self.network.device)
        logits = self.network(
            input_ids=batch["input_ids"].to(self.network.device),
            attention_mask=mask,
            position_ids=(mask.cumsum(1) - 1).clamp(min=0),
            logits_to_keep=1,
        ).logits[:, -1, self.answers]
        logits = logits.float().cpu()
        require_finite(logits, "the safety model's answer")  # softmax would turn infinity into 0 or 1
        return logits.softmax(-1)[:, 0]

    def check(self, prompts: Sequence[str]) -> list[Verdict]:
        """One verdict per prompt. Raises NotFiniteError."""
        return [self.verdict(row) for row in self.score(prompts).tolist()]

    def verdict(self, scores: Sequence[float]) -> Verdict:
        """One prompt's scores, in the order of the policies, to a verdict. Raises NotFiniteError."""
        if not all(map(math.isfinite, scores)):
            raise NotFiniteError("the safety score")
        worst = max(range(len(scores)), key=lambda i: scores[i])
        violated = self.policies.names[worst] if scores[worst] > self.policies.threshold else None
        return Verdict(dict(zip(self.policies.names, scores, strict=True)), violated)

    def _question(self, prompt: str, guideline: str) -> str:
        chat = [{"role": "user", "content": prompt}]
        return str(self.tokenizer.apply_chat_template(chat, guideline=guideline, tokenize=False))

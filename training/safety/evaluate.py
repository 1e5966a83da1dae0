"""Chooses the safety classifier's threshold, and measures it on prompts that neither training nor choice has used."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.safety import SafetyClassifier
from training.safety.corpus import Prompts
from training.safety.prompts import POLICIES, Grammar, disguised, share_of

# Maximum shares of false alarms on the threshold's share of ordinary requests.
MAX_ALARMS = {"captions_and_words": 0.04, "emoji_names": 0.01}
THRESHOLDS = [round(0.3 + 0.01 * i, 2) for i in range(66)]


def top_scores(classifier: SafetyClassifier, prompts: Sequence[str], batch: int = 64) -> Tensor:
    """Each prompt's highest score over the policies, (n,); prompts are batched by length."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    scores = torch.zeros(len(prompts))
    for start in range(0, len(prompts), batch):
        rows = order[start : start + batch]
        scores[rows] = classifier.score([prompts[i] for i in rows]).max(1).values
    return scores


def flagged_share(classifier: SafetyClassifier, prompts: Sequence[str]) -> float:
    """The share of prompts over the threshold."""
    return float((top_scores(classifier, prompts) > classifier.policies.threshold).float().mean())


def choose_threshold(classifier: SafetyClassifier, prompts: Prompts, count: int = 1500) -> float:
    """The lowest threshold whose false alarms on the threshold's share are within MAX_ALARMS."""
    grammar = prompts.grammar(np.random.default_rng(99), "threshold")
    safe = _innocent(grammar, prompts, count)
    scores = {name: top_scores(classifier, safe[name]) for name in MAX_ALARMS}
    for threshold in THRESHOLDS:
        if all(float((scores[name] > threshold).float().mean()) <= MAX_ALARMS[name] for name in MAX_ALARMS):
            return threshold
    return THRESHOLDS[-1]


def measure(classifier: SafetyClassifier, prompts: Prompts, count: int = 300) -> dict[str, Any]:
    """Recall (`count` sentences a policy) and false alarms on the measuring share.

    Only the groups of known words and of names were trained on.
    """
    rng = np.random.default_rng(1234)
    grammar = prompts.grammar(rng, "measuring")
    unsafe = {policy: [grammar.violation(policy).prompt for _ in range(count)] for policy in POLICIES}
    groups: dict[str, list[str]] = {f"recall_{policy}": texts for policy, texts in unsafe.items()}
    groups["recall_sentences_disguised"] = [disguised(prompt, rng) for texts in unsafe.values() for prompt in texts]
    groups["recall_words_known"] = sorted(word for word in prompts.bad if share_of(word) == "training")
    groups["recall_words_never_seen"] = sorted(word for word in prompts.bad if share_of(word) == "measuring")
    innocent = _innocent(grammar, prompts, 4 * count)
    groups |= {f"false_alarms_{name}": texts for name, texts in innocent.items()}
    shares = {name: flagged_share(classifier, texts) for name, texts in groups.items()}
    by_policy = {policy: shares.pop(f"recall_{policy}") for policy in POLICIES}
    figures: dict[str, Any] = {"threshold": classifier.policies.threshold, "version": classifier.policies.version}
    figures |= {"recall_sentences": round(sum(by_policy.values()) / len(POLICIES), 4)}
    figures |= {"recall_sentences_count": count * len(POLICIES)}
    for name, share in shares.items():
        figures |= {name: round(share, 4), f"{name}_count": len(groups[name])}
    return figures | {"recall_by_policy": {policy: round(share, 4) for policy, share in by_policy.items()}}


def _innocent(grammar: Grammar, prompts: Prompts, count: int) -> dict[str, list[str]]:
    return {
        "innocent_neighbours": [grammar.neighbour().prompt for _ in range(count)],
        "captions_and_words": [grammar.ordinary().prompt for _ in range(count)],
        "emoji_names": prompts.names,
    }

"""Chooses the safety classifier's threshold, and measures it on prompts that neither training nor choice has used."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.safety import SafetyClassifier
from training.safety.corpus import Prompts
from training.safety.ordinary import max_alarms, ordinary_sets
from training.safety.prompts import POLICIES, Grammar, disguised, share_of

# Maximum shares of false alarms on the threshold's share of ordinary requests.
MAX_ALARMS = {"captions_and_words": 0.04, "emoji_names": 0.01}
THRESHOLDS = [round(0.3 + 0.01 * i, 2) for i in range(70)]


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
    return float(refusals(classifier, prompts).float().mean())


def choose_threshold(
    classifier: SafetyClassifier,
    prompts: Prompts,
    count: int = 1500,
    ordinary: Mapping[str, Sequence[str]] | None = None,
) -> float:
    """The lowest threshold with false alarms within MAX_ALARMS on the threshold's share and within `max_alarms` on the
    `ordinary_sets`. Those are measured on too: their false alarms are limits, not estimates."""
    grammar = prompts.grammar(np.random.default_rng(99), "threshold")
    safe = _innocent(grammar, prompts, count)
    limits = [(top_scores(classifier, safe[name]), limit * len(safe[name])) for name, limit in MAX_ALARMS.items()]
    sets = ordinary_sets() if ordinary is None else ordinary
    limits += [(top_scores(classifier, texts), max_alarms(name, len(texts))) for name, texts in sets.items()]
    for threshold in THRESHOLDS:
        if all(int((scores > threshold).sum()) <= limit for scores, limit in limits):
            return threshold
    return THRESHOLDS[-1]


def unsafe_groups(prompts: Prompts, count: int = 300) -> dict[str, list[str]]:
    """The measuring share's unsafe prompts: `count` sentences a policy in POLICIES' order, the same disguised, words.

    Only the group of known words was trained on.
    """
    rng = np.random.default_rng(1234)
    grammar = prompts.grammar(rng, "measuring")
    sentences = {policy: [grammar.violation(policy).prompt for _ in range(count)] for policy in POLICIES}
    groups = {"recall_sentences": [prompt for texts in sentences.values() for prompt in texts]}
    groups["recall_sentences_disguised"] = [disguised(prompt, rng) for prompt in groups["recall_sentences"]]
    groups["recall_words_known"] = sorted(word for word in prompts.bad if share_of(word) == "training")
    groups["recall_words_never_seen"] = sorted(word for word in prompts.bad if share_of(word) == "measuring")
    return groups


def measure(
    classifier: SafetyClassifier, prompts: Prompts, count: int = 300, before: SafetyClassifier | None = None
) -> dict[str, Any]:
    """Recall and false alarms. With the classifier `before`, also the share of unsafe prompts refused by it that are
    still refused, over all groups."""
    unsafe = unsafe_groups(prompts, count)
    grammar = prompts.grammar(np.random.default_rng(4321), "measuring")
    innocent = {f"false_alarms_{name}": texts for name, texts in _innocent(grammar, prompts, 4 * count).items()}
    innocent |= {f"false_alarms_ordinary_{name}": texts for name, texts in ordinary_sets().items()}
    refused = {name: refusals(classifier, texts) for name, texts in (unsafe | innocent).items()}
    figures: dict[str, Any] = {"threshold": classifier.policies.threshold, "version": classifier.policies.version}
    for name, flags in refused.items():
        figures |= {name: round(float(flags.float().mean()), 4), f"{name}_count": len(flags)}
    for policy, flags in zip(POLICIES, refused["recall_sentences"].split(count), strict=True):
        figures[f"recall_{policy}"] = round(float(flags.float().mean()), 4)
    if before:
        earlier = {name: refusals(before, texts) for name, texts in unsafe.items()}
        kept = {name: int((refused[name] & flags).sum()) for name, flags in earlier.items()}
        for name, flags in earlier.items():
            figures[name.replace("recall", "recall_still", 1)] = round(kept[name] / max(1, int(flags.sum())), 4)
        figures["recall_still_all"] = round(sum(kept.values()) / max(1, sum(int(f.sum()) for f in earlier.values())), 4)
    return figures


def refusals(classifier: SafetyClassifier, prompts: Sequence[str]) -> Tensor:
    """(n,), bool: which prompts are over the threshold."""
    return top_scores(classifier, prompts) > classifier.policies.threshold


def _innocent(grammar: Grammar, prompts: Prompts, count: int) -> dict[str, list[str]]:
    return {
        "innocent_neighbours": [grammar.neighbour().prompt for _ in range(count)],
        "captions_and_words": [grammar.ordinary().prompt for _ in range(count)],
        "emoji_names": prompts.names,
    }

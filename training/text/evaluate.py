"""Measures how near a text encoder puts paraphrases to their concept, and new words to where the teacher puts them."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from model.text import TextEncoder
from training.text import teacher
from training.text.corpus import Corpus

SAMPLE = 600


def measure(folder: Path, context_tokens: int, corpus: Corpus) -> dict[str, float]:
    """Figures of the exported encoder over all slots, pads included, beside the teacher's.

    `paraphrase_*`: share of held-out paraphrases whose nearest name is the right one.
    `general_word_top10`: for words without an image, how often the nearest name is among the teacher's ten nearest.
    `unseen_word_top10`: the same for words that no training sentence contains.
    `context_rms`: root mean square of the context, about 1 when well scaled.
    """
    encoder = TextEncoder.load(folder, context_tokens)
    names = sorted({name for _, name in corpus.paraphrases})
    sample = corpus.paraphrases[:: max(1, len(corpus.paraphrases) // SAMPLE)]
    prompts, wanted = [prompt for prompt, _ in sample], [names.index(name) for _, name in sample]
    own_names, own_prompts = _summary(encoder, names), _summary(encoder, prompts)
    teacher_names, teacher_prompts = (torch.from_numpy(teacher.embed(texts)) for texts in (names, prompts))
    truth = torch.tensor(wanted)
    general = corpus.general_words[:: max(1, len(corpus.general_words) // SAMPLE)]
    context = encoder.encode(names[:200]).conditioning.context
    return {
        "paraphrase_own": float(((own_prompts @ own_names.T).argmax(1) == truth).float().mean()),
        "paraphrase_teacher": float(((teacher_prompts @ teacher_names.T).argmax(1) == truth).float().mean()),
        "general_word_top10": _agreement(encoder, general, own_names, teacher_names),
        "unseen_word_top10": _agreement(encoder, corpus.unseen_words, own_names, teacher_names),
        "context_rms": float(context.pow(2).mean().sqrt()),
    }


def _agreement(encoder: TextEncoder, words: list[str], own_names: Tensor, teacher_names: Tensor) -> float:
    nearest = (_summary(encoder, words) @ own_names.T).argmax(1)
    best = (torch.from_numpy(teacher.embed(words)) @ teacher_names.T).topk(10).indices
    return float((best == nearest[:, None]).any(1).float().mean())


def _summary(encoder: TextEncoder, texts: list[str]) -> Tensor:
    """Unit vectors of the last slot, from which every image starts."""
    parts = [encoder.encode(texts[i : i + 256]).conditioning.context[:, -1] for i in range(0, len(texts), 256)]
    rows = torch.cat(parts)
    return F.normalize(rows - rows.mean(0), dim=-1)

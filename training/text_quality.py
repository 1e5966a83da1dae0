"""How well a text encoder puts paraphrases beside their thing, and new words where a sentence model puts them."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from model.text import TextEncoder
from training import teacher
from training.corpus import Corpus


def measure(folder: Path, context_tokens: int, corpus: Corpus) -> dict[str, float]:
    """Figures of the exported encoder as the generator sees it (all slots, pads included), beside the teacher's own.

    `paraphrase_*`: share of held-out paraphrases whose nearest thing name is the right one.
    `unseen_word_top10`: for words never trained on, how often the nearest name is among the teacher's ten nearest.
    `context_rms`: root mean square of the context, about 1 when well scaled.
    """
    encoder = TextEncoder.load(folder, context_tokens)
    names = sorted({name for _, name in corpus.paraphrases})
    prompts, wanted = [p for p, _ in corpus.paraphrases], [names.index(name) for _, name in corpus.paraphrases]
    own_names, own_prompts = _summary(encoder, names), _summary(encoder, prompts)
    teacher_names, teacher_prompts = (torch.from_numpy(teacher.embed(texts)) for texts in (names, prompts))
    truth = torch.tensor(wanted)
    nearest = (_summary(encoder, corpus.unseen_words) @ own_names.T).argmax(1)
    best = (torch.from_numpy(teacher.embed(corpus.unseen_words)) @ teacher_names.T).topk(10).indices
    context = encoder.encode(names[:200]).conditioning.context
    return {
        "paraphrase_own": float(((own_prompts @ own_names.T).argmax(1) == truth).float().mean()),
        "paraphrase_teacher": float(((teacher_prompts @ teacher_names.T).argmax(1) == truth).float().mean()),
        "unseen_word_top10": float((best == nearest[:, None]).any(1).float().mean()),
        "context_rms": float(context.pow(2).mean().sqrt()),
    }


def _summary(encoder: TextEncoder, texts: list[str]) -> Tensor:
    """Unit vectors of the last slot, which every picture starts from."""
    parts = [encoder.encode(texts[i : i + 256]).conditioning.context[:, -1] for i in range(0, len(texts), 256)]
    rows = torch.cat(parts)
    return F.normalize(rows - rows.mean(0), dim=-1)

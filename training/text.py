"""Distils the small text encoder from a sentence model; knows nothing of pictures' pixels.

`python -m training.text` trains a Qwen2 of 4 layers x 256 with its own BPE, so that sentences which mean the same come
to lie together, words without a picture near words with one, and writes it, ready for a bundle, to
`.cache/training/text_encoder/`. It resumes from `.cache/training/text.pt`; the teacher's vectors are kept on disk.

The generator attends to all T prompt slots, padded ones included, and begins with the last of them. So the mean of the
real slots, every pad slot in the batch and the very last slot each have to predict the teacher's vector; the pad slots
also the set of words, which a sentence vector alone would blur.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm
from transformers import DynamicCache, Qwen2Config, Qwen2Model, Qwen2Tokenizer

from training import teacher
from training.bag import distance, train_bag
from training.bpe import id_count, save_bpe, train_bpe
from training.corpus import SYSTEM_PROMPT, Corpus, make_corpus
from training.data import load_pictures
from training.ending import run_command

OUT = Path(".cache/training")
CONTEXT_TOKENS = 20
EMBEDDING_RMS = 0.2


@dataclass(frozen=True)
class Settings:
    """How long and how wide to train."""

    steps: int = 1150
    batch: int = 256
    learning_rate: float = 2e-3
    warmup: int = 50
    width: int = 256
    layers: int = 4
    mlp: int = 704
    vocabulary: int = 4096
    save_every: int = 100
    bag_epochs: int = 12


class Student(nn.Module):
    """The Qwen2 to keep, and the heads that are thrown away after the distillation."""

    def __init__(self, settings: Settings, vocabulary: int, system_ids: list[int]) -> None:
        super().__init__()
        config = Qwen2Config(
            vocab_size=vocabulary,
            hidden_size=settings.width,
            intermediate_size=settings.mlp,
            num_hidden_layers=settings.layers,
            num_attention_heads=settings.width // 64,
            num_key_value_heads=settings.width // 128,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            pad_token_id=0,
            bos_token_id=None,
            eos_token_id=None,
        )
        self.network = Qwen2Model(config)
        self.to_teacher = nn.ModuleDict({k: nn.Linear(settings.width, teacher.WIDTH) for k in ("words", "pads")})
        self.to_bag = nn.Linear(settings.width, vocabulary)
        self.system_ids = torch.tensor([system_ids])

    def forward(self, ids: Tensor) -> Tensor:
        """Prompt ids (n, L), 0 = pad on the right -> hidden states (n, L + 1, width); the last one is slot T - 1."""
        n, length = ids.shape
        ids = F.pad(ids, (0, 1))  # stands for the last slot of the context, whatever the batch's own length
        prefix = self.network(input_ids=self.system_ids, use_cache=True).past_key_values
        cache = DynamicCache()
        for layer, kept in enumerate(prefix.layers):
            cache.update(kept.keys.expand(n, -1, -1, -1), kept.values.expand(n, -1, -1, -1), layer)
        system = self.system_ids.shape[1]
        places = torch.arange(length + 1)
        places[-1] = CONTEXT_TOKENS - 1
        causal = torch.ones(length + 1, length + 1, dtype=torch.bool).tril() & (ids != 0)[:, None, :]
        allowed = F.pad(causal, (system, 0), value=True)[:, None]
        mask = torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min)
        hidden: Tensor = self.network(
            input_ids=ids,
            attention_mask=mask,
            position_ids=places[None] + system,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        return hidden

    def loss(self, ids: Tensor, target: Tensor) -> Tensor:
        """Distillation loss of prompts (n, L) against unit vectors (n, 384)."""
        hidden, real = self(ids), F.pad(ids != 0, (0, 1))
        words = self.to_teacher["words"](_mean(hidden, real))
        pads, owners = hidden[~real], torch.nonzero(~real)[:, 0]
        last = self.to_teacher["pads"](hidden[:, -1])
        loss = distance(words, target) + distance(last, target)
        loss = loss + (1 - F.cosine_similarity(self.to_teacher["pads"](pads), target[owners])).mean()
        bag = torch.zeros(len(ids), self.network.config.vocab_size).scatter_(1, ids, 1.0)
        bag[:, 0] = 0
        shares = bag / bag.sum(1, keepdim=True).clamp(min=1)
        return loss - 0.1 * (shares * F.log_softmax(self.to_bag(hidden[:, -1]).float(), dim=-1)).sum(1).mean()

    def begin(self, embeddings: Tensor, head: Tensor) -> None:
        """Takes a bag's embeddings and its head's weights over (`training.bag`)."""
        self.network.embed_tokens.weight.data.copy_(embeddings * (EMBEDDING_RMS / embeddings.pow(2).mean().sqrt()))
        for mine in self.to_teacher.values():
            assert isinstance(mine, nn.Linear)  # noqa: S101 - for the type checker
            mine.weight.data.copy_(head * mine.weight.std() / head.std())


def _mean(hidden: Tensor, real: Tensor) -> Tensor:
    weight = real[..., None].to(hidden.dtype)
    return (hidden * weight).sum(1) / weight.sum(1)


def batches(lengths: NDArray[np.int64], size: int, rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """One epoch of index batches of similar lengths, in random order."""
    order = rng.permutation(len(lengths))
    order = order[np.argsort(lengths[order] + rng.random(len(order)), kind="stable")]
    parts = [order[i : i + size] for i in range(0, len(order) - size + 1, size)]
    return [parts[i] for i in rng.permutation(len(parts))]


def train(settings: Settings, corpus: Corpus, out: Path, seed: int = 0) -> tuple[Student, Qwen2Tokenizer]:
    """Trains, or goes on from where it stopped; the student is in evaluation mode when it comes back."""
    torch.manual_seed(seed)
    tokenizer = train_bpe([*corpus.training, SYSTEM_PROMPT, *corpus.general_words[:6000] * 4], settings.vocabulary)
    targets = torch.from_numpy(teacher.embed(corpus.training))
    encoded = [ids[:CONTEXT_TOKENS] for ids in tokenizer(corpus.training)["input_ids"]]
    lengths = np.array([len(ids) for ids in encoded])
    student = Student(settings, id_count(tokenizer), tokenizer(SYSTEM_PROMPT)["input_ids"])
    optimizer = torch.optim.AdamW(student.parameters(), lr=settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    kept, step = out / "text.pt", 0
    if kept.exists():
        state = torch.load(kept, weights_only=True)
        student.load_state_dict(state["student"])
        optimizer.load_state_dict(state["optimizer"])
        step = int(state["step"])
    else:
        student.begin(*train_bag(encoded, targets, id_count(tokenizer), settings.width, settings.bag_epochs))
    epoch_batches: list[NDArray[np.int64]] = []
    rng = np.random.default_rng(seed + step)
    progress = tqdm(range(step, settings.steps), initial=step, total=settings.steps, desc="text encoder")
    for step in progress:
        epoch_batches = epoch_batches or batches(lengths, settings.batch, rng)
        rows = epoch_batches.pop()
        loss = _step(student, optimizer, settings, step, [encoded[i] for i in rows], targets[rows])
        progress.set_postfix(loss=f"{loss:.3f}")
        if (step + 1) % settings.save_every == 0:
            _save(kept, student, optimizer, step + 1)
    return student.eval(), tokenizer


def _step(
    student: Student,
    optimizer: torch.optim.Optimizer,
    settings: Settings,
    step: int,
    rows: list[list[int]],
    target: Tensor,
) -> float:
    rate = min((step + 1) / settings.warmup, 1.0, max(0.02, (settings.steps - step) / (0.6 * settings.steps)))
    for group in optimizer.param_groups:
        group["lr"] = settings.learning_rate * rate
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
    with torch.autocast("cpu", torch.bfloat16):
        loss = student.loss(ids, target)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(student.parameters(), 1.0)
    optimizer.step()
    return float(loss.detach())


def _save(path: Path, student: Student, optimizer: torch.optim.Optimizer, step: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save({"student": student.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, partial)
    partial.rename(path)


def export(student: Student, tokenizer: Qwen2Tokenizer, folder: Path) -> None:
    """Writes a bundle's text_encoder/: half-precision weights, tokenizer, system prompt."""
    folder.mkdir(parents=True, exist_ok=True)
    student.network.half().save_pretrained(folder)
    save_bpe(tokenizer, folder, CONTEXT_TOKENS)
    (folder / "system_prompt.txt").write_text(SYSTEM_PROMPT)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.text", description="Distil the text encoder.")
    parser.add_argument("--steps", type=int, default=Settings.steps, help="training steps")
    parser.add_argument("--out", type=Path, default=OUT, help="folder for the result and for resuming")
    parser.add_argument("--vocabulary", type=int, default=Settings.vocabulary, help="entries of the BPE")
    arguments = parser.parse_args()
    settings = Settings(steps=arguments.steps, vocabulary=arguments.vocabulary)
    corpus = make_corpus(load_pictures(), teacher.dictionary())
    student, tokenizer = train(settings, corpus, arguments.out)
    folder = arguments.out / "text_encoder"
    export(student, tokenizer, folder)
    from training.text_quality import measure

    figures: dict[str, Any] = measure(folder, CONTEXT_TOKENS, corpus)
    (arguments.out / "text_quality.json").write_text(json.dumps(figures, indent=1))
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    sys.exit(run_command(main))

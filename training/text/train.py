"""Distils a small text encoder from a sentence model.

Trains a Qwen2 of 4 layers x 256 with its own BPE, so that sentences of one meaning get similar vectors and words
without an image lie near words with one. Resumes from `OUT/text.pt`; the teacher's vectors are cached.

The generator attends to all T prompt slots, padding included, and starts from the last of them. So the mean of the
real slots, every pad slot in the batch and the last slot each have to predict the teacher's vector; the pad slots also
the set of words, which a sentence vector alone would blur.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm
from transformers import DynamicCache, Qwen2Config, Qwen2Model, Qwen2Tokenizer

from training.core.device import autocast
from training.core.images import CPU
from training.text import teacher
from training.text.bag import distance, train_bag
from training.text.bpe import id_count, save_bpe, train_bpe
from training.text.corpus import Corpus

CONTEXT_TOKENS = 20
EMBEDDING_RMS = 0.2


@dataclass(frozen=True)
class TextConfig:
    """Size and length of the training."""

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
    """The Qwen2, and the heads that only the distillation uses."""

    def __init__(self, config: TextConfig, vocabulary: int, system_ids: list[int]) -> None:
        super().__init__()
        shape = Qwen2Config(
            vocab_size=vocabulary,
            hidden_size=config.width,
            intermediate_size=config.mlp,
            num_hidden_layers=config.layers,
            num_attention_heads=config.width // 64,
            num_key_value_heads=config.width // 128,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            pad_token_id=0,
            bos_token_id=None,
            eos_token_id=None,
        )
        self.network = Qwen2Model(shape)
        self.to_teacher = nn.ModuleDict({k: nn.Linear(config.width, teacher.WIDTH) for k in ("words", "pads")})
        self.to_bag = nn.Linear(config.width, vocabulary)
        self.system_ids = torch.tensor([system_ids])

    def forward(self, ids: Tensor) -> Tensor:
        """Prompt ids (n, L), 0 = pad on the right -> hidden states (n, L + 1, width); the last one is slot T - 1."""
        n, length = ids.shape
        ids = F.pad(ids, (0, 1))  # the last slot of the context, whatever the batch's length
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

    def initialise(self, embeddings: Tensor, head: Tensor) -> None:
        """Takes over the embeddings and the head of a bag of words (`training.text.bag`)."""
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


def train(config: TextConfig, corpus: Corpus, out: Path, seed: int = 0) -> tuple[Student, Qwen2Tokenizer]:
    """Trains, or resumes; returns the student in evaluation mode and its tokenizer."""
    torch.manual_seed(seed)
    tokenizer = train_bpe([*corpus.training, corpus.system_prompt, *corpus.general_words[:6000] * 4], config.vocabulary)
    targets = torch.from_numpy(teacher.embed(corpus.training))
    encoded = [ids[:CONTEXT_TOKENS] for ids in tokenizer(corpus.training)["input_ids"]]
    lengths = np.array([len(ids) for ids in encoded])
    student = Student(config, id_count(tokenizer), tokenizer(corpus.system_prompt)["input_ids"])
    optimizer = torch.optim.AdamW(student.parameters(), lr=config.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    kept, step = out / "text.pt", 0
    if kept.exists():
        state = torch.load(kept, weights_only=True)
        student.load_state_dict(state["student"])
        optimizer.load_state_dict(state["optimizer"])
        step = int(state["step"])
    else:
        student.initialise(*train_bag(encoded, targets, id_count(tokenizer), config.width, config.bag_epochs))
    epoch_batches: list[NDArray[np.int64]] = []
    rng = np.random.default_rng(seed + step)
    progress = tqdm(range(step, config.steps), initial=step, total=config.steps, desc="text encoder")
    for step in progress:
        epoch_batches = epoch_batches or batches(lengths, config.batch, rng)
        rows = epoch_batches.pop()
        loss = _step(student, optimizer, config, step, [encoded[i] for i in rows], targets[rows])
        progress.set_postfix(loss=f"{loss:.3f}")
        if (step + 1) % config.save_every == 0:
            _save(kept, student, optimizer, step + 1)
    return student.eval(), tokenizer


def _step(
    student: Student,
    optimizer: torch.optim.Optimizer,
    config: TextConfig,
    step: int,
    rows: list[list[int]],
    target: Tensor,
) -> float:
    rate = min((step + 1) / config.warmup, 1.0, max(0.02, (config.steps - step) / (0.6 * config.steps)))
    for group in optimizer.param_groups:
        group["lr"] = config.learning_rate * rate
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
    with autocast(CPU):
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


def export(student: Student, tokenizer: Qwen2Tokenizer, system_prompt: str, folder: Path) -> None:
    """Writes a bundle's text_encoder/: half-precision weights, tokenizer, system prompt."""
    folder.mkdir(parents=True, exist_ok=True)
    student.network.half().save_pretrained(folder)
    save_bpe(tokenizer, folder, CONTEXT_TOKENS)
    (folder / "system_prompt.txt").write_text(system_prompt)

"""Token embeddings whose plain mean predicts a sentence model's vector; knows nothing of the networks they begin.

What a word means lies in the embeddings for the most part. A network that starts from these has words of like meaning
near each other, those included that its own examples never show, and has only to learn what order adds.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

TEMPERATURE = 0.05
BATCH = 1024


def distance(predicted: Tensor, target: Tensor) -> Tensor:
    """Cosine distance, plus how far the likeness to all others in the batch is from the teacher's."""
    predicted = F.normalize(predicted.float(), dim=-1)
    wanted = F.softmax(target @ target.T / TEMPERATURE, dim=-1)
    got = F.log_softmax(predicted @ target.T / TEMPERATURE, dim=-1)
    return (1 - (predicted * target).sum(-1)).mean() + 0.25 * F.kl_div(got, wanted, reduction="batchmean")


def train_bag(
    encoded: list[list[int]], targets: Tensor, vocabulary: int, width: int, epochs: int, batch: int = BATCH
) -> tuple[Tensor, Tensor]:
    """Token ids of texts and their unit vectors (n, d) to embeddings (vocabulary, width) and a head (d, width)."""
    batch = min(batch, len(encoded))
    bag = nn.EmbeddingBag(vocabulary, width, mode="mean")
    head = nn.Linear(width, targets.shape[1])
    optimizer = torch.optim.Adam([*bag.parameters(), *head.parameters()], lr=1e-2)
    total = epochs * (len(encoded) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=total, pct_start=0.1)
    for _ in tqdm(range(epochs), desc="bag of words"):
        order = torch.randperm(len(encoded))[: len(encoded) // batch * batch]
        for rows in order.view(-1, batch).tolist():
            flat = torch.tensor([token for i in rows for token in encoded[i]])
            starts = torch.tensor([0, *[len(encoded[i]) for i in rows[:-1]]]).cumsum(0)
            loss = distance(head(bag(flat, starts)), targets[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return bag.weight.detach(), head.weight.detach()

"""Token embeddings whose mean predicts a sentence model's vector, for initialising a network.

Most of a word's meaning lies in its embedding. A network initialised with these has words of similar meaning near each
other, including words that its own examples lack, and only has to learn word order.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

TEMPERATURE = 0.05
BATCH = 1024


def distance(predicted: Tensor, target: Tensor) -> Tensor:
    """Cosine distance, plus the divergence of the similarities within the batch from the teacher's."""
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

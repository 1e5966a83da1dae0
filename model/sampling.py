"""Logits to tokens: guidance, top-k, top-p, sampling, soft mixture (docs/spec.md, section 3). All float32."""

from torch import Tensor

TOP_K_SMALL_SCALES, TOP_K_LARGE_SCALES, FIRST_LARGE_SCALE = 600, 300, 7
MINUS_INFINITY = float("-inf")


def top_k(scale: int) -> int:
    """k of a scale's top-k filter."""
    return TOP_K_SMALL_SCALES if scale < FIRST_LARGE_SCALE else TOP_K_LARGE_SCALES


def guide(logits: Tensor, t: Tensor) -> Tensor:
    """Logits (n, branches, L, V), conditional first, and guidance t (n,) to (n, L, V)."""
    if logits.shape[1] == 1:
        return logits[:, 0]
    t = t[:, None, None]
    return (1 + t) * logits[:, 0] - t * logits[:, 1]


def keep_top_k(logits: Tensor, scale: int) -> Tensor:
    """Sets all logits below the k-th to -inf, so that ties with it remain."""
    k = top_k(scale)
    if k >= logits.shape[-1]:
        return logits
    threshold = logits.topk(k, dim=-1, sorted=False).values.amin(-1, keepdim=True)
    return logits.masked_fill(logits < threshold, MINUS_INFINITY)


def keep_top_p(logits: Tensor, top_p: Tensor) -> Tensor:
    """Sets the tail with cumulative probability up to 1 - p to -inf. top_p (n,); 0 disables the filter for a row."""
    ascending, order = logits.sort(dim=-1)
    tail = ascending.softmax(-1).cumsum(-1) <= (1 - top_p)[:, None, None]
    tail &= (top_p > 0)[:, None, None]
    tail[..., -1] = False
    return logits.masked_fill(tail.scatter(-1, order, tail), MINUS_INFINITY)


def draw_tokens(logits: Tensor, exponential: Tensor) -> Tensor:
    """Indices (n, L) = argmax(softmax / E): a multinomial sample that is a pure function of the noise."""
    return (logits.softmax(-1) / exponential).argmax(-1)


def soft_weights(logits: Tensor, exponential: Tensor, ratio: float) -> Tensor:
    """Weights (n, L, V) over the codebook: a Gumbel softmax; its temperature falls with `ratio`."""
    return ((logits * (1 + ratio) - exponential.log()) / temperature(ratio)).softmax(-1)


def temperature(ratio: float) -> float:
    """The temperature of the soft mixture."""
    return max(0.27 * (1 - 0.95 * ratio), 0.005)

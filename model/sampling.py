"""From logits to tokens: guidance, top-k, top-p, the draw, the soft mixture (docs/spec.md, section 3). All float32."""

from torch import Tensor

TOP_K_SMALL_SCALES, TOP_K_LARGE_SCALES, FIRST_LARGE_SCALE = 600, 300, 7
MINUS_INFINITY = float("-inf")


def top_k(scale: int) -> int:
    """How many of the largest logits a scale keeps."""
    return TOP_K_SMALL_SCALES if scale < FIRST_LARGE_SCALE else TOP_K_LARGE_SCALES


def guide(logits: Tensor, t: Tensor) -> Tensor:
    """Logits (n, 2, L, V), conditional first, and guidance t (n,) to (n, L, V)."""
    t = t[:, None, None]
    return (1 + t) * logits[:, 0] - t * logits[:, 1]


def keep_top_k(logits: Tensor, scale: int) -> Tensor:
    """Sets all but the k largest to -inf; ties with the k-th are kept."""
    k = top_k(scale)
    if k >= logits.shape[-1]:
        return logits
    least = logits.topk(k, dim=-1, sorted=False).values.amin(-1, keepdim=True)
    return logits.masked_fill(logits < least, MINUS_INFINITY)


def keep_top_p(logits: Tensor, top_p: Tensor) -> Tensor:
    """Drops the ascending tail whose cumulative probability is at most 1 - p; top_p (n,), 0 keeps that row whole."""
    ascending, order = logits.sort(dim=-1)
    tail = ascending.softmax(-1).cumsum(-1) <= (1 - top_p)[:, None, None]
    tail &= (top_p > 0)[:, None, None]
    tail[..., -1] = False
    return logits.masked_fill(tail.scatter(-1, order, tail), MINUS_INFINITY)


def draw_tokens(logits: Tensor, exponential: Tensor) -> Tensor:
    """Indices (n, L) by argmax(softmax / E): distributed as a multinomial draw, and a pure function of the noise."""
    return (logits.softmax(-1) / exponential).argmax(-1)


def soft_weights(logits: Tensor, exponential: Tensor, ratio: float) -> Tensor:
    """Weights (n, L, V) over the codebook: a Gumbel softmax whose temperature falls as scales go by."""
    return ((logits * (1 + ratio) - exponential.log()) / temperature(ratio)).softmax(-1)


def temperature(ratio: float) -> float:
    """Of the soft mixture."""
    return max(0.27 * (1 - 0.95 * ratio), 0.005)

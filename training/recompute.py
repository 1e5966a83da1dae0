"""Memory for time: parts of a network whose passes are computed again on the way back. Knows nothing of what it trains.

Of such a part's pass only the inputs are kept (Chen et al. 2016, arXiv 1604.06174). A step takes about a third longer;
the released sizes then fit where they would not.
"""

from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint


def recompute(network: nn.Module, kinds: tuple[type[nn.Module], ...]) -> int:
    """Has every module of these kinds computed again in the backward pass; returns how many. Names stay as they are.

    Such a module holds itself, so that a network's memory comes back with the garbage collector's next round only.
    """
    chosen = [module for module in network.modules() if isinstance(module, kinds)]
    for module in chosen:
        # Nothing in our networks draws random numbers, so none need to be the same the second time.
        module.forward = partial(checkpoint, module.forward, use_reentrant=False, preserve_rng_state=False)
    return len(chosen)

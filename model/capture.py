"""A piece of work as a CUDA graph: all of its launches in one call, over the same tensors each time."""

from collections.abc import Callable
from functools import cache
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
Result = TypeVar("Result", covariant=True)


class Graph(Protocol[Result]):
    """Something that was captured of a piece of work, and does the same again over the same tensors."""

    @property
    def result(self) -> Result:
        """What the work returned; a replay writes into its tensors."""

    def replay(self) -> None:
        """Does the work again."""


@cache
def _side_stream(device: int) -> torch.cuda.Stream:
    """One for all captures: libraries keep a workspace for every stream that they have seen."""
    return torch.cuda.Stream(device)


class CudaGraph(Generic[T]):
    """A CUDA graph over a pool of memory that it may share: what one wrote is copied before another is replayed.

    It owns nothing that the work reads: its owner keeps that alive.
    """

    def __init__(self, work: Callable[[], T], pool: Any = None) -> None:
        side = _side_stream(torch.cuda.current_device())
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            work()  # compiles kernels and makes libraries' workspaces, which a capture must not
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        # thread_local: the thread that serves metrics asks the device for its free memory at any time
        with torch.cuda.graph(self.graph, pool=pool, capture_error_mode="thread_local"):
            self.result = work()

    def replay(self) -> None:
        self.graph.replay()


class PythonGraph(Generic[T]):
    """Stands for a graph where there is none: calls the work again, and writes into the tensors of its first call."""

    def __init__(self, work: Callable[[], T], written: Callable[[T], list[Tensor]]) -> None:
        self.work, self.written, self.result = work, written, work()

    def replay(self) -> None:
        for old, new in zip(self.written(self.result), self.written(self.work()), strict=True):
            old.copy_(new)


class Replay:
    """A function of one tensor as a graph, for tensors like the example: a call copies the tensor in, replays, and
    returns copies of what the graph wrote."""

    def __init__(self, function: Callable[[Tensor], tuple[Tensor, ...]], example: Tensor) -> None:
        self.function = function  # kept, because the graph reads the function's weights where they are now
        self.input = example.clone()
        self.graph: Graph[tuple[Tensor, ...]] = (
            CudaGraph(self._work) if example.is_cuda else PythonGraph(self._work, list)
        )

    def _work(self) -> tuple[Tensor, ...]:
        return self.function(self.input)

    def __call__(self, tensor: Tensor) -> tuple[Tensor, ...]:
        self.input.copy_(tensor)
        self.graph.replay()
        return tuple(part.clone() for part in self.graph.result)

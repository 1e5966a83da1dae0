"""Imports transformers without torch's compiler and distribution: they cost every start seconds and do nothing here."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch

COMPILER = "torch._dynamo"
INDEXING = f"{COMPILER}._trace_wrapped_higher_order_op"


@contextmanager
def slim_torch() -> Iterator[None]:
    """In the block, the compiler's marks do nothing, its context for indexing is imported on its first use, and
    torch.distributed is absent, as in builds without it.

    transformers marks functions for the compiler while it is imported, and a mark would import the compiler.
    """
    if COMPILER in sys.modules:
        yield
        return
    before = torch.compiler.disable, torch.compiler.allow_in_graph, torch.distributed.is_available
    placeholders = {COMPILER: ModuleType(COMPILER), INDEXING: ModuleType(INDEXING)}
    vars(placeholders[COMPILER]).update(assume_constant_result=_unmarked, allow_in_graph=_unmarked, disable=_unmarked)
    vars(placeholders[INDEXING]).update(TransformGetItemToIndex=_indexing)
    sys.modules.update(placeholders)
    vars(torch.compiler).update(disable=_unmarked, allow_in_graph=_unmarked)
    torch.distributed.is_available = lambda: False
    try:
        yield
    finally:
        for name in placeholders:
            del sys.modules[name]
        vars(torch).pop("_dynamo", None)
        torch.compiler.disable, torch.compiler.allow_in_graph, torch.distributed.is_available = before


def _unmarked(function: Any = None, *_: Any, **__: Any) -> Any:
    return (lambda later: later) if function is None else function


def _indexing() -> Any:
    from torch._dynamo._trace_wrapped_higher_order_op import TransformGetItemToIndex

    return TransformGetItemToIndex()

"""The type of a gRPC call's context."""

from __future__ import annotations

from typing import Any, TypeAlias

import grpc

RpcContext: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
"""Its message types matter to `read` and `write` alone, which no servicer calls."""

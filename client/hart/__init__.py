"""hart: the Python client of HART cluster. Names are imported on first use; no server package is imported.

import hart

client = hart.Client("127.0.0.1:50051")
for image in client.generate("a red heart", seed=7):
    image.save(f"heart-{image.index}.png")
"""

from __future__ import annotations

TYPE_CHECKING = False  # not from typing, whose import takes as long as the rest of this module
if TYPE_CHECKING:
    from typing import Any

    from hart.aio import AsyncClient
    from hart.channel import TLS
    from hart.client import Client
    from hart.errors import (
        Cancelled,
        DeadlineExceeded,
        HartError,
        InternalError,
        InvalidRequest,
        Overloaded,
        PermissionDenied,
        PromptUnsafe,
        Unauthenticated,
        Unavailable,
    )
    from hart.results import Accepted, Event, Finished, GenerateResult, Image, Prepared, Preview, Progress, Starting

    __version__: str

_HOME = {
    "AsyncClient": "hart.aio",
    "TLS": "hart.channel",
    "Client": "hart.client",
    **dict.fromkeys(
        (
            "Cancelled",
            "DeadlineExceeded",
            "HartError",
            "InternalError",
            "InvalidRequest",
            "Overloaded",
            "PermissionDenied",
            "PromptUnsafe",
            "Unauthenticated",
            "Unavailable",
        ),
        "hart.errors",
    ),
    **dict.fromkeys(
        ("Accepted", "GenerateResult", "Event", "Finished", "Image", "Prepared", "Preview", "Progress", "Starting"),
        "hart.results",
    ),
}

__all__ = [
    "TLS",
    "Accepted",
    "AsyncClient",
    "Cancelled",
    "Client",
    "DeadlineExceeded",
    "Event",
    "Finished",
    "GenerateResult",
    "HartError",
    "Image",
    "InternalError",
    "InvalidRequest",
    "Overloaded",
    "PermissionDenied",
    "Prepared",
    "Preview",
    "Progress",
    "PromptUnsafe",
    "Starting",
    "Unauthenticated",
    "Unavailable",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name not in _HOME:
        raise AttributeError(f"module 'hart' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOME[name]), name)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("hart-client")
    except PackageNotFoundError:  # run from a checkout without an installation
        return "0+unknown"


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])

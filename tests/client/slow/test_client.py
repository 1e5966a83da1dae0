"""hart.client, hart.aio, hart.results: the typed clients against a fake gateway on a real socket."""

from __future__ import annotations

import subprocess
import sys

import hart
import pytest


def test_importing_hart_imports_nothing_else() -> None:
    code = "import sys, hart; print([m for m in ('grpc', 'google.protobuf', 'torch', 'typer') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
    assert set(hart.__all__) <= set(dir(hart))
    for name in hart.__all__:
        assert getattr(hart, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        _ = hart.nothing

"""hart.channel: the client over TLS and mutual TLS, with generated certificates."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import hart
from hart.cli.app import app
from typer.testing import CliRunner


def test_valid_certificates_are_accepted_by_every_client(secured: tuple[str, Path, bool]) -> None:
    endpoint, folder, mutual = secured
    mine: dict[str, Any] = {"cert": folder / "me.pem", "key": folder / "me.key"} if mutual else {}
    tls = hart.TLS(ca=folder / "ca.pem", **mine)
    with hart.Client(endpoint, api_key="k", tls=tls) as client:
        assert client.describe().version == "secured Bearer k"

    async def asynchronously() -> str:
        async with hart.AsyncClient(endpoint, tls=tls) as client:
            return (await client.describe()).version

    assert asyncio.run(asynchronously()) == "secured "
    words = [word for name, path in mine.items() for word in (f"--tls-{name}", str(path))]
    output = CliRunner().invoke(app, ["describe", "--endpoint", endpoint, "--tls-ca", str(folder / "ca.pem"), *words])
    assert output.exit_code == 0, output.output
    assert "secured" in output.stdout

"""hart.channel: the client over TLS and mutual TLS, with generated certificates."""

from __future__ import annotations

from pathlib import Path

import hart
import pytest
from hart.cli.app import app
from typer.testing import CliRunner


def test_wrong_ca_missing_certificate_or_plaintext_is_unavailable(
    secured: tuple[str, Path, bool],
) -> None:
    endpoint, folder, mutual = secured
    wrong: list[hart.TLS | None] = [None, hart.TLS(ca=folder / "other.pem")]
    if mutual:
        wrong.append(hart.TLS(ca=folder / "ca.pem"))
        wrong.append(hart.TLS(ca=folder / "ca.pem", cert=folder / "other.pem", key=folder / "other.key"))
    for tls in wrong:
        with hart.Client(endpoint, tls=tls) as client, pytest.raises(hart.Unavailable):
            client.describe(timeout=60)


def test_command_hints_at_wrong_tls_options(secured: tuple[str, Path, bool]) -> None:
    endpoint, folder, _ = secured
    for words, hint in (
        ([], "it may require TLS"),
        (["--tls-ca", str(folder / "other.pem")], "requires other certificates"),
    ):
        output = CliRunner().invoke(app, ["describe", "--endpoint", endpoint, "--timeout", "60", *words])
        assert output.exit_code == 4, output.output
        assert hint in output.stderr

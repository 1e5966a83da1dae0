"""The typer app with its subcommands."""

from __future__ import annotations

from typing import Annotated

import typer

import hart
from hart.cli.bench import bench
from hart.cli.generate import generate
from hart.cli.inspect import describe, status
from hart.cli.trace import trace

app = typer.Typer(
    name="hart",
    help="Generate images from text on a HART cluster.\n\n"
    "Exit codes: 1 failure, 2 usage (invalid option or field), 3 refused (unsafe prompt, credentials), "
    "4 unavailable or overloaded, 5 deadline, 130 interrupted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (generate, describe, status, trace, bench):
    app.command()(command)


def _version(show: bool) -> None:
    if show:
        typer.echo(f"hart-client {hart.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options before a subcommand."""

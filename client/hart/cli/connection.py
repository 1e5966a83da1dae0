"""What all subcommands share: how to reach the cluster, and which exit code an error becomes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from hart.cli.text import shown

# What gRPC writes of failed connections by itself; it comes as an error that we print.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from hart.channel import DEFAULT_ENDPOINT as DEFAULT_ENDPOINT
from hart.cli.numbers import number

_GROUP = "Connection"
MAX_SECONDS = 1e8
"""As hart.request.LONGEST_TIMEOUT, which takes gRPC's messages to import."""
Endpoint = Annotated[
    str, typer.Option("--endpoint", envvar="HART_ENDPOINT", help="The gateway, host:port.", rich_help_panel=_GROUP)
]
ApiKey = Annotated[
    str | None,
    typer.Option("--api-key", envvar="HART_API_KEY", help="Sent as a bearer token.", rich_help_panel=_GROUP),
]
Tls = Annotated[bool, typer.Option("--tls", help="Encrypt; implied by the --tls-… options.", rich_help_panel=_GROUP)]
TlsCa = Annotated[Path | None, typer.Option("--tls-ca", help="PEM file of the roots to trust.", rich_help_panel=_GROUP)]
TlsCert = Annotated[
    Path | None, typer.Option("--tls-cert", help="PEM file of our certificate.", rich_help_panel=_GROUP)
]
TlsKey = Annotated[Path | None, typer.Option("--tls-key", help="PEM file of its key.", rich_help_panel=_GROUP)]
Insecure = Annotated[
    bool,
    typer.Option("--insecure", help="Send the API key unencrypted to another machine.", rich_help_panel=_GROUP),
]


def _timeout(help: str) -> Any:
    parser = number(float, 0.001, MAX_SECONDS)
    return typer.Option("--timeout", parser=parser, metavar="SECONDS", help=help, rich_help_panel=_GROUP)


Timeout = Annotated[float | None, _timeout("The longest that a call may take.")]
ServersTimeout = Annotated[float | None, _timeout("The longest that a call may take. Default: the server's, 60")]
AsJson = Annotated[bool, typer.Option("--json", help="Answer with JSON on standard output.")]

EXIT_FAILURE, EXIT_USAGE, EXIT_REFUSED, EXIT_UNAVAILABLE, EXIT_DEADLINE, EXIT_INTERRUPTED = 1, 2, 3, 4, 5, 130


@dataclass(frozen=True)
class ConnectionOptions:
    """The connection options of a command line."""

    endpoint: str = DEFAULT_ENDPOINT
    api_key: str | None = None
    tls: bool = False
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    insecure: bool = False

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of Client and AsyncClient."""
        from hart.channel import TLS, is_loopback

        wanted = self.tls or any((self.tls_ca, self.tls_cert, self.tls_key))
        if self.api_key and not (wanted or self.insecure or is_loopback(self.endpoint)):
            raise UsageError(
                f"--api-key: would travel unencrypted to {self.endpoint!r}; give --tls, or --insecure if that is wanted"
            )
        tls = TLS(self.tls_ca, self.tls_cert, self.tls_key) if wanted else None
        return {"endpoint": self.endpoint, "api_key": self.api_key or None, "tls": tls, "insecure": self.insecure}


def console(stderr: bool = True) -> Console:
    """Where people read: standard error, so that standard output holds answers alone. What is theirs is printed as it
    was typed: a ":b:" in it is no emoji.
    """
    return Console(stderr=stderr, highlight=False, emoji=False)


class UsageError(Exception):
    """The command line cannot be followed; says which option and why."""


@contextmanager
def exit_codes(as_json: bool = False) -> Iterator[None]:
    """Tell an error to the person, as JSON too where that is asked for, and leave with its exit code."""
    from hart.errors import HartError

    try:
        with _first_of_group():
            yield
    except HartError as error:
        tell(error, as_json)
        raise typer.Exit(exit_code(error)) from None
    except KeyboardInterrupt:
        console().print("interrupted")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except BrokenPipeError:
        raise  # whoever read our output has enough: typer ends quietly
    except (UsageError, OSError, ValueError) as error:
        text = str(error)
        if isinstance(error, OSError) and error.filename is not None:
            text = f"{error.filename}: {error.strerror}"
        console().print(f"[red]error:[/] {shown(text)}", soft_wrap=True)
        raise typer.Exit(EXIT_FAILURE if _no_fault_of_the_options(error) else EXIT_USAGE) from None


@contextmanager
def _first_of_group() -> Iterator[None]:
    """Of errors that came together, raise the first."""
    try:
        yield
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None


def _no_fault_of_the_options(error: Exception) -> bool:
    named = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError)
    return isinstance(error, OSError) and not isinstance(error, named)


def exit_code(error: Exception) -> int:
    """The exit code for an error of the client."""
    from hart import errors

    match error:
        case errors.PromptUnsafe() | errors.Unauthenticated() | errors.PermissionDenied():
            return EXIT_REFUSED
        case errors.InvalidRequest():
            return EXIT_USAGE
        case errors.Unavailable() | errors.Overloaded():
            return EXIT_UNAVAILABLE
        case errors.DeadlineExceeded():
            return EXIT_DEADLINE
    return EXIT_FAILURE


def _why_no_connection(message: str) -> str:
    if "handshake failed" in message.lower():
        return "something runs there that speaks no TLS, or wants other certificates"
    if message.startswith("errors resolving"):
        return "is the host's name right? --endpoint or HART_ENDPOINT gives it"
    if "Socket closed" in message:
        return "something there hangs up: does it want TLS (--tls, --tls-ca) or a client's certificate (--tls-cert)?"
    return "does a gateway run there? `make up` starts one; HART_ENDPOINT names another"


def tell(error: Any, as_json: bool = False) -> None:
    """Print an error of the client with everything it knows, the request's id for a harmless repeat included."""
    facts = {name: value for name, value in vars(error).items() if name != "code" and value not in (None, "", {}, ())}
    if "request_id" in facts.get("fields", ()):
        facts.pop("request_id", None)  # it is what was refused; empty, it has gone already
    if as_json:
        print(json.dumps({"error": {"kind": type(error).__name__, "code": error.code.name, **facts}}))
    screen = console()
    fields = facts.pop("fields", {})
    # Where fields are named, the sentence would only say the same once more.
    screen.print(f"[red]{type(error).__name__}:[/] {'' if fields else shown(error.message)}".rstrip(), soft_wrap=True)
    if error.code.name == "UNAUTHENTICATED":
        screen.print("  --api-key or HART_API_KEY gives the key")
    if error.code.name == "UNIMPLEMENTED":
        screen.print("  is the endpoint a gateway of HART cluster?")
    proxy = "no_proxy lists" in error.message
    if (
        error.code.name == "UNAVAILABLE"
        and not proxy
        and error.message.startswith(("failed to connect", "errors resolving"))
    ):
        screen.print(f"  {_why_no_connection(error.message)}", soft_wrap=True)
    for field, why in fields.items():
        field = "--preview" if field == "preview_every" else field  # the only one with another name here
        screen.print(f"  [bold]{shown(field)}[/]: {shown(why)}", soft_wrap=True)
    for name, value in facts.items():
        if name != "message":
            value = ", ".join(value) if isinstance(value, tuple) else value
            screen.print(f"  [dim]{name}[/] {shown(str(value))}", soft_wrap=True)

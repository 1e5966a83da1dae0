"""Shared by all subcommands: connection options, error messages and exit codes."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from hart.cli.text import shown

# Silences gRPC's own log of failed connections. The command prints the error itself.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from hart.channel import DEFAULT_ENDPOINT as DEFAULT_ENDPOINT
from hart.cli.numbers import number

_GROUP = "Connection"
MAX_SECONDS = 1e8
"""Equal to hart.request.MAX_TIMEOUT, whose module is slow to import because of protobuf."""
Endpoint = Annotated[
    str, typer.Option("--endpoint", envvar="HART_ENDPOINT", help="The gateway, host:port.", rich_help_panel=_GROUP)
]
ApiKey = Annotated[
    str | None,
    typer.Option("--api-key", envvar="HART_API_KEY", help="Sent as a bearer token.", rich_help_panel=_GROUP),
]
Tls = Annotated[bool, typer.Option("--tls", help="Use TLS; implied by the --tls-… options.", rich_help_panel=_GROUP)]
TlsCa = Annotated[
    Path | None, typer.Option("--tls-ca", help="PEM file of the trusted root certificates.", rich_help_panel=_GROUP)
]
TlsCert = Annotated[
    Path | None, typer.Option("--tls-cert", help="PEM file of the client certificate.", rich_help_panel=_GROUP)
]
TlsKey = Annotated[
    Path | None, typer.Option("--tls-key", help="PEM file of the client certificate's key.", rich_help_panel=_GROUP)
]
Insecure = Annotated[
    bool,
    typer.Option(
        "--insecure", help="Allow sending the API key unencrypted to another machine.", rich_help_panel=_GROUP
    ),
]


def _timeout(help: str) -> Any:
    parser = number(float, 0.001, MAX_SECONDS)
    return typer.Option("--timeout", parser=parser, metavar="SECONDS", help=help, rich_help_panel=_GROUP)


Timeout = Annotated[float | None, _timeout("Max duration of a call.")]
ServersTimeout = Annotated[float | None, _timeout("Max duration of a call. Default: the server's, 60")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]

EXIT_FAILURE, EXIT_USAGE, EXIT_REFUSED, EXIT_UNAVAILABLE, EXIT_DEADLINE, EXIT_INTERRUPTED = 1, 2, 3, 4, 5, 130


@dataclass(frozen=True)
class ConnectionOptions:
    """The connection options of a command line."""

    endpoint: Endpoint = DEFAULT_ENDPOINT
    api_key: ApiKey = None
    tls: Tls = False
    tls_ca: TlsCa = None
    tls_cert: TlsCert = None
    tls_key: TlsKey = None
    insecure: Insecure = False

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of Client and AsyncClient. Raises UsageError, ValueError."""
        from hart.channel import TLS, is_loopback

        encrypted = self.tls or any((self.tls_ca, self.tls_cert, self.tls_key))
        if self.api_key and not (encrypted or self.insecure or is_loopback(self.endpoint)):
            raise UsageError(
                f"--api-key: would be sent unencrypted to {self.endpoint!r}; add --tls, or --insecure to allow it"
            )
        tls = TLS(self.tls_ca, self.tls_cert, self.tls_key) if encrypted else None
        return {"endpoint": self.endpoint, "api_key": self.api_key or None, "tls": tls, "insecure": self.insecure}


def with_connection(command: Callable[..., None]) -> Callable[..., None]:
    """Replaces a command's parameter `where: ConnectionOptions` by one typer option per field of it."""
    fields = inspect.signature(ConnectionOptions, eval_str=True).parameters
    own = inspect.signature(command, eval_str=True).parameters

    @wraps(command)
    def parsed(**given: Any) -> None:
        where = ConnectionOptions(**{name: given.pop(name) for name in fields})
        command(where=where, **given)

    del parsed.__wrapped__
    parameters = [one for one in (*own.values(), *fields.values()) if one.name != "where"]
    keywords = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in parameters]
    parsed.__signature__ = inspect.Signature(keywords, return_annotation=None)  # type: ignore[attr-defined]
    parsed.__annotations__ = {one.name: one.annotation for one in keywords}
    return parsed


def console(stderr: bool = True) -> Console:
    """A console for messages. The default is standard error, so that standard output holds results only.

    Emoji codes are off: a ":b:" in a prompt is printed unchanged.
    """
    return Console(stderr=stderr, highlight=False, emoji=False)


class UsageError(Exception):
    """The command line is invalid. The message names the option and the reason."""


@contextmanager
def exit_codes(as_json: bool = False) -> Iterator[None]:
    """Print an error, with `as_json` also as JSON, and raise typer.Exit with its exit code."""
    from hart.errors import HartError

    try:
        with _first_of_group():
            yield
    except HartError as error:
        print_error(error, as_json)
        raise typer.Exit(exit_code(error)) from None
    except KeyboardInterrupt:
        console().print("interrupted")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except BrokenPipeError:
        raise  # the reader closed the pipe: typer exits without a message
    except (UsageError, OSError, ValueError) as error:
        text = str(error)
        if isinstance(error, OSError) and error.filename is not None:
            text = f"{error.filename}: {error.strerror}"
        console().print(f"[red]error:[/] {shown(text)}", soft_wrap=True)
        raise typer.Exit(EXIT_FAILURE if _is_io_failure(error) else EXIT_USAGE) from None


@contextmanager
def _first_of_group() -> Iterator[None]:
    """Raise the first error of an exception group."""
    try:
        yield
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None


def _is_io_failure(error: Exception) -> bool:
    """Whether an error, such as a full disk, is not caused by a path in the options."""
    usage = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError)
    return isinstance(error, OSError) and not isinstance(error, usage)


def exit_code(error: Exception) -> int:
    """The exit code of a client error."""
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
        return "the server does not use TLS, or requires other certificates"
    if message.startswith("errors resolving"):
        return "the host name does not resolve; check --endpoint or HART_ENDPOINT"
    if "Socket closed" in message:
        return "the server closed the connection; it may require TLS (--tls, --tls-ca) or mutual TLS (--tls-cert)"
    return "no gateway is running there; `make up` starts one, HART_ENDPOINT selects another"


def print_error(error: Any, as_json: bool = False) -> None:
    """Print a client error with all its attributes, including the request id for an idempotent retry."""
    facts = {name: value for name, value in vars(error).items() if name != "code" and value not in (None, "", {}, ())}
    if "request_id" in facts.get("fields", ()):
        facts.pop("request_id", None)  # the id itself is invalid
    if as_json:
        print(json.dumps({"error": {"kind": type(error).__name__, "code": error.code.name, **facts}}))
    screen = console()
    fields = facts.pop("fields", {})
    # With fields, the message would repeat their reasons.
    screen.print(f"[red]{type(error).__name__}:[/] {'' if fields else shown(error.message)}".rstrip(), soft_wrap=True)
    if error.code.name == "UNAUTHENTICATED":
        screen.print("  set the key with --api-key or HART_API_KEY")
    if error.code.name == "UNIMPLEMENTED":
        screen.print("  check that the endpoint is a HART cluster gateway")
    proxy = "in no_proxy" in error.message
    if (
        error.code.name == "UNAVAILABLE"
        and not proxy
        and error.message.startswith(("failed to connect", "errors resolving"))
    ):
        screen.print(f"  {_why_no_connection(error.message)}", soft_wrap=True)
    for field, why in fields.items():
        field = "--preview" if field == "preview_every" else field  # the only field whose option has another name
        screen.print(f"  [bold]{shown(field)}[/]: {shown(why)}", soft_wrap=True)
    for name, value in facts.items():
        if name != "message":
            value = ", ".join(value) if isinstance(value, tuple) else value
            screen.print(f"  [dim]{name}[/] {shown(str(value))}", soft_wrap=True)

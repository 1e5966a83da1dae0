"""`hart describe` and `hart status`: the cluster's models and limits, and its current state."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from rich.table import Table

from hart.cli import connection as shared
from hart.cli.connection import ConnectionOptions, console, exit_codes
from hart.cli.interrupt import run
from hart.cli.text import shown

if TYPE_CHECKING:
    from hart import AsyncClient

T = TypeVar("T")
_EXAMPLES = 12  # fits on a screen with the rest


@shared.with_connection
def describe(
    where: ConnectionOptions,
    as_json: shared.AsJson = False,
    timeout: shared.Timeout = 10,
) -> None:
    """Show models, image sizes, limits, defaults and example prompts."""
    from hart.cli.report import plain

    with exit_codes(as_json):
        response = run(_ask(where, lambda client: client.describe(timeout=timeout)))
        if as_json:
            print(json.dumps(plain(response), indent=2))
            return
        screen = console(stderr=False)
        for model in response.models:
            screen.print(f"[bold]{shown(model.model.name)}[/]  {model.shape.width}x{model.shape.height} pixels")
            screen.print(f"  digest   {shown(model.model.digest)}")
            screen.print(f"  scales   {', '.join(map(str, model.shape.scales))}")
            screen.print(f"  context  {model.shape.context_tokens} tokens")
            if model.example_prompts:
                screen.print("  try")
                samples = spread(model.example_prompts)
                for prompt in samples:
                    screen.print(f"    {shown(prompt)}")
                left = len(model.example_prompts) - len(samples)
                if left > 0:
                    screen.print(f"    … and {left} more; use --json for all")
        for title, message in (("limits", response.limits), ("defaults", response.defaults)):
            screen.print(f"[bold]{title}[/]")
            for name, value in plain(message).items():
                screen.print(f"  {name.replace('_', ' ')}: {value}")
        policies = f"{', '.join(response.policies)} ({response.policy_version})"
        screen.print(f"[bold]policies[/] {shown(policies)}", soft_wrap=True)
        screen.print(f"[bold]version[/] {shown(response.version)}")


def spread(prompts: Sequence[str]) -> list[str]:
    """A sample spread over the list, because adjacent prompts are similar."""
    count = min(_EXAMPLES, len(prompts))
    return [prompts[k * len(prompts) // count] for k in range(count)]


@shared.with_connection
def status(
    where: ConnectionOptions,
    as_json: shared.AsJson = False,
    timeout: shared.Timeout = 10,
) -> None:
    """Show every stage's replicas and load, and why no image can be drawn. Exit code 4 if none can."""
    import typer

    from hart.cli.report import plain

    with exit_codes(as_json):
        response = run(_ask(where, lambda client: client.status(timeout=timeout)))
        if as_json:
            print(json.dumps(plain(response), indent=2))
        else:
            table = Table(box=None, pad_edge=False, header_style="dim")
            for heading in ("stage", "ready", "load", "queued", "running", "model"):
                table.add_column(heading, justify="left" if heading in ("stage", "model") else "right")
            for stage in response.stages:
                ready = f"{stage.ready}/{stage.replicas}"
                table.add_row(
                    shown(stage.stage),
                    ready if stage.ready else f"[red]{ready}[/]",
                    f"{stage.load:.2f}",
                    str(stage.queued),
                    str(stage.running),
                    shown(f"{stage.model.name} {stage.model.digest[:12]}"),
                )
            screen = console(stderr=False)
            screen.print(table)
            screen.print(
                f"{response.inflight} in flight, up {response.uptime_seconds:.0f} s, version {shown(response.version)}"
            )
            for problem in response.problems:
                screen.print(f"[red]no image can be drawn:[/] {shown(problem)}", soft_wrap=True)
        if response.problems or not all(stage.ready for stage in response.stages):
            raise typer.Exit(shared.EXIT_UNAVAILABLE)


async def _ask(where: ConnectionOptions, question: Callable[[AsyncClient], Awaitable[T]]) -> T:
    from hart.aio import AsyncClient

    async with AsyncClient(**where.arguments()) as client:
        return await question(client)

"""Generates images for many prompts with several requests in flight."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from rich.console import Console

from hart.aio import AsyncClient
from hart.cli.bar import bar
from hart.cli.connection import ConnectionOptions
from hart.cli.report import clipped, print_hints, result_json
from hart.cli.text import shown
from hart.errors import HartError, Overloaded
from hart.request import Options
from hart.results import GenerateResult

_ATTEMPTS = 5


class OutputSink(Protocol):
    """Writes the images of a batch."""

    async def prepare(self, client: AsyncClient) -> None:
        """Check before the first request that the output fits the format. Raises UsageError."""
        ...

    def add(self, row: int, result: GenerateResult) -> list[str]:
        """Store the images of prompt `row`, and return their paths."""
        ...

    def close(self) -> str:
        """Finish the output. Returns a note for the user, or ""."""
        ...


@dataclass(frozen=True)
class Failure:
    """A prompt whose request failed."""

    prompt: str
    error: HartError


@dataclass
class PromptResult:
    """The results and failures of a batch, by row."""

    results: dict[int, tuple[str, GenerateResult, list[str]]] = field(default_factory=dict)
    failures: dict[int, Failure] = field(default_factory=dict)
    note: str = ""
    """The output's note for the user."""

    @property
    def failed(self) -> list[Failure]:
        """The failures in the order of the prompts."""
        return [self.failures[row] for row in sorted(self.failures)]

    def json(self) -> dict[str, Any]:
        """The output of `--json`."""
        return {
            "answers": [result_json(*self.results[row]) for row in sorted(self.results)],
            "errors": [
                {"prompt": failure.prompt, "code": failure.error.code.name, "message": failure.error.message}
                for failure in self.failed
            ],
        }

    def print(self, screen: Console) -> None:
        """Print hints, paths and failures for a person."""
        for row in sorted(self.results):
            prompt, result, _ = self.results[row]
            print_hints(screen, result.report, prompt)
        if self.note:
            screen.print(f"[yellow]note:[/] {shown(self.note)}", soft_wrap=True)
        for path in dict.fromkeys(path for row in sorted(self.results) for path in self.results[row][2]):
            screen.print(f"[green]{shown(path)}[/]", soft_wrap=True)
        for failure in self.failed:
            name = type(failure.error).__name__
            prompt = shown(repr(clipped(failure.prompt, 80)))
            screen.print(f"[red]{name}:[/] {prompt}: {shown(failure.error.message)}", soft_wrap=True)


async def draw_all(
    where: ConnectionOptions,
    prompts: Sequence[str],
    options: Options,
    seconds: float | None,
    concurrency: int,
    target: OutputSink,
) -> PromptResult:
    """Generate images for all prompts. A failed prompt does not stop the others."""
    outcome = PromptResult()
    gate = asyncio.Semaphore(concurrency)

    async def one(row: int, prompt: str) -> None:
        async with gate:
            try:
                result = await _with_retries(client, prompt, options, seconds)
                outcome.results[row] = (prompt, result, target.add(row, result))
            except HartError as error:
                outcome.failures[row] = Failure(prompt, error)
            progress.advance(task)

    with bar() as progress:
        task = progress.add_task("prompts", total=len(prompts))
        async with AsyncClient(**where.arguments()) as client:
            await target.prepare(client)
            async with asyncio.TaskGroup() as group:
                for row, prompt in enumerate(prompts):
                    group.create_task(one(row, prompt))
    if outcome.results:
        outcome.note = target.close()
    return outcome


async def _with_retries(client: AsyncClient, prompt: str, options: Options, seconds: float | None) -> GenerateResult:
    """Generate, and retry after the server's `retry_after` while it is overloaded: a batch need not fail fast."""
    for attempt in range(_ATTEMPTS):
        try:
            return await client.generate(prompt, timeout=seconds, **options)
        except Overloaded as busy:
            if attempt == _ATTEMPTS - 1:
                raise
            await asyncio.sleep(busy.retry_after or 2.0**attempt)
    raise AssertionError("unreachable")

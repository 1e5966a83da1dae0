"""Many prompts: several requests in flight, and what becomes of each. Knows no file."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from rich.console import Console

from hart.aio import AsyncClient
from hart.cli.bar import bar
from hart.cli.connection import ConnectionOptions
from hart.cli.report import answer_json, clipped, print_hints
from hart.cli.text import shown
from hart.errors import HartError, Overloaded
from hart.request import Options
from hart.results import GenerateResult

_ATTEMPTS = 5


class OutputSink(Protocol):
    """Where pictures go."""

    async def prepare(self, client: AsyncClient) -> None:
        """Look, before anything is drawn, whether it will fit; UsageError where it will not."""
        ...

    def add(self, row: int, answer: GenerateResult) -> list[str]:
        """Keep the pictures of prompt `row`; their paths."""
        ...

    def close(self) -> str:
        """All that will come has come; what people should know of the file, or ""."""
        ...


@dataclass(frozen=True)
class Failure:
    """A prompt that was not drawn."""

    prompt: str
    error: HartError


@dataclass
class PromptResult:
    """What became of every prompt."""

    answers: dict[int, tuple[str, GenerateResult, list[str]]] = field(default_factory=dict)
    failures: dict[int, Failure] = field(default_factory=dict)
    note: str = ""
    """What people should know of the file."""

    @property
    def failed(self) -> list[Failure]:
        """In order of the file's lines."""
        return [self.failures[row] for row in sorted(self.failures)]

    def json(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "answers": [answer_json(*self.answers[row]) for row in sorted(self.answers)],
            "errors": [
                {"prompt": failure.prompt, "code": failure.error.code.name, "message": failure.error.message}
                for failure in self.failed
            ],
        }

    def tell(self, screen: Console) -> None:
        """For people."""
        for row in sorted(self.answers):
            prompt, answer, _ = self.answers[row]
            print_hints(screen, answer.report, prompt)
        if self.note:
            screen.print(f"[yellow]note:[/] {shown(self.note)}", soft_wrap=True)
        for path in dict.fromkeys(path for row in sorted(self.answers) for path in self.answers[row][2]):
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
    """Draw all prompts; one that fails leaves the others alone."""
    outcome = PromptResult()
    gate = asyncio.Semaphore(concurrency)

    async def one(row: int, prompt: str) -> None:
        async with gate:
            try:
                answer = await _patiently(client, prompt, options, seconds)
                outcome.answers[row] = (prompt, answer, target.add(row, answer))
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
    if outcome.answers:
        outcome.note = target.close()
    return outcome


async def _patiently(client: AsyncClient, prompt: str, options: Options, seconds: float | None) -> GenerateResult:
    """Draw, waiting as long as a busy server asks for: nobody watches a batch, so it need not fail at once."""
    for attempt in range(_ATTEMPTS):
        try:
            return await client.generate(prompt, timeout=seconds, **options)
        except Overloaded as busy:
            if attempt == _ATTEMPTS - 1:
                raise
            await asyncio.sleep(busy.retry_after or 2.0**attempt)
    raise AssertionError("unreachable")

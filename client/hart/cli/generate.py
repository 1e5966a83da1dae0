"""`hart generate`: a prompt, or a file of them, to picture files."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hart.cli import connection as shared
from hart.cli.bar import bar
from hart.cli.connection import ConnectionOptions, UsageError, console, exit_codes
from hart.cli.interrupt import run
from hart.cli.numbers import number
from hart.cli.output_paths import OutputPaths
from hart.cli.prompts import read
from hart.cli.text import shown

if TYPE_CHECKING:
    from hart import GenerateResult
    from hart.request import Options

_REQUEST = "Request"
_FILE = "A file of prompts"
_IN_FLIGHT = 4


def generate(
    prompt: Annotated[list[str] | None, typer.Argument(metavar="PROMPT", help="What to draw, in quotes.")] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="File, or folder with --separate; - for standard output. Default: picture.png"
        ),
    ] = None,
    num_images: Annotated[
        int | None,
        typer.Option("--num-images", "-n", parser=number(int), metavar="N", help="How many.", rich_help_panel=_REQUEST),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            parser=number(int),
            metavar="N",
            help="The first picture's seed, with --file the first of each prompt; the same draws the same.",
            rich_help_panel=_REQUEST,
        ),
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option(
            parser=number(float), metavar="X", help="How strongly to follow the prompt.", rich_help_panel=_REQUEST
        ),
    ] = None,
    more_smooth: Annotated[bool | None, typer.Option(help="Soft tokens.", rich_help_panel=_REQUEST)] = None,
    top_p: Annotated[
        float | None,
        typer.Option(parser=number(float), metavar="X", help="Nucleus sampling; 0 is off.", rich_help_panel=_REQUEST),
    ] = None,
    residual_temperature: Annotated[
        float | None,
        typer.Option(
            parser=number(float), metavar="X", help="Noise of the residual, 0 to 1.", rich_help_panel=_REQUEST
        ),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(help="png, jpeg or webp. Default: by the output's suffix.", rich_help_panel=_REQUEST),
    ] = None,
    quality: Annotated[
        int | None, typer.Option(parser=number(int), metavar="N", help="For jpeg and webp.", rich_help_panel=_REQUEST)
    ] = None,
    preview: Annotated[
        int | None,
        typer.Option(
            parser=number(int),
            help="Write a small preview beside the output with every N-th scale.",
            metavar="N",
            rich_help_panel=_REQUEST,
        ),
    ] = None,
    embed_metadata: Annotated[
        bool | None, typer.Option(help="Write the recipe into the picture.", rich_help_panel=_REQUEST)
    ] = None,
    model: Annotated[str | None, typer.Option(help="Which model.", rich_help_panel=_REQUEST)] = None,
    request_id: Annotated[str | None, typer.Option(help="Makes a repeat harmless.", rich_help_panel=_REQUEST)] = None,
    file: Annotated[
        Path | None,
        typer.Option(help="One prompt a line, drawn into one grid; - for standard input.", rich_help_panel=_FILE),
    ] = None,
    separate: Annotated[
        bool,
        typer.Option("--separate", help="Numbered files and prompts.txt instead of a grid.", rich_help_panel=_FILE),
    ] = False,
    concurrency: Annotated[
        int | None,
        typer.Option(
            parser=number(int, 1),
            metavar="N",
            help=f"Requests in flight at a time. Default: {_IN_FLIGHT}",
            rich_help_panel=_FILE,
        ),
    ] = None,
    as_json: shared.AsJson = False,
    endpoint: shared.Endpoint = shared.DEFAULT_ENDPOINT,
    timeout: shared.ServersTimeout = None,
    api_key: shared.ApiKey = None,
    tls: shared.Tls = False,
    tls_ca: shared.TlsCa = None,
    tls_cert: shared.TlsCert = None,
    tls_key: shared.TlsKey = None,
    insecure: shared.Insecure = False,
) -> None:
    """Draw a picture from a prompt."""
    where = ConnectionOptions(endpoint, api_key, tls, tls_ca, tls_cert, tls_key, insecure)
    options: Options = {
        "model": model,
        "num_images": num_images,
        "seed": seed,
        "guidance": guidance,
        "more_smooth": more_smooth,
        "top_p": top_p,
        "residual_temperature": residual_temperature,
        "format": format,
        "quality": quality,
        "preview_every": preview,
        "embed_metadata": embed_metadata,
        "request_id": request_id,
    }
    with exit_codes(as_json):
        words = prompt or []
        if len(words) > 1:
            raise UsageError(f'the prompt wants quotes: hart generate "{" ".join(words)}"')
        if bool(words) == (file is not None):
            raise UsageError("give a prompt, or --file with one prompt a line, and not both")
        if file is not None:
            _draw_file(where, file, output, separate, concurrency or _IN_FLIGHT, options, timeout, as_json)
        elif separate:
            raise UsageError("--separate belongs to --file")
        elif concurrency is not None:
            raise UsageError("--concurrency belongs to --file")
        else:
            _draw_one(where, words[0], output, options, timeout, as_json)


def _draw_one(
    where: ConnectionOptions, prompt: str, output: Path | None, options: Options, timeout: float | None, as_json: bool
) -> None:
    from hart.cli.report import answer_json, print_hints, print_times

    places = OutputPaths.plan(output, options.get("format"))
    if places.stdout and as_json:
        raise UsageError("-o - and --json both want standard output")
    if places.stdout and (options.get("num_images") or 1) > 1:
        raise UsageError("-o - holds one picture; ask for one, or name a file")
    options["format"] = places.format
    screen = console()
    answer, paths = run(_draw_and_save(where, prompt, options, timeout, places))
    if places.stdout:
        sys.stdout.buffer.write(answer[0].data)
    if as_json:
        print(json.dumps(answer_json(prompt, answer, paths), indent=2))
    for path, image in zip(paths, answer, strict=True):
        screen.print(
            f"[green]{shown(path)}[/]  {image.width}x{image.height}  seed {image.seed}", markup=True, soft_wrap=True
        )
    print_hints(screen, answer.report)
    print_times(screen, answer.report.timings)


async def _draw_and_save(
    where: ConnectionOptions, prompt: str, options: Options, seconds: float | None, places: OutputPaths
) -> tuple[GenerateResult, list[str]]:
    answer = await _draw(where, prompt, options, seconds, places)
    if places.stdout:
        return answer, ["-"]
    # In a thread: a pipe waits for its reader, and Ctrl-C is heard meanwhile.
    return answer, [str(await asyncio.to_thread(image.save, places.path(image.index, len(answer)))) for image in answer]


async def _draw(
    where: ConnectionOptions, prompt: str, options: Options, seconds: float | None, places: OutputPaths
) -> GenerateResult:
    """Draw one request with a live bar of the scales, and its previews beside the output."""
    from hart import results
    from hart.aio import AsyncClient
    from hart.errors import HartError

    done: list[results.Image] = []
    with bar() as progress:
        task = progress.add_task("waiting", total=None)
        async with (
            AsyncClient(**where.arguments()) as client,
            aclosing(client.stream(prompt, timeout=seconds, **options)) as events,
        ):
            async for event in events:
                match event:
                    case results.Accepted(seeds=seeds, scales=scales):
                        progress.update(task, description="accepted", total=scales * len(seeds))
                    case results.Starting(stage=stage, estimated_seconds=estimate):
                        about = "" if estimate is None else f", about {estimate:.0f} s"
                        progress.update(task, description=f"{stage} is starting{about}")
                    case results.Progress(scale=scale, scales=scales, side=side):
                        progress.update(task, description=f"scale {scale + 1}/{scales} ({side}x{side})", advance=1)
                        if event.preview is not None and not places.stdout:
                            event.preview.save(places.preview(event.image_index, options.get("num_images") or 1))
                    case results.Image():
                        done.append(event)
                        progress.update(task, description=f"{len(done)} done")
                    case results.Finished(report=report):
                        return results.GenerateResult(tuple(sorted(done, key=lambda image: image.index)), report)
    raise HartError("the stream ended before the answer was complete")


def _draw_file(
    where: ConnectionOptions,
    file: Path,
    output: Path | None,
    separate: bool,
    concurrency: int,
    options: Options,
    timeout: float | None,
    as_json: bool,
) -> None:
    from hart.cli.batch import OutputSink, draw_all
    from hart.cli.folder import Folder
    from hart.cli.grid import Grid

    for name, flag in (("request_id", "--request-id"), ("preview_every", "--preview")):
        if options.get(name) is not None:
            raise UsageError(f"{flag} is for a single prompt, not for --file")
    prompts = read(file)
    target: OutputSink
    if separate:
        target = Folder.plan(output or Path("pictures"), prompts, options, source=file)
    else:
        target = Grid.plan(output, prompts, options)
    outcome = run(draw_all(where, prompts, options, timeout, concurrency, target))
    if as_json:
        print(json.dumps(outcome.json(), indent=2))
    outcome.tell(console())
    if outcome.failed:
        raise typer.Exit(shared.exit_code(outcome.failed[0].error))

"""`hart generate`: image files from a prompt or a file of prompts."""

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


@shared.with_connection
def generate(
    where: ConnectionOptions,
    prompt: Annotated[list[str] | None, typer.Argument(metavar="PROMPT", help="The text prompt, in quotes.")] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="File, or folder with --separate; - for standard output. Default: picture.png"
        ),
    ] = None,
    num_images: Annotated[
        int | None,
        typer.Option(
            "--num-images", "-n", parser=number(int), metavar="N", help="Number of images.", rich_help_panel=_REQUEST
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            parser=number(int),
            metavar="N",
            help="Seed of the first image, with --file of each prompt's first; the same seed gives the same image.",
            rich_help_panel=_REQUEST,
        ),
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option(
            parser=number(float), metavar="X", help="Classifier-free guidance scale.", rich_help_panel=_REQUEST
        ),
    ] = None,
    more_smooth: Annotated[
        bool | None, typer.Option(help="Use soft token embeddings.", rich_help_panel=_REQUEST)
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(parser=number(float), metavar="X", help="Nucleus sampling; 0 is off.", rich_help_panel=_REQUEST),
    ] = None,
    residual_temperature: Annotated[
        float | None,
        typer.Option(
            parser=number(float), metavar="X", help="Residual diffusion noise, 0 to 1.", rich_help_panel=_REQUEST
        ),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(help="png, jpeg or webp. Default: from the extension of the output.", rich_help_panel=_REQUEST),
    ] = None,
    quality: Annotated[
        int | None,
        typer.Option(parser=number(int), metavar="N", help="JPEG and WEBP quality.", rich_help_panel=_REQUEST),
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
        bool | None, typer.Option(help="Embed the recipe in the image.", rich_help_panel=_REQUEST)
    ] = None,
    model: Annotated[str | None, typer.Option(help="The model's name.", rich_help_panel=_REQUEST)] = None,
    request_id: Annotated[
        str | None, typer.Option(help="Idempotency key for retries.", rich_help_panel=_REQUEST)
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            help="A file of prompts, one per line, for one image grid; - for standard input.", rich_help_panel=_FILE
        ),
    ] = None,
    separate: Annotated[
        bool,
        typer.Option(
            "--separate", help="Write numbered files and prompts.txt instead of a grid.", rich_help_panel=_FILE
        ),
    ] = False,
    concurrency: Annotated[
        int | None,
        typer.Option(
            parser=number(int, 1),
            metavar="N",
            help=f"Max requests in flight. Default: {_IN_FLIGHT}",
            rich_help_panel=_FILE,
        ),
    ] = None,
    as_json: shared.AsJson = False,
    timeout: shared.ServersTimeout = None,
) -> None:
    """Generate an image from a prompt."""
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
            raise UsageError(f'put the prompt in quotes: hart generate "{" ".join(words)}"')
        if bool(words) == (file is not None):
            raise UsageError("give either a prompt or --file")
        if file is not None:
            _draw_file(where, file, output, separate, concurrency or _IN_FLIGHT, options, timeout, as_json)
        elif separate:
            raise UsageError("--separate requires --file")
        elif concurrency is not None:
            raise UsageError("--concurrency requires --file")
        else:
            _draw_one(where, words[0], output, options, timeout, as_json)


def _draw_one(
    where: ConnectionOptions, prompt: str, output: Path | None, options: Options, timeout: float | None, as_json: bool
) -> None:
    from hart.cli.report import print_hints, print_times, result_json

    output_paths = OutputPaths.plan(output, options.get("format"))
    if output_paths.stdout and as_json:
        raise UsageError("-o - and --json both write to standard output; use one of them")
    if output_paths.stdout and (options.get("num_images") or 1) > 1:
        raise UsageError("-o - writes one image; use -n 1, or name a file")
    options["format"] = output_paths.format
    screen = console()
    result, paths = run(_draw_and_save(where, prompt, options, timeout, output_paths))
    if output_paths.stdout:
        sys.stdout.buffer.write(result[0].data)
    if as_json:
        print(json.dumps(result_json(prompt, result, paths), indent=2))
    for path, image in zip(paths, result, strict=True):
        screen.print(
            f"[green]{shown(path)}[/]  {image.width}x{image.height}  seed {image.seed}", markup=True, soft_wrap=True
        )
    print_hints(screen, result.report)
    print_times(screen, result.report.timings)


async def _draw_and_save(
    where: ConnectionOptions, prompt: str, options: Options, seconds: float | None, output_paths: OutputPaths
) -> tuple[GenerateResult, list[str]]:
    result = await _draw(where, prompt, options, seconds, output_paths)
    if output_paths.stdout:
        return result, ["-"]
    # In a thread, so that Ctrl-C works while a pipe blocks.
    return result, [
        str(await asyncio.to_thread(image.save, output_paths.path(image.index, len(result)))) for image in result
    ]


async def _draw(
    where: ConnectionOptions, prompt: str, options: Options, seconds: float | None, output_paths: OutputPaths
) -> GenerateResult:
    """Run one request with a progress bar, and save its previews beside the output."""
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
                    case results.Prepared(revised_prompt=revised):
                        progress.update(task, description="drawing" if revised is None else "drawing another prompt")
                    case results.Progress(scale=scale, scales=scales, side=side):
                        progress.update(task, description=f"scale {scale + 1}/{scales} ({side}x{side})", advance=1)
                        if event.preview is not None and not output_paths.stdout:
                            event.preview.save(output_paths.preview(event.image_index, options.get("num_images") or 1))
                    case results.Image():
                        done.append(event)
                        progress.update(task, description=f"{len(done)} done")
                    case results.Finished(report=report):
                        return results.GenerateResult(tuple(sorted(done, key=lambda image: image.index)), report)
    raise HartError("the stream ended before the result was complete")


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
            raise UsageError(f"{flag} cannot be used with --file")
    prompts = read(file)
    target: OutputSink
    if separate:
        target = Folder.plan(output or Path("pictures"), prompts, options, source=file)
    else:
        target = Grid.plan(output, prompts, options)
    outcome = run(draw_all(where, prompts, options, timeout, concurrency, target))
    if as_json:
        print(json.dumps(outcome.json(), indent=2))
    outcome.print(console())
    if outcome.failed:
        raise typer.Exit(shared.exit_code(outcome.failed[0].error))

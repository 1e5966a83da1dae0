"""The page in Gradio: layout and actions. Knows no event of a stream."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gradio as gr
from hart import AsyncClient, HartError, Image, InvalidRequest, PromptUnsafe
from hart.printable import escaped
from hart.request import Options

from demo import initial
from demo.drawing import Frame, draw
from demo.timeline import STYLE, timeline

THEME = gr.themes.Soft(primary_hue="emerald", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
"""The visitor's own fonts: the page loads nothing from other machines."""
_EXAMPLES = 10
_OLD, _OFTEN = 3600, 600  # seconds: how long files are kept, and the interval of the cleanup

Shown = tuple[list[str], str, str]
"""The gallery's files, the status and the timeline as HTML."""


def build(client: AsyncClient) -> gr.Blocks:
    """The page, with a client of its own."""
    with gr.Blocks(title="HART cluster", analytics_enabled=False, delete_cache=(_OFTEN, _OLD)) as page:
        heading = gr.Markdown("# HART cluster")
        with gr.Row():
            with gr.Column():
                prompt = gr.Textbox(
                    label="Prompt", placeholder="a red heart", autofocus=True, max_lines=4, elem_id="prompt"
                )
                with gr.Row():
                    start = gr.Button("Draw", variant="primary", elem_id="draw")
                    stop = gr.Button("Stop", elem_id="stop")
                examples = gr.Dataset(components=[prompt], samples=[], label="Prompts to try")
                with gr.Accordion("Settings", open=False):
                    images = gr.Slider(1, initial.MAX_IMAGES, value=initial.IMAGES, step=1, label="Pictures")
                    seed = gr.Textbox(label="Seed", placeholder="random", elem_id="seed")
                    guidance = gr.Slider(0, initial.MAX_GUIDANCE, value=initial.GUIDANCE, step=0.1, label="Guidance")
                    top_p = gr.Slider(0, 1, value=initial.TOP_P, step=0.01, label="Nucleus sampling (0: off)")
                    more_smooth = gr.Checkbox(value=initial.SMOOTH, label="Smooth")
            with gr.Column(min_width=560):
                gallery = gr.Gallery(
                    label="Pictures",
                    show_label=False,
                    object_fit="contain",
                    height=550,
                    elem_id="pictures",
                    buttons=["download", "fullscreen"],
                )
                status = gr.HTML(elem_id="status")
                times = gr.HTML(elem_id="times")

        settings = [images, seed, guidance, top_p, more_smooth]

        visits: dict[str | None, asyncio.Task[Any] | None] = {}

        async def drawn(visit: gr.Request, text: str | None, *chosen: Any) -> AsyncGenerator[Shown, None]:
            visits[visit.session_hash] = asyncio.current_task()
            try:
                async with aclosing(_draw(client, text or "", *chosen)) as all_shown:
                    async for shown in all_shown:
                        yield shown
            finally:
                visits.pop(visit.session_hash, None)

        async def left(visit: gr.Request) -> None:
            # Gradio would cancel at the next frame, which may be far away in a long queue.
            if task := visits.get(visit.session_hash):
                task.cancel()

        async def known() -> list[Any]:
            return await _known(client)

        drawing = gr.on(
            [start.click, prompt.submit],
            drawn,
            [prompt, *settings],
            [gallery, status, times],
            show_progress="hidden",
            trigger_mode="once",
            # The gateway limits the load.
            concurrency_limit=None,
            api_visibility="private",
        )
        quiet: dict[str, Any] = {"show_progress": "hidden", "queue": False, "api_visibility": "private"}
        stop.click(lambda: _note("stopped"), None, status, cancels=[drawing], **quiet)
        examples.click(lambda row: row[0], examples, prompt, **quiet)
        page.unload(left)
        page.load(known, None, [heading, examples, images, guidance, top_p, more_smooth, status], **quiet)
    return page


async def _known(client: AsyncClient) -> list[Any]:
    """Updates of the page from the cluster's description."""
    try:
        about = await client.describe()
    except HartError as error:
        return [*[gr.skip()] * 6, _failure(error)]
    model = about.models[0]
    heading = f"# HART cluster\n{escaped(model.model.name)}, {model.shape.width}x{model.shape.height} pixels"
    prompts = [[prompt] for prompt in _some(model.example_prompts)]
    return [
        heading,
        gr.Dataset(samples=prompts),
        gr.Slider(maximum=about.limits.max_images),
        gr.Slider(maximum=about.limits.max_guidance, value=model.sampling_defaults.guidance),
        gr.Slider(value=model.sampling_defaults.top_p),
        gr.Checkbox(value=model.sampling_defaults.more_smooth),
        "",
    ]


def _some(prompts: Sequence[str]) -> list[str]:
    """A few from the whole list, because adjacent ones are similar."""
    count = min(_EXAMPLES, len(prompts))
    return [prompts[k * len(prompts) // count] for k in range(count)]


async def _draw(
    client: AsyncClient, prompt: str, images: int, seed: str | None, guidance: float, top_p: float, more_smooth: bool
) -> AsyncGenerator[Shown, None]:
    """The page's content, frame by frame. Gradio copies the files from a temporary folder."""
    files: list[str] = []
    with TemporaryDirectory(prefix="hart-demo-") as folder:
        try:
            options: Options = {
                "num_images": images,
                "seed": _seed(seed),
                "guidance": guidance,
                "top_p": top_p,
                "more_smooth": more_smooth,
            }
            yield [], _note("waiting"), ""
            async for frame in draw(client, prompt, options):
                files = _files(frame, prompt, Path(folder))
                yield files, _status(frame), timeline(frame.report.timings) if frame.report else ""
        except HartError as error:
            yield files, _failure(error), ""


def _seed(text: str | None) -> int | None:
    """Parsed from text; a browser's number field would round large seeds."""
    if not text or not text.strip():
        return None
    try:
        return int(text)
    except ValueError:
        raise InvalidRequest(f"seed: {text!r} is no whole number") from None


def _files(frame: Frame, prompt: str, folder: Path) -> list[str]:
    """The images as files with their own names; a download is the cluster's own file."""
    name = re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:40] or "picture"
    files = []
    for index, image in enumerate(frame.images):
        if image is None:
            continue
        if isinstance(image, Image):
            path = folder / f"{name}-{image.seed}.{image.format}"
        else:
            path = folder / f"preview-{index}-{frame.drawn}.{image.format}"
        files.append(str(image.save(path)))
    return files


def _status(frame: Frame) -> str:
    if frame.report is None:
        bar = f'<progress value="{frame.drawn}" max="{max(frame.scales, 1)}" style="width:100%"></progress>'
        return bar + _note(f"{frame.drawn} of {frame.scales} scales")
    report = frame.report
    seeds = ", ".join(str(image.seed) for image in frame.images if isinstance(image, Image))
    notes = [f"drawn in {report.timings.wall_seconds:.2f} s with seed {seeds}"]
    notes += [warning.text for warning in report.warnings]
    notes += [f"trace {report.trace_id}"] if report.trace_id else []
    return "".join(_note(note) for note in notes)


def _failure(error: HartError) -> str:
    if isinstance(error, PromptUnsafe):
        return _note(f"refused: {error.message}", "failure")
    return _note(f"{type(error).__name__}: {error.message}", "failure")


def _note(text: str, kind: str = "note") -> str:
    return f'<p class="{kind}">{escape(escaped(text))}</p>'


# Cells of 256 pixels: a multiple, or a whole part, of the sides that models have. Stretched cells would blur each edge.
CSS = (
    STYLE
    + ".failure { color: #c92a2a; font-weight: 600; }"
    + "#pictures .grid-container"
    + " { grid-template-columns: repeat(auto-fill, 256px) !important; justify-content: center; }"
    + "#pictures .grid-container button, #pictures .grid-container img { width: 256px; height: 256px; }"
)

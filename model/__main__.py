"""`python -m model PROMPT`: generates an image in one process."""

import argparse
import dataclasses
import io
import logging
import sys
from pathlib import Path

from common.image_formats import DEFAULT_FORMAT, FORMATS, NAMES, SUFFIXES
from common.limits import DEFAULT_QUALITY, MAX_GUIDANCE, MAX_PROMPT_CHARACTERS
from model.checkpoint import bundled
from model.device import AUTO, PRECISIONS, Compute
from model.engines import ENGINES
from model.errors import ModelError, NotFiniteError, UnsafePromptError
from model.image_file import check_encoding
from model.params import SamplingParams
from model.pipeline import Pipeline
from model.progress import Progress
from model.prompt import checked_prompt

PARAMS = [field.name for field in dataclasses.fields(SamplingParams)]
FAILED, USAGE, REFUSED, INTERRUPTED = 1, 2, 3, 130


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m model", description="Generate an image from PROMPT in this process.")
    made.add_argument("prompt", help=f"the text prompt, 1 to {MAX_PROMPT_CHARACTERS:,} characters")
    made.add_argument("-o", "--output", type=Path, help="the image file (default: picture.png, or .jpg, .webp)")
    made.add_argument("--checkpoint", type=Path, help="checkpoint folder (default: the bundled one)")
    made.add_argument("--seed", type=int, help="0 to 2^64-1; the same seed gives the same image (default: random)")
    made.add_argument(
        "--guidance",
        type=float,
        help=f"classifier-free guidance scale, 0 to {MAX_GUIDANCE:g} (default: the checkpoint's)",
    )
    made.add_argument(
        "--more-smooth",
        action=argparse.BooleanOptionalAction,
        help="use soft token embeddings instead of sampled ones (default: the checkpoint's)",
    )
    made.add_argument("--top-p", type=float, help="nucleus sampling, 0 (off) to 1 (default: the checkpoint's)")
    made.add_argument(
        "--residual-temperature", type=float, help="residual diffusion noise, 0 to 1 (default: the checkpoint's)"
    )
    made.add_argument(
        "--format", type=str.upper, choices=NAMES, help="image format (default: from the file extension, else PNG)"
    )
    made.add_argument(
        "--quality", type=int, default=DEFAULT_QUALITY, help="JPEG and WEBP quality, 1 to 100 (default: %(default)s)"
    )
    made.add_argument("--metadata", action=argparse.BooleanOptionalAction, default=True, help="embed the recipe")
    made.add_argument("--safety", action=argparse.BooleanOptionalAction, default=True, help="refuse unsafe prompts")
    made.add_argument(
        "--device", default=AUTO, help="cpu, cuda, cuda:1, ... (default: a GPU where there is one, else the CPU)"
    )
    made.add_argument(
        "--dtype", choices=PRECISIONS, default=AUTO, help="(default: bfloat16 on a GPU, float32 on a CPU)"
    )
    made.add_argument(
        "--engine",
        choices=ENGINES,
        default=AUTO,
        help="what computes (default: ONNX Runtime where it is installed, in float32 on a CPU; else torch)",
    )
    return made


def output_of(arguments: argparse.Namespace) -> tuple[Path, str]:
    """The output file and its format. If only one is given, it determines the other. Raises ModelError."""
    path, chosen = arguments.output, arguments.format
    if path and path.is_dir():
        raise ModelError(f"output: {path} is a folder, expected a file")
    named = SUFFIXES.get(path.suffix.lower()) if path else None
    by_name = named.name if named else None
    if path and not by_name and not chosen:
        raise ModelError(f"output: {path}: unknown file extension; expected one of {', '.join(SUFFIXES)}, or --format")
    if by_name and chosen and by_name != chosen:
        raise ModelError(f"output: {path} has the extension of {by_name}, but --format is {chosen}")
    chosen = chosen or by_name or DEFAULT_FORMAT.name
    if path is None:
        path = Path("picture").with_suffix(FORMATS[chosen].suffix)
    if not path.parent.is_dir():
        raise ModelError(f"output: {path}: the folder {path.parent} does not exist")
    return path, chosen


def run(arguments: argparse.Namespace) -> None:
    """Generate the image and write the file. Raises ModelError, OSError."""
    path, chosen = output_of(arguments)
    check_encoding(chosen, arguments.quality)
    chosen_params = {name: value for name in PARAMS if (value := getattr(arguments, name)) is not None}
    SamplingParams(**chosen_params)  # raises for a bad value before the slow load
    prompt = checked_prompt(arguments.prompt)
    folder = arguments.checkpoint or bundled()
    compute = Compute.of(arguments.device, arguments.dtype)
    pipeline = Pipeline.load(folder, compute.device, compute.dtype, arguments.safety, engine=arguments.engine)
    settings = dataclasses.replace(pipeline.checkpoint.sampling_defaults, **chosen_params)
    with Progress(pipeline.generator.scales) as progress:
        image = pipeline.draw(prompt, arguments.seed, settings, on_scale=lambda state: progress.show(state.scale))
    path.write_bytes(image.to_bytes(chosen, arguments.quality, arguments.metadata))
    if image.prompt_truncated:
        slots = pipeline.text_encoder.context_tokens
        print(f"the prompt has {image.prompt_tokens} tokens; only the first {slots} were used", file=sys.stderr)
    unfamiliar = pipeline.checkpoint.vocabulary().unfamiliar(prompt)
    if unfamiliar:
        print(f"the model was not trained on: {', '.join(unfamiliar)}", file=sys.stderr)
    print(f"{path}: {dataclasses.asdict(image.recipe)}")


def main() -> int:
    """Run the command. Returns its exit code."""
    for stream in (sys.stdout, sys.stderr):  # an ASCII console prints other characters as escapes
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    arguments = parser().parse_args()
    try:
        run(arguments)
    except UnsafePromptError as error:
        print(f"error: {error}", file=sys.stderr)
        return REFUSED
    except NotFiniteError as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED
    except (ModelError, OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())

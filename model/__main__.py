"""`python -m model PROMPT`: draws a picture in one process."""

import argparse
import dataclasses
import io
import logging
import sys
from pathlib import Path

from tqdm import tqdm

from common.image_formats import DEFAULT_FORMAT, FORMATS, NAMES, SUFFIXES
from common.limits import DEFAULT_QUALITY, MAX_GUIDANCE, MAX_PROMPT_CHARACTERS
from model.checkpoint import bundled
from model.device import DTYPES, Compute
from model.errors import ModelError, NotFiniteError, UnsafePromptError
from model.generation import SamplingParams
from model.image_file import check_encoding
from model.pipeline import Pipeline
from model.prompt import checked_prompt

PARAMS = [field.name for field in dataclasses.fields(SamplingParams)]
FAILED, USAGE, REFUSED, INTERRUPTED = 1, 2, 3, 130


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m model", description="Draws a picture of PROMPT in this process.")
    made.add_argument("prompt", help=f"what to draw, 1 to {MAX_PROMPT_CHARACTERS:,} characters")
    made.add_argument("-o", "--output", type=Path, help="the image file (default: picture.png, or .jpg, .webp)")
    made.add_argument("--checkpoint", type=Path, help="checkpoint folder (default: the bundled one)")
    made.add_argument("--seed", type=int, help="0 to 2^64-1; the same seed makes the same picture (default: drawn)")
    made.add_argument("--guidance", type=float, help=f"0 to {MAX_GUIDANCE:g} (default: the checkpoint's)")
    made.add_argument(
        "--more-smooth",
        action=argparse.BooleanOptionalAction,
        help="soft instead of drawn tokens (default: the checkpoint's)",
    )
    made.add_argument("--top-p", type=float, help="0 (off) to 1 (default: the checkpoint's)")
    made.add_argument("--residual-temperature", type=float, help="0 to 1 (default: the checkpoint's)")
    made.add_argument("--format", type=str.upper, choices=NAMES, help="default: by the file's ending, else PNG")
    made.add_argument("--quality", type=int, default=DEFAULT_QUALITY, help="of JPEG and WEBP, 1 to 100")
    made.add_argument("--metadata", action=argparse.BooleanOptionalAction, default=True, help="the recipe in the file")
    made.add_argument("--safety", action=argparse.BooleanOptionalAction, default=True, help="refuse unsafe prompts")
    made.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (default: %(default)s)")
    made.add_argument("--dtype", choices=DTYPES, default="float32", help="(default: %(default)s)")
    return made


def output_of(arguments: argparse.Namespace) -> tuple[Path, str]:
    """The file and its format; each follows from the other where only one is given."""
    path, chosen = arguments.output, arguments.format
    if path and path.is_dir():
        raise ModelError(f"output: {path}: is a folder")
    named = SUFFIXES.get(path.suffix.lower()) if path else None
    by_name = named.name if named else None
    if path and not by_name and not chosen:
        raise ModelError(f"output: {path}: its ending names no format; expected {', '.join(SUFFIXES)}, or --format")
    if by_name and chosen and by_name != chosen:
        raise ModelError(f"output: {path} is named as {by_name}, but --format says {chosen}")
    chosen = chosen or by_name or DEFAULT_FORMAT.name
    if path is None:
        path = Path("picture").with_suffix(FORMATS[chosen].suffix)
    if not path.parent.is_dir():
        raise ModelError(f"output: {path}: the folder {path.parent} does not exist")
    return path, chosen


def run(arguments: argparse.Namespace) -> None:
    """Draw and write the picture. Raises ModelError, OSError."""
    path, chosen = output_of(arguments)
    check_encoding(chosen, arguments.quality)
    chosen_params = {name: value for name in PARAMS if (value := getattr(arguments, name)) is not None}
    SamplingParams(**chosen_params)  # refuses a bad value before the checkpoint is read
    prompt = checked_prompt(arguments.prompt)
    folder = arguments.checkpoint or bundled()
    compute = Compute.of(arguments.device, arguments.dtype)
    pipeline = Pipeline.load(folder, compute.device, compute.dtype, arguments.safety)
    settings = dataclasses.replace(pipeline.checkpoint.sampling_defaults, **chosen_params)
    with tqdm(total=pipeline.generator.scales, unit="scale", disable=None) as bar:
        picture = pipeline.draw(prompt, arguments.seed, settings, on_scale=lambda _: bar.update() and None)
    path.write_bytes(picture.to_bytes(chosen, arguments.quality, arguments.metadata))
    if picture.prompt_truncated:
        slots = pipeline.text_encoder.context_tokens
        print(f"the prompt has {picture.prompt_tokens} tokens; only the first {slots} were read", file=sys.stderr)
    unfamiliar = pipeline.checkpoint.vocabulary().unfamiliar(prompt)
    if unfamiliar:
        print(f"the model was not trained on: {', '.join(unfamiliar)}", file=sys.stderr)
    print(f"{path}: {dataclasses.asdict(picture.recipe)}")


def main() -> int:
    """The command; its exit code."""
    for stream in (sys.stdout, sys.stderr):  # a console of ASCII shows other characters as escapes
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

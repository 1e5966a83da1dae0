"""`python -m model PROMPT`: draws a picture in one process."""

import argparse
import dataclasses
import io
import logging
import sys
from pathlib import Path

from tqdm import tqdm

from model.checkpoint import bundled
from model.device import DTYPES, Compute
from model.errors import ModelError, NotFiniteError, UnsafePromptError
from model.generation import SamplingParams
from model.image_file import DEFAULT_QUALITY, FORMATS, check_encoding
from model.pipeline import Pipeline, checked_prompt

FAILED, USAGE, REFUSED, INTERRUPTED = 1, 2, 3, 130


def parser() -> argparse.ArgumentParser:
    """The command line."""
    default = SamplingParams()
    made = argparse.ArgumentParser(prog="python -m model", description="Draws a picture of PROMPT in this process.")
    made.add_argument("prompt", help="what to draw, 1 to 2,000 characters")
    made.add_argument("-o", "--output", type=Path, help="the image file (default: picture.png, or .jpg, .webp)")
    made.add_argument("--checkpoint", type=Path, help="checkpoint folder (default: the bundled one)")
    made.add_argument("--seed", type=int, help="0 to 2^64-1; the same seed makes the same picture (default: drawn)")
    made.add_argument("--guidance", type=float, default=default.guidance, help="0 to 20 (default: %(default)s)")
    made.add_argument(
        "--smooth", action=argparse.BooleanOptionalAction, default=default.more_smooth, help="soft or drawn codes"
    )
    made.add_argument("--top-p", type=float, default=default.top_p, help="0 (off) to 1 (default: %(default)s)")
    made.add_argument("--format", type=str.upper, choices=FORMATS, help="default: by the file's ending, else PNG")
    made.add_argument("--quality", type=int, default=DEFAULT_QUALITY, help="of JPEG and WEBP, 1 to 100")
    made.add_argument("--metadata", action=argparse.BooleanOptionalAction, default=True, help="the recipe in the file")
    made.add_argument("--safety", action=argparse.BooleanOptionalAction, default=True, help="refuse unsafe prompts")
    made.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (default: %(default)s)")
    made.add_argument("--dtype", choices=DTYPES, default="float32", help="(default: %(default)s)")
    return made


ENDINGS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


def output_of(arguments: argparse.Namespace) -> tuple[Path, str]:
    """The file and its format; each follows from the other where only one is given."""
    path, chosen = arguments.output, arguments.format
    if path and path.is_dir():
        raise ModelError(f"output: {path}: is a folder")
    by_name = ENDINGS.get(path.suffix.lower()) if path else None
    if path and not by_name and not chosen:
        raise ModelError(f"output: {path}: its ending names no format; expected {', '.join(ENDINGS)}, or --format")
    if by_name and chosen and by_name != chosen:
        raise ModelError(f"output: {path} is named as {by_name}, but --format says {chosen}")
    chosen = chosen or by_name or "PNG"
    if path is None:
        path = Path("picture").with_suffix({"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp"}[chosen])
    if not path.parent.is_dir():
        raise ModelError(f"output: {path}: the folder {path.parent} does not exist")
    return path, chosen


def run(arguments: argparse.Namespace) -> None:
    """Draw and write the picture. Raises ModelError, OSError."""
    path, chosen = output_of(arguments)
    check_encoding(chosen, arguments.quality)
    settings = SamplingParams(arguments.guidance, arguments.more_smooth, arguments.top_p)
    prompt = checked_prompt(arguments.prompt)
    folder = arguments.checkpoint or bundled()
    compute = Compute.of(arguments.device, arguments.dtype)
    pipeline = Pipeline.load(folder, compute.device, compute.dtype, arguments.safety)
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

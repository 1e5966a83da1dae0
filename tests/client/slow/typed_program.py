"""A program of a caller for type checkers: every answer has a type."""

import hart


def draw(client: hart.Client) -> bytes:
    result = client.generate("a red heart", seed=7, num_images=2, timeout=30)
    first: hart.Image = result[0]
    tokens: int = result.report.prompt_tokens
    for call in result.report.timings.calls:
        print(call.stage, call.duration_seconds + 1.0, tokens)
    return first.data


def watch(client: hart.Client) -> list[hart.Image]:
    images: list[hart.Image] = []
    for event in client.stream("a red heart", preview_every=2):
        match event:
            case hart.Progress(scale=scale, preview=preview):
                print(scale + 1, None if preview is None else preview.width)
            case hart.Image():
                images.append(event)
            case hart.Finished(report=report):
                print(report.model.name.upper())
            case _:
                pass
    return images


def state(client: hart.Client) -> list[str]:
    described = client.describe()
    sizes = [f"{model.model.name}: {model.shape.width}" for model in described.models]
    status = client.status()
    return [*sizes, *status.problems, *(f"{stage.stage} {stage.ready:d}" for stage in status.stages)]


async def later(client: hart.AsyncClient) -> int:
    result = await client.generate("a red heart")
    status = await client.status()
    return len(result) + len(status.stages)


def main() -> None:
    try:
        with hart.Client(api_key=None) as client:
            draw(client)
            watch(client)
            state(client)
    except hart.Overloaded as error:
        print(error.retry_after, error.stage.upper())

"""Options and fixtures of the whole suite."""

from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden-dir", type=Path, default=GOLDEN, help="a folder of golden cases (default: the repository's own)"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per golden case: `image_case` of a whole image, `text_case` of text conditioning."""
    for name, has_tokenizer in (("image_case", True), ("text_case", False)):
        if name in metafunc.fixturenames:
            folder = metafunc.config.getoption("--golden-dir")
            cases = sorted(path.parent for path in folder.glob("*/case.json"))
            if not cases:
                raise pytest.UsageError(f"--golden-dir: {folder} holds no golden cases (folders with a case.json)")
            chosen = [case for case in cases if (case / "checkpoint" / "tokenizer").is_dir() == has_tokenizer]
            metafunc.parametrize(name, chosen, ids=[case.name for case in chosen])


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete tiny checkpoint; its contents and its unsafe prompts are documented in tests.e2e.checkpoint."""
    from tests.e2e.checkpoint import build  # imports torch: only for the tests that need it

    return build(tmp_path_factory.mktemp("checkpoints"))

"""Options and fixtures of the whole suite."""

import os
from collections.abc import Generator
from pathlib import Path

import pytest

from tests import lanes

GOLDEN = Path(__file__).parent / "golden"
SHORT_LANE = pytest.StashKey[lanes.ShortLane]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden-dir", type=Path, default=GOLDEN, help="a folder of golden cases (default: the repository's own)"
    )
    parser.addoption("--device", default="cpu", help="where golden cases and kernels are computed (default: cpu)")


def pytest_configure(config: pytest.Config) -> None:
    """Triton's interpreter has to be chosen before anything imports triton, as transformers does."""
    if config.getoption("--device") == "cpu":
        os.environ.setdefault("TRITON_INTERPRET", "1")
    config.addinivalue_line("markers", lanes.MARKER)
    config.stash[SHORT_LANE] = lanes.ShortLane()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Import no module of a folder whose tests the short lane leaves out."""
    skipped = config.option.markexpr == "not long" and collection_path.name in lanes.LONG_FOLDERS
    return True if skipped and collection_path.is_dir() else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put every test into its lane."""
    for item in items:
        if lanes.is_long(item):
            item.add_marker("long")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """Watch a test of the short lane while it runs."""
    lane = item.config.stash[SHORT_LANE]
    short = not lanes.is_long(item) and item.config.getoption("--device") == "cpu"  # triton compiles for other devices
    lane.test = item.nodeid if short else None
    try:
        yield
    finally:
        lane.test = None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape what UTF-8 cannot write, such as lone surrogates in a log: pytest-xdist could not send the report."""
    report = yield
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report


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
def device(request: pytest.FixtureRequest) -> str:
    """What --device names; on a GPU float32 is computed as such, not as TF32."""
    name = str(request.config.getoption("--device"))
    if name != "cpu":
        import torch

        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    return name


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete tiny checkpoint; benchmarks.harness.checkpoint documents its contents and unsafe prompts."""
    from benchmarks.harness.checkpoint import build  # imports torch: only for the tests that need it

    return build(tmp_path_factory.mktemp("checkpoints"))

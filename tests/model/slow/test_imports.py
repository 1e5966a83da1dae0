"""What a part imports when it is loaded, in a process of its own."""

import subprocess
import sys

import pytest

from cluster.plan import ROOT

CODE = """
import sys
from model.checkpoint import Checkpoint, bundled
getattr(Checkpoint.open(bundled()), sys.argv[1])()
print(*(name for name in ("torch._dynamo", "torch.distributed.tensor", "transformers") if name in sys.modules))
"""


PARTS = {
    "load_transformer": "",
    "load_tokenizer": "",
    "load_text_encoder": "transformers",
    "load_safety": "transformers",
}


@pytest.mark.parametrize(("load", "imported"), PARTS.items())
def test_loading_a_part_imports_no_compiler_and_no_distribution(load: str, imported: str) -> None:
    command = [sys.executable, "-c", CODE, load]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == imported


def test_torch_is_as_before_once_transformers_is_imported() -> None:
    code = (
        "import torch; marks = torch.compiler.disable, torch.distributed.is_available\n"
        "import model.pretrained\n"
        "assert marks == (torch.compiler.disable, torch.distributed.is_available)\n"
        "assert torch.compile(lambda x: x + 1, backend='eager')(torch.ones(1)) == 2\n"
        "from transformers.masking_utils import TransformGetItemToIndex\n"
        "with TransformGetItemToIndex(): pass\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)

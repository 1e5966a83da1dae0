"""training.gpu: stages in order, each once, none started without time for it; no GPU is code 2."""

import subprocess
import sys

import pytest
import torch


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_missing_device_is_named_and_the_code_is_two() -> None:
    ended = subprocess.run([sys.executable, "-m", "training.gpu"], capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "No CUDA device" in ended.stderr


ONLY = """
import sys
allowed = {"torch", "transformers", "safetensors", "numpy", "PIL", "tqdm"}
ours = {"common", "kernels", "training", "model", "kernels", "benchmarks"}

class Refuse:
    def find_spec(self, name, path=None, target=None):
        frame = sys._getframe(1)
        while "importlib" in frame.f_code.co_filename:
            frame = frame.f_back
        asked_by = frame.f_globals.get("__name__", "").partition(".")[0]
        if asked_by in ours | {"__main__"} and name.partition(".")[0] not in allowed | ours | sys.stdlib_module_names:
            raise ModuleNotFoundError(f"{asked_by} imports {name}")

sys.meta_path.insert(0, Refuse())
import benchmarks.full_size, training.gpu, training.recipes.emoji.tokenizer, training.recipes.emoji.transformer
"""


def test_the_work_needs_no_package_but_those_that_the_documentation_names() -> None:
    ended = subprocess.run([sys.executable, "-c", ONLY], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr

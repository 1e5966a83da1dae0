"""model.generation, model.tokenizer: generation on `meta`, whose tensors have no data, fails on any synchronisation.

Mixing tensors of two devices fails too. Only the depth differs from the released one: all blocks are equal.
"""

import pytest
import torch

from benchmarks.operations import counted

META = torch.device("meta")


def test_meta_device_has_no_values_and_mixes_with_no_other() -> None:
    tensor = torch.empty(3, device=META)
    with pytest.raises(RuntimeError):
        tensor.sum().item()
    with pytest.raises(RuntimeError):
        tensor + torch.ones(3)


def test_operations_are_counted_and_views_are_not() -> None:
    tensor = torch.empty(4, 6, device=META)
    with torch.inference_mode():
        found = counted(
            lambda: (tensor.view(24), tensor.t().reshape(24), tensor.to(torch.float32), tensor.double() + 1)
        )
    assert found == {"reshape": 1, "to": 1, "add": 1}

"""Stages of two checkpoints behind one gateway."""

from collections.abc import Callable
from typing import Any

from hart.v1 import images_pb2

from tests.gateway.support import FakeStage

Stages = dict[str, list[FakeStage]]


def versions(**of: list[str]) -> Callable[[Stages], None]:
    """Set the replicas' digests: "T1"; a generator's is followed by those it requires, "G1 T1 D1"."""

    def prepare(stages: Stages) -> None:
        for stage, names in of.items():
            for fake, name in zip(stages[stage], names, strict=True):
                fake.digest, *partners = name.split()
                fake.required_digests = dict(zip(("text_encoder", "decoder"), partners, strict=False))

    return prepare


TWO_REPLICAS = {"text_encoder": 2, "ar_generator": 2, "decoder": 2}


TWO_CHECKPOINTS = versions(text_encoder=["T1", "T2"], ar_generator=["G1 T1 D1", "G2 T2 D2"], decoder=["D1", "D2"])


def request(seed: int = 7, **fields: Any) -> images_pb2.GenerateRequest:
    return images_pb2.GenerateRequest(prompt="a red heart", seed=seed, **fields)

"""common.digests: the digest of a checkpoint."""

import hashlib
from pathlib import Path

import pytest

from common.digests import combine
from model.checkpoint import Checkpoint


def test_digest_covers_the_parts_that_an_image_depends_on(tiny_checkpoint: Path) -> None:
    checkpoint = Checkpoint.open(tiny_checkpoint)
    lines = "".join(f"{part}={checkpoint.digest_of(part)}\n" for part in ("llm", "text_encoder", "tokenizer"))
    assert checkpoint.digest == hashlib.sha256(lines.encode()).hexdigest()


@pytest.mark.parametrize("part", ["generator", "text_encoder", "decoder"])
def test_each_part_changes_the_digest_and_a_missing_one_empties_it(part: str) -> None:
    parts = {"generator": "a", "text_encoder": "b", "decoder": "c"}
    assert combine(**(parts | {part: "other"})) != combine(**parts)
    assert combine(**(parts | {part: ""})) == ""

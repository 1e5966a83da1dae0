"""The bundle's config and card: the released code opens the one, the other names the digest of what is bundled."""

import json

from model.checkpoint import Checkpoint, bundled
from model.config import TransformerConfig


def test_the_bundle_names_no_tokenizer_folder_by_null() -> None:
    given = json.loads((bundled() / "llm" / "config.json").read_text())
    assert given["vae_path"] is None
    written = TransformerConfig.of(given).to_json()
    assert json.loads(json.dumps(written)) == given


def test_the_card_names_the_digest_of_the_bundle() -> None:
    checkpoint = Checkpoint.open(bundled())
    assert f"| digest | {checkpoint.digest} |" in (bundled() / "README.md").read_text()

"""model.generation, model.tokenizer, model.text: the released arithmetic, tensor by tensor."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from model.text import TextEncoder
from tests.model.golden import ImageCase, branches, computed, difference

EXACT = 5e-4
"""Maximum difference if every scale gets the case's previous map."""
FREE_SMOOTH, FREE_DRAWN = 5e-2, 1e-4
"""Maximum difference of the latent if rounding accumulates from scale to scale."""


@pytest.mark.parametrize("forced", [True, False], ids=["forced", "free"])
def test_golden_image(image_case: Path, device: str, forced: bool) -> None:
    golden = ImageCase(image_case, device)
    expected, generator = golden.expected, golden.generator()
    states = golden.begin(generator)
    for k in range(generator.scales):
        if forced:
            hidden = generator.forward(states)
            for name, rows in (("hidden", branches(hidden)), ("logits", branches(generator.logits(states, hidden)))):
                assert difference(rows, computed(expected[f"scale.{k}.{name}"], rows)) < EXACT
        before = torch.stack([state.latent for state in states])
        generator.advance(states)
        tokens = [state.tokens for state in states if state.tokens is not None]
        assert torch.equal(torch.stack(tokens), expected[f"scale.{k}.tokens"].long())
        if forced and k < generator.scales - 1:
            latent = torch.stack([state.latent for state in states])
            assert difference(latent, expected[f"scale.{k}.latent"]) < EXACT
            embedded = golden.tokenizer.quantize.accumulate(before, k, expected[f"scale.{k}.embedding"])
            assert difference(embedded, latent) < EXACT
            for row, state in enumerate(states):
                assert state.next_map is not None
                assert difference(state.next_map, expected[f"scale.{k}.next_map"][row]) < EXACT
                state.latent, state.next_map = expected[f"scale.{k}.latent"][row], expected[f"scale.{k}.next_map"][row]
    latent = torch.stack([state.latent for state in states])
    free = FREE_SMOOTH if golden.settings.more_smooth else FREE_DRAWN
    assert difference(latent, expected["output.latent"]) < (EXACT if forced else free)
    with torch.inference_mode():
        assert difference(golden.tokenizer.decode(latent), expected["output.image"]) < (EXACT if forced else free)


def test_golden_residual(image_case: Path, device: str) -> None:
    golden = ImageCase(image_case, device)
    expected, config = golden.expected, golden.checkpoint.transformer_config
    net, last = golden.checkpoint.load_transformer(device=device), config.scales - 1
    rows = golden.batch
    hidden = expected[f"scale.{last}.hidden"].unflatten(0, (2, rows)).transpose(0, 1)
    codes = golden.tokenizer.quantize.embedding(expected[f"scale.{last}.tokens"].long())
    with torch.inference_mode():
        condition = net.diffusion_condition(hidden, codes[:, None])
        assert difference(branches(condition).flatten(0, 1), expected["diffusion.condition"]) < EXACT
        drawn = net.diffloss.sample(
            condition,
            expected["diffusion.guidance"].reshape(1).expand(rows),
            expected["noise.diffusion_initial"].unflatten(0, (rows, -1)),
            torch.stack(
                [
                    expected[f"noise.diffusion_step.{j}"].unflatten(0, (rows, -1))
                    for j in range(config.diffusion_steps - 1)
                ]
            ),
        )
    assert difference(drawn.flatten(0, 1), expected["diffusion.output"]) < EXACT


def test_golden_tokenizer(image_case: Path, device: str) -> None:
    golden = ImageCase(image_case, device)
    expected, tokenizer = golden.expected, golden.tokenizer
    with torch.inference_mode():
        encoding = tokenizer.encode(expected["tokenizer.image"])
        decoded = tokenizer.decode(encoding.features) * 2 - 1
    assert difference(encoding.features, expected["tokenizer.features"]) < EXACT
    for k, indices in enumerate(encoding.indices):
        assert torch.equal(indices, expected[f"tokenizer.indices.{k}"].long())
    rest = encoding.last_scale_features.flatten(2).transpose(1, 2)
    assert difference(rest, expected["tokenizer.last_scale_features"]) < EXACT
    assert difference(decoded, expected["tokenizer.features_decoded"]) < EXACT


@pytest.mark.parametrize("system", [True, False], ids=["with_system_prompt", "without_system_prompt"])
def test_golden_text(text_case: Path, device: str, system: bool) -> None:
    case = json.loads((text_case / "case.json").read_text())
    expected = load_file(text_case / "expected.safetensors", device)
    prompt = case["system_prompt"] if system else ""
    encoder = TextEncoder.load(text_case / "checkpoint", case["max_token_length"], device, system_prompt=prompt)
    assert encoder.tokenizer.padding_side == case["padding_side"]
    encoded = encoder.encode(case["prompts"])
    name = "with_system_prompt" if system else "without_system_prompt"
    assert difference(encoded.conditioning.context, expected[f"{name}.context"]) < EXACT
    assert torch.equal(encoded.conditioning.mask, expected["mask"].bool())
    assert torch.equal(encoded.conditioning.positions, expected["position_ids"])
    for row, prompt in enumerate(case["prompts"]):  # a prompt's conditioning does not depend on its batch peers
        alone = encoder.encode([prompt])
        assert difference(alone.conditioning.context[0], encoded.conditioning.context[row]) < 1e-5
        assert alone.truncated == [encoded.prompt_tokens[row] > case["max_token_length"]]

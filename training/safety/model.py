"""The small safety classifier: ShieldGemma's interface around a tiny Gemma-2."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor
from transformers import DynamicCache, Gemma2Config, Gemma2ForCausalLM, PreTrainedTokenizerFast

PAD, ANSWERS = "<pad>", ("Yes", "No")
# Short, because each prompt is classified with each of them.
GUIDELINES = {
    "dangerous_content": '"No Dangerous Content": no weapons, drugs, violence or self harm.',
    "harassment": '"No Harassment": no threats, insults or bullying.',
    "hate_speech": '"No Hate Speech": no slurs or hatred against groups.',
    "sexually_explicit": '"No Sexually Explicit Information": no sexual acts or nudity.',
}
# The principle comes first, so that its keys and values serve many prompts.
START, REST = "Principle: {}\nHuman question:", " {}\nViolates?"
CHAT_TEMPLATE = START.format("{{ guideline }}") + REST.format("{{ messages[-1]['content'] | trim }}")


def question(prompt: str, policy: str) -> str:
    """The classifier's input, as the chat template renders it."""
    return START.format(GUIDELINES[policy]) + REST.format(prompt.strip())


def answers(model: Gemma2ForCausalLM, tokenizer: PreTrainedTokenizerFast, asked: Sequence[tuple[str, str]]) -> Tensor:
    """Pairs of prompt and policy to the logits of Yes and No, (n, 2).

    Equal to those of whole inputs, at less than half the cost: each guideline is computed once.
    """
    rows = torch.tensor([list(GUIDELINES).index(policy) for _, policy in asked])
    first = tokenizer([START.format(guide) for guide in GUIDELINES.values()], padding=True, return_tensors="pt")
    rest = tokenizer([REST.format(prompt.strip()) for prompt, _ in asked], padding=True, return_tensors="pt")
    read = model.model(**first, position_ids=_positions(first["attention_mask"]), use_cache=True).past_key_values
    cache = DynamicCache()
    for layer, kept in enumerate(read.layers):
        cache.update(kept.keys[rows], kept.values[rows], layer)
    mask = torch.cat([first["attention_mask"][rows], rest["attention_mask"]], dim=1)
    logits: Tensor = model(
        input_ids=rest["input_ids"],
        attention_mask=mask,
        position_ids=_positions(mask)[:, -rest["input_ids"].shape[1] :],
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    ).logits
    return logits[:, -1, tokenizer.convert_tokens_to_ids(list(ANSWERS))].float()


def _positions(mask: Tensor) -> Tensor:
    return (mask.cumsum(1) - 1).clamp(min=0)


def normaliser() -> normalizers.Normalizer:
    """Lower case without accents; leet signs within words become letters, stretched and spaced-out letters close up."""
    steps: list[normalizers.Normalizer] = [normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()]
    for signs, letter in (("@4", "a"), ("3", "e"), ("1|", "i"), ("0", "o"), ("$5", "s"), ("7", "t")):
        steps.append(normalizers.Replace(Regex(rf"(?<=[a-z@$])[{signs}]|[{signs}](?=[a-z@$])"), letter))
    steps.append(normalizers.Replace(Regex("(?<=[a-z])!(?=[a-z])"), "i"))
    steps.append(normalizers.Replace(Regex(r"(?<=\b[a-z])[ ._*-]+(?=[a-z]\b)"), ""))
    steps += [normalizers.Replace(Regex(letter + "{3,}"), letter) for letter in "abcdefghijklmnopqrstuvwxyz"]
    return normalizers.Sequence(steps)


def train_tokenizer(texts: Iterable[str], size: int = 4096) -> PreTrainedTokenizerFast:
    """A byte-level BPE with the normaliser in it. No text contains the entries `Yes` and `No`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normaliser()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(ANSWERS),
        special_tokens=[PAD],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    frame = [question("", policy) for policy in GUIDELINES] * 300  # so often that its words become single tokens
    tokenizer.train_from_iterator([*texts, *frame], trainer)
    state = json.loads(tokenizer.to_str())
    for answer in ANSWERS:  # upper case, which the normaliser removes from all texts
        state["model"]["vocab"][answer] = len(state["model"]["vocab"])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)), pad_token=PAD, padding_side="left"
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def network(vocabulary: int, width: int = 128, layers: int = 2) -> Gemma2ForCausalLM:
    """A Gemma-2 of about 0.8 M parameters with fresh weights; most are embeddings: words decide most prompts."""
    config = Gemma2Config(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        num_key_value_heads=width // 64,
        head_dim=32,
        query_pre_attn_scalar=32,
        max_position_embeddings=4096,
        sliding_window=4096,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
        tie_word_embeddings=True,
    )
    config._attn_implementation = "eager"  # the only path with Gemma-2's soft cap on scores
    return Gemma2ForCausalLM(config)


def write_policies(folder: Path, version: str, threshold: float) -> None:
    """Writes policies.json: the guidelines, and the share of Yes from which a prompt is refused."""
    policies = [{"name": name, "guideline": guideline} for name, guideline in GUIDELINES.items()]
    content = {"version": version, "threshold": threshold, "policies": policies}
    (folder / "policies.json").write_text(json.dumps(content, indent=1) + "\n")

"""A complete tiny checkpoint: `python -m tests.e2e.checkpoint FOLDER`.

The transformer and the tokenizer are the golden case `plain`'s. The text model is a random small Qwen2 with the golden
case `text_right`'s tokenizer. The safety model is a Gemma-2 of one layer with hand-written weights, so that its
verdicts are known: "forbidden" violates `dangerous_content` only, "outrageous" violates both policies, and any other
prompt is safe.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import Gemma2Config, Gemma2ForCausalLM, PreTrainedTokenizerFast, Qwen2Config, Qwen2Model

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
NAME = "tiny"
CONTEXT_DIM = 24
FORBIDDEN, OUTRAGEOUS = "forbidden", "outrageous"
UNSAFE_PROMPT = f"a {FORBIDDEN} thing"
POLICIES = ("dangerous_content", "harassment")
PROMPTS = ("a red heart", "a blue house", "a green tree", "a yellow sun")
SYSTEM_PROMPT = "Write what is to be seen. "
CHAT_TEMPLATE = "{{ bos_token }} Prompt : {{ messages[0]['content'] }} Policy : {{ guideline }} Answer :"
# Each token's contribution to the safety model's score: positive for Yes, negative for No.
WEIGHTS = {FORBIDDEN: 1.0, "patience": -10.0, OUTRAGEOUS: 100.0}
GUIDELINES = {"dangerous_content": "no dangerous content", "harassment": "no harassment , with patience"}


def build(parent: Path) -> Path:
    """Write the checkpoint into `parent`/tiny and return that folder. The bytes are deterministic."""
    folder = parent / NAME
    for part in ("llm", "tokenizer"):
        shutil.copytree(GOLDEN / "plain" / "checkpoint" / part, folder / part)
    _text_encoder(folder / "text_encoder")
    _safety(folder / "safety")
    (folder / "prompts.txt").write_text("\n".join(PROMPTS) + "\n")
    (folder / "vocabulary.txt").write_text("\n".join(sorted({word for p in PROMPTS for word in p.split()})) + "\n")
    return folder


def _text_encoder(folder: Path) -> None:
    source = GOLDEN / "text_right" / "checkpoint"
    folder.mkdir()
    for file in source.iterdir():
        if file.name not in ("config.json", "model.safetensors"):
            shutil.copy(file, folder)
    given = json.loads((source / "config.json").read_text())
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = Qwen2Model(
            Qwen2Config(
                hidden_size=CONTEXT_DIM,
                intermediate_size=2 * CONTEXT_DIM,
                num_hidden_layers=2,
                num_attention_heads=2,
                num_key_value_heads=1,
                vocab_size=given["vocab_size"],
                max_position_embeddings=given["max_position_embeddings"],
                initializer_range=0.5,
            )
        )
    network.save_pretrained(folder)
    (folder / "system_prompt.txt").write_text(SYSTEM_PROMPT)


def _safety(folder: Path) -> None:
    words = ["<pad>", "<bos>", "<eos>", "<unk>", "Yes", "No", "Prompt", "Policy", "Answer", ":", ",", *WEIGHTS]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit()])
    tokenizer.add_special_tokens(["<pad>", "<bos>", "<eos>", "<unk>"])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        chat_template=CHAT_TEMPLATE,
    ).save_pretrained(folder)
    _judge(vocabulary).save_pretrained(folder)
    policies = [{"name": name, "guideline": GUIDELINES[name]} for name in POLICIES]
    (folder / "policies.json").write_text(json.dumps({"version": "tiny-1", "threshold": 0.5, "policies": policies}))


@torch.no_grad()
def _judge(vocabulary: dict[str, int]) -> Gemma2ForCausalLM:
    """Attention averages over all tokens, its norm keeps only the sign of the sum, and Yes reads that sign."""
    network = Gemma2ForCausalLM(
        Gemma2Config(
            vocab_size=len(vocabulary),
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=1,
            num_key_value_heads=1,
            head_dim=8,
            tie_word_embeddings=False,
            pad_token_id=vocabulary["<pad>"],
            bos_token_id=vocabulary["<bos>"],
            eos_token_id=vocabulary["<eos>"],
        )
    )
    for parameter in network.parameters():
        parameter.zero_()
    constant, weight, found = 0, 1, 2
    embedding = network.model.embed_tokens.weight
    embedding[:, constant] = 100.0  # so large that the input's norm treats all tokens alike
    for word, value in WEIGHTS.items():
        embedding[vocabulary[word], weight] = value
    attention = network.model.layers[0].self_attn
    attention.v_proj.weight[0, weight] = attention.o_proj.weight[found, 0] = 1.0
    network.model.layers[0].post_attention_layernorm.weight.fill_(999.0)
    network.lm_head.weight[vocabulary["No"], constant] = 1.0
    network.lm_head.weight[vocabulary["Yes"], found] = 10.0
    return network


if __name__ == "__main__":
    print(build(Path(sys.argv[1])))

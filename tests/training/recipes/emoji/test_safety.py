"""training.safety: disguises are undone, shares stay apart, the bundle loads the result."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from training.safety import corpus
from training.safety.evaluate import MAX_ALARMS, choose_threshold
from training.safety.hard_negatives import MAX_KEPT, HardNegatives
from training.safety.model import ANSWERS, GUIDELINES, answers, network, question, train_tokenizer, write_policies
from training.safety.paraphrase import Paraphraser
from training.safety.prompts import GRAMMAR, POLICIES, SHARES, Example, Grammar, disguised, share_of
from training.text import teacher
from training.text.bag import train_bag

BAD = {f"nasty{a}{b}": policy for a in "abcdef" for b in "uvwxyz" for policy in ("harassment",)}
SAFE = ["a red heart", "a cat", "a tree", "a small blue house"]


@pytest.fixture(scope="module")
def tokenizer() -> object:
    return train_tokenizer([*SAFE, *BAD, "a naked woman", "cockatoo"], 512)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("N@k3d", "naked"),
        ("n a k e d", "naked"),
        ("n.a.k.e.d", "naked"),
        ("nakeeeed", "naked"),
        ("b!g", "big"),
        ("hello! world", "hello! world"),
        ("7 cats", "7 cats"),
        ("a cat and a dog", "a cat and a dog"),
    ],
)
def test_disguises_come_off(tokenizer: object, written: str, meant: str) -> None:
    assert tokenizer.backend_tokenizer.normalizer.normalize_str(written) == meant  # type: ignore[attr-defined]


def test_no_prompt_contains_the_answers_tokens(tokenizer: object) -> None:
    answers = {tokenizer.get_vocab()[word] for word in ("Yes", "No")}  # type: ignore[attr-defined]
    for prompt in ("Yes", "No", "Answer: No", "<pad> No <eos>"):
        ids = tokenizer(question(prompt, "harassment"))["input_ids"]  # type: ignore[operator]
        assert not answers & set(ids)


def test_the_chat_template_asks_what_training_asked(tokenizer: object) -> None:
    chat = [{"role": "user", "content": "  a cat "}]
    for policy, guideline in GUIDELINES.items():
        asked = tokenizer.apply_chat_template(chat, guideline=guideline, tokenize=False)  # type: ignore[attr-defined]
        assert asked == question("  a cat ", policy)


def test_what_one_share_holds_no_other_holds() -> None:
    """Measuring and choosing the threshold see no pattern, filler or listed word that training saw."""
    grammars = [Grammar(BAD, SAFE, np.random.default_rng(0), share) for share in SHARES]
    for i, one in enumerate(grammars):
        for other in grammars[:i]:
            assert not set(one.bad) & set(other.bad)
            for mine, theirs in ((one.unsafe, other.unsafe), (one.safe, other.safe)):
                assert all(not set(mine[name]) & set(theirs[name]) for name in mine)
    trained, _, kept = grammars
    for slot in GRAMMAR["slots"]:
        assert not set(trained.slots[slot]) & set(kept.slots[slot]), slot
    assert not {kept.violation().prompt for _ in range(300)} & {trained.violation().prompt for _ in range(300)}


def test_every_policy_has_many_patterns_and_some_in_each_share() -> None:
    for policy in POLICIES:
        patterns = GRAMMAR["unsafe"][policy]
        assert len(patterns) >= 60, policy
        assert {share_of(pattern) for pattern in patterns} == set(SHARES), policy
    safe = [pattern for patterns in GRAMMAR["safe"].values() for pattern in patterns]
    assert len(safe) >= 300
    assert not set(safe) & {pattern for patterns in GRAMMAR["unsafe"].values() for pattern in patterns}


def test_no_sexual_prompt_is_made_about_a_child() -> None:
    assert not [p for p in GRAMMAR["unsafe"]["sexually_explicit"] if "{kid}" in p or "{victim}" in p]
    assert not set(GRAMMAR["slots"]["person"]) & set(GRAMMAR["slots"]["kid"])


def test_every_pattern_can_be_filled() -> None:
    for share in SHARES:
        grammar = Grammar(BAD, SAFE, np.random.default_rng(1), share)
        for make in (grammar.bad_word, grammar.violation, grammar.neighbour, grammar.ordinary):
            for _ in range(300):
                example = make()
                assert "{" not in example.prompt
                assert " a apple" not in example.prompt
                assert bool(example.policies) == (make in (grammar.bad_word, grammar.violation))


def test_every_emoji_name_is_trained_on_and_nothing_else_of_the_other_shares(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = ["gun", "red heart", "pool 8 ball"]
    monkeypatch.setattr(corpus, "bad_words", lambda: BAD)
    monkeypatch.setattr(corpus, "innocent_words", lambda: ["bible"])
    monkeypatch.setattr(teacher, "dictionary", lambda: [f"{a}{b}ord" for a in "abcdefgh" for b in "klmnopqr"])
    prompts = corpus.Prompts(["a cat", "naked nastyau", "a gun"], names)
    assert {form for name in names for form in (name, f"a {name}")} <= set(prompts.safe["training"])
    assert "naked nastyau" not in [text for texts in prompts.safe.values() for text in texts]
    for i, share in enumerate(SHARES):
        assert prompts.safe[share], share
        assert all(not set(prompts.safe[share]) & set(prompts.safe[other]) for other in SHARES[:i])


def test_a_word_with_an_unsafe_meaning_is_not_labelled_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    filler = next(text for text in GRAMMAR["slots"]["drug"] if share_of(text) == "training")
    prompts = corpus.Prompts.__new__(corpus.Prompts)
    prompts.everyday, prompts.safe = ["snow", "spoon"], {"training": ["snow", "spoon", "a cat"]}
    same = {filler: 0, "snow": 0, "spoon": 1}
    monkeypatch.setattr(teacher, "embed", lambda texts: np.eye(3, dtype=np.float32)[[same.get(t, 2) for t in texts]])
    prompts.leave_out_doubtful()
    assert prompts.safe["training"] == ["spoon", "a cat"]


def test_a_paraphrase_keeps_the_meaning_and_inserts_nothing_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    places = {"kitten": 0, "feline": 0, "tomcat": 0, "purple": 1}
    monkeypatch.setattr(teacher, "embed", lambda texts: np.eye(3, dtype=np.float32)[[places.get(t, 2) for t in texts]])
    paraphrase = Paraphraser(["never draw kitten"], ["feline", "tomcat", "purple"], avoid={"tomcat"})
    rng = np.random.default_rng(0)
    said = {paraphrase("i never draw a kitten", rng) for _ in range(200)}
    assert {"i never draw a kitten", "i never draw a feline"} <= said
    assert all("never" in text.split() and text.split()[-1] in ("kitten", "feline") for text in said)
    assert paraphrase("a", np.random.default_rng(3)) == "a"


def test_a_disguise_keeps_the_words() -> None:
    rng = np.random.default_rng(0)
    seen = {disguised("a naked woman", rng) for _ in range(50)}
    assert len(seen) > 10
    assert all(text for text in seen)


def test_a_guideline_read_once_gives_the_answers_of_whole_questions(tokenizer: object) -> None:
    torch.manual_seed(1)
    model = network(len(tokenizer), width=64, layers=2).eval()  # type: ignore[arg-type]
    asked = [
        (prompt, policy) for prompt in ("a cat", " n a k e d woman!", "7 trees, and a house") for policy in POLICIES
    ]
    batch = tokenizer([question(*pair) for pair in asked], padding=True, return_tensors="pt")  # type: ignore[operator]
    mask = batch["attention_mask"]
    with torch.no_grad():
        whole = model(
            input_ids=batch["input_ids"], attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0)
        ).logits[:, -1, tokenizer.convert_tokens_to_ids(list(ANSWERS))]  # type: ignore[attr-defined]
        once = answers(model, tokenizer, asked)
    assert whole.std() > 1e-3
    torch.testing.assert_close(once, whole.float(), atol=1e-4, rtol=1e-4)


def test_a_bag_brings_words_of_one_meaning_together() -> None:
    """Ids 0-3 have one meaning, 4-7 another; 3 and 7 are never seen with the others, only with the same meaning."""
    torch.manual_seed(0)
    encoded = [[int(i)] for i in range(8)] * 40
    targets = torch.eye(4)[[i // 4 for i in range(8)] * 40]
    embeddings, head = train_bag(encoded, targets, 8, 16, epochs=40, batch=32)
    meanings = torch.nn.functional.normalize(embeddings @ head.T, dim=-1)
    assert float((meanings[3] * meanings[:3]).sum(-1).min()) > 0.8
    assert float((meanings[3] * meanings[4:]).sum(-1).max()) < 0.5


class _Scores:
    """Gives a prompt the score that it says."""

    def score(self, prompts: list[str]) -> torch.Tensor:
        return torch.tensor([[0.0, float(prompt.split("=")[-1])] for prompt in prompts])


def test_the_threshold_is_the_lowest_that_keeps_false_alarms_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    alarms = int(MAX_ALARMS["emoji_names"] * 1000)
    names = ["name=0.62"] * alarms + ["name=0.1"] * (1000 - alarms)
    prompts = SimpleNamespace(names=names, grammar=lambda rng, share: Grammar(BAD, ["calm=0"], rng, share))
    quiet = Example("calm=0", frozenset(), "ordinary")
    monkeypatch.setattr(Grammar, "neighbour", lambda self: quiet)
    monkeypatch.setattr(Grammar, "ordinary", lambda self: quiet)
    assert choose_threshold(_Scores(), prompts, 20, {}) == 0.3  # type: ignore[arg-type]
    prompts.names = ["name=0.55", *names]
    assert choose_threshold(_Scores(), prompts, 20, {}) == 0.55  # type: ignore[arg-type]


def test_policies_are_written_with_their_guidelines(tmp_path: Path) -> None:
    write_policies(tmp_path, "v", 0.4)
    text = (tmp_path / "policies.json").read_text()
    assert all(name in text for name in GUIDELINES)


def test_hard_negatives_are_the_requests_with_the_highest_scores_and_resume() -> None:
    names = [f"name {i}" for i in range(2 * MAX_KEPT)]
    hard_negatives = HardNegatives(names, lambda name: f"draw {name}")
    assert hard_negatives.draw(np.random.default_rng(0), 4) == []
    assert [step for step in range(700) if hard_negatives.due(step)] == [300, 450, 600]
    hard_negatives.search(lambda asked: torch.arange(len(asked)).float())
    resumed = HardNegatives(names, str)
    resumed.load_state_dict(hard_negatives.state_dict())
    drawn, again = (kept.draw(np.random.default_rng(1), 200) for kept in (hard_negatives, resumed))
    assert drawn == again
    assert {example.prompt for example in drawn} <= {f"draw {name}" for name in names[MAX_KEPT:]}
    assert all(not example.policies for example in drawn)


def test_request_phrases_are_independent_of_safety() -> None:
    """Askings, forms and endings stand around unsafe and innocent sentences as often."""
    grammar = Grammar(BAD, SAFE, np.random.default_rng(0), "training")
    for part in ("asking", "form"):
        shares = []
        for make in (grammar.violation, grammar.neighbour, grammar.ordinary):
            texts = [make().prompt for _ in range(1500)]
            shares.append(sum(any(words in text for words in GRAMMAR[part]) for text in texts) / len(texts))
        assert max(shares) - min(shares) < 0.15, (part, shares)
    assert grammar.asked("a cat", 0) == "a cat"
    assert grammar.asked("a cat", 1).strip("!. ") != "a cat"

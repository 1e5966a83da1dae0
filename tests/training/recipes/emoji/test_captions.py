"""Captions and scenes: deterministic in the seed, evaluation apart from training, pixels as captioned."""

import numpy as np
import pytest

from training.data.english import plain, pluralised, with_article
from training.recipes.emoji.captions import (
    HELD_OUT_TEMPLATES,
    MEDIA,
    STYLE_PHRASES,
    KeywordIndex,
    caption,
    captions_of,
    keyword_subset,
    phrased,
    plainest,
)
from training.recipes.emoji.concepts import Concept
from training.recipes.emoji.corpus import make_corpus, vocabulary
from training.recipes.emoji.images import EmojiImages
from training.recipes.emoji.probes import known_concepts, paraphrase_probes, training_probes
from training.recipes.emoji.scenes import GROUNDS, Scene, compose, paint, scenery

TAGS = ("fruit", "red", "juicy", "healthy", "snack", "orchard", "autumn", "pie")


def concept(name: str, code: str, style: str = "flat", tags: tuple[str, ...] = TAGS) -> Concept:
    return Concept(style, name, tags, "food-drink", "food-fruit", code)


@pytest.fixture
def art() -> EmojiImages:
    """Three discs on white, in three colours."""
    side = 32
    y, x = np.mgrid[:side, :side]
    inside = (x - 15.5) ** 2 + (y - 15.5) ** 2 < 14**2
    colours = ((200, 0, 0), (0, 160, 0), (0, 0, 200))
    pixels = np.stack([np.where(inside[..., None], colour, 255) for colour in colours]).astype(np.uint8)
    alpha = np.repeat((inside * 255).astype(np.uint8)[None], 3, axis=0)
    concepts = [
        concept("red apple", "1"),
        concept("green apple", "2", tags=("green", "sour")),
        concept("blue plum", "3", tags=("plum",)),
    ]
    return EmojiImages(pixels, alpha, np.array([0, 1, 2]), np.array([], dtype=np.int64), concepts)


def test_a_caption_is_a_function_of_the_seed() -> None:
    first, second = ([caption(concept("red apple", "1"), np.random.default_rng(7)) for _ in range(5)] for _ in range(2))
    assert first == second


def test_keywords_of_an_index_match_one_concept_alone() -> None:
    apple, cherry = concept("red apple", "1"), concept("cherry", "2", tags=("fruit", "red", "juicy", "stone"))
    index, rng = KeywordIndex([apple, cherry]), np.random.default_rng(0)
    found = [index.keywords(apple, rng, held_out=False) or "" for _ in range(100)]
    shared = {"fruit", "red", "juicy"}
    assert all(set(words.replace(",", "").split()) - shared for words in found)
    assert KeywordIndex([apple, concept("twin", "3")]).keywords(apple, rng, held_out=False) is None


def test_the_first_caption_is_the_name_and_scenes_are_as_many_as_wanted(art: EmojiImages) -> None:
    words = captions_of(art.concepts, 5, seed=1)
    assert [group[0] for group in words] == ["red apple", "green apple", "blue plum"]
    assert {len(group) for group in words} == {5}
    pixels, texts = scenery(art, 4, seed=2)
    assert pixels.shape == (4, 32, 32, 3)
    assert len(texts) == 4
    assert scenery(art, 0, seed=2)[0].shape == (0, 32, 32, 3)


def test_templates_and_keyword_subsets_of_the_evaluation_are_never_trained_on() -> None:
    kept_words = {"drawing", "illustration", "clip", "sketch"}
    assert kept_words <= set(" ".join(HELD_OUT_TEMPLATES).split())
    rng, apple = np.random.default_rng(0), concept("red apple", "1")
    trained, kept = (
        {frozenset((keyword_subset(apple, rng, held) or "").replace(",", "").split()) for _ in range(400)}
        for held in (False, True)
    )
    assert len(trained) > 20
    assert len(kept) > 20
    assert not trained & kept
    held = {caption(apple, rng, held_out=True) for _ in range(200)}
    texts = {caption(apple, rng) for _ in range(2000)}
    assert not held & texts
    assert not kept_words & set(" ".join(texts).split())


def test_a_name_is_phrased_in_hundreds_of_ways_and_always_there() -> None:
    rng = np.random.default_rng(0)
    texts = {phrased("red apple", None, rng) for _ in range(3000)}
    assert len(texts) > 500
    assert {"red apple", "a red apple"} < texts
    assert all("red apple" in text for text in texts)
    assert any(text.startswith("a ") and f"{MEDIA[0]} of" in text for text in texts)
    assert all("3d" in phrased("red apple", "3d", rng) for _ in range(200))


def test_only_the_usual_style_goes_without_saying() -> None:
    rng = np.random.default_rng(0)
    glossy = [caption(concept("red apple", "1", style="color"), rng) for _ in range(200)]
    assert all(any(words in text for words in STYLE_PHRASES["color"]) for text in glossy)
    assert plainest(concept("red apple", "1", style="color")) == "red apple, glossy"
    assert plainest(concept("red apple", "1")) == "red apple"
    assert any("flat" not in caption(concept("red apple", "1"), rng) for _ in range(20))


@pytest.mark.parametrize(
    ("name", "phrase"),
    [
        ("red heart", "a red heart"),
        ("orange", "an orange"),
        ("unicorn", "a unicorn"),
        ("hot springs", "hot springs"),
        ("bowl with spoon", "a bowl with spoon"),
        ("glass", "a glass"),
        ("cooked rice", "cooked rice"),
    ],
)
def test_articles_are_as_people_write_them(name: str, phrase: str) -> None:
    assert with_article(name) == phrase


def test_names_become_plain_ascii() -> None:
    assert plain("Woman’s Hat") == "woman's hat"
    assert plain("Piñata") == "pinata"
    assert plain("man: red hair") == "man, red hair"
    assert pluralised("cherry") == "cherries"
    assert pluralised("fox") == "foxes"


def test_a_scene_takes_the_white_out(art: EmojiImages) -> None:
    scene = Scene([(0, 0.25, 0.5, 0.5), (2, 0.75, 0.5, 0.5)], "yellow", "a red apple next to a blue plum")
    drawn = paint(art, scene)
    assert tuple(drawn[16, 8]) == (200, 0, 0)
    assert tuple(drawn[16, 24]) == (0, 0, 200)
    assert tuple(drawn[0, 0]) == GROUNDS["yellow"]
    assert tuple(drawn[9, 1]) == GROUNDS["yellow"]  # inside the apple's square, outside the apple


def test_scenes_are_functions_of_the_seed_and_name_what_they_show(art: EmojiImages) -> None:
    for seed in range(40):
        drawn, caption = compose(art, np.random.default_rng(seed))
        again, same = compose(art, np.random.default_rng(seed))
        assert caption == same
        np.testing.assert_array_equal(drawn, again)
        shown = [name for name in ("red apple", "green apple", "blue plum") if name in caption]
        assert shown
        for ground in GROUNDS:
            if f"{ground} background" in caption and f"light {ground} background" not in caption:
                assert tuple(drawn[0, 0]) == GROUNDS[ground]


def test_the_corpus_keeps_paraphrases_and_words_apart(art: EmojiImages) -> None:
    words = [f"word{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(600)]
    corpus = make_corpus(art, words, scenes=50)
    text = " ".join(corpus.training).split()
    assert len(corpus.unseen_words) == 500
    assert not set(corpus.unseen_words) & set(text)
    assert not {prompt for prompt, _ in corpus.paraphrases} & set(corpus.training)
    known = set(vocabulary(art.concepts))
    assert {"red", "apple", "plum", "juicy", "yellow", "background", "corner"} <= known


def test_probes_name_known_concepts_and_keywords_are_unambiguous(art: EmojiImages) -> None:
    words = frozenset(vocabulary(art.concepts))
    known = known_concepts([*art.concepts, concept("pear", "4")], ["a red apple", "a blue plum"], words)
    assert [t.name for t in known] == ["red apple", "blue plum"]
    trained, unseen = training_probes(art.concepts, 30), paraphrase_probes(art.concepts, 30)
    assert {probe.hexcode for probe in trained} == {"1", "2", "3"}
    assert not {probe.prompt for probe in trained} & {probe.prompt for probe in unseen}
    for probe in [*trained, *unseen]:
        if probe.kind == "keywords":
            assert probe.hexcode != "3"  # one tag is no keyword prompt

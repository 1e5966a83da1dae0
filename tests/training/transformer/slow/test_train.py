"""training.transformer.train: it learns, resumes as the same run, and exports what it learned."""

from pathlib import Path

import pytest
import torch

from model.checkpoint import Checkpoint
from model.tokenizer import HybridTokenizer
from model.transformer import Transformer
from training.checkpoint.export import write_tokenizer, write_transformer
from training.core.loop import Budget, Intervals, Progress, Run, deadline_after
from training.data.text_cache import TextCache
from training.data.token_cache import TokenCache
from training.transformer.teacher_forcing import exchange_tokens
from training.transformer.train import TrainConfig, TrainingData, TransformerTraining, warm_start

CONFIG = TrainConfig(batch=8, rate=5e-3, corrupted=0.1)


def tokens_of(count: int = 6) -> TokenCache:
    torch.manual_seed(5)
    return TokenCache(torch.randint(32, (count, 21)).short(), torch.randn(count, 16, 8).half() * 0.2)


def text_of(count: int = 6) -> TextCache:
    torch.manual_seed(6)
    mask = (torch.arange(5) < 3).expand(2 * count, -1)
    words = [[f"concept {i}", f"a concept {i}"] for i in range(count)]
    return TextCache(words, torch.randn(count, 5, 16).repeat_interleave(2, 0).half(), mask)


def data_of(scenes: int = 0) -> TrainingData:
    return TrainingData(tokens_of(), text_of(), scenes)


@pytest.fixture
def training(fresh: Transformer, tokenizer: HybridTokenizer) -> TransformerTraining:
    return TransformerTraining(fresh, tokenizer.quantize, data_of(), CONFIG)


def test_six_images_are_memorised(training: TransformerTraining) -> None:
    first, *later = (training.step(Progress(step=step)) for step in range(250))
    last = {name: sum(figures[name] for figures in later[-25:]) / 25 for name in first}  # a batch alone may be unlucky
    assert last["loss"] < first["loss"] / 4
    assert last["residual"] < first["residual"]
    assert training.measure(torch.arange(6))["token_accuracy"] > 0.9


def test_scenes_have_their_share_of_the_rows(fresh: Transformer, tokenizer: HybridTokenizer) -> None:
    config = TrainConfig(batch=400, scenes=0.25)
    training = TransformerTraining(fresh, tokenizer.quantize, data_of(scenes=2), config)
    torch.manual_seed(0)
    rows = training._rows()
    assert set(rows.tolist()) == set(range(6))
    assert 60 < int((rows >= 4).sum()) < 140


def test_images_may_have_unlike_numbers_of_captions() -> None:
    contexts = TextCache([["a"], ["b", "c", "d"]], torch.arange(4.0)[:, None, None].half(), torch.ones(4, 1).bool())
    assert contexts.first(torch.tensor([1, 0])).context.flatten().tolist() == [1, 0]
    drawn = contexts.any(torch.tensor([0, 1] * 50)).context.flatten()
    assert set(drawn[::2].tolist()) == {0}
    assert set(drawn[1::2].tolist()) == {1, 2, 3}


def test_a_resumed_run_is_the_same_run(transformer: Transformer, tokenizer: HybridTokenizer, tmp_path: Path) -> None:
    start = {name: tensor.clone() for name, tensor in transformer.state_dict().items()}

    def weights_after(folder: Path, stops: list[int]) -> dict[str, torch.Tensor]:
        for stop in stops:
            transformer.load_state_dict(start)
            training = TransformerTraining(transformer, tokenizer.quantize, data_of(), CONFIG)
            run = Run(folder, training.parts(), seed=3)
            run.resume()
            run.train(Budget(stop), training.step, lambda _: {})
        return {name: tensor.clone() for name, tensor in training.average.network.state_dict().items()}

    # The schedule is part of the run, so the interrupted run must be stopped, not planned shorter.
    straight = weights_after(tmp_path / "straight", [6])

    class Stop(Exception):
        pass

    transformer.load_state_dict(start)
    training = TransformerTraining(transformer, tokenizer.quantize, data_of(), CONFIG)
    run = Run(tmp_path / "stopped", training.parts(), seed=3)

    def step_until_killed(now: Progress) -> dict[str, torch.Tensor]:
        if now.step == 4:
            raise Stop
        return training.step(now)

    with pytest.raises(Stop):
        run.train(Budget(6), step_until_killed, lambda _: {}, Intervals(save=0))
    resumed = weights_after(tmp_path / "stopped", [6])
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)


def test_the_trained_weights_are_those_that_load(
    training: TransformerTraining, tokenizer: HybridTokenizer, tmp_path: Path
) -> None:
    training.step(Progress())
    write_transformer(training.network, tmp_path / "llm")
    write_tokenizer(tokenizer, tmp_path / "tokenizer")
    checkpoint = Checkpoint.open(tmp_path)
    loaded = checkpoint.load_transformer().state_dict()
    for name, tensor in training.network.state_dict().items():
        assert torch.equal(loaded[name], tensor.half().float()), name
    pictures = checkpoint.load_tokenizer().state_dict()
    for name, tensor in tokenizer.state_dict().items():
        assert torch.equal(pictures[name], tensor.half().float()), name


def test_exchanged_tokens_are_the_next_images_and_no_more_than_their_share() -> None:
    torch.manual_seed(0)
    indices = torch.arange(200)[:, None].expand(-1, 21).clone()
    changed = exchange_tokens(indices, torch.rand(200, 1) * 0.1)
    share = (changed != indices).float().mean()
    assert 0.03 < share < 0.07  # uniform up to 0.1
    assert set((indices - changed).unique().tolist()) <= {0, 1, -199}


def test_images_and_captions_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match="6 images but captions of 5"):
        TrainingData(tokens_of(6), text_of(5))


def test_a_warm_start_loads_what_fits_and_names_what_does_not(training: TransformerTraining) -> None:
    given = {name: torch.randn_like(tensor) for name, tensor in training.network.state_dict().items()}
    wider = given | {"head.weight": torch.randn(64, 32)}
    before = training.network.head.weight.clone()
    assert warm_start(training, wider) == ["head.weight"]
    assert torch.equal(training.network.head.weight, before)
    mine, average = training.network.state_dict(), training.average.state_dict()
    assert all(torch.equal(mine[name], given[name]) for name in given if name != "head.weight")
    assert all(torch.equal(average[name], mine[name]) for name in mine)
    with pytest.raises(ValueError, match="none of the weights"):
        warm_start(training, {"somebody.else": torch.zeros(1)})


def test_a_time_limit_stops_the_run_and_the_next_call_resumes(training: TransformerTraining, tmp_path: Path) -> None:
    run = Run(tmp_path, training.parts())
    assert not run.train(Budget(50), training.step, lambda _: {}, deadline=deadline_after(0))
    stopped = run.progress.step
    assert stopped == 1, "however long the preparations take, each call makes a step"
    again = Run(tmp_path, training.parts())
    assert again.resume()
    assert again.progress.step == stopped
    assert again.train(Budget(stopped + 2), training.step, lambda _: {})

"""Two processes that train one model over gloo."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import distributed as dist
from torch import multiprocessing

from esl_lava import modelfile
from esl_lava.config import Experiment, from_mapping
from esl_lava.data.config import Data
from esl_lava.data.datasets import Images, load
from esl_lava.errors import FileError, UserError
from esl_lava.experiments import train as experiments
from esl_lava.models.restore import as_tensors
from esl_lava.training import ranks
from esl_lava.training.trainer import Trainer, TrainingProgress
from tests.training.test_clipping import LIMIT, OF_TORCH, norms_of_connections
from tests.training.test_single_spike import experiment as single_spike
from tests.training.test_trainer import SAMPLES, experiment, poisoned, same, stop_at

pytestmark = pytest.mark.slow

RANKS = 2
LIMITED = [
    experiment(training={"gradient_norm": LIMIT, "engine": engine})
    for engine in ("slayer", "fused", "sparse")
]
"""Trainings with a limit on the norm of the gradient."""

CONVOLUTIONAL = from_mapping(
    {
        "seed": 3,
        "encoding": {"steps": 3},
        "model": {"kind": "convolutional", "layers": "4C3-AP2-6C3-12"},
        "sparsity": {"density": 0.4, "t_iter": 2},
        "training": {"epochs": 3, "batch_size": 30},
    }
)

STORED = from_mapping(
    {
        **CONVOLUTIONAL.model_dump(mode="json", exclude_none=True),
        "training": {"epochs": 1, "batch_size": 30, "engine": "sparse"},
        "sparsity": {"density": 0.4, "t_iter": 2, "growth": "momentum", "keep_dense": ["conv1"]},
    }
)
"""The same network. All layers but the first store only their connections."""

BATCHES = (30, 13, 1)
"""Batch sizes, which give the two ranks 15 and 15, 7 and 6, 1 and 0 samples."""


def gradient_growth(**training: Any) -> Experiment:
    return experiment(sparsity={"growth": "gradient"}, training=training)


def gradients(size: int, settings: Experiment | None = None) -> dict[str, torch.Tensor]:
    """Return the loss of an untrained model on the first samples, and its gradients."""
    trainer = Trainer(settings or experiment(), load("digits", "train").take(SAMPLES))
    part = trainer._loss_part(trainer.train_data.take(size))
    part.backward()
    named = dict(trainer.model.named_parameters())
    ranks.sum_gradients(named.values())
    found = {name: p.grad for name, p in named.items() if p.grad is not None}
    return {"loss": ranks.total(part.detach()), **found}


def moments_of_momentum() -> dict[str, torch.Tensor]:
    """Return the momentum at every position after a step without rewiring."""
    trainer = Trainer(STORED, load("digits", "train").take(SAMPLES))
    trainer._step(0, 0)
    moments: Any = trainer.evolver.state_dict()["moments"]
    return {f"{name} {key}": part for name, parts in moments.items() for key, part in parts.items()}


@contextlib.contextmanager
def few_samples() -> Iterator[pytest.MonkeyPatch]:
    def few(data: Data, split: str, *_: object) -> Images:
        return load(data.name, split).take(SAMPLES)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiments, "load_configured", few)
        yield patch


# --- the scenarios of each rank ----------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def results(folder: Path) -> list[dict[str, Any]]:
    """Run all scenarios on all ranks, and return {scenario: result} for each rank."""
    multiprocessing.spawn(run_rank, (str(folder),), nprocs=RANKS)  # type: ignore[attr-defined]
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(RANKS)]


def run_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS
    )
    scenarios = (
        basics,
        gradients_of,
        of_single_spikes,
        of_convolutions,
        of_stored,
        of_momentum,
        resumed,
        stored,
        limited,
        silent,
        diverged,
        spoilt,
        unwritable,
        refused,
    )
    found = {work.__name__: work(rank, Path(folder)) for work in scenarios}
    torch.save(found, f"{folder}/{rank}.pt")
    ranks.leave()


def basics(rank: int, folder: Path) -> list[Any]:
    shares = [ranks.share(np.arange(size)).tolist() for size in (5, 1, 0)]
    answers = [ranks.is_true_on_any(rank == chosen) for chosen in range(RANKS + 1)]
    sum_of_ranks = ranks.total(torch.tensor([1.0 + rank]))
    fields: list[Any] = []
    try:
        with ranks.together():
            if rank == 1:
                raise FileError("x: only one rank fails", "exists", file=folder / "x", limit=...)
    except UserError as error:
        fault = error.faults[0]
        fields = [fault.sentence, fault.code, fault.file, fault.limit]
    with ranks.together():
        pass
    return [ranks.first(), shares, answers, sum_of_ranks, fields]


def gradients_of(rank: int, folder: Path) -> list[dict[str, torch.Tensor]]:
    return [gradients(size) for size in BATCHES]


def of_single_spikes(rank: int, folder: Path) -> list[dict[str, torch.Tensor]]:
    return [gradients(size, single_spike()) for size in BATCHES]


def of_stored(rank: int, folder: Path) -> list[dict[str, torch.Tensor]]:
    return [gradients(size, STORED) for size in BATCHES]


def of_momentum(rank: int, folder: Path) -> dict[str, torch.Tensor]:
    return moments_of_momentum()


def of_convolutions(rank: int, folder: Path) -> list[dict[str, torch.Tensor]]:
    return [gradients(size, CONVOLUTIONAL) for size in BATCHES]


def resumed(rank: int, folder: Path) -> list[Any]:
    """Train in one part and in two parts. With a batch size of 71 the last batch has one sample."""
    settings = gradient_growth(batch_size=71, epochs=4)
    with few_samples():
        whole = experiments.train(settings, folder / "whole", lambda progress: None)
        with pytest.raises(KeyboardInterrupt):
            experiments.train(settings, folder / "broken", lambda p: stop_at(p, 5))
        dist.barrier()  # the folder now holds the checkpoint of the second epoch
        found = experiments.resume(folder / "broken", lambda progress: None)
    assert found.accuracy == whole.accuracy
    model = whole.model
    return as_tensors([model.weights, model.masks, model.history, whole.accuracy])


def stored(rank: int, folder: Path) -> list[Any]:
    """Train layers that store only connections; a rank without samples has a gradient of 0."""
    settings = gradient_growth(batch_size=71, epochs=4, engine="sparse")
    with few_samples():
        whole = experiments.train(settings, folder / "stored", lambda progress: None)
    model = whole.model
    return as_tensors([model.weights, model.ever, model.history, whole.accuracy])


def limited(rank: int, folder: Path) -> list[float]:
    """Return the norm of the gradient over connections in every step, engine by engine."""
    data = load("digits", "train").take(SAMPLES)
    return [norm for settings in LIMITED for norm in norms_of_connections(Trainer(settings, data))]


def silent(rank: int, folder: Path) -> list[Any]:
    trainer = Trainer(gradient_growth(), load("digits", "train").take(SAMPLES))
    seen: list[int] = []
    real = trainer.model.layer_outputs

    def watched(spikes: torch.Tensor) -> list[torch.Tensor]:
        seen.append(len(spikes))
        return real(spikes)

    trainer.model.layer_outputs = watched  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        trainer.run(lambda progress: stop_at(progress, 3))
    return [seen, trainer.evolver.history[0].silent]


def sentence(trainer: Trainer, *arguments: Any) -> str:
    with pytest.raises(UserError) as raised:
        trainer.run(*arguments)
    return str(raised.value)


def diverged(rank: int, folder: Path) -> str:
    """Only rank 1 has a weight that is NaN, so that only its part of the loss is NaN."""
    trainer, spoil = poisoned(load("digits", "train").take(SAMPLES), "readout", float("nan"))
    return sentence(trainer, spoil if rank == 1 else lambda progress: None)


def spoilt(rank: int, folder: Path) -> str:
    trainer, spoil = poisoned(load("digits", "train").take(SAMPLES), "hidden1", float("inf"))
    return sentence(trainer, spoil)


def unwritable(rank: int, folder: Path) -> str:
    """Rank 0 cannot save after the second epoch."""

    def write(saved: modelfile.SavedModel, path: Path) -> None:
        if saved.state["iteration"] == 6:
            raise FileError("no space left", "unwritable")

    with few_samples() as patch:
        patch.setattr(modelfile, "write", write)
        with pytest.raises(UserError) as raised:
            experiments.train(experiment(), folder / "full", lambda progress: None)
    return str(raised.value)


def refused(rank: int, folder: Path) -> str:
    shown: list[TrainingProgress] = []
    with pytest.raises(UserError) as raised:
        experiments.train(experiment(), folder / "whole", shown.append)
    assert not shown
    return str(raised.value)


# --- the expected results ----------------------------------------------------------------


@pytest.mark.slow
def test_ranks_share_and_agree(results: list[dict[str, Any]], folder: Path) -> None:
    for rank, found in enumerate(results):
        first, shares, answers, sum_of_ranks, fields = found["basics"]
        assert first == (rank == 0)
        assert shares == [[[0, 1, 2], [3, 4]][rank], [[0], []][rank], []]
        assert answers == [True] * RANKS + [False]
        assert sum_of_ranks == 3
        assert fields == ["x: only one rank fails", "exists", str(folder / "x"), "Ellipsis"]


@pytest.mark.parametrize("index", range(len(BATCHES)))
def test_the_gradient_is_that_of_the_whole_batch(results: list[dict[str, Any]], index: int) -> None:
    expected = gradients(BATCHES[index])
    of_ranks = [found["gradients_of"][index] for found in results]
    assert len(expected) == 4
    assert expected["hidden1.synapse.weight"].count_nonzero() > 0
    for name, gradient in expected.items():
        assert torch.equal(of_ranks[0][name], of_ranks[1][name])
        # Forward, sums of multiples of 1/64 are exact. Backward, up to 30 samples x 3 steps
        # are added in another order, and each addition rounds by 2^-24 of the sum.
        rounding = 90 * 2**-24 * float(gradient.abs().max())
        torch.testing.assert_close(of_ranks[0][name], gradient, rtol=0, atol=rounding)


@pytest.mark.parametrize("index", range(len(BATCHES)))
def test_the_gradient_of_single_spikes_is_that_of_the_whole_batch(
    results: list[dict[str, Any]], index: int
) -> None:
    expected = gradients(BATCHES[index], single_spike())
    of_ranks = [found["of_single_spikes"][index] for found in results]
    assert len(expected) == 4
    assert expected["hidden1.weight"].count_nonzero() > 0
    for name, gradient in expected.items():
        assert torch.equal(of_ranks[0][name], of_ranks[1][name])
        # float32 sums in another order, divided by differences of sums close to 1.
        scale = float(gradient.abs().max())
        torch.testing.assert_close(of_ranks[0][name], gradient, rtol=0, atol=1e-4 * scale)


@pytest.mark.slow
@pytest.mark.parametrize("index", range(len(BATCHES)))
def test_convolutions_are_normalised_by_the_whole_batch(
    results: list[dict[str, Any]], index: int
) -> None:
    expected = gradients(BATCHES[index], CONVOLUTIONAL)
    of_ranks = [found["of_convolutions"][index] for found in results]
    assert len(expected) == 1 + 3 * 3 + 1
    assert expected["conv1.synapse.weight"].count_nonzero() > 0
    for name, gradient in expected.items():
        assert torch.equal(of_ranks[0][name], of_ranks[1][name])
        # float32 sums in another order; with a batch of one sample, of terms that cancel.
        scale = float(gradient.abs().max())
        torch.testing.assert_close(of_ranks[0][name], gradient, rtol=0, atol=1e-4 * scale)


@pytest.mark.slow
@pytest.mark.parametrize("index", range(len(BATCHES)))
def test_stored_convolutions_learn_by_the_whole_batch(
    results: list[dict[str, Any]], index: int
) -> None:
    expected = gradients(BATCHES[index], STORED)
    of_ranks = [found["of_stored"][index] for found in results]
    assert expected["conv2.synapse.weight.values"].count_nonzero() > 0
    for name, gradient in expected.items():
        assert torch.equal(of_ranks[0][name], of_ranks[1][name])
        # float32 sums in another order; with a batch of one sample, of terms that cancel.
        scale = float(gradient.abs().max())
        torch.testing.assert_close(of_ranks[0][name], gradient, rtol=0, atol=1e-4 * scale)


def test_momentum_without_connections_is_the_whole_batchs(results: list[dict[str, Any]]) -> None:
    expected = moments_of_momentum()
    assert {"conv2 exp_avg", "conv2 exp_avg_sq", "hidden1 exp_avg"} <= expected.keys()
    for name, moment in expected.items():
        assert moment.count_nonzero() > moment.numel() / 2  # also without connections
        for found in results:
            # float32 sums in another order, and their squares.
            atol = 1e-4 * float(moment.abs().max())
            torch.testing.assert_close(found["of_momentum"][name], moment, rtol=0, atol=atol)


def test_an_interrupted_run_resumes_to_the_same_bits(
    results: list[dict[str, Any]], folder: Path
) -> None:
    names = ["config.toml", "model.pt", "training.png", "updates.json"]
    for run in ("whole", "broken"):
        assert sorted(path.name for path in (folder / run).iterdir()) == names
    for name in names:
        assert (folder / "whole" / name).read_bytes() == (folder / "broken" / name).read_bytes()


def test_all_ranks_return_what_the_first_has_written(
    results: list[dict[str, Any]], folder: Path
) -> None:
    stored = modelfile.read(folder / "whole" / "model.pt")
    for found in results:
        weights, masks, history, accuracy = found["resumed"]
        assert history == stored.history
        assert accuracy == results[0]["resumed"][3]
        assert weights.keys() == stored.weights.keys()
        assert masks.keys() == stored.masks.keys()
        for mine, written in ((weights, stored.weights), (masks, stored.masks)):
            assert all(same(mine[name], torch.from_numpy(written[name])) for name in mine)


def test_ranks_store_the_same_connections(results: list[dict[str, Any]], folder: Path) -> None:
    first, second = (result["stored"] for result in results)
    assert same(first, second)
    weights, ever, history, _ = first
    assert len(history) == 4
    assert ever["hidden1"].dtype in (torch.int64, torch.uint8)
    moved = modelfile.read(folder / "stored" / "model.pt").history[-1]["exploration"]
    assert moved > 0.4  # the density: growth by gradient has moved connections
    assert weights["hidden1.synapse.weight.values"].numel()


def test_the_limit_on_the_gradient_is_of_the_whole_batchs(results: list[dict[str, Any]]) -> None:
    norms = [found["limited"] for found in results]
    assert norms[0] == norms[1]
    assert norms[0] == pytest.approx([LIMIT] * (9 * len(LIMITED)), rel=OF_TORCH)


def test_silent_neurons_are_counted_over_the_whole_batch(results: list[dict[str, Any]]) -> None:
    # Shares of 30 and 30 samples; the third batch after the update and its share; validation.
    seen, counted = results[0]["silent"]
    assert seen == [15, 15, 12, 6, 8]
    assert results[1]["silent"] == [seen, counted]


@pytest.mark.parametrize(
    ("scenario", "message"),
    [
        ("diverged", "training diverged: loss nan at step 5, 1 of 80 weights in layer readout"),
        (
            "spoilt",
            "training diverged: 1 of 232 weights in layer hidden1 are NaN or infinite after step 6",
        ),
        ("unwritable", "no space left"),
        ("refused", "whole: already exists and is not empty; choose another directory"),
    ],
)
def test_an_error_on_one_rank_is_raised_on_all(
    results: list[dict[str, Any]], scenario: str, message: str
) -> None:
    for found in results:
        assert message in found[scenario]


def test_one_process_shares_nothing() -> None:
    batch, tensor = np.arange(3), torch.tensor([1.0, 2.0])
    assert ranks.first()
    assert ranks.share(batch) is batch
    assert ranks.total(tensor) is tensor
    assert ranks.is_true_on_any(True)
    assert not ranks.is_true_on_any(False)
    weight = torch.zeros(2, requires_grad=True)
    ranks.sum_gradients([weight])
    assert weight.grad is None
    error = FileError("of one process", "exists")
    with pytest.raises(FileError) as caught, ranks.together():
        raise error
    assert caught.value is error

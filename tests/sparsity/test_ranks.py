"""Two processes that train one model over gloo."""

import pytest
import torch
from torch import distributed as dist
from torch import multiprocessing, nn

from esl_lava.errors import ConfigError, UserError
from esl_lava.sparsity import ranks
from esl_lava.sparsity.evolver import MaskEvolver
from tests.sparsity.test_evolver import mlp, same
from tests.sparsity.twins import models

pytestmark = pytest.mark.slow

RANKS = 2


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Return the results of each rank: [{scenario: result}]."""
    folder = tmp_path_factory.mktemp("ranks")
    multiprocessing.spawn(run_rank, (str(folder),), nprocs=RANKS)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(RANKS)]


def run_rank(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS
    )
    found = {work.__name__: work(rank) for work in SCENARIOS}
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def distributed_run(rank, growth, steps, seed, state=None):
    """Train under DDP. Each rank has its own data."""
    model = nn.parallel.DistributedDataParallel(mlp(seed, (9, 8, 4)))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    rules = {"prune": "set", "growth": growth, "redistribution": "momentum"}
    evolver = MaskEvolver(model, optimizer, density=0.3, t_iter=2, t_end=99, seed=seed, **rules)
    if state is not None:
        for part, saved in zip((model, optimizer, evolver), state):
            part.load_state_dict(saved)
    for i in steps:
        x = torch.randn(8, 9, generator=torch.Generator().manual_seed(10 * i + rank))
        optimizer.zero_grad()
        (model(x) - 0.5).square().sum().backward()
        optimizer.step()
        evolver.step()
    return [part.state_dict() for part in (model, optimizer, evolver)]


def trained(rank):
    # The seeds differ: DDP sends the weights of rank 0, the evolver its masks and generators.
    return {g: distributed_run(rank, g, range(6), rank) for g in ("random", "gradient", "momentum")}


def resumed(rank):
    half = distributed_run(rank, "gradient", range(3), rank)
    return distributed_run(rank, "gradient", range(3, 6), rank + 5, half)


def averaged(rank):
    """Return the positions that grow by gradients that differ between ranks, without DDP."""
    model = nn.Linear(6, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    evolver = MaskEvolver(
        model, optimizer, density=0.5, t_iter=1, t_end=9, prune="magnitude", growth="gradient",
        schedule="constant", alpha=0.3,
    )  # fmt: skip
    free = (~evolver.masks["weight"]).view(-1).nonzero().view(-1)
    with torch.no_grad():
        model.weight.fill_(1.0)
    # Mean gradients 0, 2, 1; mean magnitudes 4, 2, 2; rank 0 alone would grow the first.
    gradient = torch.zeros(6)
    gradient[free] = torch.tensor([[4.0, 1, 3], [-4.0, 3, -1]][rank])
    model.weight.grad = gradient.view(1, 6)
    evolver.step()
    return [free.tolist(), evolver.masks["weight"].view(-1)[free].tolist()]


def stored(rank):
    return {growth: stored_run(rank, growth) for growth in ("gradient", "momentum")}


def stored_run(rank, growth):
    """Train layers that store their connections. Each rank has its own data."""
    model = models((9, 8, 4), seed=rank)[1]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    rules = {"growth": growth, "redistribution": "magnitude"}
    evolver = MaskEvolver(model, optimizer, density=0.3, t_iter=2, t_end=99, seed=rank, **rules)
    for i in range(6):
        x = torch.randn(8, 9, generator=torch.Generator().manual_seed(10 * i + rank))
        optimizer.zero_grad()
        (model(x) - 0.5).square().sum().backward()
        for parameter in model.parameters():
            parameter.grad = ranks.average(parameter.grad)
        optimizer.step()
        evolver.step()
    return [part.state_dict() for part in (model, optimizer, evolver)]


def undistributed(rank):
    model = nn.Sequential(nn.Linear(3, 3), models((3, 2))[1])
    try:
        MaskEvolver(
            nn.parallel.DistributedDataParallel(model),
            torch.optim.SGD(model.parameters(), lr=0.1),
            density=0.5,
            t_end=9,
        )
    except ConfigError as error:
        return [error.code, error.faults[0].layer, str(error)]
    return []


def refusal(rank, change, **rules):
    model = mlp(0, (9, 8, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    evolver = MaskEvolver(model, optimizer, density=0.3, t_iter=1, t_end=9, **rules)
    before = {name: mask.clone() for name, mask in evolver.masks.items()}
    if rank == 1:
        change(model, evolver)
    try:
        evolver.step()
    except UserError as error:
        return [error.code, str(error), same(before, evolver.masks)]
    return ["", "", True]


def drifted(rank):
    def change(model, evolver):
        with torch.no_grad():
            model.layer1.weight.mul_(-1).add_(0.01 * torch.arange(32.0).view(4, 8))

    return refusal(rank, change)


def tampered(rank):
    def change(model, evolver):
        evolver._layers[0].generator.manual_seed(99)

    return refusal(rank, change)


def skipped(rank):
    """Make an overflow on rank 1 alone, and then gradients that are 0 on both ranks."""
    model = mlp(0, (9, 8, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    evolver = MaskEvolver(model, optimizer, density=0.3, t_iter=1, t_end=9, growth="gradient")
    found = []
    for value in (torch.inf, 1.0, 0.0):
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, 2.0 if rank == 0 and value else value)
        before = {name: mask.clone() for name, mask in evolver.masks.items()}
        try:
            found.append([evolver.step() is not None, same(before, evolver.masks)])
        except ConfigError as error:
            found.append([error.code, error.faults[0].layer, same(before, evolver.masks)])
    return found


SCENARIOS = (trained, averaged, stored, undistributed, drifted, tampered, skipped, resumed)


@pytest.mark.slow
def test_ranks_hold_the_same_masks(results):
    for growth, state in results[0]["trained"].items():
        assert same(state, results[1]["trained"][growth])
        records = [layers for _, _, layers, _ in state[2]["history"]]
        assert len(records) == 3
        assert all(sum(grown for _, grown, _, _ in layers) > 0 for layers in records)


def test_ranks_hold_the_same_stored_connections(results):
    for growth, state in results[0]["stored"].items():
        assert same(state, results[1]["stored"][growth])
        records = [layers for _, _, layers, _ in state[2]["history"]]
        assert len(records) == 3
        assert all(sum(grown for _, grown, _, _ in layers) > 0 for layers in records)


def test_stored_connections_are_not_for_ddp(results):
    for found in results:
        code, layer, sentence = found["undistributed"]
        assert (code, layer) == ("unsupported", "1.layer0")
        assert "DistributedDataParallel" in sentence


def test_a_distributed_run_resumes_to_the_same_bits(results):
    for rank in range(RANKS):
        assert same(results[rank]["resumed"], results[rank]["trained"]["gradient"])


def test_growth_reads_the_mean_gradient(results):
    assert results[0]["averaged"] == results[1]["averaged"]
    _, grown = results[0]["averaged"]
    assert grown == [False, True, False]


@pytest.mark.parametrize(
    ("scenario", "subject", "unmoved"),
    [("drifted", "connections to prune", True), ("tampered", "masks", False)],
)
def test_ranks_that_disagree_are_told(results, scenario, subject, unmoved):
    # Every rank raises, so no rank waits for the others.
    for rank in range(RANKS):
        code, sentence, same_masks = results[rank][scenario]
        assert code == "mismatch"
        assert f"{subject} of rank 1 differ from those of rank 0 at iteration 1" in sentence
        assert same_masks is unmoved


def test_a_step_that_one_rank_leaves_out_is_left_out_by_all(results):
    for rank in range(RANKS):
        waited, moved, lost = results[rank]["skipped"]
        assert waited == [False, True]
        assert moved == [True, False]
        assert lost == ["missing", "layer0", True]


def test_one_process_shares_nothing():
    tensor = torch.tensor([1.0, 2.0])
    assert ranks.count() == 1
    assert ranks.average(tensor) is tensor
    assert ranks.find_any([True, False], torch.device("cpu")) == [True, False]
    assert ranks.broadcast_first(tensor, torch.device("cpu")) is tensor
    ranks.check_agreement([tensor], "masks", 1)

"""Promises of docs/masks.md about `MaskEvolver`: each case works, or is refused with a reason.

`ZOO` lists models that train in a usual loop, with checks after every step. `REFUSED` lists the
cases that are refused, with the code of the error. Every case that the page promises belongs in
one of them.
"""

import copy
import re
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import nn
from torch.nn.utils import prune
from torch.optim.swa_utils import AveragedModel

from esl_lava.errors import ConfigError
from esl_lava.sparsity import MaskEvolver, weight_layers
from tests.faults import refused
from tests.sparsity.invariants import parameters, snapshots, violations
from tests.sparsity.test_evolver import same
from tests.sparsity.test_layers import Language

PAGE = Path(__file__).resolve().parents[2] / "docs" / "python.md"
STEPS = 6


# --- models ----------------------------------------------------------------------------


class First(nn.Module):
    """Returns the first output of a module that takes its input several times."""

    def __init__(self, inner: nn.Module, times: int = 1) -> None:
        super().__init__()
        self.inner, self.times = inner, times

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.inner(*[x] * self.times)
        return out[0] if isinstance(out, tuple) else out


class Encoder(nn.Module):
    """Two modules that share one parameter, and a module that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up, self.again = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.up.weight = self.down.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.again(self.up(torch.tanh(self.again(torch.tanh(self.down(x))))))


def mlp(dtype: torch.dtype = torch.float32) -> nn.Module:
    return nn.Sequential(nn.Linear(8, 12), nn.Tanh(), nn.Linear(12, 6)).to(dtype)


def transposed() -> nn.Module:
    """Return a model whose weight is not contiguous."""
    model: Any = mlp()
    model[0].weight = nn.Parameter(torch.randn(8, 12).t())
    assert not model[0].weight.is_contiguous()
    return model


def channels_last() -> nn.Module:
    model: Any = nn.Sequential(nn.Conv2d(4, 6, 3), nn.Tanh(), nn.Conv2d(6, 4, 3))
    model = model.to(memory_format=torch.channels_last)
    assert not model[0].weight.is_contiguous()
    return model


def numbers(*shape: int) -> Callable[[torch.Generator], torch.Tensor]:
    return lambda generator: torch.randn(*shape, generator=generator)


def words(generator: torch.Generator) -> torch.Tensor:
    return torch.randint(11, (3, 6), generator=generator)


# --- optimisers ------------------------------------------------------------------------


def adam(model: nn.Module, **flags: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=0.01, **flags)


def adamw(model: nn.Module, **flags: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1, **flags)


def sgd(model: nn.Module, **flags: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), **({"lr": 0.01, "momentum": 0.9} | flags))


def with_flags(optimiser: Callable[..., torch.optim.Optimizer], **flags: Any) -> Any:
    return lambda model: optimiser(model, **flags)


def groups(model: nn.Module) -> torch.optim.Optimizer:
    """Return an optimiser with separate settings for each parameter."""
    return torch.optim.SGD(
        [
            {
                "params": [p],
                "lr": 0.01 * (1 + i),
                "momentum": 0.5 + 0.1 * i,
                "weight_decay": 0.1 * i,
            }
            for i, p in enumerate(model.parameters())
        ],
        lr=0.1,
    )


# --- loops -----------------------------------------------------------------------------

Loop = Callable[..., Iterator[None]]
"""(model, optimizer, evolver, batches) -> yields at each place for a step of the evolver."""


def backward(model: nn.Module, x: torch.Tensor) -> None:
    (model(x).float() - 0.5).square().sum().backward()


def plain(model, optimizer, evolver, batches):
    for x in batches:
        optimizer.zero_grad()
        backward(model, x)
        optimizer.step()
        yield


def zeroed(model, optimizer, evolver, batches):
    """Set gradients to 0, not None, before every backward pass."""
    for x in batches:
        optimizer.zero_grad(set_to_none=False)
        backward(model, x)
        optimizer.step()
        yield


def accumulated(model, optimizer, evolver, batches):
    for x in batches:
        optimizer.zero_grad()
        for part in x.chunk(3):
            backward(model, part)
        optimizer.step()
        yield


def clipped(model, optimizer, evolver, batches):
    for x in batches:
        optimizer.zero_grad()
        backward(model, x)
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        nn.utils.clip_grad_value_(model.parameters(), 0.05)
        optimizer.step()
        yield


def scheduled(model, optimizer, evolver, batches):
    schedulers = [
        torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, 1.0, 3),
        torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS),
    ]
    for _ in plain(model, optimizer, evolver, batches):
        yield
        for scheduler in schedulers:
            scheduler.step()


def closure(model, optimizer, evolver, batches):
    for x in batches:

        def again(x=x):
            optimizer.zero_grad()
            loss = (model(x) - 0.5).square().sum()
            loss.backward()
            return loss

        optimizer.step(again)
        yield


def mixed(model, optimizer, evolver, batches):
    """Train in automatic mixed precision. The first step overflows and is skipped."""
    scaler = torch.amp.GradScaler("cpu")
    for i, x in enumerate(batches):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = model(x)
        loss = (out.float() - 0.5).square().sum() * (1.0 if i else 1e35)
        scaler.scale(loss).backward()
        before = copy.deepcopy(model.state_dict())
        scaler.step(optimizer)
        assert same(before, model.state_dict()) is (i == 0)
        scaler.update()
        yield


def averaged(model, optimizer, evolver, batches):
    """Make a moving average of the weights sparse with the masks."""
    mean = AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.5))
    for _ in plain(model, optimizer, evolver, batches):
        yield
        mean.update_parameters(model)
    with torch.no_grad():
        layers = weight_layers(mean.module)
        # The average still contains past connections.
        assert any(weight[~evolver.masks[name]].any() for name, weight in layers.items())
        for name, weight in layers.items():
            weight.mul_(evolver.masks[name])
    backward(mean, torch.ones(3, 8))


def copied(model, optimizer, evolver, batches):
    """Copy the model during training. The evolver does not change the copy."""
    for i, _ in enumerate(plain(model, optimizer, evolver, batches)):
        yield
        if i == 2:
            copy_ = copy.deepcopy(model)
            kept = {key: value.clone() for key, value in copy_.state_dict().items()}
    assert same(copy_.state_dict(), kept)
    assert not same(model.state_dict(), kept)


def loaded(model, optimizer, evolver, batches):
    """Restore an earlier state during training, then load the weights of another model."""
    stranger = copy.deepcopy(model)
    for i, _ in enumerate(plain(model, optimizer, evolver, batches)):
        yield
        if i == 1:
            saved = copy.deepcopy([p.state_dict() for p in (model, optimizer, evolver)])
        if i == 3:
            for part, state in zip((model, optimizer, evolver), saved):
                part.load_state_dict(state)
            assert same([p.state_dict() for p in (model, optimizer, evolver)], saved)
        if i == 4:
            with torch.no_grad():
                for parameter in stranger.parameters():
                    parameter.normal_()
            model.load_state_dict(stranger.state_dict())


# --- the list --------------------------------------------------------------------------


ROWS = numbers(6, 8)


@dataclass(frozen=True)
class Case:
    """A model, an optimiser and a loop that `MaskEvolver` supports."""

    model: Callable[[], nn.Module] = mlp
    batch: Callable[[torch.Generator], torch.Tensor] = ROWS
    optimiser: Callable[[nn.Module], torch.optim.Optimizer] = adam
    loop: Loop = plain
    settings: dict[str, Any] = field(default_factory=dict)


ZOO: dict[str, Case] = {
    # Layers.
    "linear": Case(lambda: nn.Linear(8, 6)),
    "bilinear": Case(lambda: First(nn.Bilinear(8, 8, 4), 2)),
    "convolution 1d": Case(lambda: nn.Conv1d(4, 6, 3), numbers(3, 4, 9)),
    "convolution 2d": Case(lambda: nn.Conv2d(4, 6, 3), numbers(3, 4, 5, 5)),
    "convolution 3d": Case(lambda: nn.Conv3d(2, 4, 2), numbers(2, 2, 4, 4, 4)),
    "grouped": Case(lambda: nn.Conv2d(4, 8, 3, groups=2), numbers(3, 4, 5, 5)),
    "depthwise": Case(lambda: nn.Conv2d(4, 8, 3, groups=4), numbers(3, 4, 5, 5)),
    "transposed": Case(lambda: nn.ConvTranspose2d(4, 6, 3, groups=2), numbers(3, 4, 5, 5)),
    "RNN": Case(lambda: First(nn.RNN(8, 6)), numbers(4, 3, 8)),
    "GRU": Case(lambda: First(nn.GRU(8, 6, 2, bidirectional=True)), numbers(4, 3, 8)),
    "LSTM": Case(lambda: First(nn.LSTM(8, 6, proj_size=4)), numbers(4, 3, 8)),
    "attention": Case(lambda: First(nn.MultiheadAttention(8, 2), 3), numbers(4, 3, 8)),
    "attention of other widths": Case(
        lambda: First(nn.MultiheadAttention(8, 2, kdim=8, vdim=8, add_bias_kv=True), 3),
        numbers(4, 3, 8),
    ),
    "language model": Case(Language, words),
    "language model, tied": Case(lambda: Language(tied=True), words),
    "lookup table, named": Case(Language, words, settings={"layers": ["tokens", "head"]}),
    # Weights with unusual storage.
    "one weight, two modules": Case(Encoder),
    "weight of a view": Case(transposed),
    "channels last": Case(channels_last, numbers(3, 4, 7, 7)),
    "weight normalisation, kept dense": Case(
        lambda: nn.Sequential(
            nn.utils.parametrizations.weight_norm(nn.Linear(8, 8)), nn.Tanh(), nn.Linear(8, 6)
        ),
        settings={"keep_dense": ["0"]},
    ),
    "DataParallel": Case(lambda: nn.DataParallel(mlp())),
    "compiled": Case(lambda: cast(nn.Module, torch.compile(mlp(), backend="eager"))),
    # Precisions.
    "double": Case(lambda: mlp(torch.float64), lambda g: torch.randn(6, 8, generator=g).double()),
    "half": Case(
        lambda: mlp(torch.float16),
        lambda g: torch.randn(6, 8, generator=g).half(),
        optimiser=with_flags(sgd, lr=1e-3),  # Adam's eps is 0 in half precision
    ),
    "bfloat16": Case(
        lambda: mlp(torch.bfloat16), lambda g: torch.randn(6, 8, generator=g).bfloat16()
    ),
    # Optimisers.
    "SGD without momentum": Case(optimiser=with_flags(sgd, momentum=0.0)),
    "SGD": Case(optimiser=with_flags(sgd, nesterov=True, weight_decay=0.1)),
    "SGD, dampened": Case(optimiser=with_flags(sgd, dampening=0.5)),
    "SGD, maximise": Case(optimiser=with_flags(sgd, maximize=True, lr=1e-4)),
    "SGD, foreach": Case(optimiser=with_flags(sgd, foreach=True)),
    "Adam, amsgrad": Case(optimiser=with_flags(adam, amsgrad=True, weight_decay=0.1)),
    "Adam, maximise": Case(optimiser=with_flags(adam, maximize=True)),
    "Adam, foreach": Case(optimiser=with_flags(adam, foreach=True)),
    "Adam, lr a tensor": Case(
        optimiser=lambda m: torch.optim.Adam(m.parameters(), torch.tensor(0.01), foreach=False)
    ),
    "AdamW": Case(optimiser=adamw),
    "AdamW, amsgrad, maximise, foreach": Case(
        optimiser=with_flags(adamw, amsgrad=True, maximize=True, foreach=True)
    ),
    "groups with settings of their own": Case(optimiser=groups),
    # Loops.
    "gradients zeroed, not dropped": Case(loop=zeroed),
    "gradients accumulated": Case(loop=accumulated),
    "gradients clipped": Case(loop=clipped),
    "learning rate scheduled": Case(loop=scheduled),
    "closure": Case(loop=closure),
    "mixed precision": Case(loop=mixed),
    "moving mean of weights": Case(loop=averaged),
    "copy midway": Case(loop=copied),
    "state loaded midway": Case(loop=loaded),
    "dense at first": Case(settings={"t_dense": 2}),
}


@pytest.mark.slow
@pytest.mark.parametrize("growth", ["random", "random_unfired", "gradient", "momentum"])
@pytest.mark.parametrize("name", ZOO)
def test_every_kind_keeps_every_invariant(name, growth):
    case = ZOO[name]
    torch.manual_seed(0)
    model = case.model()
    optimizer = case.optimiser(model)
    rules = {"density": 0.3, "t_iter": 1, "t_end": 99, "alpha": 0.5, "growth": growth}
    if growth == "momentum" and name == "SGD without momentum":
        with refused(ConfigError, "conflict", value=0):
            MaskEvolver(model, optimizer, **rules)
        return
    evolver = MaskEvolver(model, optimizer, **(rules | case.settings))
    start = evolver.connections()
    batches = [case.batch(torch.Generator().manual_seed(i)) for i in range(STEPS)]
    moved = 0
    for _ in case.loop(model, optimizer, evolver, batches):
        before = snapshots(model, optimizer, evolver)
        update = evolver.step()
        if update is None or evolver.iteration == case.settings.get("t_dense"):
            start = evolver.connections()
        else:
            assert violations(before, model, optimizer, evolver, update, "none") == []
            moved += sum(record.grown for record in update.layers)
        assert evolver.connections() == start
        for layer, weight in parameters(model, evolver).items():
            assert not weight.detach()[~evolver.masks[layer]].any(), layer
    assert moved > 0
    assert all(parameter.isfinite().all() for parameter in model.parameters())


# --- refusals --------------------------------------------------------------------------


class Lion(torch.optim.Optimizer):
    """A third-party optimiser whose momentum has the same name as that of Adam."""

    def __init__(self, params: Any, lr: float = 1e-4) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                mean = self.state[p].setdefault("exp_avg", torch.zeros_like(p))
                p.sub_(group["lr"] * mean.lerp(p.grad, 0.1).sign())
                mean.lerp_(p.grad, 0.01)


class Own(torch.optim.AdamW):
    """A subclass, which may have any state."""


OTHERS = [
    kind
    for kind in vars(torch.optim).values()
    if isinstance(kind, type)
    and issubclass(kind, torch.optim.Optimizer)
    and kind not in (torch.optim.Optimizer, torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)
]


@pytest.mark.parametrize("kind", [*OTHERS, Lion, Own])
def test_other_optimisers_are_refused_by_name(kind):
    model = mlp()
    before = copy.deepcopy(model.state_dict())
    optimizer = kind([weight for weight in model.parameters() if weight.ndim == 2])  # for Muon
    name, known = kind.__name__, ("SGD", "Adam", "AdamW")
    with refused(ConfigError, "unsupported", key="optimizer", value=name, limit=known):
        MaskEvolver(model, optimizer, density=0.3, t_end=9)
    assert same(model.state_dict(), before)


def test_torchs_other_optimisers_are_looked_at():
    assert {"RMSprop", "NAdam", "RAdam", "Adagrad", "LBFGS"} <= {kind.__name__ for kind in OTHERS}


def head_only(model):
    return torch.optim.Adam(model[2].parameters())


def frozen(model):
    model[0].requires_grad_(False)
    return adam(model)


REFUSED: dict[str, tuple[Callable[[], nn.Module], Callable[..., torch.optim.Optimizer], str]] = {
    "not the optimiser's": (mlp, head_only, "mismatch"),
    "frozen": (mlp, frozen, "conflict"),
    "differentiable": (mlp, with_flags(adam, differentiable=True), "unsupported"),
    "weight normalisation": (
        lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))),
        adam,
        "unsupported",
    ),
    "pruned by torch": (
        lambda: nn.Sequential(prune.l1_unstructured(nn.Linear(8, 8), "weight", 0.5)),
        adam,
        "unsupported",
    ),
}
"""Name -> model, optimiser, code of the fault of layer 0. `test_layers` has more such weights."""


@pytest.mark.parametrize("name", REFUSED)
def test_refused_before_the_model_is_touched(name):
    model, optimiser, code = REFUSED[name]
    model = model()
    optimizer = optimiser(model)
    before = copy.deepcopy(model.state_dict())
    with refused(ConfigError, code, layer="0"):
        MaskEvolver(model, optimizer, density=0.3, t_end=9)
    assert same(model.state_dict(), before)


# --- The documented example --------------------------------------------------------------


def examples() -> list[str]:
    """Return the Python blocks of the docs that build an evolver."""
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return [block for block in blocks if "MaskEvolver(" in block]


@pytest.mark.slow
def test_the_documented_example_runs_as_written(tmp_path, capsys):
    (example,) = examples()
    file = tmp_path / "example.py"
    file.write_text(example)
    found = runpy.run_path(str(file))
    evolver = found["evolver"]
    assert [update.iteration for update in evolver.history] == list(range(100, 801, 100))
    assert sum(layer.grown for update in evolver.history for layer in update.layers) > 0
    for name, weight in weight_layers(found["model"]).items():
        assert int(weight.count_nonzero()) <= evolver.connections()[name]
    assert evolver.density == 0.1
    assert capsys.readouterr().out == f"{evolver.densities()}\n"


@pytest.mark.slow
def test_the_evolver_is_imported_by_the_package_and_only_when_asked_for():
    code = (
        "import sys, esl_lava, esl_lava.sparsity, esl_lava.sparsity.density\n"
        "assert 'torch' not in sys.modules\n"
        "from esl_lava.sparsity import MaskEvolver, weight_layers\n"
        "assert MaskEvolver is sys.modules['esl_lava.sparsity.evolver'].MaskEvolver\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(ImportError, match="cannot import name 'MaskEvolve'"):
        exec("from esl_lava.sparsity import MaskEvolve")

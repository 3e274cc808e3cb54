"""Layers of a model: which become sparse, which stay dense, and which are refused."""

import logging

import pytest
import torch
from torch import nn

from esl_lava.errors import ConfigError
from esl_lava.sparsity import MaskEvolver, weight_layers
from esl_lava.sparsity.layers import find_layers
from tests.faults import refused

TABLE, NORM, SHARED, UNKNOWN = (
    "a lookup table",
    "a normalisation",
    "shared with a lookup table",
    "not known to hold connections",
)


class Language(nn.Module):
    """A small language model of common modules."""

    def __init__(self, tied: bool = False) -> None:
        super().__init__()
        self.tokens = nn.Embedding(11, 8)
        self.places = nn.Parameter(torch.randn(1, 6, 8))
        self.block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.memory = nn.LSTM(8, 8, batch_first=True)
        self.head = nn.Linear(8, 11, bias=False)
        if tied:
            self.head.weight = self.tokens.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        memory, _ = self.memory(self.block(self.tokens(x) + self.places))
        return self.head(memory)


class Own(nn.Module):
    """A user-defined layer: a weight, and parameters of other names."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 5))
        self.mixer = nn.Parameter(torch.randn(4, 4))
        self.bias = nn.Parameter(torch.zeros(4))
        self.map_bias = nn.Parameter(torch.zeros(4, 1, 1))
        self.register_buffer("fixed", torch.ones(3, 3))


class Filter(nn.Module):
    """A layer whose weight is a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(3, 3))


def evolver_of(model, **settings):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return MaskEvolver(model, optimizer, **({"density": 0.5, "t_end": 9} | settings))


def kinds(model):
    return {name: layer.exclusion for name, layer in find_layers(model).items()}


def test_every_parameter_of_two_dimensions_is_found():
    model = Language()
    found = kinds(model)
    assert found == {
        "places": UNKNOWN,
        "tokens": TABLE,
        "block.self_attn.in_proj_weight": "",
        "block.self_attn.out_proj": "",
        "block.linear1": "",
        "block.linear2": "",
        "memory.weight_ih_l0": "",
        "memory.weight_hh_l0": "",
        "head": "",
    }
    matrices = {id(p) for p in model.parameters() if p.dim() > 1}
    assert {id(layer.weight) for layer in find_layers(model).values()} == matrices
    assert list(weight_layers(model)) == [name for name, other in found.items() if not other]


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (nn.LSTM(3, 4, 2), [f"weight_{k}_l{i}" for i in (0, 1) for k in ("ih", "hh")]),
        (
            nn.LSTM(3, 4, proj_size=2, bidirectional=True),
            [f"weight_{k}_l0{r}" for r in ("", "_reverse") for k in ("ih", "hh", "hr")],
        ),
        (nn.GRUCell(3, 4), ["weight_ih", "weight_hh"]),
        (nn.MultiheadAttention(4, 2), ["in_proj_weight", "out_proj"]),
        (
            nn.MultiheadAttention(4, 2, kdim=3, vdim=5),
            ["q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj"],
        ),
        (nn.Bilinear(3, 4, 5), ["weight"]),
        (nn.ConvTranspose2d(3, 4, 3), ["weight"]),
        (nn.Conv1d(4, 4, 3, groups=4), ["weight"]),
        (Filter(), []),
    ],
)
def test_weight_layers_of_torchs_modules(model, expected):
    assert list(weight_layers(model)) == expected
    assert not any(kinds(model).values())


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (
            nn.MultiheadAttention(4, 2, add_bias_kv=True),
            {"in_proj_weight": "", "bias_k": UNKNOWN, "bias_v": UNKNOWN, "out_proj": ""},
        ),
        (
            nn.Sequential(nn.EmbeddingBag(5, 4), nn.LayerNorm([3, 4]), nn.BatchNorm1d(3)),
            {"0": TABLE, "1": NORM, "1.bias": NORM},
        ),
        (nn.ModuleDict({"own": Own()}), {"own": "", "own.mixer": UNKNOWN, "own.map_bias": UNKNOWN}),
        (nn.PReLU(4), {}),
    ],
)
def test_others_and_why(model, expected):
    assert kinds(model) == expected


def test_wrappers_change_no_name():
    model = Language()
    plain = list(find_layers(model))
    assert list(find_layers(nn.DataParallel(model))) == plain
    assert list(find_layers(torch.compile(model, backend="eager"))) == plain
    model.head = torch.compile(model.head, backend="eager")
    assert list(find_layers(model)) == plain


def test_what_stays_dense_is_named_and_not_counted(caplog):
    caplog.set_level(logging.WARNING, logger="esl_lava.sparsity")
    model = Language()
    evolver = evolver_of(model, keep_dense=["head"], distribution="uniform")
    assert evolver.left_dense == {
        "places": UNKNOWN,
        "tokens": TABLE,
        "head": "named by keep_dense",
    }
    (record,) = caplog.records
    assert record.getMessage() == (
        "these parameters stay dense and do not count in the density: "
        f"places ({UNKNOWN}), tokens ({TABLE}); name a parameter in layers to make it sparse, or "
        "in keep_dense to avoid this warning"
    )
    counted = {n: p.numel() for n, p in weight_layers(model).items()}
    assert list(evolver.connections()) == list(counted)
    connections = sum(int(mask.sum()) for mask in evolver.masks.values()) + counted["head"]
    assert evolver.density == connections / sum(counted.values())
    assert evolver.sparse_density == 0.5
    assert (model.places != 0).all()
    assert (model.tokens.weight != 0).all()


def test_no_warning_where_all_was_asked_for(caplog):
    caplog.set_level(logging.WARNING, logger="esl_lava.sparsity")
    evolver_of(Language(), keep_dense=["places", "tokens"])
    evolver_of(Language(), layers=["head"])
    evolver_of(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)))
    assert caplog.records == []


def test_named_layers_are_made_sparse_and_counted():
    torch.manual_seed(0)
    model = Language()
    evolver = evolver_of(model, layers=["tokens", "head"], distribution="uniform")
    assert list(evolver.masks) == ["head", "tokens"]
    assert evolver.connections()["tokens"] == 44
    assert int((model.tokens.weight != 0).sum()) == 44
    assert evolver.left_dense["memory.weight_ih_l0"] == "not in layers"
    assert evolver.left_dense["places"] == UNKNOWN
    assert evolver.densities()["memory.weight_ih_l0"] == 1
    assert "places" not in evolver.connections()


def test_masks_of_a_layer_do_not_depend_on_which_others_are_named():
    masks = []
    for names in (None, ["head"], ["tokens", "head"], ["head", "places", "tokens"]):
        torch.manual_seed(0)
        evolver = evolver_of(Language(), layers=names, distribution="uniform")
        masks.append((evolver.masks["head"], evolver.masks.get("tokens")))
    assert all(torch.equal(masks[0][0], head) for head, _ in masks)
    assert torch.equal(masks[2][1], masks[3][1])


def test_a_table_that_a_layer_shares_stays_dense_unless_named():
    model = Language(tied=True)
    assert kinds(model)["tokens"] == TABLE
    assert "head" not in kinds(model)
    assert list(evolver_of(model, layers=["tokens"]).masks) == ["tokens"]
    # The linear layer may be the first of the two.
    table = nn.Embedding(5, 4)
    head = nn.Linear(4, 5)
    head.weight = table.weight
    assert kinds(nn.Sequential(head, table)) == {"0": SHARED}


@pytest.mark.parametrize(
    ("settings", "code", "fields"),
    [
        ({"layers": ["nothing"]}, "unknown", {"key": "layers", "value": "nothing"}),
        (
            {"layers": ["block.linear1.bias"]},
            "unknown",
            {"key": "layers", "value": "block.linear1.bias", "limit": tuple(kinds(Language()))},
        ),
        ({"layers": []}, "conflict", {"key": "keep_dense"}),
        (
            {"layers": ["head"], "keep_dense": ["head"]},
            "conflict",
            {"key": "keep_dense", "layer": "head"},
        ),
        (
            {"density": None, "densities": {"tokens": 0.5}, "layers": ["head"]},
            "missing",
            {"key": "densities", "layer": "head", "limit": ("head",)},
        ),
    ],
)
def test_names_that_cannot_be_are_refused(settings, code, fields):
    with refused(ConfigError, code, **fields):
        evolver_of(Language(), **settings)


def test_a_model_of_others_alone_says_what_can_be_named():
    model = nn.Sequential(nn.Embedding(4, 3), nn.Module())
    model[1].mixer = nn.Parameter(torch.randn(3, 3))
    with refused(ConfigError, "conflict", key="keep_dense") as caught:
        evolver_of(model)
    assert str(caught.value).endswith("layers can name 0, 1.mixer")


def two_views():
    """An autoencoder whose decoder is a view of the encoder's weight."""
    model = nn.Sequential(nn.Linear(4, 3, bias=False), nn.Linear(3, 4, bias=False))
    model[1].weight = nn.Parameter(model[0].weight.detach().t())
    return model


def expanded():
    model = nn.Sequential(nn.Linear(4, 3))
    model[0].weight = nn.Parameter(torch.randn(1, 4).expand(3, 4))
    return model


def whole_numbers():
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    model[0].weight = nn.Parameter(torch.ones(3, 4, dtype=torch.int8), requires_grad=False)
    return model


def complex_numbers():
    return nn.Sequential(nn.Linear(4, 3, dtype=torch.complex64))


@pytest.mark.parametrize(
    ("model", "settings", "code", "fields"),
    [
        (lambda: nn.Sequential(nn.LazyLinear(3)), {}, "shape", {}),
        (two_views, {}, "conflict", {"value": "1"}),
        (two_views, {"keep_dense": ["0"]}, "conflict", {"value": "1"}),
        (expanded, {}, "unsupported", {}),
        (whole_numbers, {}, "unsupported", {}),
        (complex_numbers, {}, "unsupported", {}),
        (
            lambda: nn.Sequential(nn.Embedding(5, 3, sparse=True)),
            {"layers": ["0"]},
            "unsupported",
            {},
        ),
        (
            lambda: nn.utils.parametrizations.orthogonal(nn.LSTM(3, 3), "weight_hh_l0"),
            {},
            "unsupported",
            {"layer": "weight_hh_l0"},
        ),
        (
            lambda: nn.Sequential(nn.utils.spectral_norm(nn.Linear(3, 3))),
            {},
            "unsupported",
            {},
        ),
    ],
)
def test_weights_that_no_mask_could_hold_are_refused(model, settings, code, fields):
    model = model()
    with refused(ConfigError, code, **({"layer": "0"} | fields)):
        evolver_of(model, **settings)


@pytest.mark.parametrize(
    "computed",
    [
        nn.utils.weight_norm,
        nn.utils.spectral_norm,
        nn.utils.parametrizations.weight_norm,
        nn.utils.parametrizations.spectral_norm,
        nn.utils.parametrizations.orthogonal,
    ],
)
def test_a_computed_weight_may_be_kept_dense(computed):
    model = nn.Sequential(computed(nn.Linear(4, 4)), nn.Linear(4, 2))
    evolver = evolver_of(model, keep_dense=["0"])
    assert evolver.left_dense == {"0": "named by keep_dense"}
    assert evolver.densities() == {"0": 1.0, "1": 0.5}
    assert evolver.connections()["0"] == 16

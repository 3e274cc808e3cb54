"""What of a model can be made sparse, where the model keeps it, and what cannot, and why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.utils.parametrize import ParametrizationList

from esl_lava.errors import ConfigError
from esl_lava.sparsity.density import LayerShape
from esl_lava.sparsity.weights import SparseWeight

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Of weights that can be made sparse."""

_TABLES = (nn.Embedding, nn.EmbeddingBag)
_NORMS = (nn.LayerNorm, nn.GroupNorm, _NormBase)
_ATTENTION = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
_SOURCES = ("_g", "_v", "_orig", "_raw")
"""What a computed weight's parameters are called, after the weight's own name."""

_PLAIN = (
    "its weight is not a plain parameter (weight normalisation, a parametrisation?), "
    "a mask could not hold it"
)


@dataclass(frozen=True, eq=False)
class Layer:
    """A parameter of at least two dimensions, or a `SparseWeight`, where the model has it.

    Attributes:
        name: what errors, masks and densities call it.
        module, attribute: where it is.
        weight: the parameter or `SparseWeight`; where `fault` says so another tensor.
        other: why it is no weight layer unless it is named as one; empty where it is one.
        fault: why it cannot be made sparse, in a clause; empty where it can.
    """

    name: str
    module: nn.Module
    attribute: str
    weight: Tensor | SparseWeight
    other: str = ""
    fault: str = ""

    @property
    def parameter(self) -> nn.Parameter:
        """What the optimiser trains.

        Raises:
            ConfigError: when there is no such parameter.
        """
        if isinstance(self.weight, SparseWeight):
            return self.weight.values
        if not isinstance(self.weight, nn.Parameter):
            raise ConfigError(f"layer {self.name}: {_PLAIN}")
        return self.weight

    @property
    def size(self) -> int:
        """Number of possible connections."""
        weight = self.weight
        return weight.size if isinstance(weight, SparseWeight) else weight.numel()

    @property
    def shape(self) -> LayerShape:
        """As an allocation sees it; dimensions beyond the second are a kernel's."""
        lengths = tuple(self.weight.shape)
        kernel = lengths[2:]
        # SLAYER keeps every weight as that of a 3-D convolution: (out, in, 1, 1, 1) where fully
        # connected, (out, in, height, width, 1) where not. The lengths 1 are no kernel's.
        while len(lengths) == 5 and kernel and kernel[-1] == 1:
            kernel = kernel[:-1]
        return LayerShape(self.name, lengths[1], lengths[0], kernel)

    def check(self, shape: torch.Size, device: torch.device) -> None:
        """Refuse a weight that is no longer what a mask was made for.

        Raises:
            ConfigError: naming the layer.
        """
        if getattr(self.module, self.attribute, None) is not self.weight:
            raise ConfigError(
                f"layer {self.name}: the model has another tensor in place of the weight that "
                "the evolver and the optimiser hold (load_state_dict with assign=True, a "
                "parametrisation, a move to another device?); build both anew"
            )
        if self.weight.shape != shape:
            raise ConfigError(
                f"layer {self.name}: its weight has become {tuple(self.weight.shape)}, "
                f"its mask is {tuple(shape)}; build the evolver anew"
            )
        now = self.parameter.device
        if now != device:
            raise ConfigError(
                f"layer {self.name}: its weight moved to {now}, its mask is on {device}; "
                "build the evolver after moving the model"
            )


def survey(model: nn.Module) -> dict[str, Layer]:
    """Every parameter of a model that could hold connections, by name, in the model's order.

    Weight layers are modules with a `weight` of at least two dimensions (torch's linear,
    bilinear and convolutional layers, transposed ones too, and any module of one's own), the
    matrices of torch's recurrent layers and cells, and the projections of its attention. No
    weight layers are lookup tables and what is shared with them, normalisations, and other
    parameters of at least two dimensions (a position embedding, a bias of feature maps).

    A `weight` is called as its module, without a trailing ".synapse" (SLAYER keeps a block's
    weight there), or "weight" where the model is itself the layer; any other parameter as in
    `named_parameters`. What DataParallel, DistributedDataParallel or `torch.compile` wrap is
    called as without them. What several modules share is listed once, under the first.

    Raises:
        ConfigError: when two would have the same name, or one has no shape yet.
    """
    while _wraps(model) or isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
        model = model.get_submodule("_orig_mod" if _wraps(model) else "module")
    tables = {id(p) for m in model.modules() if isinstance(m, _TABLES) for p in m.parameters()}
    found: dict[str, Layer] = {}
    for path, module in model.named_modules():
        if _wraps(module) or isinstance(module, ParametrizationList | SparseWeight):
            continue
        path = ".".join(part for part in path.split(".") if part != "_orig_mod")
        for attribute, weight, other in _matrices(module, tables):
            if any(weight is seen.weight for seen in found.values()):
                continue
            name = f"{path}.{attribute}" if path else attribute
            if attribute == "weight":
                name = path.removesuffix(".synapse") or "weight"
            if name in found:
                raise ConfigError(f"two weight layers are called {name}")
            if isinstance(weight, nn.UninitializedParameter):
                raise ConfigError(
                    f"layer {name}: its weight has no shape yet; run the model once before"
                )
            fault = _fault(weight, module)
            found[name] = Layer(name, module, attribute, weight, other, fault)
    return found


def weight_layers(model: nn.Module) -> dict[str, nn.Parameter]:
    """The model's weight layers by name, in the order of its submodules (`survey`).

    Returns:
        Name -> what the optimiser trains: the weight, or a `SparseWeight`'s values.

    Raises:
        ConfigError: when a weight is not a plain parameter (weight normalisation
            computes it anew in every forward pass, so no mask would hold), or when two
            layers would have the same name.
    """
    return {name: layer.parameter for name, layer in survey(model).items() if not layer.other}


def sparse_weights(model: nn.Module) -> dict[str, SparseWeight]:
    """Those of the model's weight layers that store only their connections, by name."""
    return {
        name: layer.weight
        for name, layer in survey(model).items()
        if isinstance(layer.weight, SparseWeight)
    }


def choose(
    found: Mapping[str, Layer], layers: Iterable[str] | None, keep_dense: Iterable[str]
) -> tuple[dict[str, Layer], dict[str, Layer]]:
    """Which of what `survey` found are weight layers, and which of these are to be sparse.

    `layers` and `keep_dense` are those of `MaskEvolver`.

    Returns:
        Weight layers: those by themselves, then others that `layers` names. Sparse ones of
        them, in the same order.

    Raises:
        ConfigError: for a name that is not there or in both; when none is left; when a
            layer to be made sparse cannot be, with the reason.
    """
    dense, named = set(keep_dense), None if layers is None else set(layers)
    for argument, names, kind in (
        ("keep_dense", dense, "weight layer"),
        ("layers", named or set(), "parameter of at least two dimensions"),
    ):
        for name in sorted(names - set(found)):
            raise ConfigError(
                f"{argument} names {name!r}, which is no {kind}; there are: {', '.join(found)}"
            )
    for name in sorted((named or set()) & dense):
        raise ConfigError(f"layer {name}: layers names it and keep_dense too")
    weights = {name: layer for name, layer in found.items() if not layer.other}
    weights |= {name: found[name] for name in found if named and name in named}
    sparse = {
        name: layer
        for name, layer in weights.items()
        if (named is None or name in named) and name not in dense
    }
    if not sparse:
        others = ", ".join(name for name, layer in found.items() if layer.other)
        raise ConfigError(
            f"no layer is left to make sparse: the model's {len(weights)} weight layers, "
            f"of which keep_dense names {len(dense & set(weights))}"
            + (f"; layers can name {others}" if others else "")
        )
    for name, layer in sparse.items():
        if layer.fault:
            raise ConfigError(f"layer {name}: {layer.fault}; keep_dense leaves it as it is")
    _check_memory(found, sparse)
    return weights, sparse


def _matrices(
    module: nn.Module, tables: set[int]
) -> Iterator[tuple[str, Tensor | SparseWeight, str]]:
    """(attribute, weight, why it is no weight layer) of a module's own parameters."""
    other = ""
    if isinstance(module, _TABLES):
        other = "a lookup table"
    elif isinstance(module, _NORMS):
        other = "a normalisation"
    held, sources = _weights(module), set()
    for attribute in held:
        weight = getattr(module, attribute, None)
        if not isinstance(weight, Tensor | SparseWeight) or attribute in module._buffers:
            continue
        if not isinstance(weight, nn.Parameter | SparseWeight):
            sources |= {attribute + suffix for suffix in _SOURCES}
        if not _flat(weight):
            shared = "shared with a lookup table" if id(weight) in tables else ""
            yield attribute, weight, other or shared
    for attribute, parameter in module._parameters.items():
        if parameter is None or attribute in held or attribute in sources or _flat(parameter):
            continue
        yield attribute, parameter, other or "not known to hold connections"


def _weights(module: nn.Module) -> tuple[str, ...]:
    """Attributes of a module that hold connections where they are matrices."""
    if isinstance(module, nn.RNNBase):
        return tuple(name for name in module._flat_weights_names if name.startswith("weight"))
    if isinstance(module, nn.RNNCellBase):
        return "weight_ih", "weight_hh"
    if isinstance(module, nn.MultiheadAttention):
        return _ATTENTION
    return ("weight",)


def _flat(weight: Tensor | SparseWeight) -> bool:
    """Whether it has fewer than two dimensions, as far as it has a shape."""
    return not isinstance(weight, nn.UninitializedParameter) and len(weight.shape) < 2


def _fault(weight: Tensor | SparseWeight, module: nn.Module) -> str:
    """Why a weight cannot be made sparse; empty where it can."""
    if isinstance(weight, SparseWeight):
        return ""
    if not isinstance(weight, nn.Parameter):
        return _PLAIN
    if type(weight.detach()) is not Tensor or weight.layout != torch.strided:
        kind = type(weight.detach()).__name__
        return f"its weight is a {kind} of layout {weight.layout}, no plain tensor"
    if weight.dtype not in DTYPES:
        known = ", ".join(str(dtype) for dtype in DTYPES)
        return f"its weight is of {weight.dtype}, not of {known}"
    if any(length > 1 and stride == 0 for length, stride in zip(weight.shape, weight.stride())):
        return "elements of its weight share memory (expand?)"
    if isinstance(module, _TABLES) and module.sparse:
        return "its gradient is sparse (sparse=True), growth and moments need all positions"
    return ""


def _check_memory(found: Mapping[str, Layer], sparse: Mapping[str, Layer]) -> None:
    """Refuse a layer to be made sparse whose memory another parameter has too."""
    spans = sorted(
        (*_span(layer.weight), name)
        for name, layer in found.items()
        if isinstance(layer.weight, nn.Parameter) and not layer.fault
    )
    for i, (_, end, name) in enumerate(spans):
        for start, _, other in spans[i + 1 :]:
            if start >= end:
                break
            if name in sparse or other in sparse:
                raise ConfigError(
                    f"layer {name}: its weight lies in the memory of {other}'s, so neither could "
                    "have a mask of its own; let both modules hold the same parameter"
                )


def _span(weight: Tensor) -> tuple[int, int]:
    """First byte of a tensor, and the one after its last."""
    last = sum((length - 1) * stride for length, stride in zip(weight.shape, weight.stride()))
    start = weight.data_ptr()
    # Tensors on "meta" all begin at 0.
    return start, start + (last + 1) * weight.element_size() if start else start


def _wraps(module: nn.Module) -> bool:
    """Whether a module is what `torch.compile` puts around another."""
    return isinstance(module._modules.get("_orig_mod"), nn.Module)

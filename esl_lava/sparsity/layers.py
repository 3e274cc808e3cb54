"""Layers of a model: finds all weights, chooses those to make sparse, explains the others."""

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
"""Data types of weights that can be sparse."""

_TABLES = (nn.Embedding, nn.EmbeddingBag)
_NORMS = (nn.LayerNorm, nn.GroupNorm, _NormBase)
_ATTENTION = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
_SOURCES = ("_g", "_v", "_orig", "_raw")
"""Suffixes that torch appends to the name of a computed weight to name its parameters."""

_NOT_PLAIN = (
    "its weight is not an nn.Parameter (is it normalised or parametrised?), so a mask cannot "
    "keep it sparse"
)


@dataclass(frozen=True, eq=False)
class Layer:
    """A parameter of at least two dimensions or a `SparseWeight`, with its place in the model.

    Attributes:
        name: its name in errors, masks and densities.
        module, attribute: the module that holds it, and the attribute there.
        weight: the parameter or `SparseWeight`; another tensor if `obstacle` says so.
        exclusion: the reason why it is not a weight layer by default; empty for a weight layer.
        obstacle: the reason why it cannot be sparse, as a clause; empty if it can.
    """

    name: str
    module: nn.Module
    attribute: str
    weight: Tensor | SparseWeight
    exclusion: str = ""
    obstacle: str = ""

    @property
    def parameter(self) -> nn.Parameter:
        """The parameter that the optimiser trains.

        Raises:
            ConfigError: if there is no such parameter.
        """
        if isinstance(self.weight, SparseWeight):
            return self.weight.values
        if not isinstance(self.weight, nn.Parameter):
            raise ConfigError(f"layer {self.name}: {_NOT_PLAIN}", "unsupported", layer=self.name)
        return self.weight

    @property
    def size(self) -> int:
        """Number of positions, which are the elements of the weight."""
        weight = self.weight
        return weight.size if isinstance(weight, SparseWeight) else weight.numel()

    @property
    def shape(self) -> LayerShape:
        """The shape of the layer for `density.allocate`. Dimensions after two are the kernel."""
        lengths = tuple(self.weight.shape)
        kernel = lengths[2:]
        # SLAYER stores every weight as that of a 3-D convolution: (out, in, 1, 1, 1) for a fully
        # connected layer, (out, in, height, width, 1) for a convolution. The trailing lengths 1
        # are not part of the kernel.
        while len(lengths) == 5 and kernel and kernel[-1] == 1:
            kernel = kernel[:-1]
        return LayerShape(self.name, lengths[1], lengths[0], kernel)

    def check(self, shape: torch.Size, device: torch.device) -> None:
        """Check that the weight was not replaced and still has the shape and device of its mask.

        Args:
            shape, device: those of the mask.

        Raises:
            ConfigError: if it was replaced or has another shape or device.
        """
        if getattr(self.module, self.attribute, None) is not self.weight:
            raise ConfigError(
                f"layer {self.name}: another tensor has replaced the weight that the evolver and "
                "the optimiser refer to (by load_state_dict with assign=True, a parametrisation or "
                "a move to another device?); build a new optimiser and a new evolver",
                "mismatch",
                layer=self.name,
            )
        if self.weight.shape != shape:
            raise ConfigError(
                f"layer {self.name}: its weight now has the shape {tuple(self.weight.shape)}, and "
                f"its mask has {tuple(shape)}; build a new evolver",
                "mismatch",
                value=tuple(self.weight.shape),
                limit=tuple(shape),
                layer=self.name,
            )
        weight_device = self.parameter.device
        if weight_device != device:
            raise ConfigError(
                f"layer {self.name}: its weight moved to the device {weight_device}, and its mask "
                f"is on {device}; build the evolver after moving the model",
                "mismatch",
                value=str(weight_device),
                limit=str(device),
                layer=self.name,
            )


def find_layers(model: nn.Module) -> dict[str, Layer]:
    """Find every parameter of a model that could hold connections.

    Weight layers are
    - modules with a `weight` of at least two dimensions: torch's linear, bilinear, convolutional
      and transposed convolutional layers, and any user-defined module;
    - the matrices of torch's recurrent layers and cells;
    - the projections of torch's attention.
    Not weight layers are lookup tables, parameters that are shared with them, normalisations,
    and other parameters of at least two dimensions (a position embedding, a bias of maps).

    The name of a `weight` is that of its module, without a trailing ".synapse" (SLAYER stores
    the weight of a block there), or "weight" if the model itself is the layer. Any other
    parameter has its name in `named_parameters`. DataParallel, DistributedDataParallel and
    `torch.compile` do not change the names. A parameter that several modules share is listed
    once, under the first module.

    Returns:
        Name -> layer, in the order of the model's modules.

    Raises:
        ConfigError: if two layers have the same name, or a weight has no shape yet.
    """
    while _is_compiled(model) or isinstance(
        model, nn.parallel.DistributedDataParallel | nn.DataParallel
    ):
        model = model.get_submodule("_orig_mod" if _is_compiled(model) else "module")
    tables = {id(p) for m in model.modules() if isinstance(m, _TABLES) for p in m.parameters()}
    layers: dict[str, Layer] = {}
    for path, module in model.named_modules():
        if _is_compiled(module) or isinstance(module, ParametrizationList | SparseWeight):
            continue
        path = ".".join(part for part in path.split(".") if part != "_orig_mod")
        for attribute, weight, exclusion in _find_matrices(module, tables):
            if any(weight is layer.weight for layer in layers.values()):
                continue
            name = f"{path}.{attribute}" if path else attribute
            if attribute == "weight":
                name = path.removesuffix(".synapse") or "weight"
            if name in layers:
                raise ConfigError(
                    f"layer {name}: two weight layers have this name", "conflict", layer=name
                )
            if isinstance(weight, nn.UninitializedParameter):
                raise ConfigError(
                    f"layer {name}: its weight has no shape yet; run the model once before",
                    "shape",
                    layer=name,
                )
            obstacle = _find_obstacle(weight, module)
            layers[name] = Layer(name, module, attribute, weight, exclusion, obstacle)
    return layers


def weight_layers(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the weight layers of the model, in the order of its modules (`find_layers`).

    Returns:
        Name -> parameter that the optimiser trains: the weight, or the values of a
        `SparseWeight`.

    Raises:
        ConfigError: as `find_layers`, and if a weight is not a plain parameter (weight
            normalisation computes it anew in every forward pass, so a mask has no effect).
    """
    layers = find_layers(model)
    return {name: layer.parameter for name, layer in layers.items() if not layer.exclusion}


def sparse_weights(model: nn.Module) -> dict[str, SparseWeight]:
    """Return the weight of each layer that stores only its connections, by layer name."""
    return {
        name: layer.weight
        for name, layer in find_layers(model).items()
        if isinstance(layer.weight, SparseWeight)
    }


def choose_layers(
    candidates: Mapping[str, Layer], layers: Iterable[str] | None, keep_dense: Iterable[str]
) -> tuple[dict[str, Layer], dict[str, Layer]]:
    """Choose the weight layers and the sparse layers among the candidates.

    Args:
        candidates: the layers that `find_layers` returns.
        layers, keep_dense: as in `MaskEvolver`.

    Returns:
        The weight layers: first the default ones, then others that `layers` names. The sparse
        layers among them, in the same order.

    Raises:
        ConfigError: if a name is unknown or in both `layers` and `keep_dense`; if no layer is
            left; if a layer cannot be sparse, with the reason.
    """
    dense, named = set(keep_dense), None if layers is None else set(layers)
    for key, names, kind in (
        ("keep_dense", dense, "weight layer"),
        ("layers", named or set(), "parameter of at least two dimensions"),
    ):
        for name in sorted(names - set(candidates)):
            raise ConfigError(
                f"{key} names {name!r}, which is not a {kind}; the model has "
                f"{', '.join(candidates) or 'none'}",
                "unknown",
                key=key,
                value=name,
                limit=tuple(candidates),
            )
    for name in sorted((named or set()) & dense):
        raise ConfigError(
            f"layer {name}: the arguments layers and keep_dense both name it; only one may",
            "conflict",
            key="keep_dense",
            value=name,
            layer=name,
        )
    weights = {name: layer for name, layer in candidates.items() if not layer.exclusion}
    weights |= {name: candidates[name] for name in candidates if named and name in named}
    sparse = {
        name: layer
        for name, layer in weights.items()
        if (named is None or name in named) and name not in dense
    }
    if not sparse:
        others = ", ".join(name for name, layer in candidates.items() if layer.exclusion)
        raise ConfigError(
            f"no layer is left to make sparse: the model has {len(weights)} weight layers, "
            f"and keep_dense names {len(dense & set(weights))} of them"
            + (f"; the argument layers can name {others}" if others else ""),
            "conflict",
            key="keep_dense",
            value=tuple(sorted(dense)),
        )
    for name, layer in sparse.items():
        if layer.obstacle:
            raise ConfigError(
                f"layer {name}: {layer.obstacle}; name it in keep_dense to leave it dense",
                "unsupported",
                layer=name,
            )
    _check_memory(candidates, sparse)
    return weights, sparse


def _find_matrices(
    module: nn.Module, tables: set[int]
) -> Iterator[tuple[str, Tensor | SparseWeight, str]]:
    """Yield (attribute, weight, exclusion as in `Layer`) of a module's own matrices.

    A matrix here is a parameter of at least two dimensions, or one without a shape yet.
    """
    exclusion = ""
    if isinstance(module, _TABLES):
        exclusion = "a lookup table"
    elif isinstance(module, _NORMS):
        exclusion = "a normalisation"
    attributes, sources = _weight_attributes(module), set()
    for attribute in attributes:
        weight = getattr(module, attribute, None)
        if not isinstance(weight, Tensor | SparseWeight) or attribute in module._buffers:
            continue
        if not isinstance(weight, nn.Parameter | SparseWeight):
            sources |= {attribute + suffix for suffix in _SOURCES}
        if not _is_flat(weight):
            shared = "shared with a lookup table" if id(weight) in tables else ""
            yield attribute, weight, exclusion or shared
    for attribute, parameter in module._parameters.items():
        if parameter is None or attribute in sources or attribute in attributes:
            continue
        if not _is_flat(parameter):
            yield attribute, parameter, exclusion or "not known to hold connections"


def _weight_attributes(module: nn.Module) -> tuple[str, ...]:
    """Return the names of a module's attributes that hold connections if they are matrices."""
    if isinstance(module, nn.RNNBase):
        return tuple(name for name in module._flat_weights_names if name.startswith("weight"))
    if isinstance(module, nn.RNNCellBase):
        return "weight_ih", "weight_hh"
    if isinstance(module, nn.MultiheadAttention):
        return _ATTENTION
    return ("weight",)


def _is_flat(weight: Tensor | SparseWeight) -> bool:
    """Check whether a weight has a shape, and this shape has fewer than two dimensions."""
    return not isinstance(weight, nn.UninitializedParameter) and len(weight.shape) < 2


def _find_obstacle(weight: Tensor | SparseWeight, module: nn.Module) -> str:
    """Return the reason why a weight cannot be sparse; empty if it can."""
    if isinstance(weight, SparseWeight):
        return ""
    if not isinstance(weight, nn.Parameter):
        return _NOT_PLAIN
    if type(weight.detach()) is not Tensor or weight.layout != torch.strided:
        kind = type(weight.detach()).__name__
        return f"its weight is a {kind} of layout {weight.layout}, not a plain tensor"
    if weight.dtype not in DTYPES:
        known = ", ".join(str(dtype) for dtype in DTYPES)
        return f"its weight has the dtype {weight.dtype}, not one of {known}"
    if any(length > 1 and stride == 0 for length, stride in zip(weight.shape, weight.stride())):
        return "elements of its weight share memory (was it expanded?)"
    if isinstance(module, _TABLES) and module.sparse:
        return "its gradient is sparse (sparse=True), and growth and moments need all positions"
    return ""


def _check_memory(candidates: Mapping[str, Layer], sparse: Mapping[str, Layer]) -> None:
    """Check that no sparse layer shares its memory with another parameter."""
    spans = sorted(
        (*_span(layer.weight), name)
        for name, layer in candidates.items()
        if isinstance(layer.weight, nn.Parameter) and not layer.obstacle
    )
    for i, (_, end, name) in enumerate(spans):
        for start, _, other in spans[i + 1 :]:
            if start >= end:
                break
            if name in sparse or other in sparse:
                raise ConfigError(
                    f"layer {name}: its weight shares memory with the weight of {other}, so they "
                    "cannot have separate masks; let both modules use the same parameter",
                    "conflict",
                    value=other,
                    layer=name,
                )


def _span(weight: Tensor) -> tuple[int, int]:
    """Return the addresses of the first byte of a tensor and of the byte after its last."""
    last = sum((length - 1) * stride for length, stride in zip(weight.shape, weight.stride()))
    start = weight.data_ptr()
    # All tensors on the device "meta" begin at 0.
    return start, start + (last + 1) * weight.element_size() if start else start


def _is_compiled(module: nn.Module) -> bool:
    """Check whether a module is the wrapper of `torch.compile`."""
    return isinstance(module._modules.get("_orig_mod"), nn.Module)

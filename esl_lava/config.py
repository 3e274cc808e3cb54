"""The configuration of an experiment: one tree of tables, TOML in and TOML out.

Each section stands in the room whose tables it names; here they are put together. Every field
is documented once, where it is declared; `esl train --help-config` prints these texts.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

import tomli_w
from pydantic import Field, model_validator

from esl_lava import tomlfile
from esl_lava.data.config import EVENT_SETS, OF_FRAMES, OWN, Data, Encoding
from esl_lava.errors import ConfigError
from esl_lava.models.config import NETWORKS, Model, MultiSpike, as_layers
from esl_lava.sparsity.config import Sparsity
from esl_lava.tomlfile import TomlTable
from esl_lava.training.config import Training

_ONLY_VALUES = {"voltage_decay": 0.0, "threshold": 1.0, "tau_grad": 0.5, "scale_grad": 1.0}
"""What files may record of a single_spike network beside its fields, and each one's value."""


class Experiment(TomlTable):
    """Everything a run depends on, besides the data and the versions."""

    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = Field(
        1, description="of weights, masks, shuffling and the validation split"
    )
    data: Data = Data()
    encoding: Encoding = Encoding()
    model: Model = MultiSpike()
    sparsity: Sparsity
    training: Training = Training()

    @model_validator(mode="before")
    @classmethod
    def _first_layers_stay_dense(cls, values: object) -> object:
        """What a kind of network keeps dense where nobody says: some have more than the readout."""
        if not isinstance(values, dict):
            return values
        model, sparsity = values.get("model"), values.get("sparsity")
        if not (isinstance(model, dict) and isinstance(sparsity, dict)):
            return values
        kind = NETWORKS.get(str(model.get("kind")))
        if kind is None or "keep_dense" in sparsity:
            return values
        layers = model.get("layers", kind.model_fields["layers"].default)
        return {**values, "sparsity": {**sparsity, "keep_dense": kind.kept_dense(layers)}}

    @model_validator(mode="after")
    def _kinds_fit(self) -> Experiment:
        recorded, framed = self.data.name in EVENT_SETS, self.encoding.kind == "frames"
        if self.data.name == OWN:
            self.encoding.refuse_making_of_frames()
        elif recorded != framed:
            raise ValueError(
                f"encoding.kind {self.encoding.kind!r}: data.name {self.data.name!r} holds "
                + ("recordings, which need 'frames'" if recorded else "images, and has no 'frames'")
            )
        self.model.check_beside(self.encoding, self.training)
        return self

    @model_validator(mode="after")
    def _sparse_in_the_end(self) -> Experiment:
        dense, epochs = self.sparsity.dense_epochs, self.training.epochs
        if dense >= epochs:
            raise ValueError(
                f"sparsity.dense_epochs {dense} is not below training.epochs {epochs}: "
                "the network would never become sparse"
            )
        return self


def from_mapping(values: Mapping[str, object]) -> Experiment:
    """Validate nested plain values.

    Raises:
        ConfigError: one sentence per fault, with key, value and limit; an unknown key
            comes with the nearest known one.
    """
    try:
        return tomlfile.validate(Experiment, values, _nearest)
    except tomlfile.Faults as error:
        raise ConfigError.of(error.faults) from None


def from_toml(text: str, origin: str = "configuration", *, recorded: bool = False) -> Experiment:
    """Parse and validate TOML.

    Args:
        origin: names the text in errors.
        recorded: whether it is what a run wrote down, in whatever form files hold it, and not
            what a user asks for.

    Raises:
        ConfigError: on a syntax error (with its place) or a fault `from_mapping` names.
    """
    values = tomlfile.parse(text, origin)
    try:
        return tomlfile.validate(Experiment, _upgrade(values) if recorded else values, _nearest)
    except tomlfile.Faults as error:
        raise ConfigError.of(error.located(origin)) from None


def read_toml(path: Path, *, recorded: bool = False) -> Experiment:
    """The experiment in a TOML file, as `from_toml`.

    Raises:
        FileError: when the file cannot be read or is too large.
        ConfigError: as `from_toml`.
    """
    return from_toml(tomlfile.read_text(path, str(path)), str(path), recorded=recorded)


def to_toml(experiment: Experiment) -> str:
    """The experiment as TOML, defaults written out, absent values left out."""
    return tomli_w.dumps(experiment.model_dump(mode="json", exclude_none=True))


def _upgrade(values: Mapping[str, object]) -> Mapping[str, object]:
    """Recorded values as today's tables have them.

    Files may hold hidden layers as a list of their neurons, and of a single_spike network the
    fields of the other kind, with the one value that was allowed.
    """
    model = values.get("model")
    if not isinstance(model, dict):
        return values
    single = model.get("kind") == "single_spike"
    kept = {
        key: value
        for key, value in model.items()
        if not (single and key in _ONLY_VALUES and value == _ONLY_VALUES[key])
    }
    if "layers" not in kept and (layers := as_layers(kept.get("hidden"))):
        kept = {("layers" if key == "hidden" else key): value for key, value in kept.items()}
        kept["layers"] = layers
    return {**values, "model": kept}


def override(experiment: Experiment, settings: Mapping[str, object]) -> Experiment:
    """The experiment with dotted keys replaced, e.g. {"training.epochs": 5}.

    Setting one of `sparsity.density`, `sparsity.eps` and `sparsity.densities` (or a key in
    it) removes the others. A changed `model.kind` keeps the values of the fields that both
    kinds have, and drops the others; so does a changed `encoding.kind` with what only some kinds
    have. Setting `data.name` drops `data.folder`.
    Layers kept dense as nobody said which are those of the new network.

    Raises:
        ConfigError: as `from_mapping`.
    """
    values = experiment.model_dump(mode="json", exclude_none=True)
    budgets = {"density", "eps", "densities"}
    if experiment.sparsity.keep_dense == experiment.model.kept_dense(experiment.model.layers):
        del values["sparsity"]["keep_dense"]
    for key, value in settings.items():
        section, chosen, *_ = [*key.split("."), ""]
        if section == "sparsity" and chosen in budgets:
            for rival in budgets - {chosen}:
                values["sparsity"].pop(rival, None)
        if key == "model.kind" and isinstance(value, str) and value in NETWORKS:
            fields = NETWORKS[value].model_fields
            values["model"] = {k: v for k, v in values["model"].items() if k in fields}
        if key == "data.name":
            values["data"].pop("folder", None)
        if key == "encoding.kind" and value != experiment.encoding.kind:
            for field in ("bits", *OF_FRAMES):
                values["encoding"].pop(field, None)
    for key, value in settings.items():
        *tables, last = key.split(".")
        table: object = values
        for name in tables:
            table = table.setdefault(name, {}) if isinstance(table, dict) else None
        if not isinstance(table, dict):
            raise ConfigError(f"{key}: {'.'.join(tables)} is a value, not a table")
        table[last] = value
    return from_mapping(values)


def parse_setting(text: str) -> tuple[str, object]:
    """`key=value` with a TOML value (a bare word counts as a string) -> (key, value).

    Raises:
        ConfigError: when there is no '='.
    """
    key, separator, raw = text.partition("=")
    if not separator or not key.strip():
        raise ConfigError(f"setting {text!r} is not of the form key=value")
    return key.strip(), tomlfile.parse_value(raw)


def documentation(
    section: type[TomlTable] = Experiment, prefix: str = ""
) -> Iterator[tuple[str, str, str]]:
    """(dotted key, default, description) of every field, in order; of each kind of model."""
    for name, field in section.model_fields.items():
        tables = tomlfile.tables_of(field.annotation)
        for table in tables:
            yield from documentation(table, f"{prefix}{name}.")
        if not tables:
            default = None if field.is_required() else field.get_default()
            if isinstance(default, tuple):
                default = list(default)
            shown = "" if default is None else str(default)
            yield f"{prefix}{name}", shown, field.description or ""


def _nearest(key: str, table: type[TomlTable]) -> str:
    """'; did you mean X?' of the known key or table whose last part is most like that of `key`."""
    known = list(dict.fromkeys(name for name, _, _ in documentation()))
    if key in known:
        return f": model.kind {table.model_fields['kind'].default!r} does not have it"
    known += sorted({name.partition(".")[0] for name in known})
    place, _, last = key.rpartition(".")
    beside = [name for name in known if name.rpartition(".")[0] == place]
    for names in (beside, known):  # what is in the same table is meant sooner
        by_last = {name.rpartition(".")[2]: name for name in names}
        if near := difflib.get_close_matches(last, by_last, n=1):
            return f"; did you mean {by_last[near[0]]}?"
    return ""

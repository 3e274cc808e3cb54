"""The configuration of an experiment: one tree of tables, TOML in and TOML out.

Each section is declared in the package whose rules it configures. This module combines the
sections. The description of a field stands beside its declaration, and
`esl train --help-config` prints it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

import tomli_w
from pydantic import Field, model_validator

from esl_lava import tomlfile
from esl_lava.data.config import EVENT_SETS, FRAME_FIELDS, OWN, Data, Encoding
from esl_lava.errors import ConfigError
from esl_lava.models.config import NETWORKS, Model, MultiSpike, to_notation
from esl_lava.sparsity.config import Sparsity
from esl_lava.tomlfile import FieldError, TomlTable
from esl_lava.training.config import Training

_ONLY_VALUES = {"voltage_decay": 0.0, "threshold": 1.0, "tau_grad": 0.5, "scale_grad": 1.0}
"""Former fields of a single_spike network that recorded files may hold -> their only value."""


class Experiment(TomlTable):
    """All settings that a run depends on, except the data and the versions of the software."""

    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = Field(
        1,
        description="Random seed of the initial weights, the masks, the validation split, the "
        "order of the samples, and their random shifts and mirror images.",
    )
    data: Data = Data()
    encoding: Encoding = Encoding()
    model: Model = MultiSpike()
    sparsity: Sparsity
    training: Training = Training()

    @model_validator(mode="before")
    @classmethod
    def _fill_in_dense_layers(cls, values: object) -> object:
        """Fill in `sparsity.keep_dense`, whose default depends on the kind of network."""
        if not isinstance(values, dict):
            return values
        model, sparsity = values.get("model"), values.get("sparsity")
        if not (isinstance(model, dict) and isinstance(sparsity, dict)):
            return values
        kind = NETWORKS.get(str(model.get("kind")))
        if kind is None or "keep_dense" in sparsity:
            return values
        layers = model.get("layers", kind.model_fields["layers"].default)
        return {**values, "sparsity": {**sparsity, "keep_dense": kind.default_dense_layers(layers)}}

    @model_validator(mode="after")
    def _check_combinations(self) -> Experiment:
        has_events, makes_frames = self.data.name in EVENT_SETS, self.encoding.kind == "frames"
        if self.data.name == OWN:
            self.encoding.check_own_samples()
        elif has_events != makes_frames:
            raise FieldError(
                f"encoding.kind {self.encoding.kind!r}: data.name {self.data.name!r} holds "
                + (
                    "event recordings, which need the kind 'frames'"
                    if has_events
                    else "images, which the kind 'frames' cannot encode"
                ),
                "conflict",
                key="encoding.kind",
                value=self.encoding.kind,
                limit="frames" if has_events else None,
            )
        self.model.check_sections(self.encoding, self.training)
        return self

    @model_validator(mode="after")
    def _check_dense_epochs(self) -> Experiment:
        dense, epochs = self.sparsity.dense_epochs, self.training.epochs
        if dense >= epochs:
            raise FieldError(
                f"sparsity.dense_epochs {dense} is not below training.epochs {epochs}: "
                "the network would never become sparse",
                "conflict",
                key="sparsity.dense_epochs",
                value=dense,
                limit=epochs - 1,
            )
        return self


def from_mapping(values: Mapping[str, object]) -> Experiment:
    """Validate nested plain values and return the experiment.

    Raises:
        ConfigError: if a key or a value is wrong. There is one fault for each, with key, value
            and limit. The sentence for an unknown key suggests the nearest known key.
    """
    try:
        return tomlfile.validate(Experiment, values, _suggest)
    except tomlfile.Faults as error:
        raise ConfigError.of(error.faults) from None


def from_toml(text: str, origin: str = "configuration", *, recorded: bool = False) -> Experiment:
    """Parse and validate TOML and return the experiment.

    Args:
        text: the TOML text.
        origin: the name of the text in errors.
        recorded: whether an earlier run wrote the text. Such a text may have any form that
            existing files hold; the text of a user must have the current form.

    Raises:
        ConfigError: on a syntax error, with its line, or a fault as in `from_mapping`.
    """
    values = tomlfile.parse(text, origin)
    try:
        return tomlfile.validate(Experiment, _upgrade(values) if recorded else values, _suggest)
    except tomlfile.Faults as error:
        raise ConfigError.of(error.in_file(origin)) from None


def read_toml(path: Path, *, recorded: bool = False) -> Experiment:
    """Read the experiment in a TOML file, as `from_toml` does.

    Raises:
        FileError: if the file cannot be read or is too large.
        ConfigError: as in `from_toml`.
    """
    return from_toml(tomlfile.read_text(path, str(path)), str(path), recorded=recorded)


def to_toml(experiment: Experiment) -> str:
    """Return the experiment as TOML. It contains the defaults and omits fields without a value."""
    return tomli_w.dumps(experiment.model_dump(mode="json", exclude_none=True))


def _upgrade(values: Mapping[str, object]) -> Mapping[str, object]:
    """Convert recorded values to the current form.

    A recorded file may give the hidden layers as a list of their widths. For a single_spike
    network it may contain the fields `_ONLY_VALUES`, which this kind no longer has.
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
    if "layers" not in kept and (layers := to_notation(kept.get("hidden"))):
        kept = {("layers" if key == "hidden" else key): value for key, value in kept.items()}
        kept["layers"] = layers
    return {**values, "model": kept}


def override(experiment: Experiment, settings: Mapping[str, object]) -> Experiment:
    """Return the experiment with the values of dotted keys replaced.

    Setting `sparsity.density`, `sparsity.eps` or `sparsity.densities` (or a key in it) removes
    the other two. A new `model.kind` keeps the values of the fields that both kinds have and
    removes the other fields. A new `encoding.kind` removes the fields that only some kinds have.
    Setting `data.name` removes `data.folder`. If `sparsity.keep_dense` has its default value, it
    becomes the default of the new network.

    Args:
        experiment: the experiment; it is not changed.
        settings: dotted key -> new value, for example {"training.epochs": 5}.

    Raises:
        ConfigError: as in `from_mapping`.
    """
    values = experiment.model_dump(mode="json", exclude_none=True)
    budgets = {"density", "eps", "densities"}
    if experiment.sparsity.keep_dense == experiment.model.default_dense_layers(
        experiment.model.layers
    ):
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
            for field in ("bits", *FRAME_FIELDS):
                values["encoding"].pop(field, None)
    for key, value in settings.items():
        *tables, last = key.split(".")
        table: object = values
        for name in tables:
            table = table.setdefault(name, {}) if isinstance(table, dict) else None
        if not isinstance(table, dict):
            parent = ".".join(tables)
            raise ConfigError(f"{key}: {parent} is a value, not a table", "unknown", key=key)
        table[last] = value
    return from_mapping(values)


def parse_setting(text: str) -> tuple[str, object]:
    """Return the key and the value of the text `key=value`.

    The value is TOML; a bare word is a string.

    Raises:
        ConfigError: if the text has no '=' or no key.
    """
    key, separator, raw = text.partition("=")
    if not separator or not key.strip():
        raise ConfigError(f"setting {text!r} is not of the form key=value", "type", value=text)
    return key.strip(), tomlfile.parse_value(raw)


def documentation(
    section: type[TomlTable] = Experiment, prefix: str = ""
) -> Iterator[tuple[str, str, str]]:
    """Yield (dotted key, default, description) of every field in a section and its subsections.

    If `kind` selects the table of a subsection, the fields of all its kinds are listed.

    Args:
        section: the section whose fields are listed.
        prefix: dotted path of the section, with a dot at its end; empty for the whole experiment.

    Yields:
        The default is a text, which is empty if the field is required or its default is None.
    """
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


def _suggest(key: str, table: type[TomlTable]) -> str:
    """Return the hint that follows an unknown key in an error; empty if there is none.

    If another kind of network has the key, the hint says that this kind does not. Otherwise it is
    "; did you mean X?", where X is the known key or table whose last part is most similar to the
    last part of `key`.

    Args:
        key: the unknown key, dotted.
        table: the table that contains it.
    """
    known = list(dict.fromkeys(name for name, _, _ in documentation()))
    if key in known:
        return f": model.kind {table.model_fields['kind'].default!r} does not have this key"
    known += sorted({name.partition(".")[0] for name in known})
    parent, _, last = key.rpartition(".")
    siblings = [name for name in known if name.rpartition(".")[0] == parent]
    for names in (siblings, known):  # a key of the same table is more likely meant
        by_last = {name.rpartition(".")[2]: name for name in names}
        if near := difflib.get_close_matches(last, by_last, n=1):
            return f"; did you mean {by_last[near[0]]}?"
    return ""

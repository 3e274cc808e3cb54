import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esl_lava.config import (
    Experiment,
    documentation,
    from_mapping,
    from_toml,
    override,
    parse_setting,
    read_toml,
    to_toml,
)
from esl_lava.data.config import FRAME_FIELDS
from esl_lava.errors import ConfigError, Fault, FileError
from esl_lava.models.config import to_notation
from esl_lava.tomlfile import MAX_BYTES
from tests.faults import check, refused

LEAST = "[sparsity]\ndensity = 0.1\n"

SINGLE = """
[sparsity]
eps = 2.0
[encoding]
kind = "two_times"
steps = 63
[model]
kind = "single_spike"
current_decay = 0.04
"""


def faults(text: str) -> tuple[Fault, ...]:
    """Return the faults of a text. Each is one line that begins with the name of the file."""
    with pytest.raises(ConfigError) as caught:
        from_toml(text, "run.toml")
    for fault in caught.value.faults:
        check(fault, fault.code, file="run.toml")
        assert fault.sentence.startswith("run.toml: ")
    assert str(caught.value).split("\n") == [fault.sentence for fault in caught.value.faults]
    return caught.value.faults


def only(text: str) -> Fault:
    """Return the only fault of a text."""
    (fault,) = faults(text)
    return fault


def plain(experiment: Experiment) -> dict:
    return experiment.model_dump()


positive = st.floats(min_value=0, exclude_min=True, allow_nan=False, allow_infinity=False)
fraction = st.floats(0, 1)


CONVOLUTIONAL = LEAST + "[model]\nkind = 'convolutional'\n[training]\n"


@st.composite
def experiments(draw):
    budget = draw(
        st.one_of(
            st.fixed_dictionaries({"density": st.floats(0, 1, exclude_min=True)}),
            st.fixed_dictionaries({"eps": positive}),
        )
    )
    text = st.text(st.characters(blacklist_categories=["Cs"]))
    sections = {
        "data": {
            "name": st.sampled_from(["digits", "mnist", "cifar10", "cifar100"]),
            "validation": st.floats(0, 1, exclude_max=True),
        },
        "encoding": {
            "kind": st.sampled_from(["rate", "latency", "constant", "direct"]),
            "steps": st.integers(1, 4096),
        },
        "model": {
            "layers": st.lists(st.integers(1, 1 << 20), min_size=1, max_size=64).map(to_notation),
            "current_decay": fraction,
            "voltage_decay": fraction,
            "threshold": st.integers(1, 2048 * 64 - 1).map(lambda n: n / 64),
            "tau_grad": positive,
            "scale_grad": positive,
            "weight_scale": positive,
        },
        "sparsity": {
            "distribution": st.sampled_from(["er", "uniform"]),
            "keep_dense": st.lists(text, max_size=3),
            "alpha": fraction,
            "t_iter": st.integers(min_value=1),
            "end": fraction,
        },
        "training": {
            "epochs": st.integers(1, 100_000),
            "batch_size": st.integers(1, 65_536),
            "learning_rate": st.floats(0, 1000, exclude_min=True),
        },
    }
    values = {
        name: draw(st.fixed_dictionaries({}, optional=fields)) for name, fields in sections.items()
    }
    values["sparsity"] |= budget
    values["seed"] = draw(st.integers(0, (1 << 63) - 1))
    return from_mapping(values)


@pytest.mark.slow
@given(experiments())
@settings(max_examples=100, deadline=None)
def test_toml_and_back(experiment):
    assert from_toml(to_toml(experiment)) == experiment
    assert to_toml(from_toml(to_toml(experiment))) == to_toml(experiment)
    assert override(experiment, {}) == experiment


FRAMES = LEAST + "[data]\nname = 'nmnist'\n[encoding]\nkind = 'frames'\n"
OF_SOME_ENCODINGS = tuple(f"encoding.{name}" for name in ("bits", *FRAME_FIELDS))


def test_defaults_are_written_out():
    text = to_toml(from_toml(LEAST))
    for key in documented("multi_spike"):
        last = key.rpartition(".")[2]
        # LEAST has a density and no direct coding.
        absent = key in ("data.folder", "sparsity.eps", "sparsity.densities", *OF_SOME_ENCODINGS)
        assert (f"\n{last} = " in f"\n{text}") != absent, key


def documented(kind: str) -> dict[str, tuple[str, str]]:
    """Return key -> (default, description), with the model fields of one kind of network."""
    fields: dict[str, tuple[str, str]] = {}
    current = ""
    for key, default, description in documentation():
        current = default if key == "model.kind" else current
        if not key.startswith("model.") or current == kind:
            assert key not in fields, "once"
            fields[key] = default, description
    return fields


@pytest.mark.parametrize("text", [LEAST, SINGLE])
def test_every_field_is_documented_once(text):
    experiment = from_toml(text)
    tree = plain(experiment)
    expected = {
        name if not isinstance(value, dict) else f"{name}.{field}"
        for name, value in tree.items()
        for field in (value if isinstance(value, dict) else [None])
    }
    fields = documented(experiment.model.kind)
    assert set(fields) == expected
    for key, (_, description) in fields.items():
        assert description[0].isupper(), key
        assert description.endswith("."), key


@pytest.mark.parametrize("text", [LEAST, SINGLE])
def test_documented_defaults_are_the_defaults(text):
    experiment = from_toml(text)
    tree = plain(experiment)
    for key, (default, _) in documented(experiment.model.kind).items():
        table, _, last = key.rpartition(".")
        value = (tree[table] if table else tree)[last]
        if default == "":
            others = ("data.folder", "model.current_decay", *OF_SOME_ENCODINGS)
            assert key.startswith("sparsity.") or key in others
        elif f"\n{last} = " not in text:
            assert default == str(list(value) if isinstance(value, tuple) else value), key


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("epochs = 3", "training.epochs"),
        ("sede = 3", "seed"),
        ("[trainig]\nepochs = 3", "training"),
        ("[training]\nepoch = 3", "training.epochs"),
        ("[training]\nlearning-rate = 3", "training.learning_rate"),
        ("[model]\ntreshold = 3", "model.threshold"),
        ("[model]\nsteps = 3", "encoding.steps"),
        ("[encoding]\nname = 'mnist'", "data.name"),
        ("[sparsity]\ndensty = 0.1", "sparsity.density"),
    ],
)
def test_unknown_keys_suggest_the_nearest(text, near):
    suggested = [f for f in faults(text) if f"; did you mean {near}?" in f.sentence]
    assert [f.code for f in suggested] == ["unknown"]


def test_unknown_keys_without_a_near_one_suggest_nothing():
    key, *_ = [f for f in faults("[sparsity]\nfoo = 3\n[model]\nbar = 1") if "foo" in f.sentence]
    assert key.sentence.endswith("unknown key sparsity.foo")
    fault = only("[sparsity]\ndensity = 1\nfoo.bar = 3")
    check(fault, "unknown", key="sparsity.foo")
    assert fault.sentence == "run.toml: unknown key sparsity.foo"


def test_unknown_keys_cannot_forge_output():
    for text in (
        f'"a\\nb\\u001b[31m" = 1\n{LEAST}',
        '[sparsity.densities]\n"a\\nb\\u001b[31m" = 2',
    ):
        sentence = only(text).sentence
        assert "\x1b" not in sentence
        assert "\n" not in sentence
    assert len(only(f"{'x' * 5000} = 1\n{LEAST}").sentence) < 200
    assert len(only(f"[sparsity.densities]\n{'x' * 5000} = 2").sentence) < 250


@pytest.mark.parametrize(
    ("text", "code", "key", "value", "limit"),
    [
        ("[sparsity]\ndensity = 0", "range", "sparsity.density", 0, 0),
        ("[sparsity]\ndensity = 1.5", "range", "sparsity.density", 1.5, 1),
        ("[sparsity]\ndensity = 1e-400", "range", "sparsity.density", 0.0, 0),
        (LEAST + "alpha = -0.1", "range", "sparsity.alpha", -0.1, 0),
        (LEAST + "t_iter = 0", "range", "sparsity.t_iter", 0, 1),
        (LEAST + "[encoding]\nsteps = 5000", "range", "encoding.steps", 5000, 4096),
        (LEAST + "[encoding]\nkind = 'direct'\nbits = 1", "range", "encoding.bits", 1, 2),
        (LEAST + "[encoding]\nkind = 'direct'\nbits = 9", "range", "encoding.bits", 9, 8),
        (FRAMES + "crop = -1", "range", "encoding.crop", -1, 0),
        (FRAMES + "side = 0", "range", "encoding.side", 0, 1),
        (LEAST + "[encoding]\nside = 4", "conflict", "encoding.side", 4, None),
        (
            LEAST + "[encoding]\nkind = 'frames'",
            *("conflict", "encoding.kind", "frames", None),
        ),
        (
            LEAST + "[data]\nname = 'nmnist'",
            *("conflict", "encoding.kind", "rate", "frames"),
        ),
        (LEAST + "[encoding]\nbits = 5", "conflict", "encoding.bits", 5, None),
        (LEAST + "[data]\nvalidation = 1", "range", "data.validation", 1, 1),
        (LEAST + "[data]\nfolder = 'x'", "conflict", "data.folder", "x", None),
        (LEAST + "[model]\nthreshold = 2048", "range", "model.threshold", 2048, 2048),
        (LEAST + "[training]\nlearning_rate = 0", "range", "training.learning_rate", 0, 0),
        (
            LEAST + "[training]\nlearning_rate = 1e38",
            *("range", "training.learning_rate", 1e38, 1000),
        ),
        ("seed = 9223372036854775808\n" + LEAST, "range", "seed", 1 << 63, 1 << 63),
        ("seed = -1\n" + LEAST, "range", "seed", -1, 0),
        (
            LEAST + "dense_epochs = 5\n[training]\nepochs = 5",
            *("conflict", "sparsity.dense_epochs", 5, 4),
        ),
        (
            LEAST + "[training]\ndevice = 'cuda'",
            *("unsupported", "training.device", "cuda", "cpu"),
        ),
        (
            CONVOLUTIONAL + "engine = 'slayer'",
            *("conflict", "training.engine", "slayer", ("fused", "sparse", "auto")),
        ),
        (
            CONVOLUTIONAL + "device = 'cuda'\nengine = 'sparse'",
            *("conflict", "training.engine", "sparse", "fused"),
        ),
    ],
)
def test_faults_name_key_value_and_limit(text, code, key, value, limit):
    fault = only(text)
    check(fault, code, key=key, value=value, limit=limit)
    assert str(value) in fault.sentence


@pytest.mark.parametrize(
    ("layers", "parts"),
    [
        ("'0'", ["'0'", "1048576"]),
        ("'5-2097152'", ["2097152", "1048576"]),
        ("''", ["''"]),
        ("'8-5X3'", ["'5X3'"]),
        (f"'{'-'.join('1' * 65)}'", ["64"]),
        ("-5", ["''"]),
    ],
)
def test_layers_that_are_none_are_named(layers, parts):
    fault = only(f"{LEAST}[model]\nlayers = {layers}")
    check(fault, fault.code, key="model.layers")
    for part in parts:
        assert part in fault.sentence


@pytest.mark.parametrize("key", ["encoding.kind", "model.kind", "sparsity.growth"])
def test_names_that_are_unknown(key):
    check(only(f"sparsity.density = 0.1\n{key} = 'burst'"), "unknown", key=key, value="burst")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("training.epochs", "true"),
        ("training.epochs", '"8"'),
        ("training.epochs", "8.0"),
        ("training.epochs", "[8]"),
        ("seed", "true"),
        ("training.learning_rate", "true"),
        ("training.learning_rate", '"0.1"'),
        ("model.threshold", "1979-05-27"),
        ("model.layers", "[8]"),
        ("model.layers", "8.0"),
        ("model.layers", "true"),
        ("model.layers", "07:32:00"),
        ("model.layers", "1979-05-27T07:32:00Z"),
        ("model.layers", "{ a = 8 }"),
        ("model.kind", "1"),
        ("model.kind", "[1]"),
        ("model", "3"),
        ("model", "[]"),
        ("sparsity.keep_dense", "'readout'"),
        ("sparsity.keep_dense", "[1]"),
        ("data.name", "1"),
        ("data", "3"),
        ("data", "[]"),
    ],
)
def test_types_are_those_of_toml(key, value):
    fault = only(f"{key} = {value}\nsparsity.density = 0.1")
    assert fault.code in ("type", "unknown")
    assert fault.key is not None
    assert fault.key.startswith(key)  # the key of an item of a list is longer


def test_integers_are_floats_and_arrays_are_tuples():
    experiment = from_toml(LEAST + "alpha = 1\nkeep_dense = []\n[training]\nlearning_rate = 1")
    assert type(experiment.sparsity.alpha) is float
    assert type(experiment.training.learning_rate) is float
    assert experiment.sparsity.keep_dense == ()


@pytest.mark.parametrize("value", ["nan", "+nan", "inf", "-inf", "1e400"])
@pytest.mark.parametrize(
    "key",
    [
        "data.validation",
        "model.current_decay",
        "model.voltage_decay",
        "model.threshold",
        "model.tau_grad",
        "model.scale_grad",
        "model.weight_scale",
        "sparsity.density",
        "sparsity.eps",
        "sparsity.alpha",
        "sparsity.end",
        "training.learning_rate",
    ],
)
def test_floats_are_finite(key, value):
    budget = "" if key in ("sparsity.density", "sparsity.eps") else "sparsity.density = 0.1"
    check(only(f"{key} = {value}\n{budget}"), "not-finite", key=key)


@pytest.mark.parametrize("threshold", [1 / 64, 0.5, 1, 1.015625, 2047 + 63 / 64])
def test_thresholds_on_the_grid(threshold):
    assert from_toml(f"{LEAST}[model]\nthreshold = {threshold}").model.threshold == threshold


@pytest.mark.parametrize("threshold", [0.3, 1.01, 1 / 64 + 1e-15, 2047.99])
def test_thresholds_off_the_grid(threshold):
    fault = only(f"{LEAST}[model]\nthreshold = {threshold}")
    check(fault, "range", key="model.threshold", value=threshold, limit="multiple of 1/64")


def test_a_single_spike_network():
    experiment = from_toml(SINGLE)
    assert from_toml(to_toml(experiment)) == experiment
    assert from_toml(SINGLE.replace("two_times", "latency")).encoding.kind == "latency"
    assert from_toml(SINGLE.replace("63", "489")).encoding.steps == 489  # 19.96 time constants


@pytest.mark.parametrize(
    ("old", "new", "code", "key", "value"),
    [
        *(
            ("two_times", kind, "conflict", "encoding.kind", kind)
            for kind in ("rate", "constant", "direct")
        ),
        ("decay = 0.04", "decay = 1.0", "range", "model.current_decay", 1.0),
        ("decay = 0.04", "decay = 0.0001", "range", "model.current_decay", 0.0001),
        ("current_decay = 0.04", "", "missing", "model.current_decay", None),
        *(
            ("[model]", f"[model]\n{key} = 2", "unknown", f"model.{key}", None)
            for key in ("voltage_decay", "threshold", "tau_grad", "scale_grad", "treshold")
        ),
        ("steps = 63", "steps = 490", "conflict", "encoding.steps", 490),
        ('"single_spike"', '"spike"', "unknown", "model.kind", "spike"),
        ("[model]", "[training]\nengine = 'auto'\n[model]", "conflict", "training.engine", "auto"),
        (
            "[model]",
            "[training]\ntet_lambda = 0.5\n[model]",
            "conflict",
            "training.tet_lambda",
            0.5,
        ),
    ],
)
def test_what_a_single_spike_network_cannot_be(old, new, code, key, value):
    assert old in SINGLE
    check(only(SINGLE.replace(old, new)), code, key=key, value=value)


def test_the_longest_sample_of_a_single_spike_network_is_the_limit():
    fault = only(SINGLE.replace("steps = 63", "steps = 490"))
    assert fault.limit == 489
    assert from_toml(SINGLE.replace("steps = 63", "steps = 489")).encoding.steps == 489


def test_a_field_of_another_kind_is_not_a_spelling_mistake():
    threshold = only(SINGLE.replace("[model]", "[model]\nthreshold = 2"))
    assert "'single_spike' does not have" in threshold.sentence
    treshold = only(SINGLE.replace("[model]", "[model]\ntreshold = 2"))
    assert treshold.sentence.endswith("; did you mean model.threshold?")


def test_a_budget_is_needed():
    check(only("seed = 1"), "missing", key="sparsity")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("seed = ", "end of document"),
        ("\n\nseed ! 3", "line 3"),
        ("[sparsity\ndensity = 1", "line 1"),
        ("seed = 1\nseed = 2", "overwrite"),
        ("seed = .1", "line 1, column 8"),
        ("\x00", "line 1"),
    ],
)
def test_bad_toml_names_the_place(text, place):
    fault = only(text)
    check(fault, "damaged")
    assert place in fault.sentence


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        f"seed = {'9' * 6000}",  # more digits than Python reads
        f"seed = 0x{'f' * 100_000}",  # readable, but too long to print in decimal
        "seed = " + "[" * 100_000,
        f"seed{'.a' * 100_000} = 1",
        f"seed{'.a' * 500} = 1",
        f"seed{'.a' * 100} = 1",
        f"seed{' . a' * 101} = 1",
        f"seed{'.a' * 400_000}",  # no value
        f"data = {{x{'.a' * 400_000}",
        f"'=,#'{'.a' * 400_000}",
        f'data = {{x = """\n""", a{".a" * 400_000} = ""}}',
        f"data = {{x{'.a' * 100_000} = 1}}",
        f"[data{'.a' * 100_000}]",
        "a = {" * 50_000,
        f"[training]\nlearning_rate = 1{'0' * 400}",
        f"[model]\nhidden = [{'0,' * 20_000}]",
        f"[model]\nhidden = [{'1,' * 20_000}]",
        f"[model]\nhidden = [0x{'f' * 100_000}]",
        f"[model]\nlayers = '{'1-' * 20_000}'",
        f"[model]\nlayers = '{'1' * 20_000}'",
        f"[model]\nlayers = 0x{'f' * 100_000}",
        f"[model]\nkind = 0x{'f' * 100_000}",
        "[model]\n" + "".join(f"key{i} = 1\n" for i in range(20_000)),
    ],
    ids=lambda text: text[:12],
)
def test_monstrous_toml_is_one_error(text):
    sentences = [fault.sentence for fault in faults(text)]
    assert len(sentences) <= 21
    assert len("\n".join(sentences)) < 5000


def test_dots_that_are_no_keys_are_many_as_you_like():
    comment = f"   # {'.' * 500}"
    text = f"{LEAST}\n{comment}\n[data]\nvalidation = 0.1 {comment}"
    assert from_toml(text) == from_toml(LEAST)
    assert parse_setting(f"a=[{'0.5, ' * 200}]") == ("a", [0.5] * 200)


@pytest.mark.slow
def test_a_mapping_may_be_monstrous_too():
    deep: dict = {}
    array: list = []
    for _ in range(100_000):
        deep, array = {"data": deep}, [array]
    for values in (deep, {"seed": array}, {"seed": 10**5000}, {"seed": -(10**5000)}):
        with pytest.raises(ConfigError):
            from_mapping({"sparsity": {"density": 1}} | values)


def test_override_replaces_values_and_converts_as_toml():
    experiment = from_toml(LEAST)
    changed = override(experiment, {"training.epochs": 3, "seed": 9, "model.layers": "5-6"})
    assert (changed.training.epochs, changed.seed, changed.model.layers) == (3, 9, "5-6")
    assert experiment == from_toml(LEAST)
    assert override(experiment, {"data": {"name": "mnist"}}).data.name == "mnist"


def test_own_samples_may_lie_in_a_folder():
    experiment = from_toml(LEAST)
    own = override(experiment, {"data.name": "own", "data.folder": "some/where"})
    assert (own.data.name, own.data.folder) == ("own", "some/where")
    assert from_toml(to_toml(own)) == own
    # Setting data.name removes the folder.
    assert override(own, {"data.name": "digits"}) == experiment
    assert override(own, {"data.name": "own"}).data.folder is None
    assert override(own, {"training.epochs": 3}).data == own.data
    with refused(ConfigError, "conflict", key="data.folder", value="x"):
        override(experiment, {"data.folder": "x"})


def test_own_samples_are_pictures_or_frames_as_they_are():
    own = override(from_toml(LEAST), {"data.name": "own"})
    framed = override(own, {"encoding.kind": "frames", "encoding.bits": 3})
    assert framed.encoding.input_range == (0, 7)
    for field, value in (("split", "number"), ("crop", 1), ("side", 8)):
        with refused(ConfigError, "conflict", key=f"encoding.{field}", value=value):
            override(framed, {f"encoding.{field}": value})


def test_another_encoding_drops_what_only_some_have():
    framed = override(
        from_toml(LEAST), {"data.name": "nmnist", "encoding.kind": "frames", "encoding.bits": 2}
    )
    assert override(framed, {"encoding.kind": "frames"}) == framed
    changed = override(framed, {"data.name": "digits", "encoding.kind": "rate"})
    assert changed == from_toml(LEAST)


def test_override_of_one_budget_removes_the_other():
    by_density = from_toml("[sparsity]\ndensity = 0.1\nalpha = 0.5")
    by_eps = override(by_density, {"sparsity.eps": 20})
    assert (by_eps.sparsity.density, by_eps.sparsity.eps) == (None, 20.0)
    assert by_eps.sparsity.alpha == 0.5
    assert override(by_eps, {"sparsity.density": 0.1}) == by_density
    with refused(ConfigError, "conflict", key="sparsity.density"):
        override(by_density, {"sparsity.density": 0.2, "sparsity.eps": 20})


@pytest.mark.parametrize(
    ("key", "value", "code", "shown"),
    [
        ("training.epoch", 3, "unknown", "did you mean training.epochs?"),
        ("seed.x", 3, "unknown", "seed is a value, not a table"),
        ("seed.x.y", 3, "unknown", "seed.x is a value, not a table"),
        ("training.epochs", True, "type", "True"),
        ("", 3, "unknown", "unknown key"),
        ("..", 3, "unknown", "unknown key"),
    ],
)
def test_override_refuses(key, value, code, shown):
    with pytest.raises(ConfigError) as caught:
        override(from_toml(LEAST), {key: value})
    (fault,) = caught.value.faults
    check(fault, code)
    assert shown in fault.sentence
    assert fault.key in (key, key.partition(".")[0])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("training.epochs=3", ("training.epochs", 3)),
        (" training.epochs = 3 ", ("training.epochs", 3)),
        ("training.learning_rate=1e-3", ("training.learning_rate", 1e-3)),
        ("data.name=mnist", ("data.name", "mnist")),
        ('data.name="mnist"', ("data.name", "mnist")),
        ("model.layers=8-9", ("model.layers", "8-9")),
        ("a=b=c", ("a", "b=c")),
        ("a=", ("a", "")),
        ("seed=1\nsneaked = 2", ("seed", "1\nsneaked = 2")),
        (f"seed={'9' * 6000}", ("seed", "9" * 6000)),
        (f"seed={'[' * 9000}", ("seed", "[" * 9000)),
    ],
)
def test_parse_setting(text, expected):
    assert parse_setting(text) == expected


@pytest.mark.parametrize("text", ["", "seed", "=3", "  = 3"])
def test_parse_setting_needs_key_and_value(text):
    with refused(ConfigError, "type", value=text):
        parse_setting(text)


@given(st.text() | st.text("[]{}=.,#'\"\\\n 0aeu"))
@settings(max_examples=100, deadline=None)
def test_any_text_parses_or_raises_a_config_error(text):
    try:
        experiment = from_toml(text)
    except ConfigError:
        return
    assert from_toml(to_toml(experiment)) == experiment


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@pytest.mark.slow
@given(st.sampled_from([key for key, _, _ in documentation()] + ["model", "sparsity"]), json_like)
@settings(max_examples=200, deadline=None)
def test_any_value_fits_or_raises_a_config_error(key, value):
    try:
        experiment = override(from_toml(LEAST), {key: value})
    except ConfigError:
        return
    assert from_toml(to_toml(experiment)) == experiment


def test_read_toml(tmp_path):
    path = tmp_path / "run.toml"
    path.write_bytes(b"seed = 5\r\n" + LEAST.encode())
    assert read_toml(path).seed == 5
    path.write_bytes(b"sede = 5\n" + LEAST.encode())
    with refused(ConfigError, "unknown", key="sede", file=str(path)):
        read_toml(path)


def test_read_toml_refuses_files(tmp_path):
    path = tmp_path / "run.toml"
    with refused(FileError, "not-found", file=str(path)):
        read_toml(path)
    with refused(FileError, "unreadable", file=str(tmp_path)):
        read_toml(tmp_path)
    path.write_bytes(b'seed = "\xff"')
    with refused(FileError, "damaged", file=str(path)) as caught:
        read_toml(path)
    assert "line 1" in str(caught.value)
    path.write_bytes(LEAST.encode().ljust(MAX_BYTES + 1, b"#"))
    with refused(FileError, "too-large", file=str(path), limit=MAX_BYTES):
        read_toml(path)


def test_sections_are_immutable():
    experiment = from_toml(LEAST)
    with pytest.raises(ValueError, match="frozen"):
        experiment.seed = 3
    with pytest.raises(ValueError, match="frozen"):
        experiment.training.epochs = 3


@pytest.mark.parametrize(
    ("hidden", "end"),
    [
        ("[24, 12]", 'model.layers = "24-12"'),
        ("[8]", 'model.layers = "8"'),
        ("8", 'model.layers, for example "800-400" for 800 and 400 neurons'),
        ("[]", 'model.layers, for example "800-400" for 800 and 400 neurons'),
    ],
)
def test_hidden_widths_are_told_how_they_are_written(hidden, end):
    fault = only(f"{LEAST}[model]\nhidden = {hidden}")
    check(fault, "unknown", key="model.hidden")
    assert fault.sentence.endswith(end)
    _, value = parse_setting(f"model.hidden={hidden}")
    with refused(ConfigError, "unknown", key="model.hidden", value=value):
        override(from_toml(LEAST), {"model.hidden": value})


@pytest.mark.parametrize("text", ["800", "800-400", "1200-10-12", "1"])
def test_layers_need_no_quotes_on_a_command_line(text):
    key, value = parse_setting(f"model.layers={text}")
    assert override(from_toml(LEAST), {key: value}).model.layers == text


def test_another_kind_keeps_what_it_has_too():
    single = {"model.kind": "single_spike", "model.current_decay": 0.05, "encoding.kind": "latency"}
    wide = from_toml(LEAST + "[model]\nlayers = '9-8'\nthreshold = 2\nweight_scale = 3")
    once = override(wide, single)
    assert once.model.model_dump() == {
        "kind": "single_spike",
        "layers": "9-8",
        "current_decay": 0.05,
        "weight_scale": 3.0,
    }
    back = override(once, {"model.kind": "multi_spike"})
    assert (back.model.layers, back.model.current_decay) == ("9-8", 0.05)
    assert back.model.threshold == 1.0
    for wrong in ("spike", 3, [1], None):
        with refused(ConfigError, "unknown", key="model.kind", value=wrong):
            override(wide, {"model.kind": wrong})


def test_bits_come_and_go_with_direct_coding():
    plain = from_toml(LEAST)
    assert plain.encoding.bits is None
    assert "bits" not in to_toml(plain)
    direct = override(plain, {"encoding.kind": "direct"})
    assert direct.encoding.bits == 5
    assert "bits = 5" in to_toml(
        direct
    )  # a later change of the default does not change a recorded run
    few = override(direct, {"encoding.bits": 3})
    assert override(few, {"encoding.steps": 2}).encoding.bits == 3
    assert override(few, {"encoding.kind": "direct"}).encoding.bits == 3
    assert override(few, {"encoding.kind": "rate"}).encoding == plain.encoding
    framed = from_toml(FRAMES)
    assert (framed.encoding.split, framed.encoding.crop) == ("time", 0)
    assert (framed.encoding.side, framed.encoding.bits) == (None, None)
    assert framed.encoding.input_range == (0, 1)
    assert from_toml(to_toml(framed)) == framed
    counted = override(framed, {"encoding.bits": 3, "encoding.split": "number"})
    assert (counted.encoding.input_range, counted.encoding.split) == ((0, 7), "number")

    for both in ({"encoding.kind": "rate", "encoding.bits": 4}, {"encoding.bits": 4}):
        with refused(ConfigError, "conflict", key="encoding.bits", value=4):
            override(plain, both)


RECORDED = """
seed = 3
[data]
name = "digits"
[encoding]
kind = "two_times"
steps = 21
[model]
kind = "single_spike"
hidden = [
    24,
    12,
]
current_decay = 0.12
voltage_decay = 0.0
threshold = 1.0
tau_grad = 0.5
scale_grad = 1.0
weight_scale = 2.0
[sparsity]
density = 0.4
"""


def test_recorded_configurations_stay_readable(tmp_path):
    once = from_toml(RECORDED, recorded=True)
    assert (once.model.kind, once.model.layers, once.model.weight_scale) == (
        "single_spike",
        "24-12",
        2.0,
    )
    (tmp_path / "config.toml").write_text(RECORDED)
    assert read_toml(tmp_path / "config.toml", recorded=True) == once
    multi = RECORDED.replace("single_spike", "multi_spike").replace("voltage_decay = 0.0", "")
    again = from_toml(multi, recorded=True)
    assert (again.model.layers, again.model.voltage_decay) == ("24-12", 0.5)
    for experiment in (once, again):
        assert from_toml(to_toml(experiment), recorded=True) == experiment
        assert from_toml(to_toml(experiment)) == experiment
    only(RECORDED)  # a fault in the text of a user


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("threshold = 1.0", "threshold = 2.0", "model.threshold"),
        ("voltage_decay = 0.0", "voltage_decay = 0.5", "model.voltage_decay"),
        ("    24,\n", "    0,\n", "model.hidden"),
        ("    24,\n", "    24.5,\n", "model.hidden"),
        ("[model]", "[model]\nlayers = '3'", "model.hidden"),
        ("[model]", "[modle]", "modle"),
    ],
)
def test_recorded_configurations_are_checked_too(old, new, key):
    assert old in RECORDED
    with pytest.raises(ConfigError) as caught:
        from_toml(RECORDED.replace(old, new), recorded=True)
    assert ("unknown", key) in [(fault.code, fault.key) for fault in caught.value.faults]

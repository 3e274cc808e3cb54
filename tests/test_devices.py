import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from esl_lava.devices import SIZE_LIMIT, DenseOperation, Device, device_names, load_device
from esl_lava.errors import ConfigError, FileError

EVENTS = """
name = "mine"
title = "My chip"
maker = "me"
charges = "events"
notes = ["a note"]

[energy.sop]
value = 2
unit = "pJ"
kind = "measured"
operating_point = "1 V"
source = "my bench"
"""

DENSE = """
name = "mine"
title = "My GPU"
maker = "me"
charges = "dense"

[energy.operation]
watts = 3
peak_ops_per_second = 2e12
ops_per_connection = 2
kind = "peak"
operating_point = "peak"
source = "my data sheet"
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


# name -> energy key -> (value in pJ, or watts, peak and operations; kind)
BUNDLED = {
    "loihi1_davies2018": {
        "sop": (23.6, "simulated"),
        "neuron_update": (81.0, "simulated"),
        "spike": (1.7, "simulated"),
    },
    "loihi1_sanafe": {
        "sop": (33.6, "fitted"),
        "neuron_update": (72.8, "fitted"),
        "spike": (69.3, "fitted"),
    },
    "truenorth_measured": {"sop": (26.0, "measured")},
    "truenorth_paper": {"sop": (12.516, "fitted")},
    "v100_paper": {"operation": ((250.0, 14e12, 1), "peak")},
}


def test_bundled_names_are_sorted_and_complete() -> None:
    assert device_names() == tuple(BUNDLED)


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_constants(name: str) -> None:
    device = load_device(name)
    assert device.name == name
    stated = {
        key: (
            (c.watts, c.peak_ops_per_second, c.ops_per_connection)
            if isinstance(c, DenseOperation)
            else c.value,
            c.kind,
        )
        for key, c in device.constants.items()
    }
    assert stated == BUNDLED[name]
    assert device.notes
    for constant in device.constants.values():
        assert constant.operating_point
        assert constant.source


def test_joules_of_an_operation_are_computed_from_power_and_rate() -> None:
    operation = load_device("v100_paper").constant("operation")
    assert operation.joules(1) == 250 / 14e12
    assert f"{operation.joules(1) * 1e12:.3f}" == "17.857"


def test_own_file_by_path(tmp_path: Path) -> None:
    path = write(tmp_path, EVENTS)
    for given in (path, str(path)):
        device = load_device(given)
        assert device.title == "My chip"
        assert device.process is None
        assert device.notes == ("a note",)
        assert device.constant("sop").joules(500) == 1e-9


def test_own_dense_file_charges_its_operations_per_connection(tmp_path: Path) -> None:
    assert load_device(write(tmp_path, DENSE)).constant("operation").joules(1000) == 3e-9


def test_file_of_exactly_the_size_limit_loads(tmp_path: Path) -> None:
    filled = EVENTS + "#" * (SIZE_LIMIT - len(EVENTS))
    assert load_device(write(tmp_path, filled)).name == "mine"
    with pytest.raises(FileError, match=f"mine.toml: larger than the {SIZE_LIMIT} bytes"):
        load_device(write(tmp_path, filled + "#"))


def test_devices_are_immutable() -> None:
    device = load_device("v100_paper")
    with pytest.raises(ValidationError, match="frozen"):
        device.name = "other"  # type: ignore[misc]


def test_an_absent_constant_is_unknown_and_refuses(tmp_path: Path) -> None:
    device = load_device(write(tmp_path, EVENTS))
    assert list(device.constants) == ["sop"]
    with pytest.raises(ConfigError, match=r"device mine states no constant energy\.spike"):
        device.constant("spike")


@pytest.mark.parametrize(
    ("wanted", "nearest"),
    [("loihi1_sanfe", "loihi1_sanafe"), ("v100", "v100_paper"), ("truenorth", "truenorth_paper")],
)
def test_unknown_device_suggests_the_nearest_and_lists_all(wanted: str, nearest: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_device(wanted)
    message = str(caught.value)
    assert f"unknown device '{wanted}'; did you mean {nearest}?" in message
    assert ", ".join(device_names()) in message


def test_unknown_device_without_a_near_name() -> None:
    with pytest.raises(ConfigError, match=r"unknown device '' \(known: loihi1_davies2018"):
        load_device("")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("value = 2", "value = -1", "energy.sop.value = -1: input should be greater than 0"),
        ("value = 2", "value = 0", "energy.sop.value = 0: input should be greater than 0"),
        ("value = 2", "value = nan", "energy.sop.value = nan: input should be a finite number"),
        ("value = 2", "value = inf", "energy.sop.value = inf: input should be a finite number"),
        ("value = 2", "value = 1e31", "energy.sop.value = 1e+31: input should be less than"),
        ("value = 2", f"value = 1{'0' * 400}", "energy.sop.value = 1000"),
        ("value = 2", "value = true", "energy.sop.value = True: input should be a valid number"),
        ("value = 2", 'value = "2"', "energy.sop.value = '2': input should be a valid number"),
        ("value = 2", "vaule = 2", "unknown key energy.sop.vaule; did you mean value? (known: "),
        ("value = 2", "", "energy.sop.value is missing"),
        ('"pJ"', '"nJ"', "energy.sop.unit = 'nJ': input should be 'pJ'"),
        ('"measured"', '"guessed"', "energy.sop.kind = 'guessed': input should be 'measured', "),
        ('"my bench"', '" "', "energy.sop.source = ' ': string should have at least 1 character"),
        ('"1 V"', '""', "energy.sop.operating_point = '': string should have at least 1"),
        ("energy.sop", "energy.sops", "unknown key energy.sops; did you mean sop? (known: sop, "),
        ("maker", "makr", "unknown key makr; did you mean maker? (known: name, title, "),
        ("[energy.sop]", "[[energy.sop]]", "should be a table"),
        ('["a note"]', '"a note"', "notes = 'a note': should be a list"),
        ('["a note"]', "[3]", "notes.0 = 3: input should be a valid string"),
        ('"events"', '"event"', "charges = 'event': input should be 'events', 'dense' or 'memory'"),
        ('"events"', '"dense"', 'energy.sop means nothing with charges = "dense"'),
    ],
)
def test_bad_keys_and_values_are_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    path = write(tmp_path, EVENTS.replace(old, new))
    with pytest.raises(ConfigError, match=re.escape(said)) as caught:
        load_device(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("watts = 3", "watts = 0", "energy.operation.watts = 0: input should be greater than 0"),
        ("= 2e12", "= nan", "energy.operation.peak_ops_per_second = nan: input should be a finite"),
        ("connection = 2", "connection = 3", "ops_per_connection = 3: input should be less than"),
        ("connection = 2", "connection = 0", "ops_per_connection = 0: input should be greater"),
        ("connection = 2", "connection = true", "ops_per_connection = True: input should be a"),
        ('"dense"', '"events"', 'energy.operation means nothing with charges = "events"'),
        ("watts = 3", "value = 3", "unknown key energy.operation.value"),
    ],
)
def test_bad_dense_files_are_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        load_device(write(tmp_path, DENSE.replace(old, new)))


def test_all_mistakes_of_a_file_are_reported_at_once(tmp_path: Path) -> None:
    text = EVENTS.replace("value = 2", "value = -2").replace("title", "titel")
    with pytest.raises(ConfigError) as caught:
        load_device(write(tmp_path, text))
    for said in ("energy.sop.value = -2", "title is missing", "unknown key titel"):
        assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a = 1\nb = [1,\nc", "line 3"),
        ("a = " + "[" * 100_000, "nested too deeply"),
        ("a = 1" + "0" * 5000, "5001 digits"),
        ("a = 1\na = 2\n", "line 2"),
    ],
    ids=["syntax", "nesting", "digits", "twice"],
)
def test_what_is_not_toml_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(FileError, match=rf"mine\.toml: not valid TOML: .*{said}"):
        load_device(write(tmp_path, text))


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    latin = tmp_path / "latin.toml"
    latin.write_bytes(b"name = '\xff'")
    with pytest.raises(FileError, match=r"latin\.toml: not UTF-8 text \(byte 8\)"):
        load_device(latin)
    folder = tmp_path / "folder.toml"
    folder.mkdir()
    for path in (folder, tmp_path / "absent.toml", "nul\0.toml"):
        with pytest.raises(FileError, match="no such file"):
            load_device(path)
    with pytest.raises(FileError, match="cannot be read"):
        load_device("x" * 5000 + ".toml")


def test_a_device_may_state_no_constant_at_all(tmp_path: Path) -> None:
    text = EVENTS.split("[energy.sop]")[0] + "[energy]\n"
    device = load_device(write(tmp_path, text))
    assert isinstance(device, Device)
    assert device.constants == {}

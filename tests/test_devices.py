import copy
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from pydantic import ValidationError

from esl_lava.devices import (
    CHARGED_KEYS,
    MOST,
    DenseOperation,
    Device,
    device_names,
    load_device,
    with_constants,
    with_utilisation,
)
from esl_lava.errors import ConfigError, FileError
from esl_lava.tomlfile import MAX_BYTES
from tests.faults import check, refused

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
BUNDLED: dict[str, dict[str, object]] = {
    "a100_sxm4": {"operation": ((400.0, 19.5e12, 2), "peak")},
    "arm_cortex_a": {"neuron_update": (900.0, "reported"), "mac": (900.0, "reported")},
    "cmos45_fp16": {"sop": (0.4, "simulated"), "mac": (1.5, "simulated")},
    "cmos45_fp32": {"sop": (0.9, "simulated"), "mac": (4.6, "simulated")},
    "cmos45_int32": {"sop": (0.1, "simulated"), "mac": (3.2, "simulated")},
    "cmos45_int8": {"sop": (0.03, "simulated"), "mac": (0.23, "simulated")},
    "cpu_i7_4960x": {"neuron_update": (8600.0, "reported"), "mac": (8600.0, "reported")},
    "gpu_titan_black": {"neuron_update": (300.0, "reported"), "mac": (300.0, "reported")},
    "h100_pcie": {"operation": ((350.0, 51e12, 2), "peak")},
    "h100_sxm5": {"operation": ((700.0, 66.9e12, 2), "peak")},
    "lemaire_int32": {"add": (0.1, "simulated"), "multiply": (3.1, "simulated")},
    "lemaire_int32_packed": {"add": (0.1, "simulated"), "multiply": (3.1, "simulated")},
    "lemaire_int32_piecewise": {"add": (0.1, "simulated"), "multiply": (3.1, "simulated")},
    "lemaire_int8": {"add": (0.03, "simulated"), "multiply": (0.2, "simulated")},
    "loihi1": {},
    "loihi1_davies2018": {
        "sop": (23.6, "simulated"),
        "neuron_update": (81.0, "simulated"),
        "neuron_update_inactive": (52.0, "simulated"),
        "spike": (1.7, "simulated"),
    },
    "loihi1_kerasspiking": {"sop": (27.1, "simulated"), "neuron_update": (81.0, "simulated")},
    "loihi1_sanafe": {
        "sop": (33.6, "fitted"),
        "neuron_update": (72.8, "fitted"),
        "neuron_update_inactive": (51.2, "fitted"),
        "spike": (69.3, "fitted"),
        "message": (111.0, "fitted"),
    },
    "loihi2": {},
    "rolls": {"sop": (0.077, "reported")},
    "spinnaker1": {"sop": (13300.0, "reported"), "neuron_update": (26000.0, "reported")},
    "spinnaker2": {"sop": (450.0, "reported"), "neuron_update": (2190.0, "reported")},
    "truenorth_best": {"sop": (2.5, "measured")},
    "truenorth_measured": {"sop": (26.0, "measured")},
    "truenorth_paper": {"sop": (12.516, "fitted")},
    "v100_paper": {"operation": ((250.0, 14e12, 1), "peak")},
    "v100_pcie": {"operation": ((250.0, 14e12, 2), "peak")},
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
    assert device.chip
    for constant in device.constants.values():
        assert constant.operating_point
        assert constant.source
        if constant.kind == "reported":
            assert "not read" in constant.source


@pytest.mark.parametrize(
    ("name", "limits"),
    [
        ("loihi1", (128, 1024, 4096, 4096, 16384 * 64)),
        ("loihi2", (128, 4095, 16000, 16000, 12000 * 32)),
    ],
)
def test_bundled_capacities(name: str, limits: tuple[int, ...]) -> None:
    capacity = load_device(name).capacity
    assert capacity is not None
    bits = capacity.synapse_words.value * capacity.word_bits
    stated = (capacity.cores, capacity.neurons, capacity.input_axons, capacity.output_axons)
    assert (*(limit.value for limit in stated), bits) == limits
    assert all(limit.source for limit in stated)


def test_files_of_loihi_1_agree_where_they_say_the_same() -> None:
    first, *others = (load_device(n) for n in ("loihi1", "loihi1_davies2018", "loihi1_sanafe"))
    assert all(other.static == first.static for other in others)
    assert first.time == load_device("loihi1_sanafe").time


def test_spans_hold_what_sources_say() -> None:
    names = ("truenorth_measured", "loihi1_sanafe")
    measured, sanafe = (load_device(name).event("sop") for name in names)
    assert (measured.least, measured.most) == (21.7, 28.1)
    assert (sanafe.least, sanafe.most) == (24.0, 35.5)
    alone = load_device("rolls").event("sop")
    assert alone.least == alone.most == alone.value


def test_own_constants_replace_and_add() -> None:
    device = with_constants(load_device("loihi2"), {"sop": 20.0, "spike": 3.0})
    assert device.charges == "events"
    assert device.event("sop").joules(1000) == 2e-8
    assert device.event("spike").kind == "assumed"
    assert device.capacity == load_device("loihi2").capacity
    assert with_constants(load_device("rolls"), {"sop": 1.0}).event("sop").value == 1.0
    with refused(ConfigError, "range", key="energy.sop.value", value=0.0, limit=0) as caught:
        with_constants(device, {"sop": 0.0})
    assert str(caught.value).startswith("device loihi2: ")
    with refused(ConfigError, "conflict", key="energy.add", limit=CHARGED_KEYS["events"]):
        with_constants(device, {"add": 1.0})


def test_utilisation_and_operations_of_a_gpu_can_be_set() -> None:
    full = load_device("a100_sxm4")
    assert with_utilisation(full) is full
    tenth = with_utilisation(full, 0.1, 1)
    assert tenth.constant("operation").joules(100) == pytest.approx(100 * 400 / 19.5e11)
    assert with_utilisation(load_device("rolls"), 0.1).constants == load_device("rolls").constants
    key = "energy.operation.utilisation"
    with refused(ConfigError, "range", key=key, value=0.0, limit=0) as caught:
        with_utilisation(full, 0.0)
    assert str(caught.value).startswith("device a100_sxm4: ")


def test_an_operation_of_a_gpu_is_not_an_event() -> None:
    with refused(ConfigError, "type", key="energy.operation") as caught:
        load_device("a100_sxm4").event("operation")
    assert "device a100_sxm4" in str(caught.value)


LEMAIRE = """
name = "mine"
title = "t"
maker = "m"
charges = "memory"
[energy.add]
value = 1
unit = "pJ"
kind = "measured"
operating_point = "o"
source = "s"
[memory]
value_bits = 8
LINES
known_to_bytes = 1024
kind = "measured"
operating_point = "o"
source = "s"
"""
LINE = "pj = 2\npj_per_bit = 0.0"
POINTS = "at_bytes = [0, 8, 16]\npj_at = [0, 10, 30]"


@pytest.mark.parametrize(
    ("lines", "values", "bits", "memory_bits", "picojoules"),
    [
        ("pj = 2\npj_per_bit = 0.5", 10, 8, 16, 100.0),
        (f"{LINE}\naccess_bits = 64", 16, 8, 1 << 30, 4.0),
        (f"{LINE}\naccess_bits = 8", 16, 12, 0, 64.0),  # two accesses each
        (POINTS, 1, 8, 0, 0.0),
        (POINTS, 1, 8, 32, 5.0),
        (POINTS, 1, 8, 12 * 8, 20.0),
        (POINTS, 2, 8, 1 << 20, 60.0),
    ],
)
def test_memory_is_priced_by_a_line_or_between_points(
    tmp_path: Path, lines: str, values: float, bits: int, memory_bits: float, picojoules: float
) -> None:
    memory = load_device(write(tmp_path, LEMAIRE.replace("LINES", lines))).memory
    assert memory is not None
    assert memory.picojoules(values, bits, memory_bits) == picojoules


@pytest.mark.parametrize(
    ("old", "new", "code", "fields"),
    [
        ("LINES", "pj = 2", "conflict", {"key": "memory"}),
        ("LINES", f"{LINE}\nat_bytes = [1]\npj_at = [1]", "conflict", {"key": "memory"}),
        (
            *("LINES", "at_bytes = [2, 1]\npj_at = [1, 2]", "range"),
            {"key": "memory.at_bytes", "value": [2, 1]},
        ),
        (
            *("LINES", "at_bytes = [1, 2]\npj_at = [1]", "range"),
            {"key": "memory.at_bytes", "value": [1, 2]},
        ),
        (
            *("LINES", f"{LINE}\naccess_bits = 0", "range"),
            {"key": "memory.access_bits", "value": 0, "limit": 0},
        ),
        ('"memory"', '"events"', "conflict", {"key": "energy.add"}),
    ],
)
def test_bad_prices_of_memory_are_named(
    tmp_path: Path, old: str, new: str, code: str, fields: dict[str, object]
) -> None:
    path = write(tmp_path, LEMAIRE.replace(old, new).replace("LINES", LINE))
    with refused(ConfigError, code, file=str(path), **fields):
        load_device(path)


MEMORY = f"""
[memory]
value_bits = 8
{LINE}
known_to_bytes = 1
kind = "peak"
operating_point = "o"
source = "s"
"""


@pytest.mark.parametrize(
    ("text", "key", "code", "value", "limit"),
    [
        (EVENTS.replace('charges = "events"', ""), "charges", "missing", None, tuple(CHARGED_KEYS)),
        (
            *(EVENTS.replace("value = 2", "value = 2\nlow = 3"), "energy.sop.value"),
            *("range", 2, 3),
        ),
        (
            *(EVENTS.replace("value = 2", "value = 2\nhigh = 1"), "energy.sop.value"),
            *("range", 2, 1),
        ),
        (EVENTS + MEMORY, "memory", "conflict", None, None),
        (EVENTS + "[static]\nwatts = 1\nper = 'board'", "static.per", "unknown", "board", ...),
        (EVENTS + "[time.sop]\nvalue = 1\nunit = 'us'", "time.sop.unit", "unknown", "us", ...),
        (EVENTS + "[capacity]\npacking = 'nxtf'", "capacity.cores", "missing", ..., ...),
    ],
)
def test_bad_tables_are_named(
    tmp_path: Path, text: str, key: str, code: str, value: object, limit: object
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_device(write(tmp_path, text))
    (fault,) = (fault for fault in caught.value.faults if fault.key == key)
    fields = {"value": value, "limit": limit}
    check(fault, code, **{name: field for name, field in fields.items() if field is not ...})


def test_joules_of_an_operation_are_computed_from_power_and_rate() -> None:
    operation = load_device("v100_paper").constant("operation")
    assert operation.joules(1) == 250 / 14e12
    assert f"{operation.joules(1) * 1e12:.3f}" == "17.857"


def test_own_file_by_path(tmp_path: Path) -> None:
    path = write(tmp_path, EVENTS)
    for argument in (path, str(path)):
        device = load_device(argument)
        assert device.title == "My chip"
        assert device.process is None
        assert device.notes == ("a note",)
        assert device.constant("sop").joules(500) == 1e-9


def test_own_dense_file_charges_its_operations_per_connection(tmp_path: Path) -> None:
    assert load_device(write(tmp_path, DENSE)).constant("operation").joules(1000) == 3e-9


def test_file_of_exactly_the_size_limit_loads(tmp_path: Path) -> None:
    filled = EVENTS + "#" * (MAX_BYTES - len(EVENTS))
    assert load_device(write(tmp_path, filled)).name == "mine"
    path = write(tmp_path, filled + "#")
    with refused(FileError, "too-large", limit=MAX_BYTES, file=str(path)):
        load_device(path)


def test_devices_are_immutable() -> None:
    device = load_device("v100_paper")
    with pytest.raises(ValidationError, match="frozen"):
        device.name = "other"  # type: ignore[misc]


def test_an_absent_constant_is_unknown_and_refuses(tmp_path: Path) -> None:
    device = load_device(write(tmp_path, EVENTS))
    assert list(device.constants) == ["sop"]
    with refused(ConfigError, "missing", key="energy.spike") as caught:
        device.constant("spike")
    assert "device mine" in str(caught.value)
    assert "--constant spike=PICOJOULES" in str(caught.value)


def test_an_absent_constant_is_found_in_other_files_of_the_chip() -> None:
    others = "loihi1_davies2018, loihi1_kerasspiking, loihi1_sanafe"
    with refused(ConfigError, "missing", key="energy.sop", limit=others) as caught:
        load_device("loihi1").constant("sop")
    assert f"use another device of Loihi 1 ({others})" in str(caught.value)


def test_no_option_is_advised_that_a_device_does_not_take() -> None:
    with refused(ConfigError, "missing", key="energy.sop") as caught:
        load_device("v100_paper").constant("sop")
    assert "--constant" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("loihi1_sanfe", "loihi1_sanafe"), ("v100", "v100_pcie"), ("truenorth", "truenorth_best")],
)
def test_unknown_device_suggests_the_nearest_and_lists_all(name: str, nearest: str) -> None:
    with refused(ConfigError, "unknown", value=name, limit=device_names()) as caught:
        load_device(name)
    message = str(caught.value)
    assert f"'{name}'; did you mean {nearest}?" in message
    assert ", ".join(device_names()) in message


def test_unknown_device_without_a_near_name() -> None:
    with refused(ConfigError, "unknown", value="", limit=device_names()) as caught:
        load_device("")
    assert "did you mean" not in str(caught.value)


SOP = "energy.sop"
BAD_KEYS = [
    ("value = 2", "value = -1", f"{SOP}.value", "range", -1, 0),
    ("value = 2", "value = 0", f"{SOP}.value", "range", 0, 0),
    ("value = 2", "value = nan", f"{SOP}.value", "not-finite", ..., None),
    ("value = 2", "value = inf", f"{SOP}.value", "not-finite", math.inf, None),
    ("value = 2", "value = 1e31", f"{SOP}.value", "range", 1e31, MOST),
    ("value = 2", f"value = 1{'0' * 400}", f"{SOP}.value", ..., 10**400, ...),
    ("value = 2", "value = true", f"{SOP}.value", "type", True, None),
    ("value = 2", 'value = "2"', f"{SOP}.value", "type", "2", None),
    ("value = 2", "vaule = 2", f"{SOP}.vaule", "unknown", None, None),
    ("value = 2", "", f"{SOP}.value", "missing", None, None),
    ('"pJ"', '"nJ"', f"{SOP}.unit", "unknown", "nJ", ...),
    ('"measured"', '"guessed"', f"{SOP}.kind", "unknown", "guessed", ...),
    ('"my bench"', '" "', f"{SOP}.source", "range", " ", 1),
    ('"1 V"', '""', f"{SOP}.operating_point", "range", "", 1),
    ("energy.sop", "energy.sops", "energy.sops", "unknown", None, None),
    ("maker", "makr", "makr", "unknown", None, None),
    ("[energy.sop]", "[[energy.sop]]", SOP, "type", ..., None),
    ('["a note"]', '"a note"', "notes", "type", "a note", None),
    ('["a note"]', "[3]", "notes.0", "type", 3, None),
    ('"events"', '"event"', "charges", "unknown", "event", ...),
    ('"events"', '"dense"', SOP, "conflict", None, CHARGED_KEYS["dense"]),
]
"""Text of a file, its replacement, key, code, value and limit of the fault; ... for any."""


def named(path: Path, key: str | None, code: Any, value: object, limit: object) -> str:
    """Load a bad file, check its fault of that key, and return the whole text of the error."""
    with pytest.raises(ConfigError) as caught:
        load_device(path)
    (fault,) = (fault for fault in caught.value.faults if fault.key == key)
    fields = {"value": value, "limit": limit, "file": str(path)}
    code = fault.code if code is ... else code
    check(fault, code, **{name: field for name, field in fields.items() if field is not ...})
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value)


@pytest.mark.parametrize(("old", "new", "key", "code", "value", "limit"), BAD_KEYS)
def test_bad_keys_and_values_are_named(
    tmp_path: Path, old: str, new: str, key: str, code: Any, value: object, limit: object
) -> None:
    named(write(tmp_path, EVENTS.replace(old, new)), key, code, value, limit)


@pytest.mark.parametrize(
    ("old", "new", "hint"),
    [
        ("value = 2", "vaule = 2", "did you mean value? (known: "),
        ("energy.sop", "energy.sops", "did you mean sop? (known: sop, "),
        ("maker", "makr", "did you mean maker? (known: name, title, "),
    ],
)
def test_the_nearest_key_is_suggested(tmp_path: Path, old: str, new: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_device(write(tmp_path, EVENTS.replace(old, new)))
    assert hint in str(caught.value)


OPERATION = "energy.operation"


@pytest.mark.parametrize(
    ("old", "new", "key", "code", "value", "limit"),
    [
        ("watts = 3", "watts = 0", f"{OPERATION}.watts", "range", 0, 0),
        ("= 2e12", "= nan", f"{OPERATION}.peak_ops_per_second", "not-finite", ..., None),
        ("connection = 2", "connection = 3", f"{OPERATION}.ops_per_connection", "range", 3, 2),
        ("connection = 2", "connection = 0", f"{OPERATION}.ops_per_connection", "range", 0, 1),
        (
            *("connection = 2", "connection = true", f"{OPERATION}.ops_per_connection"),
            *("type", True, None),
        ),
        ('"dense"', '"events"', OPERATION, "conflict", None, CHARGED_KEYS["events"]),
        ("watts = 3", "value = 3", f"{OPERATION}.value", "unknown", None, None),
    ],
)
def test_bad_dense_files_are_named(
    tmp_path: Path, old: str, new: str, key: str, code: str, value: object, limit: object
) -> None:
    named(write(tmp_path, DENSE.replace(old, new)), key, code, value, limit)


def test_all_mistakes_of_a_file_are_reported_at_once(tmp_path: Path) -> None:
    text = EVENTS.replace("value = 2", "value = -2").replace("title", "titel")
    with pytest.raises(ConfigError) as caught:
        load_device(write(tmp_path, text))
    assert {(fault.key, fault.code) for fault in caught.value.faults} == {
        ("energy.sop.value", "range"),
        ("title", "missing"),
        ("titel", "unknown"),
    }


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a = 1\nb = [1,\nc", "line 3"),
        ("a = " + "[" * 100_000, "nested too deeply"),
        ("a = 1" + "0" * 5000, "5001 digits"),
        ("a = 1\na = 2\n", "line 2"),
    ],
    ids=["syntax", "nesting", "digits", "twice"],
)
def test_what_is_not_toml_is_refused(tmp_path: Path, text: str, place: str) -> None:
    path = write(tmp_path, text)
    with refused(ConfigError, "damaged", file=str(path)) as caught:
        load_device(path)
    assert place in str(caught.value)


@pytest.mark.parametrize(
    ("text", "key", "code"),
    [
        ("name = 0x" + "f" * 100_000, "name", "type"),
        ("notes = [0x" + "f" * 100_000 + "]", "notes.0", "type"),
        (EVENTS.replace("value = 2", "value = 0x" + "f" * 100_000), "energy.sop.value", ...),
        ("".join(f"k{i} = 1\n" for i in range(9000)), None, "too-large"),
        ('"\\u001b[31m" = 1', r"'\x1b[31m'", "unknown"),
    ],
    ids=["text", "list", "number", "keys", "escape"],
)
def test_monstrous_values_are_short_sentences(
    tmp_path: Path, text: str, key: str | None, code: Any
) -> None:
    assert len(named(write(tmp_path, text), key, code, ..., ...)) < 5000


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    latin = tmp_path / "latin.toml"
    latin.write_bytes(b"name = '\xff'")
    with refused(FileError, "damaged", file=str(latin)) as caught:
        load_device(latin)
    assert "line 1" in str(caught.value)
    folder = tmp_path / "folder.toml"
    folder.mkdir()
    for path in (folder, tmp_path / "absent.toml", "nul\0.toml"):
        with refused(FileError, "not-found", file=str(path)):
            load_device(path)
    with refused(FileError, "unreadable", file="x" * 5000 + ".toml"):
        load_device("x" * 5000 + ".toml")


def test_a_device_may_state_no_constant_at_all(tmp_path: Path) -> None:
    text = EVENTS.split("[energy.sop]")[0] + "[energy]\n"
    device = load_device(write(tmp_path, text))
    assert isinstance(device, Device)
    assert device.constants == {}


def numbers(table: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Return the places of all numbers of a device file."""
    items = table.items() if isinstance(table, dict) else enumerate(table)
    for key, value in items:
        if isinstance(value, (dict, list)):
            yield from numbers(value, (*place, key))
        elif isinstance(value, (int, float)):
            yield (*place, key)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["loihi1_sanafe", "loihi1", "v100_paper", "lemaire_int32"])
@pytest.mark.parametrize("number", ["nan", "inf", "-inf", "1e308", "-1"])
def test_no_number_of_a_file_is_beyond_what_is_finite(name, number, tmp_path):
    path = tmp_path / "chip.toml"
    content = load_device(name).model_dump(exclude_none=True, mode="json")
    places = list(numbers(content))
    assert places
    for *tables, key in places:
        changed = copy.deepcopy(content)
        table = changed
        for step in tables:
            table = table[step]
        table[key] = -1 if number == "-1" else float(number)
        path.write_text(tomli_w.dumps(changed))
        with pytest.raises(ConfigError) as caught:
            load_device(path)
        assert all(fault.file == str(path) for fault in caught.value.faults)


def test_an_operation_takes_a_finite_energy():
    content = load_device("v100_paper").model_dump(exclude_none=True)
    for rate in (1e-320, 1e-17):
        content["energy"]["operation"]["peak_ops_per_second"] = rate
        with pytest.raises(ValidationError, match=r"more than 1e\+30 pJ an operation"):
            Device.model_validate(content)
    content["energy"]["operation"]["peak_ops_per_second"] = 1e-15
    device = Device.model_validate(content)
    assert math.isfinite(device.constant("operation").joules(1 << 60))
    # Both are small, and their product is 0.
    content["energy"]["operation"] |= {"peak_ops_per_second": 1e-300, "watts": 5e-324}
    small = Device.model_validate(content)
    with refused(ConfigError, "range", key="energy.operation", value=math.inf, limit=MOST):
        with_utilisation(small, 1e-300)

"""A model can be read from its file unchanged, and nothing in a file is run as code."""

import contextlib
import copy
import hashlib
import io
import math
import os
import pickle
import resource
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from esl_lava import modelfile
from esl_lava.errors import FileError
from esl_lava.modelfile import SavedModel, archive, contents, read, write
from esl_lava.models.restore import as_tensors
from tests.attacks.attack import read_apart
from tests.faults import check

CONFIG = "[sparsity]\ndensity = 0.5\n[model]\nlayers = '3'"
WEIGHT = torch.arange(-3.0, 3.0).reshape(3, 2, 1, 1, 1)


def saved(**parts) -> SavedModel:
    parts = {
        "weights": {"hidden1.synapse.weight": WEIGHT},
        "masks": {"hidden1": WEIGHT != 0},
        "ever": {"hidden1": WEIGHT != 7},
        "history": [{"epoch": 1, "loss": 0.5, "densities": {"hidden1": 0.4}}],
    } | parts
    return SavedModel(config=CONFIG, **parts)


def assert_same(a, b, place="top"):
    """Assert equal values, types, dtypes and orders of keys at all depths; a tensor is an array."""
    a, b = (v.detach().numpy() if isinstance(v, torch.Tensor) else v for v in (a, b))
    assert type(a) is type(b), place
    if isinstance(a, np.ndarray):
        assert a.dtype == b.dtype, place
        assert a.shape == b.shape, place
        assert np.array_equal(a, b), place
    elif isinstance(a, dict):
        assert list(a) == list(b), place
        for key in a:
            assert_same(a[key], b[key], f"{place}[{key!r}]")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), place
        for index, (x, y) in enumerate(zip(a, b)):
            assert_same(x, y, f"{place}[{index}]")
    elif isinstance(a, float):
        assert struct.pack("d", a) == struct.pack("d", b), place
    else:
        assert a == b, place


def through_file(state, folder: Path):
    write(saved(state=state), folder / "model.pt")
    return read(folder / "model.pt").state


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.pt"


@pytest.fixture
def model_bytes(path):
    write(saved(state={"generator": torch.arange(9, dtype=torch.uint8)}), path)
    return path.read_bytes()


# --- Writing and reading. ------------------------------------------------------------------


def test_every_part_comes_back(path):
    before = saved(state={"iteration": 7}, package="9.9")
    write(before, path)
    after = read(path)
    assert (after.config, after.package) == (CONFIG, "9.9")
    for name in ("weights", "masks", "ever", "history", "state"):
        assert_same(getattr(before, name), getattr(after, name), name)
    assert saved().package


@pytest.mark.slow
@pytest.mark.parametrize(
    "dtype",
    [
        torch.float16,
        torch.float32,
        torch.float64,
        torch.int8,
        torch.int16,
        torch.int32,
        torch.int64,
        torch.uint8,
        torch.bool,
    ],
)
def test_tensors_of_every_dtype_and_shape(dtype, tmp_path):
    some = torch.tensor([[0, 1, 3], [4, 0, 6]]).to(dtype)
    state = {
        "some": some,
        "scalar": torch.tensor(1).to(dtype),
        "empty": torch.zeros(0, dtype=dtype),
        "rows": torch.zeros((3, 0), dtype=dtype),
        "columns": torch.zeros((0, 3), dtype=dtype),
        "deep": torch.zeros((2, 0, 4), dtype=dtype),
        "ones": torch.ones((1, 3, 1), dtype=dtype),
    }
    assert_same(through_file(state, tmp_path), state)
    views = {
        "transposed": some.t(),
        "column": some[:, 1],
        "every other": some[:, ::2],
        "row": some[1],
        "expanded": some[0].expand(4, 3),
        "column of one": torch.ones((3, 1), dtype=dtype).t(),
        "reversed": some.flip(0),
    }
    back = through_file(views, tmp_path)
    assert_same(back, views)
    assert all(array.flags.c_contiguous and array.flags.writeable for array in back.values())


def test_special_values(tmp_path):
    state = {"floats": [math.nan, math.inf, -math.inf, -0.0, 5e-324]}
    state["tensor"] = torch.tensor(state["floats"]).nan_to_num(3.0)
    assert_same(through_file(state, tmp_path), state)


def test_adam_after_a_step(tmp_path):
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)

    def step(optimizer):
        optimizer.zero_grad()
        model(torch.arange(3.0)).square().sum().backward()
        optimizer.step()

    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    step(optimizer)
    state = optimizer.state_dict()
    assert set(state["state"]) == {0, 1}, "integers as keys"
    assert state["param_groups"][0]["betas"] == (0.9, 0.999)
    assert state["param_groups"][0]["foreach"] is None
    back = through_file({"optimizer": state, "rng": torch.get_rng_state()}, tmp_path)
    assert_same(back, {"optimizer": state, "rng": torch.get_rng_state()})

    start = copy.deepcopy(model.state_dict())
    step(optimizer)
    expected = model.weight.detach().clone()
    model.load_state_dict(start)
    resumed = torch.optim.Adam(model.parameters(), lr=0.5)
    resumed.load_state_dict(as_tensors(back["optimizer"]))
    step(resumed)
    assert torch.equal(model.weight, expected)


texts = st.text(st.characters(blacklist_categories=["Cs"]))
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(texts | st.integers(0, 65535), inner, max_size=4)
    ),
    max_leaves=8,
)


@pytest.mark.slow
@given(state=st.dictionaries(texts, plain, max_size=4))
def test_any_plain_state_comes_back(state, tmp_path):
    assert_same(through_file(state, tmp_path), state)


def test_relatives_of_plain_types_become_plain(tmp_path):
    class Text(str):
        pass

    state = {
        "text": Text("x"),
        "float": np.float64(0.5),
        "ordered": OrderedDict(a=1),
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    back = through_file(state, tmp_path)
    assert_same(back, {"text": "x", "float": 0.5, "ordered": {"a": 1}, "parameter": torch.ones(2)})


# --- The same content gives the same bytes. ------------------------------------------------


def test_bytes_do_not_depend_on_the_name(tmp_path):
    names = ["model.pt", "a-rather-long-name.checkpoint", "x"]
    for name in names:
        write(saved(), tmp_path / name)
    assert len({(tmp_path / name).read_bytes() for name in names}) == 1
    assert len({modelfile.digest(tmp_path / name) for name in names}) == 1


def test_bytes_do_not_depend_on_who_made_the_objects(tmp_path):
    """Shared texts, lists and storages do not change the bytes, nor does reading and writing."""
    word = "".join(["lo", "ss of ", "memory"])
    values = torch.arange(12.0)
    shared = ["a", 1]
    first = saved(
        history=[{word: 0.5}, {word: 0.25}],
        state={"views": [values[:4], values[4:8]], "twice": [shared, shared], "again": word},
    )
    second = saved(
        history=[{"loss of memory": 0.5}, {" ".join(["loss", "of", "memory"]): 0.25}],
        state={
            "views": [values[:4].clone(), values[4:8].clone()],
            "twice": [["a", 1], ["a", 1]],
            "again": "loss of memory",
        },
    )
    written = []
    for model in (first, second):
        write(model, tmp_path / "model.pt")
        written.append((tmp_path / "model.pt").read_bytes())
        write(read(tmp_path / "model.pt"), tmp_path / "model.pt")
        written.append((tmp_path / "model.pt").read_bytes())
    assert len(set(written)) == 1


def test_layout_does_not_show(tmp_path):
    even = torch.arange(6.0).reshape(2, 3)
    odd = even.t().contiguous().t()
    column, odd_column = torch.ones(3, 1), torch.ones(1, 3).t()
    assert (even.stride(), column.stride()) != (odd.stride(), odd_column.stride())
    written = []
    for tensors in ([even, column], [odd, odd_column]):
        write(saved(state={"tensors": tensors}), tmp_path / "model.pt")
        written.append((tmp_path / "model.pt").read_bytes())
    assert written[0] == written[1]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [*archive.STORAGES.values()])
def test_arrays_and_tensors_give_the_same_bytes(dtype, tmp_path):
    some = np.array([[0, 1, 3], [4, 0, 6]]).astype(dtype)
    frozen = some.copy()
    frozen.flags.writeable = False
    arrays = {
        "some": some,
        "transposed": some.T,
        "reversed": some[::-1, ::-1],
        "every other": some[:, ::2],
        "scalar": np.array(1, dtype),
        "empty": np.zeros((3, 0, 2), dtype),
        "column of one": np.ones((1, 3), dtype).T,
        "expanded": np.broadcast_to(some[0], (4, 3)),
        "frozen": frozen,
    }
    tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
    written = []
    for state in (arrays, tensors):
        write(saved(state=state), tmp_path / "model.pt")
        written.append((tmp_path / "model.pt").read_bytes())
    assert written[0] == written[1]
    assert_same(read(tmp_path / "model.pt").state, tensors)


def test_a_view_does_not_drag_its_storage_along(path):
    write(saved(state={"view": torch.zeros(1_000_000)[:1]}), path)
    assert path.stat().st_size < 10_000


def test_writing_changes_nothing(path):
    model = saved()
    weight = model.weights["hidden1.synapse.weight"].requires_grad_()
    try:
        write(model, path)
        assert weight.requires_grad
        assert model.weights["hidden1.synapse.weight"] is weight
    finally:
        weight.requires_grad_(False)


# --- Unreadable values are not written, and writing is all or nothing. -----------------------


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (object(), "object"),
        ({1, 2}, "set"),
        (b"x", "bytes"),
        (1j, "complex"),
        (np.float32(1), "float32"),
        (np.zeros(2, complex), "complex128"),
        (np.zeros(2, ">f4"), ">f4"),
        (np.array([None]), "object"),
        (torch.float32, "dtype"),
        (torch.zeros(2, dtype=torch.bfloat16), "bfloat16"),
        (torch.zeros(2, dtype=torch.complex64), "complex64"),
        (torch.zeros(2, 2).to_sparse(), "tensor"),
        ({(1, 2): 3}, r"key \(1, 2\)"),
        ({None: 3}, "key None"),
        ({True: 3}, "key True"),
        ({-1: 3}, "key -1"),
        ({65536: 3}, "key 65536"),
    ],
)
def test_only_plain_things_are_written(value, message, path):
    path.write_bytes(b"old")
    with pytest.raises(TypeError, match=rf"the model\['state'\]\['a'\]\[0\].*{message}"):
        write(saved(state={"a": [value]}), path)
    assert path.read_bytes() == b"old"
    assert os.listdir(path.parent) == ["model.pt"]


@pytest.mark.parametrize(("owner", "failing"), [(os, "fsync"), (Path, "replace")])
def test_a_failed_write_leaves_the_old_file(owner, failing, path, monkeypatch):
    path.write_bytes(b"old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(owner, failing, fail)
    with pytest.raises(FileError) as caught:
        write(saved(), path)
    assert "No space left" in str(caught.value)
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert os.listdir(path.parent) == ["model.pt"]


def test_an_interrupted_write_leaves_the_old_file(path, monkeypatch):
    path.write_bytes(b"old")

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(saved(), path)
    assert path.read_bytes() == b"old"
    assert os.listdir(path.parent) == ["model.pt"]


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "folder").mkdir()
    for place in (tmp_path / "folder", tmp_path / "none" / "model.pt", Path("/"), Path(".")):
        with pytest.raises(FileError):
            write(saved(), place)
    assert os.listdir(tmp_path) == ["folder"]


# --- Refused: other files, and anything that is not data. -----------------------------------


def refusal(path: Path, code: str = "damaged", **expected: object) -> str:
    """Assert that the file is refused for one fault, check its fields, and return its sentence."""
    with pytest.raises(FileError) as caught:
        read(path)
    (fault,) = caught.value.faults
    check(fault, code, file=path, **expected)
    return fault.sentence


def torch_file(path: Path, content) -> None:
    torch.save(content, path)


def zip_of(path: Path, raw: bytes, **data: bytes) -> None:
    """Write a torch file with this pickle and these storages."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", raw)
        for key, content in data.items():
            archive.writestr(f"archive/data/{key.removeprefix('_')}", content)


def pickled_tensor(key: str, numel: int, size: tuple, stride: tuple, offset: int = 0) -> bytes:
    """Return the opcodes that torch writes for a float32 tensor."""

    def text(value: str) -> bytes:
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    def number(value: int) -> bytes:
        return pickle.dumps(value, 2)[2:-1]

    def numbers(values: tuple) -> bytes:
        return b"(" + b"".join(map(number, values)) + b"t"

    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n(("
        + text("storage")
        + b"ctorch\nFloatStorage\n"
        + text(key)
        + text("cpu")
        + number(numel)
        + b"tQ"
        + number(offset)
        + numbers(size)
        + numbers(stride)
        + b"\x89ccollections\nOrderedDict\n)RtR"
    )


def as_state(raw: bytes) -> bytes:
    """Return the pickle of a whole model in which `raw` pushes the single value of `state`."""
    before = {
        "format": modelfile.FORMAT,
        "version": modelfile.FORMAT_VERSION,
        "package": "1",
        "config": "[sparsity]\ndensity = 1",
        "weights": {},
        "masks": {},
        "ever": {},
        "history": [],
    }
    state = b"X\x05\x00\x00\x00state}X\x05\x00\x00\x00value" + raw + b"ss."
    return pickle.dumps(before, 2)[:-1] + state


def test_the_forged_files_are_right_but_for_what_is_wrong(path):
    zip_of(path, as_state(b"K\x05"))
    assert read(path).state == {"value": 5}
    zip_of(path, as_state(pickled_tensor("0", 4, (2,), (1,), 1)), _0=np.float32([1, 2, 3, 4]))
    assert read(path).state["value"].tolist() == [2, 3]


def test_missing_file(path):
    refusal(path, "not-found")
    path.mkdir()
    refusal(path, "unreadable")


@pytest.mark.parametrize("content", [b"", b"PK", b"PK\x03\x04", b"PK\x03\x04" * 1000, b"GIF89a"])
def test_no_torch_file(path, content):
    path.write_bytes(content)
    refusal(path)


def test_a_zip_of_another_program(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "not written by torch" in refusal(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps({}, 2))
        archive.writestr("b/data.pkl", pickle.dumps({}, 2))
    assert "not written by torch" in refusal(path)


def test_a_torch_file_of_another_program(path):
    for content in ({}, [1, 2], {"weights": {"a": torch.zeros(2)}}, torch.zeros(3), 5):
        torch_file(path, content)
        refusal(path, "type", key="format", limit=modelfile.FORMAT)
    torch_file(path, torch.nn.Linear(2, 2).state_dict())  # an OrderedDict with attributes
    assert "BUILD" in refusal(path)
    torch_file(path, torch.nn.Linear(2, 2))
    assert "torch.nn.modules.linear Linear" in refusal(path)


def test_the_format_itself_may_be_anything(path):
    for value in (torch.zeros(3), None, [], "esl-lava models"):
        torch_file(path, {"format": value})
        refusal(path, "type", key="format", limit=modelfile.FORMAT)


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def test_no_code_runs(path, tmp_path):
    mark = tmp_path / "mark"
    pickle.loads(pickle.dumps(Bomb(mark)))
    assert mark.exists(), "the bomb works"
    mark.unlink()

    good = {"format": modelfile.FORMAT, "version": 1, "state": {"a": Bomb(mark)}}
    torch_file(path, good)
    assert "posix system" in refusal(path)
    torch.save(good, path, pickle_protocol=4)  # names by STACK_GLOBAL
    refusal(path)
    torch.save(good, path, _use_new_zipfile_serialization=False)
    assert "not a zip-format torch file" in refusal(path)
    path.write_bytes(pickle.dumps(Bomb(mark)))
    assert "not a zip-format torch file" in refusal(path)
    for protocol in range(6):
        zip_of(path, pickle.dumps(good, protocol))
        refusal(path)
    assert not mark.exists()


def test_a_legacy_torch_file(path):
    torch.save({"weights": {}}, path, _use_new_zipfile_serialization=False)
    assert "not a zip-format torch file" in refusal(path)


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        (b"cposix\nsystem\n", "posix system"),
        (b"c__builtin__\neval\n", "__builtin__ eval"),
        (b"ctorch\nload\n", "torch load"),
        (b"ctorch\nBFloat16Storage\n", "torch BFloat16Storage"),
        (b"ccollections\ndefaultdict\n", "collections defaultdict"),
        (b"(iposix\nsystem\n", "INST"),
        (b"(cposix\nsystem\no", "posix system"),
        (b"(ccollections\nOrderedDict\no", "OBJ"),
        (b"X\x05\x00\x00\x00posixX\x06\x00\x00\x00system\x93", "STACK_GLOBAL"),
        (b"ccollections\nOrderedDict\n)R}b", "BUILD"),
        (b"ccollections\nOrderedDict\n)\x81", "NEWOBJ"),
        (b"ccollections\nOrderedDict\n)}\x92", "NEWOBJ_EX"),
        (b"\x82\x01", "EXT1"),
        (b"P0\n", "PERSID"),
        (b"\x8a\x01\x05\x8b\x01\x00\x00\x00\x05", "LONG4"),
        (b"\x8f", "EMPTY_SET"),
        (b"C\x01x", "SHORT_BINBYTES"),
        (b"}2", "DUP"),
        (b"ccollections\nOrderedDict\n]R", "calls"),
        (b"ccollections\nOrderedDict\n]]a\x85R", "calls"),
        (b"]]R", "calls"),
        (b"ctorch\nFloatStorage\n)R", "calls"),
        (b"(X\x01\x00\x00\x00ac", "not a file of plain tensors"),
        (b"K\x05]s", ""),
        (b"K\x05]a", ""),
        (b"})K\x01s", ""),
        (b"}]K\x01s", ""),
        (b"}G\x00\x00\x00\x00\x00\x00\x00\x00K\x01s", ""),
        (b"}\x88K\x01s", ""),
        (b"]q\x01h\x01a", ""),  # a list that holds itself
        (b"h\x77", "not a file of plain tensors"),
        (b"Q", "storage"),
        (b")Q", "storage"),
        (b"e", "not a file of plain tensors"),
        (b"(X\x01\x00\x00\x00aK\x01K\x02d", "DICT"),
        (b"}(X\x01\x00\x00\x00au", "no value"),
        (b"K\x01\x86", ""),  # a pair of one
        (b"(K\x01", "more values"),
        (b"\x80\x46K\x01", "PROTO"),
        (b"ssssssss", ""),
        (b"", ""),
    ],
)
def test_opcodes_torch_does_not_write_for_data(path, raw, name):
    zip_of(path, as_state(raw))
    assert name in refusal(path)


@pytest.mark.parametrize("before", [b"(", b"N", b"(N"])
def test_nothing_may_be_left_over(path, before):
    """Python's own unpickler would not come to the same end."""
    zip_of(path, before + as_state(b"K\x05"))
    assert "one object" in refusal(path)


def test_a_name_may_not_be_left_over(path):
    zip_of(path, as_state(b"ctorch\nFloatStorage\n"))
    refusal(path, "type", key="state")


def test_memo_bomb(path):
    """The C unpickler would allocate memory for a billion entries."""
    zip_of(path, as_state(b"K\x05r\xff\xff\xff\x7f"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert read(path).state == {"value": 5}
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


def test_billion_laughs(path):
    """Each tuple holds the previous one twice, so hashing or comparing it would never end."""
    raw = b")"
    for level in range(60):
        raw += b"q" + bytes([level]) + b"h" + bytes([level]) + b"\x86"
    for whole in (raw, b"}" + raw + b"K\x01s"):
        zip_of(path, as_state(whole))
        refusal(path)


@pytest.mark.slow
@pytest.mark.parametrize("raw", [b"\x85", b"\x85" * 2], ids=["as value", "as key"])
def test_abyss(path, raw):
    """The tuples are nested so deeply that hashing them would overflow the C stack."""
    deep = b")" + b"\x85" * 300_000
    as_value = raw == b"\x85"
    zip_of(path, as_state(deep if as_value else b"}" + deep + b"K\x01s"))
    refusal(path, "type" if as_value else "damaged")


def test_depth_that_is_still_read(path):
    zip_of(path, as_state(b"]" * 31 + b"a" * 30))
    read(path)
    zip_of(path, as_state(b"]" * 33 + b"a" * 32))
    refusal(path, "type", key="state")


def test_giant_integers_and_texts_claim_no_memory(path):
    for raw in (b"\x8b\xff\xff\xff\x7f", b"X\xff\xff\xff\xff", b"\x8d" + b"\xff" * 8):
        zip_of(path, as_state(raw))
        refusal(path)


def test_large_index(path, monkeypatch):
    monkeypatch.setattr(archive, "MAX_PICKLE_BYTES", 1000)
    zip_of(path, as_state(b"]" + b"Na" * 1000))
    assert "larger than 1000 bytes" in refusal(path, "too-large")


def test_many_opcodes(path, monkeypatch):
    monkeypatch.setattr(archive, "MAX_OPCODES", 1000)
    zip_of(path, as_state(b"]" + b"Na" * 400))
    assert len(read(path).state["value"]) == 400
    zip_of(path, as_state(b"]" + b"Na" * 500))
    assert "more than 1000 opcodes" in refusal(path)


@pytest.mark.slow
@pytest.mark.parametrize("opcode", [b"]", b"N", b")", b"}", b"G" + bytes(8)])
def test_the_largest_index_costs_little(path, opcode):
    """Sixteen MiB of these opcodes took 22 seconds and 1.5 GB."""
    zip_of(path, as_state(b"]" + opcode * ((archive.MAX_PICKLE_BYTES - 1000) // len(opcode))))
    found = read_apart(read, path)
    assert (found.status, found.fault["file"]) == (0, str(path))
    assert found.seconds < 15
    assert found.memory < 400 << 20


@pytest.mark.parametrize("key", [-1, 1 << 16, 1 << 80])
def test_keys_are_small_integers(path, key):
    raw = pickle.dumps(key, 2)[2:-1]
    zip_of(path, as_state(b"}" + raw + b"Ns"))
    assert "a key of a dictionary is an integer" in refusal(path)


@pytest.mark.parametrize(
    "name",
    [
        "../../evil.sh",
        "archive/../../evil.sh",
        "/etc/passwd",
        "archive/data/../9",
        "archive/data/0/1",
        "archive/data/-1",
        "archive/data/x",
        "archive/data/",
        "archive/code/model.py",
        "archive/constants.pkl",
        "archive/data.pkl/",
        "other/version",
        "readme.txt",
    ],
)
def test_unknown_entries_are_refused_by_name(path, model_bytes, name):
    path.write_bytes(model_bytes)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(name, b"x")
    assert name in refusal(path)


def test_an_entry_that_no_tensor_uses(path, model_bytes):
    path.write_bytes(model_bytes)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("archive/data/999", b"x")
    assert "'archive/data/999' belongs to no tensor" in refusal(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ["archive/data/0", "archive/version", "archive/data.pkl"])
def test_two_entries_of_one_name(path, model_bytes, name):
    path.write_bytes(model_bytes)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(name, b"x")
    refusal(path)


def test_another_order_of_bytes(path, model_bytes):
    with zipfile.ZipFile(io.BytesIO(model_bytes)) as file:
        entries = {entry.filename: file.read(entry) for entry in file.infolist()}
    assert entries["archive/byteorder"] == b"little"
    for order in (b"big", b"", b"little" * 9):
        with zipfile.ZipFile(path, "w") as file:
            for name, raw in {**entries, "archive/byteorder": order}.items():
                file.writestr(name, raw)
        assert "archive/byteorder" in refusal(path)


@pytest.mark.parametrize("root", ["..", ".", "a\\b", "a\nb", "x" * 300])
def test_folders_that_torch_does_not_write(path, root):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{root}/data.pkl", as_state(b"N"))
    assert "not written by torch" in refusal(path)


def test_many_entries(path, monkeypatch):
    monkeypatch.setattr(archive, "MAX_ENTRIES", 10)
    zip_of(path, as_state(b"N"), **{f"_{key}": b"" for key in range(20)})
    refusal(path, "too-large")


@pytest.mark.parametrize(
    ("numel", "size", "stride", "offset", "reason"),
    [
        (4, (5,), (1,), 0, "fit the size of its data"),
        (4, (4,), (1,), 1, "fit the size of its data"),
        (5, (5,), (1,), 0, "fit the size of its data"),
        (3, (3,), (1,), 0, "fit the size of its data"),  # the entry holds four values
        (4, (2**40, 2**40), (2**40, 1), 0, "fit the size of its data"),
        (2**61, (2**61,), (1,), 0, "fit the size of its data"),
        (4, (10**9,), (0,), 0, "not contiguous"),
        (4, (2, 2), (1, 2), 0, "not contiguous"),
        (4, (2, 2), (0, 1), 0, "not contiguous"),
        (4, (2,), (2,), 0, "not contiguous"),
        (4, (-1,), (1,), 0, "not described"),
        (4, (4,), (-1,), 0, "not described"),
        (4, (1,), (1,), -1, "not described"),
        (-4, (1,), (1,), 0, "not described"),
        (4, (2**70,), (1,), 0, "not described"),
        (4, (4,), (), 0, "not described"),
        (4, (1,) * 33, (1,) * 33, 0, "not described"),
        (4, (0, 2**62, 2**62), (1, 1, 1), 0, ""),
        (4, (True,), (1,), 0, "not described"),
    ],
)
def test_tensors_that_claim_too_much(path, numel, size, stride, offset, reason):
    raw = pickled_tensor("0", numel, size, stride, offset)
    zip_of(path, as_state(raw), _0=np.zeros(4, np.float32).tobytes())
    assert reason in refusal(path)


def test_tensors_without_data(path):
    zip_of(path, as_state(pickled_tensor("9", 4, (4,), (1,))))
    assert "archive/data/9" in refusal(path)


def test_truth_values_are_zero_or_one(path):
    raw = pickled_tensor("0", 2, (2,), (1,)).replace(b"FloatStorage", b"BoolStorage")
    zip_of(path, as_state(raw), _0=b"\x00\x01")
    assert read(path).state["value"].tolist() == [False, True]
    zip_of(path, as_state(raw), _0=b"\x00\x02")
    refusal(path)


def test_expanded_tensors(path):
    torch_file(path, {"format": modelfile.FORMAT, "a": torch.zeros(1).expand(10**9)})
    assert path.stat().st_size < 10_000
    assert "not contiguous" in refusal(path)
    torch_file(path, {"format": modelfile.FORMAT, "a": torch.zeros(2, 2).t()})
    assert "not contiguous" in refusal(path)


def test_one_storage_in_many_tensors(path):
    """All tensors together may fill at most the size of the file."""
    content = np.zeros(1 << 20, np.float32).tobytes()
    one = pickled_tensor("0", 1 << 20, (1 << 20,), (1,))
    zip_of(path, as_state(b"](" + one + b"e"), _0=content)
    assert len(read(path).state["value"]) == 1
    sliver = pickled_tensor("0", 1 << 20, (1,), (1,))  # little to keep, much to read
    for tensor in (one, sliver):
        zip_of(path, as_state(b"](" + tensor * 10_000 + b"e"), _0=content)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        refusal(path, "too-large")
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


def test_digests_of_the_data_come_back_and_may_lack(path):
    digests = {"train": "0" * 64, "test": "ab" * 32}
    write(saved(data=digests), path)
    assert read(path).data == digests
    write(saved(), path)
    assert read(path).data == {}
    assert "data" not in archive.load(path)  # as in older files


@pytest.mark.parametrize(
    "data", [{"train": "0" * 63}, {"train": "G" * 64}, {"train": 5}, {1: "0" * 64}, ["0" * 64], "x"]
)
def test_other_things_than_digests_are_refused(path, data):
    write(saved(data=data), path)
    refusal(path, "type", key="data")


# --- The digest of the content. -------------------------------------------------------------


def rewrite(path: Path, change) -> None:
    """Change the content of a file, and leave its digest as it was."""
    found = as_tensors(archive.load(path))
    change(found)
    torch.save(found, path)


CHANGES = {
    "a weight": lambda c: c["weights"]["hidden1.synapse.weight"].view(-1)[0].add_(1),
    "the sign of a zero": lambda c: c["weights"]["hidden1.synapse.weight"].view(-1)[3].neg_(),
    "a text": lambda c: c.update(package="1"),
    "a number": lambda c: c["history"][0].update(loss=0.25),
    "a number of another type": lambda c: c["history"][0].update(epoch=True),
    "a list that was a tuple": lambda c: c["state"].update(pair=[1, 2]),
    "a key": lambda c: c["history"][0].update(more=c["history"][0].pop("loss")),
    "another order": lambda c: c["history"][0].update(epoch=c["history"][0].pop("epoch")),
    "an entry": lambda c: c.update(data={}),
    "the digest": lambda c: c.update(digest="0" * 64),
    "no text as digest": lambda c: c.update(digest=torch.zeros(3)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_anything_is_noticed(path, change):
    write(saved(state={"pair": (1, 2)}), path)
    rewrite(path, lambda content: None)
    read(path)
    rewrite(path, CHANGES[change])
    refusal(path, "damaged", key="digest")


def test_files_of_earlier_versions_have_no_digest(path):
    write(saved(), path)
    rewrite(path, lambda content: content.pop("digest"))
    assert read(path).history == saved().history


def test_the_digest_is_that_of_a_plain_description():
    """Types, lengths and bits in order; worked out here once more."""
    parts = [b"table 2 ", b"text 1 a", b"list 3 ", b"1 ", b"True ", b"None "]
    parts += [b"text 1 b", b"array <i2 (2,) ", struct.pack("<2h", 1, -2)]
    content = {"a": [1, True, None], "b": np.array([1, -2], np.int16), "digest": "x"}
    assert contents.digest(content) == hashlib.sha256(b"".join(parts)).hexdigest()
    pairs = [({"a": "b c"}, {"a b": "c"}), ({"a": [1, 2]}, {"a": [12]}), ({"a": 1.0}, {"a": 1})]
    assert all(contents.digest(one) != contents.digest(other) for one, other in pairs)


def test_content_that_has_no_digest(path):
    deep = current = []
    for _ in range(40):
        current.append([])
        current = current[0]
    torch_file(path, content(package="1", digest="x") | {"state": {"a": deep}})
    refusal(path, "type")


def test_a_part_that_is_not_known(path):
    torch_file(path, content(more=1))
    refusal(path, "unknown", value="more")


# --- Refused: parts that are missing or contradict each other. ------------------------------


def content(**changes) -> dict:
    whole = {
        "format": modelfile.FORMAT,
        "version": modelfile.FORMAT_VERSION,
        "package": "1",
        "config": "[sparsity]\ndensity = 1",
        "weights": {"hidden1.synapse.weight": WEIGHT},
        "masks": {"hidden1": WEIGHT != 0},
        "ever": {"hidden1": WEIGHT != 0},
        "history": [{"epoch": 1}],
        "state": {},
    } | changes
    return {key: value for key, value in whole.items() if value is not ...}


def test_the_content_is_right_but_for_what_is_wrong(path):
    torch_file(path, content())
    assert read(path).history == [{"epoch": 1}]


PARTS = ["package", "config", "weights", "masks", "ever", "history", "state"]


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("value", [..., None, 3, torch.zeros(2)])
def test_missing_parts(path, part, value):
    torch_file(path, content(**{part: value}))
    refusal(path, "missing" if value is ... else "type", key=part)


@pytest.mark.parametrize("version", [..., 0, 2, 10**30, "1", 1.0, True, None, torch.ones(3), [1]])
def test_other_versions(path, version):
    torch_file(path, content(version=version))
    refusal(path, "unsupported", key="version", limit=1)


@pytest.mark.parametrize(
    ("changes", "code", "key"),
    [
        ({"weights": {3: torch.zeros(2)}}, "type", "weights"),
        ({"weights": {"a": 3}}, "type", "weights"),
        ({"weights": {"a": [torch.zeros(2)]}}, "type", "weights"),
        ({"masks": {1: WEIGHT != 0}}, "type", "masks"),
        ({"masks": {}}, "mismatch", "ever"),
        ({"ever": {}}, "mismatch", "ever"),
        ({"masks": {"other": WEIGHT != 0}, "ever": {"other": WEIGHT != 0}}, "mismatch", "masks"),
        ({"masks": {"hidden1": (WEIGHT != 0)[:2]}}, "mismatch", "masks"),
        ({"masks": {"hidden1": (WEIGHT != 0).flatten()}}, "mismatch", "masks"),
        ({"masks": {"hidden1": (WEIGHT != 0).byte()}}, "mismatch", "masks"),
        ({"masks": {"hidden1": (WEIGHT != 0).float()}}, "mismatch", "masks"),
        ({"ever": {"hidden1": (WEIGHT != 0).squeeze()}}, "mismatch", "ever"),
        ({"ever": {"hidden1": (WEIGHT != 0).long()}}, "mismatch", "ever"),
        ({"history": [3]}, "type", "history"),
        ({"history": [{"epoch": 1}, [1]]}, "type", "history"),
        ({"history": [{"loss": torch.zeros(1)}]}, "type", "history"),
        ({"history": [{"losses": [0.5, torch.zeros(1)]}]}, "type", "history"),
    ],
)
def test_parts_of_the_wrong_kind(path, changes, code, key):
    torch_file(path, content(**changes))
    refusal(path, code, key=key)


def test_a_mask_that_does_not_fit_names_its_layer(path):
    mask = (WEIGHT != 0)[:2]
    torch_file(path, content(masks={"hidden1": mask}))
    refusal(path, "mismatch", key="masks", layer="hidden1")


# --- Refused: damaged files. ----------------------------------------------------------------


@pytest.mark.slow
def test_truncated_files(path, model_bytes):
    for length in {
        *range(0, len(model_bytes), 61),
        *range(len(model_bytes) - 40, len(model_bytes)),
    }:
        path.write_bytes(model_bytes[:length])
        refusal(path)


def harmless(path: Path) -> None:
    """Assert that reading raises FileError or nothing."""
    with contextlib.suppress(FileError):
        read(path)


changes = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=4
)


def damaged(raw: bytes, changes) -> bytes:
    changed = bytearray(raw)
    for place, difference in changes:
        changed[int(place * len(raw))] ^= difference
    return bytes(changed)


@pytest.mark.slow
@given(changes=changes)
def test_damaged_files(path, model_bytes, changes):
    path.write_bytes(damaged(model_bytes, changes))
    harmless(path)


@pytest.mark.slow
@given(changes=changes)
def test_damaged_pickles(path, model_bytes, changes):
    """The checksums of the zip are right, as in a file of an attacker."""
    with zipfile.ZipFile(io.BytesIO(model_bytes)) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    entries["archive/data.pkl"] = damaged(entries["archive/data.pkl"], changes)
    with zipfile.ZipFile(path, "w") as archive:
        for name, raw in entries.items():
            archive.writestr(name, raw)
    harmless(path)


@pytest.mark.slow
@given(raw=st.binary(max_size=60))
def test_random_pickles(path, raw):
    zip_of(path, as_state(raw))
    harmless(path)


def test_reading_imports_nothing(path):
    zip_of(path, as_state(b"cthis\ns\n"))
    refusal(path)
    assert "this" not in sys.modules


# --- Weights of which only connections are stored. -----------------------------------------


def stored(**tensors) -> SavedModel:
    """Return a layer of 3 x 9 positions with connections at 1, 9 and 20; some tensors replaced."""
    weight = {
        "values": torch.tensor([0.5, -1.0, 2.0]),
        "starts": torch.tensor([0, 1, 2, 3]),
        "pre": torch.tensor([1, 0, 2], dtype=torch.int32),
        "sides": torch.tensor([3, 9]),
    } | {key: tensor for key, tensor in tensors.items() if key != "ever"}
    weights = {
        f"hidden1.synapse.weight.{key}": tensor
        for key, tensor in weight.items()
        if tensor is not None
    }
    ever = {"hidden1": tensors.get("ever", torch.tensor([1, 9, 20]))}
    return SavedModel(config=CONFIG, weights=weights, masks={}, ever=ever)


@pytest.mark.parametrize(
    "ever", [torch.tensor([1, 9, 20]), torch.tensor([2, 2, 16, 4], dtype=torch.uint8)]
)
def test_stored_connections_come_back(path, ever):
    model = stored(ever=ever)
    write(model, path)
    model_again = read(path)
    assert_same(model_again.weights, model.weights)
    assert_same(model_again.ever, model.ever)
    assert model_again.masks == {}


@pytest.mark.parametrize(
    ("weights", "ever"),
    [({}, {"hidden1": np.array([1])}), ({"hidden1.synapse.weight.sides": np.array([3, 9])}, {})],
)
def test_a_record_is_there_where_stored_connections_are(path, weights, ever):
    write(SavedModel(config=CONFIG, weights=weights, masks={}, ever=ever), path)
    refusal(path, "mismatch", key="ever")


@pytest.mark.slow
def test_reading_needs_no_torch(path):
    write(stored(), path)
    code = "import sys; from pathlib import Path; from esl_lava import modelfile; "
    code += "print(modelfile.read(Path(sys.argv[1])).package, 'torch' in sys.modules)"
    process = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=True
    )
    assert process.stdout.split() == [stored().package, "False"]

"""Attacks by `model.pt`."""

from __future__ import annotations

import copy
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from esl_lava import modelfile
from esl_lava.models.restore import as_tensors
from esl_lava.training.trainer import Trainer
from tests.attacks.attack import attack
from tests.fuzz import models, trainings

FILE = "model.pt"


def zip_of(path: Path, raw: bytes, **data: bytes) -> None:
    """Write a torch file with this pickle and these storages."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", raw)
        for key, content in data.items():
            file.writestr(f"archive/data/{key.removeprefix('_')}", content)


def number(value: int) -> bytes:
    """Return the opcode of an integer."""
    return pickle.dumps(value, 2)[2:-1]


def tensor(key: str, numel: int, size: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    """Return the opcodes that torch writes for a float32 tensor."""

    def text(value: str) -> bytes:
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    def numbers(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(map(number, values)) + b"t"

    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n(("
        + text("storage")
        + b"ctorch\nFloatStorage\n"
        + text(key)
        + text("cpu")
        + number(numel)
        + b"tQ"
        + number(0)
        + numbers(size)
        + numbers(stride)
        + b"\x89ccollections\nOrderedDict\n)RtR"
    )


def state(raw: bytes) -> bytes:
    """Return the pickle of a model in whose `state` these opcodes push a value."""
    before = {
        "format": modelfile.FORMAT,
        "version": modelfile.FORMAT_VERSION,
        "package": "1",
        "config": "[sparsity]\ndensity = 1",
        **{part: {} for part in ("weights", "masks", "ever")},
        "history": [],
    }
    return pickle.dumps(before, 2)[:-1] + b"X\5\0\0\0state}X\5\0\0\0value" + raw + b"ss."


def sound(path: Path) -> bytes:
    """Write a sound model and return its bytes."""
    modelfile.write(Trainer(trainings.settings("fused"), trainings.samples()).run(), path)
    return path.read_bytes()


def changed(path: Path, **parts: Any) -> None:
    """Write a model with other parts and no digest."""
    content = models.plain(sound(path)) | parts
    del content["digest"]
    torch.save(as_tensors(content), path)


class _Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch /tmp/esl-lava-was-here",)


@attack(FILE, "damaged")
def a_command(path: Path) -> None:
    """The pickle calls os.system."""
    torch.save({"format": modelfile.FORMAT, "version": 1, "state": _Bomb()}, path)


@attack(FILE, "damaged")
def a_command_of_protocol_4(path: Path) -> None:
    """The pickle makes the name of os.system of two texts."""
    torch.save({"state": _Bomb()}, path, pickle_protocol=4)


@attack(FILE, "damaged")
def a_legacy_file(path: Path) -> None:
    """A pickle that calls os.system, without a zip around it."""
    path.write_bytes(pickle.dumps(_Bomb()))


@attack(FILE, "damaged")
def a_tar(path: Path) -> None:
    """A file of torch before 1.6, which its readers unpickle."""
    torch.save({"a": torch.zeros(2)}, path, _use_new_zipfile_serialization=False)


@attack(FILE, "damaged")
def an_expression(path: Path) -> None:
    """The pickle evaluates a text as Python."""
    zip_of(path, state(b"cbuiltins\neval\nX\x04\0\0\x001+\n1\x85R"))


@attack(FILE, "damaged")
def an_instance(path: Path) -> None:
    """The opcode INST calls a name."""
    zip_of(path, state(b"(X\2\0\0\0idiposix\nsystem\n"))


@attack(FILE, "damaged")
def a_state_that_is_set(path: Path) -> None:
    """The opcode BUILD sets the attributes of an object."""
    zip_of(path, state(b"ccollections\nOrderedDict\n)R}X\1\0\0\0aK\1sb"))


@attack(FILE, "damaged")
def another_loader(path: Path) -> None:
    """The pickle calls torch.load on another file."""
    zip_of(path, state(b"ctorch\nload\nX\5\0\0\0/tmp/x\x85R"))


@attack(FILE, "damaged")
def an_extension(path: Path) -> None:
    """The opcode EXT1 calls what another package has registered."""
    zip_of(path, state(b"\x82\x01"))


@attack(FILE, "damaged")
def a_key_without_a_value(path: Path) -> None:
    """A dictionary gets an odd number of keys and values."""
    zip_of(path, state(b"}(X\1\0\0\0aK\1X\1\0\0\0bu"))


@attack(FILE, "damaged")
def a_mark_too_many(path: Path) -> None:
    """A mark is left on the stack, over which opcodes would reach."""
    zip_of(path, b"(" + state(b"K\1"))


@attack(FILE, "damaged")
def a_list_that_holds_itself(path: Path) -> None:
    """A walk through the content would never end."""
    zip_of(path, state(b"]q\1h\1a"))


@attack(FILE, "damaged")
def a_billion_laughs(path: Path) -> None:
    """Each of 60 tuples holds the one before twice."""
    levels = (b"q" + bytes([n]) + b"h" + bytes([n]) + b"\x86" for n in range(60))
    zip_of(path, state(b")" + b"".join(levels)))


@attack(FILE, "type")
def an_abyss(path: Path) -> None:
    """Lists are nested 10,000 levels deep, and recursion would overflow the stack."""
    zip_of(path, state(b"]" * 10_000 + b"a" * 9_999))


@attack(FILE, "damaged")
def keys_of_one_hash(path: Path) -> None:
    """A dictionary has 100,000 integers of the same hash as keys, which takes minutes."""
    prime = (1 << 61) - 1
    items = b"".join(number(index * prime) + b"N" for index in range(100_000))
    zip_of(path, state(b"}(" + items + b"u"))


@attack(FILE, "damaged")
def a_key_that_is_slow_to_hash(path: Path) -> None:
    """A key of a dictionary is a tuple of tuples, 100,000 levels deep."""
    zip_of(path, state(b"})" + b"\x85" * 100_000 + b"K\1s"))


@attack(FILE, "damaged")
def a_great_number(path: Path) -> None:
    """An integer claims two gigabytes of digits."""
    zip_of(path, state(b"\x8b\xff\xff\xff\x7f"))


@attack(FILE, "damaged")
def a_great_text(path: Path) -> None:
    """A text claims 2^64 bytes."""
    zip_of(path, state(b"\x8d" + b"\xff" * 8))


@attack(FILE, "damaged")
def a_long_key_of_many_storages(path: Path) -> None:
    """The name of each of 20,000 storages would be another copy of a megabyte."""
    text = b"X" + struct.pack("<I", 1 << 20) + b"1" * (1 << 20) + b"q\1"
    one = b"(X\7\0\0\0storagectorch\nFloatStorage\nh\1h\1K\1tQ"
    zip_of(path, state(b"](" + text + one * 20_000 + b"e"))


@attack(FILE, "damaged")
def a_tensor_beyond_its_data(path: Path) -> None:
    """A tensor claims 2^61 numbers of a storage of four."""
    zip_of(path, state(tensor("0", 1 << 61, (1 << 61,), (1,))), _0=bytes(16))


@attack(FILE, "damaged")
def a_stretched_tensor(path: Path) -> None:
    """A tensor of one number has a billion elements, by a stride of 0."""
    torch.save({"format": modelfile.FORMAT, "a": torch.zeros(1).expand(10**9)}, path)


@attack(FILE, "damaged")
def a_negative_length(path: Path) -> None:
    """A tensor has a negative length, which some readers take for a great one."""
    zip_of(path, state(tensor("0", 4, (-1,), (1,))), _0=bytes(16))


@attack(FILE, "too-large")
def one_storage_ten_thousand_times(path: Path) -> None:
    """Ten thousand tensors of 4 MiB share one storage."""
    content = bytes(1 << 22)
    zip_of(path, state(b"](" + tensor("0", 1 << 20, (1 << 20,), (1,)) * 10_000 + b"e"), _0=content)


@attack(FILE, "too-large")
def entries_over_one_another(path: Path) -> None:
    """Fifty entries of the zip name the same megabyte."""
    tensors = b"".join(tensor(str(key), 1 << 18, (1 << 18,), (1,)) for key in range(50))
    zip_of(path, state(b"](" + tensors + b"e"), _0=bytes(1 << 20))
    with zipfile.ZipFile(path, "a") as file:
        for key in range(1, 50):
            other = copy.copy(file.getinfo("archive/data/0"))
            other.filename = f"archive/data/{key}"
            file.filelist.append(other)
            file.NameToInfo[other.filename] = other
        file._didModify = True  # type: ignore[attr-defined]


@attack(FILE, "damaged")
def a_zip_bomb(path: Path) -> None:
    """A deflated entry of 130 kB becomes 128 MiB."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", state(tensor("0", 1 << 25, (1 << 25,), (1,))))
        file.writestr("archive/data/0", bytes(1 << 27))


@attack(FILE, "too-large")
def a_great_directory(path: Path) -> None:
    """A directory of 30 MB takes ten times as much memory."""
    zip_of(path, state(b"N"), _0=b"", _1=b"")
    raw = path.read_bytes()
    end, start = raw.rindex(b"PK\5\6"), raw.index(b"PK\1\2")
    directory = raw[start:end] * (30_000_000 // (end - start))
    sizes = struct.pack("<HHIIH", 9, 9, len(directory), start, 0)
    path.write_bytes(raw[:start] + directory + raw[end : end + 8] + sizes)


@attack(FILE, "damaged")
def a_way_out_of_the_folder(path: Path) -> None:
    """A member's name leads out of the folder into which it would be unpacked."""
    sound(path)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("../../evil.sh", b"x")


@attack(FILE, "damaged")
def a_member_of_code(path: Path) -> None:
    """A member holds TorchScript, which other readers run."""
    sound(path)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("archive/code/model.py", b"print('here')")


@attack(FILE, "damaged")
def two_members_of_one_name(path: Path) -> None:
    """Two readers would find different weights."""
    members = models.unzip(sound(path))
    name, inside = next(member for member in members if member[0] == "archive/data/0")
    path.write_bytes(models.rezip([*members, (name, bytes(len(inside)))]))


@attack(FILE, "damaged", key="digest")
def other_weights(path: Path) -> None:
    """A weight is changed, with right checksums of the zip."""
    members = models.unzip(sound(path))
    path.write_bytes(
        models.rezip(
            [
                (name, bytes(len(inside)) if name == "archive/data/0" else inside)
                for name, inside in members
            ]
        )
    )


@attack(FILE, "damaged")
def another_order_of_bytes(path: Path) -> None:
    """The file says that its numbers are big-endian, and they are not."""
    members = models.unzip(sound(path))
    path.write_bytes(
        models.rezip([(n, b"big" if n == "archive/byteorder" else raw) for n, raw in members])
    )


@attack(FILE, "damaged")
def a_boolean_of_two(path: Path) -> None:
    """A Boolean is 2, which is neither true nor false for compiled code."""
    raw = tensor("0", 2, (2,), (1,)).replace(b"FloatStorage", b"BoolStorage")
    zip_of(path, state(raw), _0=b"\0\2")


@attack(FILE, "unsupported", key="version")
def a_version_of_thousands_of_digits(path: Path) -> None:
    """The version is an integer that takes minutes to print."""
    changed(path, version=1 << 2000)


@attack(FILE, "mismatch", key="masks", layer="hidden1")
def a_mask_of_another_shape(path: Path) -> None:
    """A mask is smaller than its weight, so that a kernel would read beyond it."""
    masks = models.plain(sound(path))["masks"]
    ever = dict(masks)
    masks["hidden1"] = masks["hidden1"][:2]
    changed(path, masks=masks, ever=ever)


@attack(FILE, "damaged", "mismatch")
def a_layer_of_four_billion_neurons(path: Path) -> None:
    """The configuration claims layers for which no memory is enough."""
    config = models.plain(sound(path))["config"].replace('"6-5"', '"4000000000-4000000000"')
    changed(path, config=config)


@attack(FILE, "damaged")
def a_configuration_that_is_nested(path: Path) -> None:
    """The configuration in the file has brackets 20,000 levels deep."""
    changed(path, config="a = " + "[" * 20_000)


@attack(FILE, "mismatch", "damaged", "not-finite", "limit")
def weights_that_are_no_numbers(path: Path) -> None:
    """Every second tensor of the weights is of another type."""
    weights = models.plain(sound(path))["weights"]
    changed(path, weights={k: np.zeros(v.shape, np.int8) for k, v in weights.items()})

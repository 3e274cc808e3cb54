"""Attacks by the values of `net.h5`. They say what HDF5 2.0 and h5py would do."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import h5py
import numpy as np

from tests.attacks.attack import MIB, attack, deflated_zeros
from tests.attacks.hdf5_files import (
    GZIP,
    VALUES,
    WHOLE,
    compact,
    dense,
    large,
    patch,
    sound,
    stored,
    with_checksums,
)

FILE = "net.h5"

# --- Chunks and values. ----------------------------------------------------------------------


@attack(FILE, "damaged", key="weight", limit=24_000)
def a_short_chunk(path: Path) -> None:
    """A chunk inflates to fewer bytes than its values: HDF5 returns bytes of its heap."""
    dense(path, 1000, GZIP, stored(zlib.compress(os.urandom(500))))


@attack(FILE, "damaged", key="weight", limit=24 << 20)
def a_short_chunk_of_a_large_matrix(path: Path) -> None:
    """A chunk of 30,000 bytes stands for 24 million: HDF5 crashes."""
    dense(path, 1 << 20, GZIP, stored(zlib.compress(os.urandom(30_000))))


@attack(FILE, "damaged", key="weight", limit=24 * 64)
def a_chunk_of_two_gibibytes(path: Path) -> None:
    """A chunk of 2 MB inflates to 2 GiB, all of which HDF5 allocates."""
    checksum = struct.pack(">HH", (1 << 31) % 65521, 1)  # Adler's, of zeros
    raw = b"\x78\xda" + deflated_zeros(128) + checksum
    assert len(zlib.decompressobj().decompress(raw, 1 << 20)) == 1 << 20
    dense(path, 64, GZIP, stored(raw))


@attack(FILE, "too-large", key="weight")
def a_chunk_of_one_byte(path: Path) -> None:
    """One stored byte stands for a whole matrix."""
    dense(path, 64, GZIP, stored(b"x"))


@attack(FILE, "damaged", key="weight")
def a_chunk_that_says_it_is_plain(path: Path) -> None:
    """The mask of a deflated chunk says that no filter was applied."""
    dense(path, 64, GZIP, stored(WHOLE, 1))


@attack(FILE, "damaged", key="weight")
def bytes_behind_a_chunk(path: Path) -> None:
    """Bytes are hidden behind the end of a deflated chunk."""
    dense(path, 64, GZIP, stored(WHOLE + b"hidden"))


@attack(FILE, "damaged", key="weight")
def a_wrong_sum(path: Path) -> None:
    """The Fletcher checksum of a chunk does not match."""
    dense(path, 64, {"fletcher32": True}, stored(VALUES.tobytes() + bytes(4)))


@attack(FILE, "damaged", key="weight", value=2, limit=4)
def chunks_that_are_absent(path: Path) -> None:
    """Half of the chunks were never written: HDF5 takes zeros for them."""

    def fill(weight: h5py.h5d.DatasetID) -> None:
        weight.write_direct_chunk((0, 0), WHOLE)
        weight.write_direct_chunk((0, 64), WHOLE)

    dense(path, 200, {"chunks": (24, 64), **GZIP}, fill)


@attack(FILE, "damaged", key="weight", value="(24, 64)")
def chunks_of_more_axes(path: Path) -> None:
    """A dataset of one axis has chunks of two: HDF5 never returns, and takes all memory."""
    with h5py.File(path, "w", libver="earliest") as file:
        layer = file.create_group("layer/0")
        layer["type"], layer["shape"] = np.bytes_("dense"), np.array([24])
        layer.create_dataset("weight", data=VALUES.reshape(24, 64), chunks=(24, 64), **GZIP)
    place = path.read_bytes().index(struct.pack("<QQQQ", 24, 64, 24, 64))
    patch(path, {place - 7: b"\1"})


@attack(FILE, "damaged")
def values_beyond_the_file(path: Path) -> None:
    """A contiguous dataset lies behind the end of the file."""
    with h5py.File(path, "w", libver="earliest") as file:
        layer = file.create_group("layer/0")
        layer["type"], layer["shape"] = np.bytes_("dense"), np.array([24])
        layer["weight"] = VALUES.reshape(24, 64)
        place = layer["weight"].id.get_offset()
    header = path.read_bytes().index(struct.pack("<QQ", place, VALUES.nbytes))
    patch(path, {header: struct.pack("<Q", 1 << 40)})


@attack(FILE, "damaged", key="weight", limit=9)
def a_level_that_deflate_lacks(path: Path) -> None:
    """The level of deflate is 268,435,465: HDF5 refuses the filter, other readers do not ask."""
    sound(path)
    raw = path.read_bytes()
    place = raw.index(struct.pack("<HHHI", 1, 1, 1, 9))  # filter, flags, numbers, level
    path.write_bytes(with_checksums(raw, {place + 9: b"\x10"}))


@attack(FILE, "too-large", key="weight")
def a_terabyte(path: Path) -> None:
    """A dataset claims 2^40 values, none of which is stored."""
    dense(path, 64, GZIP, stored(WHOLE))
    with h5py.File(path, "r+") as file:
        del file["layer/0/weight"]
        file["layer/0"].create_dataset("weight", (24, 1 << 36), "i1", chunks=(24, 1 << 20))


@attack(FILE, "damaged", key="gradedSpike")
def a_boolean_of_two(path: Path) -> None:
    """A Boolean is 2, which numpy takes for true or false by chance."""
    dense(path, 64, GZIP, stored(WHOLE))
    with h5py.File(path, "r+") as file:
        graded = file["layer/0/neuron"].create_dataset("gradedSpike", (1,), bool, chunks=(1,))
        graded.id.write_direct_chunk((0,), b"\2")


@attack(FILE, "type", key="shape")
def a_number_of_forty_bits(path: Path) -> None:
    """A type has fewer bits than its bytes: numpy reads the others too."""
    dense(path, 64, GZIP, stored(WHOLE))
    with h5py.File(path, "r+") as file:
        del file["layer/0/shape"]
        kind = h5py.h5t.STD_I64LE.copy()
        kind.set_precision(40)
        h5py.h5d.create(file["layer/0"].id, b"shape", kind, h5py.h5s.create_simple((1,)))
        file["layer/0/shape"][0] = 24


@attack(FILE, "type", key="weight")
def weights_that_are_rounded(path: Path) -> None:
    """Weights are 0.5, which netx truncates to 0."""
    dense(path, 64, {}, lambda weight: None)
    with h5py.File(path, "r+") as file:
        del file["layer/0/weight"]
        file["layer/0/weight"] = np.full((24, 64), 0.5)


# --- Storage outside of the file. ------------------------------------------------------------


@attack(FILE, "type", key="weight")
def values_of_another_file(path: Path) -> None:
    """The values of a dataset are those of /etc/passwd."""
    dense(path, 64, GZIP, stored(WHOLE))
    with h5py.File(path, "r+") as file:
        del file["layer/0/weight"]
        file["layer/0"].create_dataset(
            "weight", (24, 64), "i1", external=[("/etc/passwd", 0, 24 * 64)]
        )


@attack(FILE, "type", "unsupported", key="weight")
def a_virtual_dataset(path: Path) -> None:
    """The values of a dataset are those of a pipe, for which HDF5 waits."""
    dense(path, 64, GZIP, stored(WHOLE))
    os.mkfifo(path.with_name("pipe"))
    layout = h5py.VirtualLayout((24, 64), "i1")
    layout[...] = h5py.VirtualSource(str(path.with_name("pipe")), "x", (24, 64))
    with h5py.File(path, "r+") as file:
        del file["layer/0/weight"]
        file["layer/0"].create_virtual_dataset("weight", layout)


@attack(FILE, "missing", key="layer")
def a_link_to_another_file(path: Path) -> None:
    """All layers lie in another file, which is a pipe."""
    os.mkfifo(path.with_name("pipe"))
    with h5py.File(path, "w") as file:
        file["layer"] = h5py.ExternalLink("pipe", "/")


@attack(FILE, "damaged", key="./there/the_config")
def a_name_with_a_path(path: Path) -> None:
    """The name of a text is a path through a link to another file."""
    os.mkfifo(path.with_name("pipe"))
    sound(path.with_name("sound.h5"))
    with h5py.File(path.with_name("sound.h5")) as source, h5py.File(path, "w") as file:
        for name in ("layer", "esl_lava"):
            source.copy(name, file)
        if "provenance" in file["esl_lava"]:
            del file["esl_lava/provenance"]
        facts = file.create_group("esl_lava/provenance")
        facts["there"] = h5py.ExternalLink("pipe", "/")
        facts["first_there_config"] = "x"
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b"first_there_config", b"./there/the_config"))


# --- Texts and attributes. -------------------------------------------------------------------


@attack(FILE, "damaged", "too-large", key="type")
def a_text_of_a_gigabyte(path: Path) -> None:
    """A text of variable length claims a gigabyte: HDF5 allocates it and copies its heap."""
    place = _variable(path)
    patch(path, {place: struct.pack("<I", 1 << 30)})


@attack(FILE, "damaged", key="type")
def a_text_of_no_heap(path: Path) -> None:
    """A text of variable length lies where no texts are."""
    place = _variable(path)
    patch(path, {place + 4: struct.pack("<Q", 64)})


@attack(FILE, "damaged", key="type")
def a_heap_beyond_the_file(path: Path) -> None:
    """The heap of texts says that it is a terabyte long."""
    _variable(path)
    patch(path, {path.read_bytes().index(b"GCOL") + 8: struct.pack("<Q", 1 << 40)})


def _variable(path: Path) -> int:
    """Write a file with a text of variable length, and return the place of its reference."""
    dense(path, 64, GZIP, stored(zlib.compress((VALUES & 126).tobytes())))
    with h5py.File(path, "r+") as file:
        del file["layer/0/type"]
        file["layer/0/type"] = "dense"
        return int(file["layer/0/type"].id.get_offset())


@attack(FILE, "unsupported", key="type")
def a_text_of_variable_length_in_a_header(path: Path) -> None:
    """A compact dataset holds a text of variable length, which HDF5 would read at once."""
    dense(path, 64, GZIP, stored(WHOLE))
    with h5py.File(path, "r+") as file:
        del file["layer/0/type"]
        compact(file["layer/0"], "type", np.array(["dense"], h5py.string_dtype()))


@attack(FILE, "unsupported")
def a_long_attribute(path: Path) -> None:
    """The name of a layer has a megabyte, for which HDF5 makes a structure of its own."""
    sound(path)
    with h5py.File(path, "r+", libver="v110") as file:
        group = file["esl_lava/layer/0"]
        del group.attrs["name"]
        group.attrs["name"] = np.array(b"x" * (MIB + 1))


@attack(FILE, "unsupported", key="type")
def a_type_that_a_terminal_obeys(path: Path) -> None:
    """The type of a layer clears the screen of whoever prints it."""
    dense(path, 64, GZIP, stored(WHOLE))
    with h5py.File(path, "r+") as file:
        del file["layer/0/type"]
        file["layer/0/type"] = np.bytes_(b"\x1b[2J\x1b]0;owned\x07\n")


# --- Networks of more than a file can hold, and other meanings. -------------------------------


@attack(FILE, "too-large", key="weight", layer="layer0", memory=400 * MIB)
def sixty_million_connections(path: Path) -> None:
    """A file of 80 kB has a matrix of 2^26 connections, which would take 1.3 GB of memory."""
    large(path, "dense", (1 << 12, 1 << 14), 2, shape=[1 << 12])
    assert path.stat().st_size < 80_000


@attack(FILE, "too-large", key="shape")
def a_map_of_many_neurons(path: Path) -> None:
    """One kernel of one weight claims a map of 2^30 neurons."""
    slid = {"stride": [1, 1], "padding": [0, 0], "dilation": [1, 1], "groups": 1}
    large(path, "conv", (1, 1, 1, 1), 2, shape=[1, 1 << 15, 1 << 15], **slid)
    with h5py.File(path, "r+") as file:
        file.move("layer/0", "layer/1")
        file["layer/0/type"] = np.bytes_("input")
        file["layer/0/shape"] = [1, 1 << 15, 1 << 15]


@attack(FILE, "damaged", key="digest")
def another_weight(path: Path) -> None:
    """A weight of our file was changed by a program that knows HDF5."""
    sound(path)
    with h5py.File(path, "r+") as file:
        weights = file["layer/0/weight"][()]
        row, column = np.argwhere((weights != 0) & (weights != 2))[0]
        file["layer/0/weight"][row, column] = 2


@attack(FILE, "damaged", key="esl_lava")
def our_group_was_renamed(path: Path) -> None:
    """Without our group the file would mean what it means to netx, without masks and steps."""
    sound(path)
    with h5py.File(path, "r+") as file:
        file.move("esl_lava", "esl_lavb")


@attack(FILE, "unsupported", key="format_version")
def a_later_format(path: Path) -> None:
    """The file says that it has a format of which this reader knows nothing."""
    sound(path)
    with h5py.File(path, "r+") as file:
        file["esl_lava"].attrs["format_version"] = (1 << 63) - 1


@attack(FILE, "damaged")
def the_first_half(path: Path) -> None:
    """The file was cut off."""
    sound(path)
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2])


@attack(FILE, "damaged")
def a_place_of_the_root_that_is_no_group(path: Path) -> None:
    """The root of the file is the signature of the file itself."""
    sound(path)
    raw = path.read_bytes()
    path.write_bytes(with_checksums(raw, {36: struct.pack("<Q", 0)}))


@attack(FILE, "unsupported", value="(4, 4)")
def short_addresses(path: Path) -> None:
    """Addresses in the file have four bytes, and every structure has another layout."""
    creation = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    creation.set_sizes(4, 4)
    with h5py.File(h5py.h5f.create(bytes(path), fcpl=creation)) as file:
        file.create_group("layer")

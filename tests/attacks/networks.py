"""Attacks by `net.h5`. The comments say what HDF5 2.0 and h5py would do."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import h5py
import numpy as np

from tests.attacks.attack import MIB, attack
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
    stream = zlib.compressobj(9)
    raw = b"".join([*(stream.compress(bytes(1 << 24)) for _ in range(128)), stream.flush()])
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


# --- Many names, and ways back. --------------------------------------------------------------


@attack(FILE, "unsupported", key="1", layer="layer1")
def ten_thousand_names_of_a_layer(path: Path) -> None:
    """A file of less than a megabyte has ten thousand layers, all of them one group."""
    dense(path, 1000, GZIP, lambda weight: None)
    with h5py.File(path, "r+", libver="latest") as file:
        file["layer/0/weight"][()] = 2
        for index in range(1, 10_000):
            file[f"layer/{index}"] = file["layer/0"]
    assert path.stat().st_size < MIB


@attack(FILE, "unsupported", key="weight", layer="layer1", memory=800 * MIB)
def forty_names_of_a_matrix(path: Path) -> None:
    """Forty layers share one matrix of 24 MB."""
    dense(path, 1 << 19, GZIP, lambda weight: None)
    with h5py.File(path, "r+") as file:
        file["layer/0/weight"][:, 0] = 2
        for index in range(1, 40):
            layer = file.create_group(f"layer/{index}")
            for key in ("type", "shape"):
                layer[key] = file[f"layer/0/{key}"][()]
            layer["weight"] = file["layer/0/weight"]
            file.copy("layer/0/neuron", layer)


@attack(FILE, "unsupported", key="neuron")
def a_group_within_itself(path: Path) -> None:
    """The neurons of a layer are the group of all layers."""
    dense(path, 64, GZIP, stored(zlib.compress((VALUES & 126).tobytes())))
    with h5py.File(path, "r+") as file:
        del file["layer/0/neuron"]
        file["layer/0/neuron"] = file["layer"]


@attack(FILE, "missing", key="layer")
def a_link_to_itself(path: Path) -> None:
    """A soft link leads to itself."""
    with h5py.File(path, "w") as file:
        file["layer"] = h5py.SoftLink("/layer")


@attack(FILE, "range")
def too_many_layers(path: Path) -> None:
    """The file has 10,001 layers, which are empty groups."""
    with h5py.File(path, "w", libver="latest") as file:
        layers = file.create_group("layer")
        for index in range(10_001):
            layers.create_group(str(index))


# --- HDF5's own structures. ------------------------------------------------------------------


@attack(FILE, "damaged")
def a_tree_whose_nodes_occur_at_many_places(path: Path) -> None:
    """A B-tree leads to one leaf at 32^8 places, and HDF5 counts all links."""
    with h5py.File(path, "w", libver="earliest") as file:
        layer = file.create_group("layer/0")
        layer["type"], layer["shape"] = np.bytes_("dense"), np.array([24])
    with h5py.File(path) as file:
        header = h5py.h5o.get_info(file.id, b"layer").addr
    raw = bytearray(path.read_bytes())
    leaf = next(
        place
        for place in range(0, len(raw), 8)
        if raw[place : place + 4] == b"TREE"
        and raw.find(struct.pack("<Q", place), header, header + 120) >= 0
    )
    (last,) = struct.unpack_from("<Q", raw, leaf + 40)
    old, root = len(raw), leaf
    for level in range(1, 9):
        children = struct.pack("<QQ", root, last) * 32
        root = len(raw)
        raw += b"TREE" + struct.pack("<BBH", 0, level, 32) + b"\xff" * 16 + bytes(8) + children
    raw[:old] = raw[:old].replace(struct.pack("<Q", leaf), struct.pack("<Q", root))
    raw[40:48] = struct.pack("<Q", len(raw))  # the length of the file
    path.write_bytes(raw)


@attack(FILE, "damaged")
def a_tree_that_leads_back(path: Path) -> None:
    """A node of a B-tree is its own child: HDF5 overflows the stack."""
    with h5py.File(path, "w", libver="earliest") as file:
        for index in range(2000):
            file[f"layer/{index}"] = index
    raw = path.read_bytes()
    places = [place for place in range(0, len(raw), 8) if raw[place : place + 4] == b"TREE"]
    root = max(places, key=lambda place: raw[place + 5])
    patch(path, {root + 32: struct.pack("<Q", root)})


@attack(FILE, "too-large")
def a_tree_of_many_levels(path: Path) -> None:
    """A B-tree of version 2 claims 65,535 levels, for each of which HDF5 allocates."""
    _many_links(path)
    raw = path.read_bytes()
    path.write_bytes(with_checksums(raw, {raw.index(b"BTHD") + 12: b"\xff\xff"}))


@attack(FILE, "damaged")
def a_tree_of_empty_nodes(path: Path) -> None:
    """The nodes of a B-tree have 0 bytes: HDF5 takes all memory."""
    _many_links(path)
    raw = path.read_bytes()
    path.write_bytes(with_checksums(raw, {raw.index(b"BTHD") + 6: bytes(4)}))


@attack(FILE, "unsupported")
def a_tree_of_another_kind(path: Path) -> None:
    """A B-tree says that it holds other records than HDF5 asks it for: HDF5 crashes."""
    _many_links(path)
    raw = path.read_bytes()
    path.write_bytes(with_checksums(raw, {raw.index(b"BTHD") + 5: b"\3"}))


@attack(FILE, "damaged")
def a_heap_without_columns(path: Path) -> None:
    """The table of a heap of links has no columns: HDF5 divides by their number and crashes."""
    _many_links(path)
    raw = path.read_bytes()
    path.write_bytes(with_checksums(raw, {raw.index(b"FRHP") + 110: bytes(2)}))


@attack(FILE, "damaged")
def a_heap_of_odd_blocks(path: Path) -> None:
    """The blocks of a heap of links have 2^56 - 1 bytes, of which HDF5 takes a logarithm."""
    _many_links(path)
    raw = path.read_bytes()
    path.write_bytes(with_checksums(raw, {raw.index(b"FRHP") + 112: b"\xff" * 8}))


@attack(FILE, "unsupported")
def compressed_links(path: Path) -> None:
    """A heap of links is compressed, and HDF5 inflates it without a limit."""
    _many_links(path)
    raw = path.read_bytes()
    path.write_bytes(with_checksums(raw, {raw.index(b"FRHP") + 7: b"\x14"}))


@attack(FILE, "too-large")
def an_index_of_many_chunks(path: Path) -> None:
    """An index claims 2^40 chunks, and HDF5 walks through all of them."""
    with h5py.File(path, "w", libver="latest") as file:
        file.create_dataset("layer/0/weight", data=VALUES.reshape(24, 64), chunks=(4, 4))
    raw = path.read_bytes()
    path.write_bytes(with_checksums(raw, {raw.index(b"FAHD") + 13: b"\1"}))


def _many_links(path: Path) -> None:
    with h5py.File(path, "w", libver="v110") as file:
        for index in range(20):
            file[f"layer/0/more{index}"] = index


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

"""The rules by which lists of synapses are packed into the memory of a core.

A list holds the synapses from one input axon onto targets 0..width-1 of a core. If a kernel is
shared, a list belongs to one input channel at one phase of the kernel. There are three formats:
*dense* stores a weight for every target, *sparse* stores a target and a weight for each synapse,
and *runlength* stores the distance from the last target and a weight.

- `nengo-loihi` (nengo_loihi/block.py, SynapseConfig.bits_per_axon): an entry has up to 64
  synapses, with 10 bits before it, and fills words of its own. nengo-loihi stores sparse matrices
  as if they were dense, without bits for an index. Here indices are counted.
- `nxtf` (nxsdk_modules_ncl/dnn/src/data_structures.py, SynEntry, SynapseGroup): an entry has up to
  60 synapses, with 10 bits before it. Dense and run-length entries also begin with an index. In a
  run-length list a distance of 32 or more starts a new entry. A list takes one more word if its
  last word is full or has fewer than 6 bits left. Lists of a group are padded to the longest.
- `netx`: Loihi 2, as saved logs of Lava's compiler show it. A list takes about a word of 32 bits
  for every 32 bits of weights, and one more word for each axon. These logs contain no sparse lists:
  the index beside every weight is an assumption. A kernel has a list for each input channel and
  position, wherever the neurons of a core lie: 576 lists for 64 x 64 x 3 x 3 (pilotnet_snn). The
  log shows fewer words for this kernel than are counted here.

Output axon entries: a neuron has one entry for each core that it sends to. With `nxtf` it has one
more entry if that core is on another chip. A place of feature maps in front of a kernel shares its
entries among all its channels: two entries where axons have 32 bits (`nengo-loihi`, `nxtf`), and
one in Lava's logs (yolo_kp: 28 entries of the axon map for 4 x 7 places of 128 channels). NxTF
itself shares axons only if a place sends to a single core. nengo-loihi shares them for several.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from esl_lava.arrays import Ints
from esl_lava.errors import ConfigError, shorten

DENSE, SPARSE, RUNLENGTH = "dense", "sparse", "runlength"
MAX_GAP = 32
"""The smallest distance between targets that no skip field can hold."""
SKIP_BITS = (2, 5)
"""The least and the most bits of a skip field."""


@dataclass(frozen=True, eq=False)
class Lists:
    """The lists of synapses of one core.

    Attributes:
        owner: (synapses,) the list of each synapse, ascending.
        target: (synapses,) the target of each synapse within the core, ascending in a list.
        groups: (lists,) the group of each list. nxtf makes the lists of a group equally long.
        widths: (lists,) the number of targets that a dense list covers.
        runs: (lists,) the number of equally long runs of neighbouring targets in a dense list.
    """

    owner: Ints
    target: Ints
    groups: Ints
    widths: Ints
    runs: Ints

    @property
    def sizes(self) -> Ints:
        """(lists,) the number of synapses in each list."""
        return np.bincount(self.owner, minlength=len(self.groups)).astype(np.int64)


@dataclass(frozen=True)
class Packing:
    """A rule to pack lists of synapses.

    Attributes:
        word_bits: bits of a word of synapse memory.
        per_entry: the most synapses of one entry; 0 if a list is one entry.
        prefix_bits: bits before every entry.
        index_bits: the widths that an index can have, ascending; empty: any width.
        words: function of (packing, bits per stored synapse, bits of a prefix, entries of each
            list, stored synapses of each list) that returns the words of each list.
        formats: the formats that this rule has.
        prefix_index: whether a dense or run-length entry also begins with an index.
        remote_axons: additional output axon entries for a core on another chip.
        population_axons: output axon entries for each core that a place of feature maps sends
            to. The channels of the place share them.
        by_tap: whether a kernel has a list for each input channel and position, wherever it
            lies, instead of one for each way in which inputs meet it.
        grouped: whether every list of a group takes as many words as the longest.
    """

    word_bits: int
    per_entry: int
    prefix_bits: int
    index_bits: tuple[int, ...]
    words: Callable[[Packing, int, int, Ints, Ints], Ints]
    formats: tuple[str, ...] = (DENSE, SPARSE)
    prefix_index: bool = False
    remote_axons: int = 0
    population_axons: int = 1
    by_tap: bool = False
    grouped: bool = False

    def index(self, highest: int) -> int:
        """Return the bits of an index that can name targets 0..highest.

        Raises:
            ConfigError: if no index is wide enough.
        """
        bits = max(1, int(highest).bit_length())
        wide = [width for width in self.index_bits or (bits,) if width >= bits]
        if wide:
            return wide[0]
        raise ConfigError(
            f"target {highest} of a core needs an index of {bits} bits, but the widest index of "
            f"this packing has {self.index_bits[-1]} bits",
            "limit",
            value=bits,
            limit=self.index_bits[-1],
        )

    def list_words(self, form: str, weight_bits: int, lists: Lists) -> Ints:
        """Return (lists,) the number of words of each list. An empty list takes none.

        Args:
            form: one of `formats`.
            weight_bits: bits of a weight and its delay.
            lists: the lists of one core.
        """
        sizes = lists.sizes
        highest = int(lists.target.max()) if len(lists.target) else 0
        index = self.index(highest)
        prefix = self.prefix_bits + (index if self.prefix_index and form != SPARSE else 0)
        entries, stored, bits = _entries(self, form, lists, weight_bits, index)
        words = np.where(sizes > 0, self.words(self, bits, prefix, entries, stored), 0)
        if self.grouped and len(words):
            longest = np.zeros(int(lists.groups.max()) + 1, np.int64)
            np.maximum.at(longest, lists.groups, words)
            words = np.where(sizes > 0, longest[lists.groups], 0)
        return words

    def least_words(self, form: str, weight_bits: int, stored: Ints, lists: Ints) -> Ints:
        """Return a lower bound of the words of `stored` synapses in at least `lists` lists."""
        index = {DENSE: 0, SPARSE: (self.index_bits or (1,))[0], RUNLENGTH: SKIP_BITS[0]}[form]
        prefixes = stored // self.per_entry * self.prefix_bits if self.per_entry else 0
        words = -(-(stored * (weight_bits + index) + prefixes) // self.word_bits)
        least: Ints = words + lists if self.words is _one_more else np.maximum(words, lists)
        return least

    def bits_per_synapse(
        self, form: str, weight_bits: int, index_bits: int, skip_bits: int = SKIP_BITS[1]
    ) -> float:
        """Return the bits per synapse of a full entry, or per position of a dense entry.

        Entries are rounded up to whole words only if the packing stores every entry in words of
        its own.
        """
        index = 0 if form == DENSE else index_bits if form == SPARSE else skip_bits
        prefix = self.prefix_bits + (index_bits if self.prefix_index and form != SPARSE else 0)
        if not self.per_entry:
            return float(weight_bits + index)
        bits = self.per_entry * (weight_bits + index) + prefix
        if self.words is _whole_words:
            bits = self.word_bits * math.ceil(bits / self.word_bits)
        return bits / self.per_entry

    def break_even(
        self, form: str, weight_bits: int, index_bits: int, skip_bits: int = SKIP_BITS[1]
    ) -> float:
        """Return the density below which `form` takes less memory than dense lists."""
        dense = self.bits_per_synapse(DENSE, weight_bits, index_bits)
        return dense / self.bits_per_synapse(form, weight_bits, index_bits, skip_bits)


def _entries_of(per_entry: int, sizes: Ints) -> Ints:
    return -(-sizes // per_entry) if per_entry else np.ones_like(sizes)


def _entries(
    packing: Packing, form: str, lists: Lists, weight: int, index: int
) -> tuple[Ints, Ints, int]:
    """Return entries per list, stored synapses per list, and bits per stored synapse."""
    if form == DENSE:
        entries = lists.runs * _entries_of(packing.per_entry, lists.widths // lists.runs)
        return entries, lists.widths, weight
    if form == SPARSE:
        return _entries_of(packing.per_entry, lists.sizes), lists.sizes, weight + index
    owner, target = lists.owner, lists.target
    if not len(owner):
        none = np.zeros(len(lists.groups), np.int64)
        return none, none, weight + SKIP_BITS[0]
    first = np.ones(len(owner), bool)
    gaps = np.diff(target)
    first[1:] = (np.diff(owner) != 0) | (gaps >= MAX_GAP)
    segments = np.cumsum(first) - 1
    entries = _entries_of(packing.per_entry, np.bincount(segments).astype(np.int64))
    per_list = np.zeros(len(lists.groups), np.int64)
    np.add.at(per_list, owner[first], entries)
    widest = int(gaps[~first[1:]].max()) if not first[1:].all() else 0
    skip = min(max(SKIP_BITS[0], widest.bit_length()), SKIP_BITS[1])
    return per_list, lists.sizes, weight + skip


def _whole_words(packing: Packing, bits: int, prefix: int, entries: Ints, stored: Ints) -> Ints:
    """Return the words if every entry fills words of its own.

    A list has full entries and a last one with the rest. If full entries would leave no rest, all
    entries of the list are equally long.
    """
    rest = stored - (entries - 1) * packing.per_entry
    full = -(-(packing.per_entry * bits + prefix) // packing.word_bits)
    filled = (entries - 1) * full - (-(rest * bits + prefix) // packing.word_bits)
    each = -(-stored // np.maximum(entries, 1))
    equal = entries * -(-(each * bits + prefix) // packing.word_bits)
    words: Ints = np.where(rest > 0, filled, equal)
    return words


def _streamed(packing: Packing, bits: int, prefix: int, entries: Ints, stored: Ints) -> Ints:
    """Return the words of consecutive entries, with one more if fewer than 6 bits are left."""
    total = entries * prefix + stored * bits
    over = total % packing.word_bits
    more: Ints = ((over == 0) | (over >= packing.word_bits - 5)).astype(np.int64)
    return more - (-total // packing.word_bits)


def _one_more(packing: Packing, bits: int, prefix: int, entries: Ints, stored: Ints) -> Ints:
    """Return the words of the weights, and one more for the axon."""
    return -(-stored * bits // packing.word_bits) + 1


PACKINGS: Mapping[str, Packing] = {
    "nengo-loihi": Packing(
        word_bits=64,
        per_entry=64,
        prefix_bits=10,
        index_bits=(6, 7, 8, 9, 10, 11, 12),
        words=_whole_words,
        population_axons=2,
    ),
    "nxtf": Packing(
        word_bits=64,
        per_entry=60,
        prefix_bits=10,
        index_bits=(6, 7, 8, 9, 10),
        words=_streamed,
        formats=(DENSE, SPARSE, RUNLENGTH),
        prefix_index=True,
        remote_axons=1,
        population_axons=2,
        grouped=True,
    ),
    "netx": Packing(
        word_bits=32,
        per_entry=0,
        prefix_bits=0,
        index_bits=(),
        words=_one_more,
        by_tap=True,
    ),
}


def packing(name: str) -> Packing:
    """Return a packing by name.

    Raises:
        ConfigError: if the name is unknown.
    """
    if name not in PACKINGS:
        names = ", ".join(PACKINGS)
        raise ConfigError(
            f"unknown packing {shorten(name)}; the known packings are {names}",
            "unknown",
            key="packing",
            value=name,
            limit=names,
        )
    return PACKINGS[name]

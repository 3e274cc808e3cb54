"""How lists of synapses are packed into a core's memory, in one table.

A list is what one input axon (or, where a kernel is shared, one input channel at one
phase of the kernel) brings to a core: synapses onto targets 0..width-1 of that core.
Formats: *dense* stores a weight for every target, *sparse* a target and a weight for each
synapse, *runlength* the distance from the last target and a weight.

- `nengo-loihi` (nengo_loihi/block.py, SynapseConfig.bits_per_axon): entries of up to 64
  synapses, 10 bits before each, every entry in words of its own. Its sparse matrices are
  stored as if dense, with no bit for an index; here indices are charged.
- `nxtf` (nxsdk_modules_ncl/dnn/src/data_structures.py, SynEntry, SynapseGroup): entries of
  up to 60 synapses, 10 bits before each, dense and run-length ones with an index; a gap of
  32 targets starts a new entry; a further word where the last has less than 6 bits left or
  none over; lists of a group padded to the longest.
- `netx`: Loihi 2 as saved logs of Lava's compiler show it: about a word of 32 bits for
  every 32 bits of weights and one more for each axon. Sparse lists are in none of these
  logs: an index beside every weight is an assumption. A kernel has a list for each input
  channel and position, wherever a core's neurons lie: 576 for 64 x 64 x 3 x 3 (pilotnet_snn),
  and fewer words for it than are counted here.

Entries of output axons: one for a neuron and a core that it sends to (`nxtf`: and one more for
a core on another chip). A place of feature maps in front of a kernel has entries for all its
channels: two where its axons are of 32 bits (`nengo-loihi`, `nxtf`), one in Lava's logs
(yolo_kp: 28 of the axon map for 4 x 7 places of 128 channels). NxTF itself shares axons only
where a place sends to a single core; nengo-loihi does so for several.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from esl_lava.arrays import Ints
from esl_lava.errors import ConfigError

DENSE, SPARSE, RUNLENGTH = "dense", "sparse", "runlength"
MAX_GAP = 32
"""A distance between targets that no skip field holds."""
SKIP_BITS = (2, 5)


@dataclass(frozen=True, eq=False)
class Lists:
    """The lists of synapses of one core.

    Attributes:
        owner: (synapses,) list of each synapse, ascending.
        target: (synapses,) its target within the core, ascending in a list.
        groups: (lists,) group of each list, whose lists nxtf makes equally long.
        widths: (lists,) targets a dense list covers.
        runs: (lists,) stretches of neighbouring targets these are in, equally long.
    """

    owner: Ints
    target: Ints
    groups: Ints
    widths: Ints
    runs: Ints

    @property
    def sizes(self) -> Ints:
        """(lists,) synapses in each."""
        return np.bincount(self.owner, minlength=len(self.groups)).astype(np.int64)


@dataclass(frozen=True)
class Packing:
    """A way to pack lists.

    Attributes:
        word_bits: of a word of synapse memory.
        per_entry: most synapses of one entry; 0 where a list is one entry.
        prefix_bits: before every entry.
        index_bits: widths an index can have, ascending; empty: any.
        words: (packing, bits per synapse, of a prefix, entries, synapses) per list -> words.
        formats: the formats there are.
        prefix_index: whether a dense or run-length entry also begins with an index.
        remote_axons: further output axon entries for a core on another chip.
        population_axons: output axon entries for a core of a place of feature maps, whose
            channels have them in common.
        by_tap: whether a kernel has a list for each input channel and position, wherever it
            lies, instead of one for each way in which inputs meet it.
        grouped: whether lists of a group take as much as the longest.
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
        """Bits of an index that can name targets 0..highest.

        Raises:
            ConfigError: where no index is wide enough.
        """
        bits = max(1, int(highest).bit_length())
        wide = [width for width in self.index_bits or (bits,) if width >= bits]
        if wide:
            return wide[0]
        raise ConfigError(
            f"target {highest} of a core takes an index of {bits} bits; the widest has "
            f"{self.index_bits[-1]}"
        )

    def list_words(self, form: str, weight_bits: int, lists: Lists) -> Ints:
        """(lists,) words of each list; an empty list takes none.

        Args:
            form: one of `formats`.
            weight_bits: of a weight and its delay.
            lists: of one core.
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
        """Words that so many stored synapses take at least, in so many lists at least."""
        index = {DENSE: 0, SPARSE: (self.index_bits or (1,))[0], RUNLENGTH: SKIP_BITS[0]}[form]
        prefixes = stored // self.per_entry * self.prefix_bits if self.per_entry else 0
        words = -(-(stored * (weight_bits + index) + prefixes) // self.word_bits)
        least: Ints = words + lists if self.words is _one_more else np.maximum(words, lists)
        return least

    def bits_per_synapse(
        self, form: str, weight_bits: int, index_bits: int, skip_bits: int = SKIP_BITS[1]
    ) -> float:
        """Bits a synapse takes in a full entry, rounding to words apart.

        Of a dense entry it is bits per position.
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
        """Density below which `form` takes less memory than dense."""
        dense = self.bits_per_synapse(DENSE, weight_bits, index_bits)
        return dense / self.bits_per_synapse(form, weight_bits, index_bits, skip_bits)


def _entries_of(per_entry: int, sizes: Ints) -> Ints:
    return -(-sizes // per_entry) if per_entry else np.ones_like(sizes)


def _entries(
    packing: Packing, form: str, lists: Lists, weight: int, index: int
) -> tuple[Ints, Ints, int]:
    """Entries per list, stored synapses per list, bits per stored synapse."""
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
    """Every entry in words of its own: full ones and the rest, or equal ones."""
    rest = stored - (entries - 1) * packing.per_entry
    full = -(-(packing.per_entry * bits + prefix) // packing.word_bits)
    filled = (entries - 1) * full - (-(rest * bits + prefix) // packing.word_bits)
    each = -(-stored // np.maximum(entries, 1))
    equal = entries * -(-(each * bits + prefix) // packing.word_bits)
    taken: Ints = np.where(rest > 0, filled, equal)
    return taken


def _streamed(packing: Packing, bits: int, prefix: int, entries: Ints, stored: Ints) -> Ints:
    """Entries after one another, and a word more where the last is nearly full or full."""
    total = entries * prefix + stored * bits
    over = total % packing.word_bits
    more: Ints = ((over == 0) | (over >= packing.word_bits - 5)).astype(np.int64)
    return more - (-total // packing.word_bits)


def _one_more(packing: Packing, bits: int, prefix: int, entries: Ints, stored: Ints) -> Ints:
    """Words of the weights, and one for the axon."""
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
    """A packing by name.

    Raises:
        ConfigError: for an unknown name.
    """
    if name not in PACKINGS:
        raise ConfigError(f"unknown packing {name!r}; there are {', '.join(PACKINGS)}")
    return PACKINGS[name]

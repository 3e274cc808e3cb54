"""The netx HDF5 format: `write(network, path)` and `read(path) -> Network`."""

from esl_lava.netfile.reader import read
from esl_lava.netfile.writer import digest, write

__all__ = ["digest", "read", "write"]

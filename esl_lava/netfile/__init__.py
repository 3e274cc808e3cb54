"""The netx HDF5 format: `write(network, path)` and `read(path) -> Network`."""

from esl_lava.netfile.limits import check
from esl_lava.netfile.reader import read
from esl_lava.netfile.writer import digest, netx_refusals, write

__all__ = ["check", "digest", "netx_refusals", "read", "write"]

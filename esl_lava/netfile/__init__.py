"""The netx HDF5 format: `write(network, path)` and `read(path) -> Network`."""

from esl_lava.netfile.limits import check
from esl_lava.netfile.reader import read
from esl_lava.netfile.writer import beyond_netx, digest, write

__all__ = ["beyond_netx", "check", "digest", "read", "write"]

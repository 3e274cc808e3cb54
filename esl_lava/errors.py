"""Errors a user can act on: one sentence with the offending name, value and limit.

The commands print the sentence and exit with code 2; anything else that escapes
is a bug of ours and shows its traceback.
"""

from collections.abc import Sequence


class UserError(Exception):
    """Base of every error caused by the user's input rather than by a bug of ours."""


class ConfigError(UserError):
    """A configuration key or value is unknown, mistyped or out of range."""


class DataError(UserError):
    """A data set, an encoder's input or an array of spikes is missing or malformed."""


class FileError(UserError):
    """A file is missing, malformed, of the wrong kind, or would be overwritten."""


class BackendError(UserError):
    """A simulator is missing, failed or ran past its deadline."""


class PackageError(UserError):
    """A package that only some commands need is not installed."""


class LimitError(UserError):
    """A network breaks limits of netx, Lava or the chip; carries *all* violations.

    Args:
        violations: one sentence each, naming layer, value and limit.
    """

    def __init__(self, violations: Sequence[str]) -> None:
        self.violations = tuple(violations)
        super().__init__("\n".join(self.violations))

"""Profiles of hypothesis: the same examples in every run, or new examples for `make properties`."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import providers

SAME = settings(
    deadline=None,
    derandomize=True,
    database=None,
    # The first check reads a clock. The second does not apply: every example makes its own files.
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
"""With this profile a test has the same outcome on every machine and in every run."""

FUZZ = settings(
    SAME,
    derandomize=False,
    database=settings.get_profile("default").database,
    max_examples=1000,
    print_blob=True,
)
"""New examples in every run, 1000 unless a test sets a number; see `make properties`."""


def register() -> None:
    """Register both profiles for `pytest --hypothesis-profile`. `SAME` is the default."""
    settings.register_profile("same", SAME)
    settings.register_profile("fuzz", FUZZ)
    settings.load_profile("same")
    _forget_imported_constants()


def _forget_imported_constants() -> None:
    """Keep constants of imported modules out of examples that must be the same.

    Hypothesis takes constants from the source of imported modules. Which modules are imported
    depends on the tests that ran before in the same process.
    """
    original = providers._get_local_constants

    def constants() -> Any:
        return providers._local_constants if settings.default.derandomize else original()

    providers._get_local_constants = constants

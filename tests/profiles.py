"""Which examples hypothesis draws: the same everywhere, or by hand others in every run."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import providers

SAME = settings(
    deadline=None,
    derandomize=True,
    database=None,
    # The first looks at a clock; of the second, every example makes anew what it needs.
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
"""What fails with it fails on every machine and in every run, however busy the machine is."""

FUZZ = settings(
    SAME,
    derandomize=False,
    database=settings.get_profile("default").database,
    max_examples=1000,
    print_blob=True,
)
"""Other examples in every run, and many where a test names no number; see `make fuzz`."""


def register() -> None:
    """Make both known to `pytest --hypothesis-profile`, and the first the default."""
    settings.register_profile("same", SAME)
    settings.register_profile("fuzz", FUZZ)
    settings.load_profile("same")
    _forget_imported_constants()


def _forget_imported_constants() -> None:
    """Keep constants of the modules imported so far out of examples that are to be the same.

    Hypothesis takes some from their source (since 6.131); which have been imported depends on
    the tests that ran before in the same process.
    """
    original: Any = getattr(providers, "_get_local_constants", None)
    if original is None:
        return

    def constants() -> Any:
        return providers._local_constants if settings.default.derandomize else original()

    providers._get_local_constants = constants

from types import SimpleNamespace
from typing import Any

from esl_lava.results.account import Account


def test_a_run_is_called_by_what_its_accuracy_is_of() -> None:
    """Not by the key of the data in its configuration: that is the same for JPEG files."""
    layers = [SimpleNamespace(neurons=n) for n in (128, 10)]
    found: Any = SimpleNamespace(
        config=SimpleNamespace(data=SimpleNamespace(name="cifar10"), model=None),
        evaluation=SimpleNamespace(dataset="CIFAR-10 (JPEG)"),
        network=SimpleNamespace(inputs=3072, layers=layers),
    )
    title: Any = Account.title
    assert title.fget(found) == "CIFAR-10 (JPEG), 3072-128-10"

from types import SimpleNamespace
from typing import Any

from esl_lava.results.account import Account


def test_the_title_names_the_data_set_of_the_accuracy() -> None:
    """The configuration has the same key for CIFAR-10 and for its JPEG files."""
    layers = [SimpleNamespace(neurons=n) for n in (128, 10)]
    run: Any = SimpleNamespace(
        config=SimpleNamespace(data=SimpleNamespace(name="cifar10"), model=None),
        evaluation=SimpleNamespace(dataset="CIFAR-10 (JPEG)"),
        network=SimpleNamespace(inputs=3072, layers=layers),
    )
    title: Any = Account.title
    assert title.fget(run) == "CIFAR-10 (JPEG), 3072-128-10"

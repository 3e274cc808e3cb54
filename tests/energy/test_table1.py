import pytest

from esl_lava.devices import Device, load_device
from esl_lava.energy import by_connections
from esl_lava.energy.table1 import compute_table1


def test_every_cell_is_the_papers_to_the_digit() -> None:
    cells = [
        (f"{r.connections / 1000:.0f}K", f"{r.gpu_joules:.2E}", f"{r.truenorth_joules:.2E}")
        for r in compute_table1().rows
    ]
    assert cells == [("635K", "1.13E-05", "7.95E-06"), ("103K", "1.84E-06", "1.29E-06")]
    printed = [
        (row.paper.operations, row.paper.gpu, row.paper.truenorth) for row in compute_table1().rows
    ]
    assert cells == printed


def test_counts_and_density() -> None:
    dense, sparse = compute_table1().rows
    assert (dense.connections, sparse.connections) == (635_200, 103_040)
    assert dense.density == 1.0
    assert f"{sparse.density:.2f}" == sparse.paper.density == "0.16"
    assert (dense.paper.accuracy, sparse.paper.accuracy) == ("96.7", "96.58")


def truenorth(picojoules: float) -> Device:
    content = load_device("truenorth_paper").model_dump(exclude_none=True)
    content["energy"]["sop"]["value"] = picojoules
    return Device.model_validate(content)


# 7.945E-06 / 635,200 = 12.5079 pJ and 7.955E-06 / 635,200 = 12.5236 pJ bound the constant.
@pytest.mark.parametrize(
    ("picojoules", "dense"),
    [
        (12.50, "7.94E-06"),
        (12.507, "7.94E-06"),
        (12.508, "7.95E-06"),
        (12.516, "7.95E-06"),
        (12.523, "7.95E-06"),
        (12.524, "7.96E-06"),
        (26.0, "1.65E-05"),
    ],
)
def test_which_truenorth_constants_print_the_table(picojoules: float, dense: str) -> None:
    assert f"{by_connections(635_200, truenorth(picojoules)):.2E}" == dense


@pytest.mark.parametrize("picojoules", [12.50, 12.508, 12.523])
def test_the_sparse_row_does_not_tell_them_apart(picojoules: float) -> None:
    assert f"{by_connections(103_040, truenorth(picojoules)):.2E}" == "1.29E-06"


def test_remarks_name_what_does_not_add_up() -> None:
    connections, ratio, fitted, dense = compute_table1().remarks
    assert "counts connections" in connections
    assert '"about one order of magnitude"' in ratio
    assert "1.42 (dense) and 1.43 (sparse)" in ratio
    assert "fitted" in fitted
    assert "1.65E-05 J" in fitted
    assert "unstructured sparsity" in dense
    assert "1.13E-05 J on either row, not 1.84E-06" in dense

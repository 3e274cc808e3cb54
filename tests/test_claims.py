"""Claims of README and docs, and the tests that prove them.

Whoever changes a claim or removes a test finds the other here.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

CLAIMS: dict[str, tuple[str, ...]] = {
    "esl-lava keeps the number of weights constant and moves them": (
        "sparsity/test_evolver.py::test_training_keeps_every_invariant",
        "sparsity/test_rules.py::test_every_combination_keeps_every_invariant",
    ),
    "becomes integers in a netx HDF5 file that plain lava-dl loads": (
        "simulate/test_lava_cpu.py::test_random_networks_through_the_runtime",
    ),
    "Every limit of netx, Lava and the chip is checked before anything is written": (
        "netfile/test_limits.py::test_every_rule_is_violated_alone",
    ),
    "It lowers `model.pt` again and compares every integer of `net.h5` with the result": (
        "experiments/test_verify.py::test_every_kind_of_wrong_integer_is_named",
        "experiments/test_integers.py::test_any_one_integer_changed_is_found",
    ),
    "It runs stock SLAYER from `model.pt` and the simulators from `net.h5` on the same "
    "samples, and compares every position of every layer": (
        "cli/test_commands.py::test_verify_with_lava",
        "experiments/test_verify.py::test_one_changed_readout_weight_is_found",
    ),
    "| `lava` | Lava's CPU simulator: plain netx loads the file |": (
        "cli/test_commands.py::test_lava_runs_the_file_itself",
    ),
    "netx refuses some networks: residual connections and refractory periods among them. For "
    "these, esl-lava builds the network of Lava's processes itself, and says so": (
        "simulate/test_lava_cpu.py::test_a_residual_network",
        "simulate/test_lava_cpu.py::test_neurons_that_pause_and_decide_by_their_first_spike",
        "simulate/test_lava_cpu.py::test_random_networks_that_netx_refuses",
    ),
    "Every backend runs the same `net.h5` and returns the same spikes, decisions and counts": (
        "simulate/test_lava_models.py::test_random_networks_equal_ours",
        "simulate/test_lava_cpu.py::test_random_networks_through_the_runtime",
        "simulate/test_exact.py::test_equals_the_equations",
    ),
    "netx runs some files otherwise than SLAYER trained them, and Lava cannot run others at all. "
    "Such a file is refused, with layer and reason": (
        "netfile/test_lava_dl_exports.py::test_runs_as_slayer_on_every_backend_or_is_refused",
        "netfile/test_others.py::test_refused_with_layer_and_reason",
    ),
    "Another order of the axes has a name: `--axes NTHWC`": (
        "experiments/test_spikes.py::test_spikes_are_flat_in_the_networks_order",
    ),
    "The weight and bias of an input block are applied to your values": (
        "experiments/test_spikes.py::test_an_input_block_scales_and_shifts_what_a_file_holds",
    ),
    "continues from its last checkpoint, at most half a minute old": (
        "training/test_trainer.py::test_resumed_after_any_step_is_as_uninterrupted",
        "cli/test_commands.py::test_a_sweep_that_a_signal_ends_can_be_continued",
    ),
    "It ends with the same bits as an uninterrupted one. If the data changed in between, it "
    "refuses": (
        "experiments/test_samedata.py::test_other_data_are_refused_by_split_and_digests",
        "experiments/test_samedata.py::test_other_data_are_remarked",
    ),
    "weights or moments that are not finite are never saved, and layers that are silent, saturated "
    "or full of weights out of range are named in the log": (
        "training/test_health.py::test_a_spoilt_checkpoint_is_not_saved",
        "training/test_health.py::test_silent_layers_are_said",
        "training/test_health.py::test_saturated_layers_are_said",
        "training/test_health.py::test_weights_beyond_eight_bits_are_said",
    ),
    "no backend counts it, as an operation or as a message": (
        "results/test_firing.py::test_equal_to_recorded_spikes",
        "simulate/test_lava_models.py::test_random_networks_equal_ours",
        "simulate/test_lava_cpu.py::test_random_networks_through_the_runtime",
    ),
    "Spikes, and so the function that is trained, are the same": (
        "training/test_clipping.py::test_engines_train_the_same_function",
        "engines/test_fused.py::test_dense_blocks",
        "engines/test_fused.py::test_convolutions",
    ),
    "gives the CUBA blocks of a SLAYER network of your own faster passes, in place. "
    "Spikes and gradients stay those of SLAYER": (
        "engines/test_fused.py::test_what_it_cannot_serve_stays_stock_and_is_named",
        "engines/test_convolutions.py::test_random_convolutions_each_in_a_process_of_its_own",
    ),
    "A **SOP** is one spike that crosses one synapse and arrives before its sample ends": (
        "energy/test_neurobench.py::test_counts_are_neurobenchs",
        "test_arrivals.py::test_every_synapse_is_crossed_that_is_reached_in_time",
    ),
    "prints the paper's four energies to the digit": (
        "energy/test_table1.py::test_every_cell_is_the_papers_to_the_digit",
    ),
    "Linear, bilinear, convolutional and recurrent layers and attention become sparse": (
        "sparsity/test_any_model.py::test_every_kind_keeps_every_invariant",
        "sparsity/test_any_model.py::test_refused_before_the_model_is_touched",
        "sparsity/test_any_model.py::test_other_optimisers_are_refused_by_name",
    ),
    "Under `torch.amp.GradScaler` an update waits for the first step that is not skipped": (
        "sparsity/test_calls.py::test_an_update_waits_for_the_step_that_is_made",
    ),
}
"""Part of a sentence of the README -> tests that fail if it is not true."""

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXT = " ".join("\n".join(page.read_text() for page in PAGES).split())


@pytest.mark.parametrize("claim", CLAIMS)
def test_the_readme_makes_the_claim_and_its_tests_exist(claim: str) -> None:
    assert claim in TEXT
    assert CLAIMS[claim]
    for place in CLAIMS[claim]:
        file, name = place.split("::")
        tree = ast.parse((ROOT / "tests" / file).read_text())
        names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert name in names, place

"""Claims of the README, and the tests that prove them.

Whoever changes a claim or removes a test finds the other here.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

CLAIMS: dict[str, tuple[str, ...]] = {
    "then prune and regrow at a constant number of connections, exactly": (
        "sparsity/test_evolver.py::test_training_keeps_every_invariant",
        "sparsity/test_rules.py::test_every_combination_keeps_every_invariant",
    ),
    "becomes integers in a netx HDF5 file that plain lava-dl loads": (
        "simulate/test_lava_cpu.py::test_random_networks_through_the_runtime",
    ),
    "every limit of netx, Lava and the chip is checked before anything is written": (
        "netfile/test_limits.py::test_every_rule_is_violated_alone",
    ),
    "every integer of `net.h5` compared with what `model.pt` lowers to": (
        "experiments/test_verify.py::test_every_kind_of_wrong_integer_is_named",
        "experiments/test_integers.py::test_any_one_integer_changed_is_found",
    ),
    "then SLAYER, our simulator, Lava's process models and Lava compared spike for spike": (
        "cli/test_commands.py::test_verify_with_lava",
        "experiments/test_verify.py::test_one_changed_readout_weight_is_found",
    ),
    "`lava` runs the file itself through netx on Lava's CPU simulator": (
        "cli/test_commands.py::test_lava_runs_the_file_itself",
    ),
    "what netx refuses, residual connections and refractory periods among it, it builds of Lava's "
    "processes itself, and says so": (
        "simulate/test_lava_cpu.py::test_a_residual_network",
        "simulate/test_lava_cpu.py::test_neurons_that_pause_and_decide_by_their_first_spike",
        "simulate/test_lava_cpu.py::test_random_networks_that_netx_refuses",
    ),
    "All return the same result": (
        "simulate/test_lava_models.py::test_random_networks_equal_ours",
        "simulate/test_lava_cpu.py::test_random_networks_through_the_runtime",
        "simulate/test_exact.py::test_equals_the_equations",
    ),
    "run with SLAYER's spikes. What netx would run otherwise than SLAYER trained it, or Lava could "
    "not run at all, is refused by layer and reason": (
        "netfile/test_lava_dl_exports.py::test_runs_as_slayer_on_every_backend_or_is_refused",
        "netfile/test_others.py::test_refused_with_layer_and_reason",
    ),
    "`--axes` names any other order": (
        "experiments/test_spikes.py::test_spikes_are_flat_in_the_networks_order",
    ),
    "An input block's weight and bias are applied to the values": (
        "experiments/test_spikes.py::test_an_input_block_scales_and_shifts_what_a_file_holds",
    ),
    "it goes on from its last checkpoint (at most half a minute old) with `--resume` and ends with "
    "the same bits": (
        "training/test_trainer.py::test_resumed_after_any_step_is_as_uninterrupted",
        "cli/test_commands.py::test_ctrl_c_in_a_sweep_leaves_what_it_goes_on_from",
    ),
    "other data of the same name are refused there, and remarked where the network is run": (
        "experiments/test_samedata.py::test_other_data_are_refused_by_split_and_digests",
        "experiments/test_samedata.py::test_other_data_are_remarked",
    ),
    "A training that destroys its network, by NaN, silent or saturated layers or weights out of "
    "range, says so by layer, and what is not finite is never saved": (
        "training/test_health.py::test_a_spoilt_checkpoint_is_not_saved",
        "training/test_health.py::test_silent_layers_are_said",
        "training/test_health.py::test_saturated_layers_are_said",
        "training/test_health.py::test_weights_beyond_eight_bits_are_said",
    ),
    "Every backend counts the same": (
        "results/test_firing.py::test_equal_to_recorded_spikes",
        "simulate/test_lava_models.py::test_random_networks_equal_ours",
        "simulate/test_lava_cpu.py::test_random_networks_through_the_runtime",
    ),
    "spikes, and so the function that is trained, are the same": (
        "training/test_clipping.py::test_engines_train_the_same_function",
        "engines/test_fused.py::test_dense_blocks",
        "engines/test_fused.py::test_convolutions",
    ),
    "a block that it cannot serve keeps stock SLAYER's passes, and the log names it": (
        "engines/test_fused.py::test_what_it_cannot_serve_stays_stock_and_is_named",
        "engines/test_convolutions.py::test_random_convolutions_each_in_a_process_of_its_own",
    ),
    "A *SOP* is one spike that crosses one synapse and arrives before its sample ends": (
        "energy/test_neurobench.py::test_counts_are_neurobenchs",
        "test_arrivals.py::test_every_synapse_is_crossed_that_is_reached_in_time",
    ),
    "prints the paper's four energies to the digit": (
        "energy/test_table1.py::test_every_cell_is_the_papers_to_the_digit",
    ),
    "Linear, bilinear, convolutional and recurrent layers and attention are made sparse": (
        "sparsity/test_any_model.py::test_every_kind_keeps_every_invariant",
        "sparsity/test_any_model.py::test_refused_before_the_model_is_touched",
        "sparsity/test_any_model.py::test_other_optimisers_are_refused_by_name",
    ),
    "Under `torch.amp.GradScaler` an update waits for the first step that is not skipped": (
        "sparsity/test_calls.py::test_an_update_waits_for_the_step_that_is_made",
    ),
}
"""Part of a sentence of the README -> tests that fail if it is not true."""

README = " ".join((ROOT / "README.md").read_text().split())


@pytest.mark.parametrize("claim", CLAIMS)
def test_the_readme_makes_the_claim_and_its_tests_exist(claim: str) -> None:
    assert claim in README
    assert CLAIMS[claim]
    for place in CLAIMS[claim]:
        file, name = place.split("::")
        tree = ast.parse((ROOT / "tests" / file).read_text())
        names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert name in names, place

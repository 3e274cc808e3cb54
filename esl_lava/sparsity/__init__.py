"""Sparse training from scratch: masks that evolve at a constant number of connections.

A rule is a pure function in a table: `density.DISTRIBUTIONS`, `prune.PRUNE`,
`growth.GROW`, `redistribution.REDISTRIBUTE`, `schedule.SCHEDULES`; a new rule is one more
function and one more entry. `density` and `schedule` import without torch;
`evolver.MaskEvolver` is what a training loop uses, over dense weights with masks and over
`weights.SparseWeight`, which stores only the connections that exist.
"""

"""Training: one jitted step, loops over epochs, checkpoints, metrics."""

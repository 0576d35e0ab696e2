"""Training: members of a population, their batches, their optimizers, and the loop."""

"""Benchmarks: a peer and hpo on the same work in one run, printed as ratios."""

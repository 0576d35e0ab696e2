"""The search: the only rooms that know Optuna."""

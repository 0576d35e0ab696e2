"""The commands. This room alone knows Typer and Rich.

app.py        the app, its global options, errors and exit codes
options.py    options that several commands share
rendering.py  tables, JSON and CSV on stdout
logs.py       log lines on stderr
secrets.py    no password in either
search.py     optimize, submit (with definitions.py, variations.py, progress.py and signals.py)
workers.py    worker
retrain.py    retrain-best
inspect.py    status, trials, best, effects
curves.py     curves
plot.py       plot
dashboard.py  dashboard
studies.py    studies list, show, validate, schema
data.py       data list, fetch
doctor.py     doctor

Importing it costs Typer and nothing more: each command imports the rooms it needs when it runs.
"""

from __future__ import annotations

from hpo.cli.app import main

__all__ = ["main"]

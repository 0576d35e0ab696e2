"""Tests of the datasets; a package, so that they share `conftest`."""

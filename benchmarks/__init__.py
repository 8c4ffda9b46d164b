"""Benchmarks and experiments: run with `python -m benchmarks.NAME`."""

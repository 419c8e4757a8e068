"""Timings and memory, as ratios of both sides in one run: `python -m benchmarks NAME`."""

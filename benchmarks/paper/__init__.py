"""The paper's tables on studio sets: `python -m benchmarks tables`."""

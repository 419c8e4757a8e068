"""What the library costs, as ratios of all sides in one run: `python -m benchmarks NAME`."""

# Each is a module with a TITLE, a TEXT for the page, and run(options), which yields tables.
NAMES = (
    "mesh",
    "parts",
    "backward",
    "joints",
    "regressed",
    "shape",
    "camera",
    "load",
    "workers",
    "dataset",
    "crops",
    "training",
    "overlay",
    "gpu",
)

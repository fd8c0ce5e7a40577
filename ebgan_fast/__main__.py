"""The entry point of `python -m ebgan_fast`, for torchrun: torchrun --nproc-per-node 8 -m ebgan_fast train ..."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())

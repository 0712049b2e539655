"""`python -m textclf_fast`: the same program as `textclf-fast`."""

from __future__ import annotations

import sys

from textclf_fast.cli.app import main

if __name__ == "__main__":
    sys.exit(main())

"""`python -m minipt` is the command `minipt`."""

import sys

from minipt.cli import main

sys.exit(main())

"""`python -m minipt` is the command `minipt`."""

import sys

from minipt.commands.cli import main

sys.exit(main())

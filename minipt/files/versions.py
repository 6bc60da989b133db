"""What made a file: the versions of minipt, NumPy and Python."""

import platform
from importlib.metadata import version

import numpy as np


def versions() -> dict[str, str]:
    """The versions by name, for a record in JSON."""
    return {
        "minipt": version("minipt"),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }

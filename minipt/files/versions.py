"""What made a file: the versions of minipt, NumPy and Python, and the machine.

With the same versions, the same seed gives the same bits on one kind of processor. Elsewhere the
library of matrix products may take another kernel, which adds in another order.
"""

import ctypes
import platform
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import numpy as np

# OpenBLAS as NumPy's wheels have it, with 64-bit integers, and as others build it.
OPENBLAS = ("scipy_openblas_{}64_", "openblas_{}64_", "openblas_{}")


def versions() -> dict[str, str]:
    """The versions by name, for a record in JSON."""
    return {
        "minipt": version("minipt"),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def machine() -> dict[str, str | int | list[str] | None]:
    """The processor, and the library of matrix products with its kernel and threads; None: unknown.

    simd: the sets of instructions that NumPy itself uses here.
    """
    config = np.show_config(mode="dicts")
    blas = config.get("Build Dependencies", {}).get("blas", {})
    kernel = _openblas("get_corename", ctypes.c_char_p)
    return {
        "processor": _processor(),
        "simd": config.get("SIMD Extensions", {}).get("found", []),
        "blas": f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip(),
        "blas_kernel": kernel.decode(errors="replace") if kernel else None,
        "blas_threads": _openblas("get_num_threads", ctypes.c_int),
    }


def _processor() -> str:
    """Its name as the system gives it; Linux has it in a file only."""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        if names:
            return names[0]
    return platform.processor() or platform.machine()


def _openblas(question: str, answer: type) -> bytes | int | None:
    """Ask OpenBLAS, which a module of NumPy's has loaded. None where there is another library."""
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(np.linalg._umath_linalg.__file__)
        for name in OPENBLAS:
            if hasattr(library, name.format(question)):
                function = getattr(library, name.format(question))
                function.restype = answer
                return function()
    return None

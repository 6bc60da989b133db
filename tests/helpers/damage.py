"""Files of types that NumPy cannot write, for the tests of reading them."""

import json
from pathlib import Path

import numpy as np

Parts = dict[str, tuple[str, tuple[int, ...], bytes]]  # the type, the shape and the numbers


def write_bfloat16(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """The upper half of each float32."""
    parts = {}
    for name, array in tensors.items():
        half = (np.ascontiguousarray(array).view(np.uint32) >> 16).astype("<u2")
        parts[name] = ("BF16", array.shape, half.tobytes())
    write_parts(path, parts)


def write_parts(path: Path, parts: Parts, metadata: dict[str, str] | None = None) -> None:
    """A safetensors file of any types: the length of a header, the header, the numbers."""
    header: dict = {"__metadata__": metadata} if metadata else {}
    data = b""
    for name, (kind, shape, part) in parts.items():
        offsets = [len(data), len(data) + len(part)]
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": offsets}
        data += part
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)

"""Numbers for the page: one buffer of bytes, compressed, as text.

In: arrays. Out: references to them, `[offset in bytes, count]`, and the buffer in base64. Exact
numbers stand there as float32. A heat map stands there as one byte a number:

    value = scale · sign(c) · (c / 127)², c from -127 to 127, and -128 where there is no number

The square keeps small numbers apart where a few are large.
"""

import base64
import zlib

import numpy as np

LARGEST, NO_NUMBER = 127, -128
LEVEL = 9  # of compression; 6 is hardly faster here and leaves 1 % more
Reference = list[int]


class Numbers:
    """The buffer, which grows with each array."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._end = 0

    def floats(self, array: np.ndarray) -> Reference:
        """The array as float32, little-endian, at a multiple of 4."""
        self._put(b"\0" * (-self._end % 4))
        return self._put(np.ascontiguousarray(array, "<f4").tobytes(), array.size)

    def heat_map(self, array: np.ndarray) -> dict:
        """The array as codes with their scale."""
        codes, scale = encode(array)
        return {"codes": self._put(codes.tobytes(), codes.size), "scale": scale}

    def packed(self) -> str:
        """All of it."""
        return packed(b"".join(self._parts))

    def _put(self, data: bytes, count: int = 0) -> Reference:
        start = self._end
        self._parts.append(data)
        self._end += len(data)
        return [start, count]


def packed(data: bytes) -> str:
    """Compressed, in base64; `DecompressionStream("deflate")` reads it once it is decoded."""
    return base64.b64encode(zlib.compress(data, LEVEL)).decode()


def encode(array: np.ndarray) -> tuple[np.ndarray, float]:
    """Codes (int8) of the array's shape, and their scale: the largest absolute value."""
    finite = np.isfinite(array)
    sizes = np.abs(np.where(finite, array, 0.0))
    scale = float(sizes.max(initial=0.0))
    # The root of each number, before the quotient: of the smallest ones a quotient would be 0.
    roots = np.sqrt(sizes) / (np.sqrt(scale) or 1.0)
    codes = np.rint(LARGEST * roots) * np.sign(np.where(finite, array, 0.0))
    return np.where(finite, codes, NO_NUMBER).astype(np.int8), scale


def decode(codes: np.ndarray, scale: float) -> np.ndarray:
    """What the page shows for these codes."""
    values = scale * np.sign(codes) * (codes / LARGEST) ** 2
    return np.where(codes == NO_NUMBER, np.nan, values)


def bytes_of(array: np.ndarray) -> int:
    """About how many characters a heat map of this array takes in the page."""
    return len(zlib.compress(encode(array)[0].tobytes(), 1)) * 4 // 3

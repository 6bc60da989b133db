"""What a page holds, read as its script reads it."""

import base64
import json
import re
import zlib

import numpy as np

from minipt.page.numbers import decode


def unpacked(text: str) -> bytes:
    return zlib.decompress(base64.b64decode(text, validate=True))


class Page:
    """step: the JSON. floats, heat_map: what a reference into the buffer stands for."""

    def __init__(self, page: str) -> None:
        pattern = r'<script id="{}" type="text/plain">([A-Za-z0-9+/=]+)</script>'
        texts = (re.findall(pattern.format(name), page) for name in ("step", "numbers"))
        (step,), (numbers,) = texts
        self.step, self.buffer = json.loads(unpacked(step)), unpacked(numbers)

    def floats(self, reference: list[int]) -> np.ndarray:
        start, count = reference
        assert start % 4 == 0
        return np.frombuffer(self.buffer, "<f4", count, start)

    def heat_map(self, part: dict, shape: list[int]) -> np.ndarray:
        start, count = part["codes"]
        codes = np.frombuffer(self.buffer, np.int8, count, start)
        return decode(codes, part["scale"]).reshape(shape)

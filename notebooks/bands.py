"""Do the bands of the course hold for other seeds? `python notebooks/bands.py [NN ...] [--seeds 5]`

Each chapter's script is run with its solutions and with `SEED = 0` replaced by each of the seeds.
One line is printed for every figure that a band holds. The exit status is 1 if one lies outside.
"""

import argparse
import os
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ["MPLBACKEND"] = "Agg"
import make
import matplotlib.pyplot as plt

from minipt import course

SEED = "SEED = 0\n"


def figures(source: Path, seed: int) -> list[dict]:
    """What a chapter holds to bands, after a run with this seed."""
    code = [cell.source for cell in make.solved(source).cells if cell.cell_type == "code"]
    text = "\n".join(code).replace(SEED, SEED.replace("0", str(seed)))
    before = Path.cwd()
    with TemporaryDirectory() as folder, redirect_stdout(StringIO()):
        os.chdir(folder)  # where the summary's file is left
        try:
            exec(compile(text, source.name, "exec"), {"__name__": "chapter"})
        finally:
            os.chdir(before)
            plt.close("all")
    return course.results().bands


def main() -> int:
    """Print the table; 1 where a figure lies outside its band."""
    parser = argparse.ArgumentParser(description="The figures of the course for several seeds.")
    parser.add_argument("chapters", nargs="*", help="two digits each, such as 02 (default: all)")
    parser.add_argument("--seeds", type=int, default=5, help="how many (default: 5)")
    given = parser.parse_args()
    outside = 0
    print("| chapter | figure | band | by seed |\n|---|---|---|---|")
    for source in make.SOURCES:
        if given.chapters and source.stem[:2] not in given.chapters:
            continue
        for rows in zip(*(figures(source, seed) for seed in range(given.seeds)), strict=True):
            values = ", ".join(f"{row['value']:.3f}" for row in rows)
            outside += sum(not row["inside"] for row in rows)
            limits = f"{rows[0]['low']:g} to {rows[0]['high']:g}"
            print(f"| {source.stem[:2]} | {rows[0]['what']} | {limits} | {values} |", flush=True)
    return int(outside > 0)


if __name__ == "__main__":
    sys.exit(main())

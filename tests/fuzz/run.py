"""Thousands of damaged inputs, and what minipt says to each.

    python tests/fuzz/run.py                          # seed 0, 2,000 inputs, about a minute
    python tests/fuzz/run.py --seed 7 --count 20000
    python tests/fuzz/run.py --seed 7 --only 1234     # one input again, with its traceback

The same seed gives the same inputs, and an input depends on its seed and its number alone. The
first input of each kind of failure is kept in a directory, which is printed. The exit status is 1
if there was a failure. `rules.py` says what must hold, `targets.py` what is damaged, and
`damage.py` how.
"""

import argparse
import faulthandler
import os
import random
import resource
import shutil
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from contextlib import chdir
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]

from rules import LONGEST_WAIT, hold, hold_command  # noqa: E402
from targets import TARGETS, make_sound  # noqa: E402

import minipt  # noqa: E402
from minipt.errors import MiniptError  # noqa: E402
from minipt.files import fetch  # noqa: E402

PACKAGE = str(Path(minipt.__file__).parent)
MOST_ADDRESSES = 16 << 30  # bytes; NumPy's threads reserve some, too


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--only", type=int, metavar="N", help="try this one input, and keep it")
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    args = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="minipt-fuzz-"))
    stand_alone(place)
    make_sound(place / "sound")
    check_sound(place)
    counts: Counter[str] = Counter()
    for number in range(args.count) if args.only is None else [args.only]:
        target = args.targets[number % len(args.targets)]
        case = place / f"{target}-{args.seed}-{number}"
        try:
            accepted = attempt(target, random.Random(f"{args.seed} {number}"), place, case)
            counts[f"{target} accepted" if accepted else f"{target} refused"] += 1
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a panic of a library in Rust is no Exception
            kind = kind_of(target, error)
            counts[kind] += 1
            if counts[kind] == 1:
                print(f"input {number}: {kind}: {str(error)[:300]!r}, in {case}", flush=True)
                continue
        if args.only is None:
            shutil.rmtree(case)
    shutil.rmtree(place / "sound")
    if not any(place.iterdir()):
        place.rmdir()
    print(*(f"{count:6} {kind}" for kind, count in sorted(counts.items())), sep="\n")
    return int(any("!" in kind for kind in counts))


def attempt(name: str, rng: random.Random, place: Path, case: Path) -> bool:
    """Damage one input and use it; returns whether it was accepted."""
    faulthandler.dump_traceback_later(3 * LONGEST_WAIT, exit=True)  # where no signal comes through
    target = TARGETS[name]
    shutil.copytree(place / "sound" / rng.choice(target.sound), case)
    with chdir(case):
        accepted = hold(target.damage(rng), name == "calls")
        if target.line and (not accepted or rng.random() < 0.05):
            hold_command(target.line.split())
    return accepted


def check_sound(place: Path) -> None:
    """Without damage every input is accepted; otherwise little would be tried."""
    for name, target in TARGETS.items():
        for each in target.sound:
            case = shutil.copytree(place / "sound" / each, place / f"{name}-{each}")
            with chdir(case):
                if not hold(target.use, calls=False):
                    raise AssertionError(f"the sound input of {name} is refused")
            shutil.rmtree(case)


def kind_of(target: str, error: BaseException) -> str:
    """What failed, and the function of minipt in which it did."""
    if os.environ.get("FUZZ_TRACEBACK"):
        traceback.print_exception(error)
    frames = traceback.extract_tb(error.__traceback__)
    inside = [frame for frame in frames if frame.filename.startswith(PACKAGE)]
    where = f"{Path(inside[-1].filename).name}:{inside[-1].name}" if inside else "here"
    return f"{target}! {type(error).__name__} at {where}"


def stand_alone(place: Path) -> None:
    """No network, no cache, no window, no warning passed over, and no end of memory."""
    os.environ |= {"MINIPT_CACHE": str(place / "cache"), "HF_HUB_OFFLINE": "1"}
    warnings.simplefilter("error")
    resource.setrlimit(resource.RLIMIT_AS, (MOST_ADDRESSES, resource.RLIM_INFINITY))

    def refuse(*_: object) -> None:
        raise MiniptError("nothing is fetched while minipt is fuzzed")

    fetch._download = refuse


if __name__ == "__main__":
    sys.exit(main())

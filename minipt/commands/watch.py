"""The command `watch`: is a prompt that is in use still asked and answering as on validation?

In: a version. Out: a table, JSON or a picture, and exit status 1 at an alarm, which is enough for
cron.
"""

import argparse
import re
import time
from pathlib import Path

from minipt.commands.arguments import REGISTRY, argument, command, print_result
from minipt.commands.find import open_registry
from minipt.commands.terminal import command_line
from minipt.commands.watch_page import describe, page, tell
from minipt.errors import MiniptError
from minipt.files.clock import seconds_of
from minipt.registry.monitor import watch
from minipt.results.store import check_page, save_page

SECONDS = {"m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
AGO = re.compile(r"(\d{1,6})([mhdw])")


@command(
    "spam@production --since 7d --save page.png",
    argument("version", "a version: NAME@2, NAME@TAG, or NAME, the newest", metavar="VERSION"),
    argument("--since", "as far back: 90m, 12h, 7d, 2w, or a date in UTC (default: all)"),
    argument("--save", "draw it on one page", type=Path, metavar="PAGE.png"),
    REGISTRY,
)
def watch_command(args: argparse.Namespace) -> int:
    """Compare what was logged of a version with its validation split.

    The exit status is 1 at an alarm and 0 without.
    """
    check_page(args.save)
    since = 0.0 if args.since is None else _moment(args.since)
    registry = open_registry(args)
    reference = registry.find(args.version).reference  # the tag may move while this runs
    validation, right = registry.validation(reference)
    logged = registry.logged(reference, since)
    if not len(logged.ids):
        known = "" if args.since is None else f" since {args.since}"
        advice = command_line("minipt", "predict", reference, "--log")
        raise MiniptError(f"nothing was logged of {reference}{known}: log answers with `{advice}`")
    report = watch(reference, validation, right, logged)
    if args.save:
        save_page(page(report), args.save)
    print_result(args, describe(report), tell(report))
    return 1 if report.alarms else 0


def _moment(since: str) -> float:
    """Seconds since 1970: so long ago, or a date. Raises MiniptError for what is neither."""
    if ago := AGO.fullmatch(since):
        return time.time() - int(ago[1]) * SECONDS[ago[2]]
    try:
        return seconds_of(since)
    except MiniptError:
        raise MiniptError(
            f"--since {since!r:.40} is neither a time such as 12h or 7d nor a date such as "
            "2026-11-28"
        ) from None

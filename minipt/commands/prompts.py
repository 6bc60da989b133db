"""The command `prompts`: versions of prompts, kept in a registry.

In: names and references such as spam@2. Out: tables, or with --json the same for a program.
"""

import argparse
from dataclasses import asdict
from pathlib import Path

from minipt.commands.arguments import (
    REGISTRY,
    argument,
    base_argument,
    choose_task,
    command,
    print_result,
    readable,
    task_arguments,
)
from minipt.commands.find import Found, find_prompt, open_registry
from minipt.errors import MiniptError
from minipt.files.clock import seconds_of
from minipt.registry.compare import Diff
from minipt.registry.exchange import export_to, import_from
from minipt.registry.names import NUMBER, parse_reference
from minipt.registry.version import Version
from minipt.results.tables import align, decimals, shorten
from minipt.tasks.rows import read_labelled

UNKNOWN = "-"
CELL = 36  # characters of a fact in a table of two
VERSION = "a version: NAME@2, NAME@TAG, or NAME, the newest"
WITHIN = "prompts "
HEAD = ("name", "version", "tags", "base", "task", "accuracy", "date")


@command("show spam@production", REGISTRY, prints="a JSON array, or what the action prints")
def prompts_command(args: argparse.Namespace) -> None:
    """Keep prompts under names, with numbers, tags and a history.

    Without an action it lists all versions: their name and number, tags, base, task, accuracy on
    the test split, and date.
    """
    versions = open_registry(args).versions()
    rows = [HEAD, *map(_row, versions)]
    print_result(args, [each.describe() for each in versions], align(rows, "<><<<><"))


@command(
    'runs/sms-spam-tiny-0 spam -m "first try"',
    argument("run", "a run's directory, or its prompt.safetensors", metavar="RUN"),
    argument("name", "without / \\ @ and commas", metavar="NAME"),
    argument("-m", "what is new in this version", dest="message", default="", metavar="MESSAGE"),
    argument("--parent", "the version that it was tuned on from (default: as the run says)"),
    REGISTRY,
    within=WITHIN,
)
def keep_command(args: argparse.Namespace) -> None:
    """Keep a run's prompt as the next version of a name."""
    registry = open_registry(args)
    found = find_prompt(args, args.run)
    if found.version:
        raise MiniptError(
            f"{found.name} is kept already: give it another name with `minipt prompts tag`"
        )
    version = registry.save(found.path, args.name, readable(args.message), args.parent)
    print_result(args, version.describe(), f"kept: {version.reference} in {registry.directory}")


@command("spam@2", argument("version", VERSION, metavar="VERSION"), REGISTRY, within=WITHIN)
def show_command(args: argparse.Namespace) -> None:
    """Print all that is known about a version."""
    version = open_registry(args).find(args.version)
    print_result(args, version.describe(), _tell(version))


@command("spam", argument("name", metavar="NAME"), REGISTRY, within=WITHIN)
def log_command(args: argparse.Namespace) -> None:
    """Print the history of a name: its versions, and who moved which tag."""
    registry = open_registry(args)
    versions, moves = registry.versions(args.name), registry.moves(args.name)
    lines = [(v.created, f"kept {v.reference}{_after(v)}", v.message) for v in versions]
    for move in moves:
        places = (UNKNOWN if n is None else f"@{n}" for n in (move.before, move.after))
        moved = f"tag {move.tag}: {' to '.join(places)}"
        lines.append((move.time, moved, f"by {move.user} on {move.host}"))
    record = {"versions": [v.describe() for v in versions], "moves": [asdict(m) for m in moves]}
    print_result(args, record, align(sorted(lines, key=lambda line: line[0]), "<<<"))


@command(
    "spam@1 spam@2 --task sms-spam",
    argument("first", VERSION, metavar="FIRST"),
    argument("second", VERSION, metavar="SECOND"),
    *task_arguments("none: nothing is answered"),
    base_argument(None),
    REGISTRY,
    within=WITHIN,
)
def diff_command(args: argparse.Namespace) -> None:
    """Put two versions side by side; with a task, ask which one answers better."""
    registry = open_registry(args)
    task = bases = None
    if args.task or args.csv or args.pairs:
        versions = [registry.find(each) for each in (args.first, args.second)]
        first, second = (Found(registry.path_of(each), registry, each) for each in versions)
        base = first.load_base(args.base)
        same = args.base is not None or len({each.fingerprint for each in versions}) == 1
        bases = (base, base if same else second.load_base(None))
        task = choose_task(args, base)
    diff = registry.diff(args.first, args.second, task, bases)
    print_result(args, diff.describe(), _tell_diff(diff))


@command(
    "spam@2 production",
    argument("version", VERSION, metavar="VERSION"),
    argument("tag", "a name that can be moved, such as production", metavar="TAG"),
    REGISTRY,
    within=WITHIN,
)
def tag_command(args: argparse.Namespace) -> None:
    """Put a tag on a version; it leaves the one that it was on."""
    registry = open_registry(args)
    version = registry.find(args.version)
    before = registry.tags(version.name).get(args.tag)
    version = registry.tag(version.name, version.number, args.tag)
    came = "" if before is None else f", before on {version.name}@{before}"
    print_result(args, version.describe(), f"{args.tag} is on {version.reference}{came}")


@command("spam@production", argument("tagged", metavar="NAME@TAG"), REGISTRY, within=WITHIN)
def untag_command(args: argparse.Namespace) -> None:
    """Take a tag away."""
    wanted = parse_reference(args.tagged)
    if wanted.tag is None:
        args.parser.error(f"{args.tagged} names no tag: write NAME@TAG")
    version = open_registry(args).untag(wanted.name, wanted.tag)
    print_result(args, version.describe(), f"{wanted.tag} is no longer on {version.reference}")


@command("spam@1", argument("version", "NAME@2", metavar="VERSION"), REGISTRY, within=WITHIN)
def remove_command(args: argparse.Namespace) -> None:
    """Remove a version that no tag and no logged answer names."""
    if parse_reference(args.version).number is None:
        args.parser.error(f"say which number of {args.version}, as in NAME@2")
    version = open_registry(args).remove(args.version)
    print_result(args, version.describe(), f"removed: {version.reference}")


@command("", REGISTRY, within=WITHIN)
def verify_command(args: argparse.Namespace) -> int:
    """Read every file again, and name what is damaged or missing."""
    registry = open_registry(args)
    faults, versions, unnamed = registry.verify(), registry.versions(), registry.unnamed()
    counts = f"versions: {len(versions):,}, damaged: {len(faults):,}; files that no version names, "
    text = "\n".join([*faults, f"{counts}which is no fault: {len(unnamed):,}"])
    record = {"versions": len(versions), "damaged": faults, "unnamed": list(map(str, unnamed))}
    print_result(args, record, text)
    return 1 if faults else 0


@command("backup.minipt", argument("file", type=Path, metavar="FILE"), REGISTRY, within=WITHIN)
def export_command(args: argparse.Namespace) -> None:
    """Write all versions, tags and their history to one file, without the log."""
    count = export_to(open_registry(args), args.file)
    print_result(args, {"versions": count}, f"versions written to {args.file}: {count:,}")


@command(
    "backup.minipt",
    argument("file", type=Path, metavar="FILE"),
    argument("--suffix", "is put behind every name that arrives", default="", metavar=".TEXT"),
    REGISTRY,
    within=WITHIN,
)
def import_command(args: argparse.Namespace) -> None:
    """Add the versions of such a file, all or none."""
    registry = open_registry(args)
    count = import_from(registry, args.file, args.suffix)
    print_result(args, {"versions": count}, f"new versions in {registry.directory}: {count:,}")


@command(
    "--before 2026-11-01",
    argument("--before", "a date or time in UTC, such as 2026-11-28", required=True),
    REGISTRY,
    within=WITHIN,
)
def forget_command(args: argparse.Namespace) -> None:
    """Remove answers from the log, with their texts."""
    count = open_registry(args).forget(seconds_of(args.before))
    print_result(args, {"answers": count}, f"answers forgotten: {count:,}")


@command("truth.csv", argument("file", type=Path, metavar="FILE.csv"), REGISTRY, within=WITHIN)
def truth_command(args: argparse.Namespace) -> None:
    """Add the right answers to the log: a CSV file with the columns id and label."""
    ids, labels = read_labelled(args.file, "id", "label")
    if wrong := [text for text in ids if not NUMBER.fullmatch(text)]:
        raise MiniptError(f"{args.file} has the id {wrong[0]!r:.40}: write those of the log")
    truth = dict(zip(map(int, ids), labels, strict=True))
    open_registry(args).add_truth(truth)
    print_result(args, {"answers": len(truth)}, f"answers that have their truth: {len(truth):,}")


ACTIONS = (keep_command, show_command, log_command, diff_command, tag_command, untag_command)
ACTIONS += (remove_command, verify_command, export_command, import_command, forget_command)
ACTIONS += (truth_command,)


def add_prompts(commands: argparse._SubParsersAction) -> None:
    """Add the command with its actions to argparse's."""
    parser = prompts_command(commands)
    actions = parser.add_subparsers(metavar="ACTION")
    for add_to in ACTIONS:
        add_to(actions)


def _row(version: Version) -> tuple[str, ...]:
    accuracy = UNKNOWN if version.accuracy is None else f"{version.accuracy:.3f}"
    about = (", ".join(version.tags), version.text("base"), version.text("task"))
    cells = (version.name, str(version.number), *(each or UNKNOWN for each in about))
    return (*cells, accuracy, version.created[:10])


def _after(version: Version) -> str:
    return f", tuned on from {version.parent}" if version.parent else ""


def _tell(version: Version) -> str:
    """Line by line what one wants to know; all else stands in --json."""
    record, settings, made = version.record, version.part("settings"), version.part("versions")
    interval = version.interval and "{:.3f} to {:.3f}".format(*version.interval)
    facts = {
        "message": version.message,
        "tags": ", ".join(version.tags),
        "kept": version.created,
        "sha256": version.sha256,
        "tuned on from": version.parent,
        "task": version.text("task"),
        "labels": ", ".join(version.labels),
        "data": version.part("data").get("sha256"),
        "base": version.text("base"),
        "base's fingerprint": version.fingerprint,
        "base's revision": record.get("base_revision"),
        "accuracy": None if version.accuracy is None else f"{version.accuracy:.3f}",
        "95 % interval": interval,
        "seed": record.get("seed"),
        "settings": ", ".join(f"{k}={v}" for k, v in settings.items() if v is not None),
        "versions": ", ".join(f"{name} {number}" for name, number in made.items()),
        "processor": version.part("machine").get("processor"),
        "BLAS": version.part("machine").get("blas"),
    }
    width = max(map(len, facts))
    lines = [version.reference]
    for name, value in facts.items():
        shown = UNKNOWN if value in (None, "") else str(value)
        lines.append(f"{name:{width}}  {shown}")
    return "\n".join(lines)


def _tell_diff(diff: Diff) -> str:
    rows = [("", diff.first, diff.second)]
    rows += [(name, *map(_shown, pair)) for name, pair in diff.facts.items()]
    rows.append(("norm of the vectors", *map(_shown, diff.norms)))
    text = f"{align(rows, '<<<')}\n\n{diff.equal} other facts are equal\n"
    text += f"between the vectors: distance {_shown(diff.distance)}, cosine {_shown(diff.cosine)}"
    if diff.answers is None:
        return text
    answers = diff.answers
    rows = [(f"on the test split of {answers.task}", "right", "accuracy")]
    for reference, correct in zip((diff.first, diff.second), answers.correct, strict=True):
        accuracy = f"{correct / answers.total:.3f}"
        rows.append((reference, f"{correct:,} of {answers.total:,}", accuracy))
    verdict = "the two cannot be told apart on these texts"
    if answers.difference.positive or answers.difference.negative:
        verdict = f"{diff.second if answers.difference.positive else diff.first} is better"
    return (
        f"{text}\n\n{align(rows)}\n"
        f"difference {answers.difference}, 95 % interval, paired\n"
        f"{answers.gained:,} texts only the second answers rightly, {answers.lost:,} only the "
        f"first: McNemar's exact test, p = {answers.p_value:.3g}\n{verdict}"
    )


def _shown(value: object) -> str:
    if value is None or value == "":
        return UNKNOWN
    if isinstance(value, list | tuple) and all(isinstance(each, float) for each in value):
        return " to ".join(decimals(value))  # an interval
    return shorten(f"{value:.6g}" if isinstance(value, float) else str(value), CELL)

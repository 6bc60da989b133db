"""The commands that compare: what they print and leave, and every wrong input a sentence."""

import json
from dataclasses import replace

import pytest
from helpers.bases import base_with_tokenizer, small_task

from minipt.commands import studies as commands
from minipt.rivals import RIVALS
from minipt.studies import claims, transfer
from minipt.studies.claims import Plan

CSV = ("--csv", "texts.csv", "--text-column", "text", "--label-column", "label")
SMALL = ("--steps", "4", "--seeds", "2")


@pytest.fixture
def asked(call, here, saved_base):
    """Run a command on the texts and the small base."""

    def ask(command, *arguments, base=saved_base):
        return call(command, *CSV, "--base", base, *arguments)

    return ask


def sentence(err: str) -> str:
    lines = [line for line in err.splitlines() if line.startswith("minipt: ")]
    assert len(lines) == 1
    return lines[0]


def test_a_sweep_prints_a_table_and_leaves_it_with_a_figure(asked, here):
    status, out, _ = asked("sweep", "--length", "1,3", "--init", "vocab,uniform", *SMALL)
    assert status == 0
    place = here / out.split("written: ")[1].strip()
    assert {path.name for path in place.iterdir()} == {"table.txt", "result.json", "figure.png"}
    table = (place / "table.txt").read_text(encoding="utf-8")
    assert table.strip() in out
    assert [line.split()[:2] for line in table.splitlines()[3:]] == [
        ["1", "vocab"], ["1", "uniform"], ["3", "vocab"], ["3", "uniform"],
    ]  # fmt: skip
    before = {path: path.stat().st_mtime_ns for path in (here / "runs" / "study").iterdir()}
    again = asked("sweep", "--length", "1,3", "--init", "vocab,uniform", *SMALL)[1]
    assert again == out
    assert {path: path.stat().st_mtime_ns for path in (here / "runs" / "study").iterdir()} == before


def test_a_sweep_over_learners_takes_each_ones_own_rate(asked):
    status, out, _ = asked("sweep", "--learner", "prompt,full", *SMALL, "--json")
    assert status == 0
    rates = {row["learner"]: row["learning_rate"] for row in json.loads(out)["rows"]}
    assert rates == {"prompt": 1.0, "full": 1e-3}


def test_rivals_stand_in_one_table(asked):
    status, out, err = asked("rivals", *SMALL, "--rates", "1")
    assert (status, err) == (0, "")
    _, reached, costs = out.split("\n\n")
    fixed = ["majority", "bag of words", "untuned", "written by hand", "examples in front"]
    rivals = [rival.name for rival in RIVALS]
    for table, names in ((reached, fixed + rivals), (costs.rstrip(), rivals)):
        assert [line.split("  ")[0] for line in table.splitlines()[1:]] == names
    lines = json.loads(asked("rivals", *SMALL, "--rates", "1", "--json")[1])["lines"]
    by_name = {line["name"]: line for line in lines}
    assert by_name["full"]["trained"] == base_with_tokenizer().size
    assert by_name["prompt"]["stored"] == 4 * by_name["prompt"]["trained"] == 4 * 20 * 8
    assert by_name["prefix-mlp"]["stored"] == by_name["prefix"]["stored"]
    assert all(line["seconds"] > 0 and line["peak"] > 0 for line in lines[len(fixed) :])


def test_an_ensemble_votes(asked):
    status, out, _ = asked("ensemble", "--members", "3", "--steps", "4")
    assert status == 0
    assert "texts, 3 prompts" in out
    assert "mean of the vectors" in out
    described = json.loads(asked("ensemble", "--members", "3", "--steps", "4", "--json")[1])
    assert described["accuracies"].keys() >= {"vote", "mean probability"}
    assert len(described["losses_between"]) == 5


def test_a_prompt_is_read(call, asked, here, saved_base):
    assert asked("tune", "--length", "3", "--steps", "4")[0] == 0
    run = "runs/texts-small-0"
    status, out, err = call("read", run, *CSV, "--texts", "4", "--save", "page.png")
    assert status == 0, err
    assert "distance to the nearest word" in out
    assert (here / "page.png").stat().st_size > 1000
    assert json.loads(call("read", run, *CSV, "--texts", "4", "--json")[1])
    status, _, err = call("read", run, *CSV, "--save", "page.txt")
    assert (status, "a page is saved as .png" in sentence(err)) == (1, True)
    status, _, err = call("read", run)  # the file of a user's own task is not kept
    assert (status, "there is no task 'texts'" in sentence(err)) == (1, True)
    assert call("read", "runs/none", *CSV)[0] == 1


def test_costs_are_told(call, saved_base):
    small = ("--base", saved_base, "--length", "3", "--batch-size", "2", "--tokens", "5")
    status, out, _ = call("cost", *small)
    assert status == 0
    assert "full fine-tuning" in out and "stored" in out
    assert max(map(len, out.splitlines())) <= 96
    assert json.loads(call("cost", *small, "--json")[1])["length"] == 3
    status, _, err = call("cost", *small[:-1], "0")
    assert (status, "tokens is at least 1" in sentence(err)) == (1, True)


def test_transfer_asks_every_task(call, here, saved_base, monkeypatch):
    monkeypatch.setattr(commands, "load_task", lambda name: replace(small_task(), name=name))
    small = ("--base", saved_base, "--length", "3", "--steps", "4", "--seeds", "2")
    status, out, _ = call("transfer", *small)
    assert status == 0
    for name in transfer.DOMAINS:
        assert f"\n{name}" in out
    assert "the prompt of movie-reviews" in out
    assert "the base, channels renamed" in out
    transfers = json.loads(call("transfer", *small, "--json")[1])
    assert transfers["matrix"].keys() == {"majority", "no prompt", *transfer.DOMAINS}
    assert len(transfers["starts"]["usual"]) == 2
    status, _, err = call("transfer", *small[:-1], "0")
    assert (status, "at least one seed" in sentence(err)) == (1, True)


def test_evidence_is_gathered_and_reported(call, here, monkeypatch):
    base = base_with_tokenizer(context=160)
    monkeypatch.setattr(claims, "the_base", lambda name: base)
    monkeypatch.setattr(claims, "the_task", lambda name: replace(small_task(), name=name))
    monkeypatch.setitem(commands.PLANS, "quick", Plan("quick", 2, 2, 0, 1, ()))
    status, out, _ = call("evidence", "--quick", "--claim", "8")
    assert status == 0
    assert "8. Training a prefix through a network helps." in out
    report = (here / "runs" / "evidence-quick-8" / "report.md").read_text(encoding="utf-8")
    assert "`minipt evidence --quick --claim 8`" in report
    record = json.loads(call("evidence", "--quick", "--claim", "8", "--json")[1])
    assert record["claims"][0]["number"] == 8
    status, _, err = call("evidence", "--quick", "--claim", "0")
    assert (status, "there is no claim 0" in sentence(err)) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (("sweep", "--length", "1,x"), 2, "invalid list of int value"),
        (("sweep", "--length", "0"), 1, "length is at least 1"),
        (("sweep", "--seeds", "0"), 1, "at least one seed"),
        (("sweep", "--init", "zeros"), 1, "unknown start 'zeros'"),
        (("sweep", "--learner", "lara"), 1, "there is no rival 'lara'"),
        (("rivals", "--learner", "lara", "--rates", "1"), 1, "there is no rival 'lara'"),
        (("rivals", "--rates", "0"), 1, "at least one seed and one learning rate"),
        (("rivals", "--rates", "-1"), 1, "at least one seed and one learning rate"),
        (("rivals", "--learner", "prompt-wayward"), 1, "as `minipt evidence --claim 10` does"),
        (("ensemble", "--members", "1"), 2, "two members or more"),
    ],
)
def test_what_makes_no_sense(asked, here, arguments, status, told):
    actual, _, err = asked(*arguments)
    assert actual == status
    assert told in err
    assert not list(here.glob("runs/study/*/run.json"))


def test_evidence_is_quick_or_full(call):
    status, _, err = call("evidence", "--quick", "--full")
    assert (status, "exclude each other" in err) == (2, True)

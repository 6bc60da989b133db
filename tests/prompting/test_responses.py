"""Tasks whose answers are texts: reading them, what is learnt, and that it is what is written."""

import json
import math
import sys
from dataclasses import replace

import numpy as np
import pytest
from helpers.bases import BERT, base_with_tokenizer, random_base, random_prompt, small_tokenizer
from tokenizers import Tokenizer

import minipt
from minipt.errors import MiniptError
from minipt.learning import loop as learning
from minipt.learning.evaluate import EVALUATION_BATCH, evaluate
from minipt.learning.settings import Settings
from minipt.learning.tune import PromptLearner, tune
from minipt.loading.load import save_base
from minipt.prompting.prompt import SoftPrompt
from minipt.prompting.responses import encode_responses, end_token, response_format
from minipt.prompting.text import Batch, batches
from minipt.results.report import compare_with_rivals, response_table, tell
from minipt.results.tables import shorten
from minipt.studies.cost import measure
from minipt.tasks.task import Pairs, Split, Task, load_csv, load_pairs, normalised

evaluation = sys.modules["minipt.learning.evaluate"]
SUBJECTS = ("film", "day", "night", "life", "word", "people", "end", "song", "sea", "house")
VERDICTS = {"good": "very good", "kind": "very good", "bad": "very bad", "cruel": "very bad"}
PAIRS = [(f"the {s} was {w}:", v) for s in SUBJECTS for w, v in VERDICTS.items()]
QUICK = {"length": 3, "steps": 12, "batch_size": 4, "evaluate_every": 4, "warmup": 2}


def json_lines(path, pairs):
    lines = [
        json.dumps({"prompt": prompt, "response": response}, ensure_ascii=False)
        for prompt, response in pairs
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def base():
    return base_with_tokenizer()


@pytest.fixture(scope="module")
def tiny():
    """A base that can learn."""
    return minipt.load_base("tiny")


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return load_pairs(json_lines(tmp_path_factory.mktemp("pairs") / "verdicts.jsonl", PAIRS))


@pytest.fixture(scope="module")
def learnt(tiny, task):
    """A prompt that knows some of the responses and not others."""
    settings = {"length": 10, "steps": 60, "batch_size": 8, "evaluate_every": 30, "warmup": 2}
    return tune(tiny, task, **settings)


def pairs_of(task) -> list[tuple[str, str]]:
    splits = (task.train, task.validation, task.test)
    return [p for split in splits for p in zip(split.texts, split.responses, strict=True)]


def tokens_of(base, text: str) -> list[int]:
    return base.tokenizer.encode(text, add_special_tokens=False).ids


# Reading.


def test_json_lines_and_csv_make_the_same_task(tmp_path, task):
    lines = [f'"{prompt}",unread,"{response}"' for prompt, response in PAIRS[::-1]]
    path = tmp_path / "verdicts.csv"
    path.write_text("\n".join(["prompt,more,response", *lines]), encoding="utf-8")
    found = load_pairs(path)
    assert replace(found, source=task.source) == task
    assert [len(split.texts) for split in (task.train, task.validation, task.test)] == [32, 4, 4]
    assert (task.name, task.labels, task.label_words, task.template) == (
        "verdicts",
        (),
        (),
        "{text}",
    )
    assert sorted(pairs_of(task)) == sorted((p, f" {r}") for p, r in PAIRS)


@pytest.mark.parametrize(
    ("prompt", "response", "expected"),
    [
        ("say", "yes", " yes"),
        ("say ", "yes", "yes"),
        ("say:\n", "yes", "yes"),
        ("say", " yes", " yes"),
        ("say", "\nyes \n", "\nyes \n"),
        ("say ", " yes", " yes"),
        ("say\u2028", "yes", "yes"),
    ],
)
def test_one_space_joins_what_no_white_space_keeps_apart(tmp_path, prompt, response, expected):
    task = load_pairs(json_lines(tmp_path / "a.json", [*PAIRS[:3], (prompt, response)]))
    assert (prompt, expected) in pairs_of(task)


def test_no_prompt_comes_twice_or_with_two_responses(tmp_path):
    more = [("Twice", "yes"), ("twice ", "yes"), ("both", "yes"), ("BOTH", "no"), ("same", " yes")]
    task = load_pairs(json_lines(tmp_path / "a.jsonl", [*PAIRS, *more, ("same", "yes")]))
    prompts = [normalised(prompt) for prompt, _ in pairs_of(task)]
    assert len(set(prompts)) == len(prompts) == len(PAIRS) + 1
    # "twice " is answered without the space that "Twice" needs, so that the two disagree.
    assert (task.duplicates, task.contradictions) == (1, 4)


def test_the_majority_is_the_most_frequent_response(tmp_path):
    pairs = [(f"prompt {i}", "often" if i % 4 else "seldom") for i in range(40)]
    task = load_pairs(json_lines(tmp_path / "a.jsonl", pairs))
    assert task.majority == task.majority_name == " often"
    assert task.majority_accuracy == task.test.responses.count(" often") / 4
    assert task.summary() == (
        "a: 40 texts: 32 to train, 4 to validate, 4 to test\n"
        "left out: 0 duplicates, 0 with two responses\n"
        "responses: 2 different ones\n"
        f"always answering ' often' is right for {task.majority_accuracy:.1%} of the test split"
    )


ROW = b'{"prompt": "a", "response": "b"}\n'
BROKEN = [
    ("a.jsonl", b"", "has no rows: add some, with prompt and response"),
    ("a.jsonl", b"\n \n", "has no rows"),
    ("a.jsonl", ROW * 2 + b'{"prompt": "a"', "has at line 3 no JSON object with the texts"),
    ("a.jsonl", b"\n" + ROW + b'{"prompt": "a"}', "at line 3 no JSON object .* and 'response'"),
    ("a.jsonl", ROW + b'{"prompt": "a", "response": 3}', "has at line 2 no JSON object"),
    ("a.jsonl", ROW + b'{"prompt": "\\ud800", "response": "b"}', "has at line 2 no JSON object"),
    ("a.jsonl", ROW + b'"prompt"', "has at line 2 no JSON object"),
    ("a.jsonl", ROW + 100_000 * b"[", "has at line 2 no JSON object"),
    ("a.json", b"[\n" + ROW + b"]", "a has only 1 different prompts"),
    ("a.json", b"[\n" + ROW, r"has at line \d no JSON object"),
    ("a.json", b"[" + ROW + b', "b"]', "has at entry 2 no JSON object"),
    ("a.json", 100_000 * b"[", "has at line 1 no JSON object"),
    (
        "a.jsonl",
        ROW + b'{"messages": []}',
        "at line 2 no JSON object .*, but 'messages': write them under these names",
    ),
    ("a.jsonl", ROW + b'{"prompt": "\xe9", "response": "b"}', "is not UTF-8 at line 2"),
    (
        "a.jsonl",
        b'\n{"prompt": " ", "response": "b"}\n{"prompt": "a", "response": ""}',
        "has 2 rows with an empty prompt or response, the first at line 2",
    ),
    ("a.jsonl", ROW * 9, "a has only 1 different prompts: at least 3 are needed"),
    ("a.csv", b"prompt,answer\na,b\n", "no column 'response': its columns are 'prompt', 'answer'"),
    ("a.csv", b"prompt,response\n", "has no rows"),
    ("a.csv", b"prompt,response\na,b\nc,\n", "1 rows with an empty prompt or response.* line 3"),
    ("a.txt", b"prompt,response\na,b\nc,d\n", "only 2 different prompts"),
]


@pytest.mark.parametrize(("name", "content", "match"), BROKEN)
def test_files_that_cannot_be_used(tmp_path, name, content, match):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MiniptError, match=match) as caught:
        load_pairs(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_absent(tmp_path):
    with pytest.raises(MiniptError, match="check the path"):
        load_pairs(tmp_path / "absent.jsonl")


# Rows and targets.


def test_a_row_is_what_generation_reads_and_the_target_what_it_should_write(base):
    (row,), (target,), cut = encode_responses(base, "{text}", ["the film was"], [" very good"], 32)
    end = base.tokenizer.token_to_id("<|endoftext|>")
    response = tokens_of(base, " very good")
    assert len(response) > 2
    assert target.tolist() == [*response, end]
    assert row.tolist() == [*tokens_of(base, "the film was"), *response]
    assert cut.tolist() == [False]
    (batch,) = (batch for _, batch in batches([row], [target], response_format(base, ""), 1))
    assert batch.choices is None
    # Behind the prompt's last token stands the response's first.
    assert batch.ids[0, batch.answer_rows[0, 0]] == tokens_of(base, "the film was")[-1]
    assert batch.counted_targets.tolist() == target.tolist()


@pytest.mark.parametrize(("prompt", "response"), [("the film", "s were"), ("a\n", "\n\nday")])
def test_the_two_are_encoded_apart(base, prompt, response):
    (row,), (target,), _ = encode_responses(base, "{text}", [prompt], [response], 32)
    assert row.tolist() == tokens_of(base, prompt) + tokens_of(base, response)
    assert target[:-1].tolist() == tokens_of(base, response)


def test_a_long_prompt_loses_its_beginning_and_the_response_stays(base):
    texts, response = ["good " * 40, "a day"], " very good"
    rows, targets, cut = encode_responses(base, "{text}", texts, [response] * 2, room=20)
    whole = tokens_of(base, texts[0]) + tokens_of(base, response)
    assert cut.tolist() == [True, False]
    assert len(rows[0]) == 20
    assert rows[0].tolist() == whole[-20:]
    assert targets[0].tolist() == targets[1].tolist()


def test_a_response_fits_with_a_token_of_its_prompt_or_is_refused(base):
    response = " good good good"
    size = len(tokens_of(base, response)) + 1
    (row,), _, cut = encode_responses(base, "{text}", ["a day"], [response], room=size)
    assert (len(row), cut.tolist()) == (size, [True])
    with pytest.raises(MiniptError, match=f"' good good good' has {size} tokens.* room for") as e:
        encode_responses(base, "{text}", ["a day"], [response], room=size - 1)
    assert "\n" not in str(e.value)


def named(names: list[str]) -> Tokenizer:
    tokenizer = small_tokenizer()
    tokenizer.add_special_tokens(names)
    return tokenizer


def test_the_end_is_learnt_if_generation_stops_at_it(base):
    def end_with(tokenizer):
        found = end_token(replace(base, tokenizer=tokenizer))
        return None if found is None else tokenizer.id_to_token(found)

    without = Tokenizer.from_str(small_tokenizer().to_str().replace("<|endoftext|>", "<unk>"))
    assert end_with(small_tokenizer()) == "<|endoftext|>"
    assert end_with(named(["<|im_end|>", "</s>"])) == "<|endoftext|>"
    assert end_with(without) is None
    without.add_tokens(["</s>"])  # generation does not stop at a token that is not special
    assert end_with(without) is None
    without.add_special_tokens(["<|im_end|>"])
    assert end_with(without) == "<|im_end|>"
    unended = replace(base, tokenizer=Tokenizer.from_str(without.to_str().replace("im_end", "x")))
    _, (target,), _ = encode_responses(unended, "{text}", ["a"], [" good"], 9)
    assert target.tolist() == tokens_of(unended, " good")


def test_a_base_without_a_tokenizer(task):
    with pytest.raises(MiniptError, match=r"came without a tokenizer\.json"):
        evaluate(random_base(0), None, task.test)


# Evaluation.


def one_at_a_time(base, prompt, pairs) -> tuple[list[float], list[bool]]:
    """Each token's loss, and whether each response is right, by whole sequences cut by hand."""
    losses, right = [], []
    end = end_token(base)
    for text, response in zip(pairs.texts, pairs.responses, strict=True):
        asked, target = tokens_of(base, text), [*tokens_of(base, response), end]
        hits = []
        for r, token in enumerate(target):
            ids = [*asked, *target[:r]]
            logits = minipt.logits(base, Batch([ids], [len(ids)], [0]), prompt)[0]
            logits = logits.astype(np.float64)
            losses.append(np.log(np.exp(logits).sum()) - logits[token])
            hits.append(logits.argmax() == token)
        right.append(all(hits))
    return losses, right


@pytest.mark.parametrize("length", [0, 4])
def test_evaluation_is_that_of_one_token_at_a_time(base, length):
    pairs = Pairs(["the film was", "a", "a long night:", "day"], [" good", " a day", "s", " x\n"])
    prompt = random_prompt(base, length, 3) if length else None
    found = evaluate(base, prompt, pairs)
    losses, right = one_at_a_time(base, prompt, pairs)
    assert found.loss == pytest.approx(np.mean(losses), rel=1e-5)
    assert found.right.tolist() == right
    assert (found.correct, found.total) == (sum(right), 4)


def test_right_responses_are_those_that_greedy_generation_writes(tiny, task, learnt):
    everything = Pairs(*map(list, zip(*pairs_of(task), strict=True)))
    found = evaluate(tiny, learnt.prompt, everything)
    assert 0 < found.correct < found.total
    for text, response, right in zip(
        everything.texts, everything.responses, found.right, strict=True
    ):
        written = "".join(minipt.generate(tiny, learnt.prompt, text, limit=20))
        assert (written == response) == right


def test_a_response_that_goes_on_where_it_should_end_is_wrong(tiny, learnt, task):
    longer = replace(task.test, responses=[f"{r}." for r in task.test.responses])
    found = evaluate(tiny, learnt.prompt, longer)
    assert not found.right.any()


def test_the_evaluation_batch_keeps_to_its_memory(base, task, monkeypatch):
    V = base.config.vocabulary
    whole = evaluate(base, None, task.train, task)
    sizes = []
    real = evaluation.batches

    def counted(*arguments):
        for indices, batch in real(*arguments):
            sizes.append(batch.counted_targets.size * V)
            yield indices, batch

    monkeypatch.setattr(evaluation, "batches", counted)
    monkeypatch.setattr(evaluation, "MOST_LOGITS", 30 * V)
    few = evaluate(base, None, task.train, task)
    assert max(sizes) <= 30 * V
    assert len(sizes) > 4
    assert few.loss == pytest.approx(whole.loss, rel=1e-5)
    assert few.right.tolist() == whole.right.tolist()
    assert evaluation.batch_size(base, response_format(base, "{text}"), [np.zeros(500)]) == 1
    monkeypatch.undo()
    assert (
        evaluation.batch_size(base, response_format(base, "{text}"), [np.zeros(1)])
        == EVALUATION_BATCH
    )


# Tuning.


def test_responses_are_learnt(tiny, task, learnt):
    losses = [record["loss"] for record in learnt.history[1:]]
    assert np.mean(losses[-10:]) < 0.2 * losses[0]
    before = evaluate(tiny, None, task.test, task)
    assert learnt.test.loss < 0.5 * before.loss
    assert learnt.prompt.about["labels"] == learnt.prompt.about["label_words"] == []
    assert evaluate(tiny, learnt.prompt, task.test).loss == learnt.test.loss


def test_the_best_on_validation_is_kept(learnt):
    looks = [record for record in learnt.history if "validation_loss" in record]
    best = max(looks, key=lambda look: (look["validation_accuracy"], -look["validation_loss"]))
    assert learnt.best_step == best["step"]


def test_a_resumed_run_has_the_bits_of_an_uninterrupted_one(base, task, ctrl_c, tmp_path):
    def bits(run):
        return run.prompt.vectors.tobytes(), json.dumps(run.history), run.test.loss

    whole = tune(base, task, **QUICK)
    path = tmp_path / "checkpoint.safetensors"
    with ctrl_c(7):
        assert tune(base, task, path, **QUICK).interrupted
    assert bits(tune(base, task, path, resume=True, **QUICK)) == bits(whole)
    others = replace(task.train, responses=task.train.responses[::-1])
    with pytest.raises(MiniptError, match="another task"):
        tune(base, replace(task, train=others), path, resume=True, **QUICK)


def test_a_measured_step_reads_as_many_rows_as_the_responses_have(tiny, task):
    chosen = Settings(**QUICK)
    learner = PromptLearner(tiny, task, chosen)
    one, eight = (measure(learner, chosen, 12, rows).peak for rows in (1, 8))
    V = tiny.config.vocabulary
    assert eight - one > 4 * 7 * QUICK["batch_size"] * V  # at least the logits


def test_a_label_of_several_tokens_is_a_label_or_a_response(tiny, task, learnt, tmp_path):
    """As labels they are read behind the token that they share, as responses written."""
    rows = [f"{prompt},{response}" for prompt, response in PAIRS]
    (tmp_path / "a.csv").write_text("\n".join(["text,label", *rows]), encoding="utf-8")
    labelled = load_csv(tmp_path / "a.csv", "text", "label")
    assert labelled.label_words == (" very bad", " very good")
    run = tune(tiny, labelled, **QUICK)
    assert (run.test.probabilities.sum(1) == pytest.approx(1.0)) and run.test.total > 1
    train = evaluate(tiny, learnt.prompt, task.train)
    written = {r for r, right in zip(task.train.responses, train.right, strict=True) if right}
    assert written == {" very bad", " very good"}


def test_what_does_not_fit_is_refused_before_anything_is_learnt(base, task, tmp_path, monkeypatch):
    monkeypatch.setattr(learning, "_step", None)
    long = replace(task.test, responses=[" good" * 40, *task.test.responses[1:]])
    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(MiniptError, match=r"the response ' good good.* room for 29: shorten it"):
        tune(base, replace(task, test=long), path, **QUICK)
    assert not path.exists()


def test_long_prompts_are_counted(base, task):
    texts = ["cruel words " * 20 + task.train.texts[0], *task.train.texts[1:]]
    assert tune(base, replace(task, train=replace(task.train, texts=texts)), **QUICK).cut == 1


@pytest.mark.parametrize("fields", [BERT, BERT | {"head": None}])
def test_a_base_that_does_not_predict_the_next_token(base, task, fields):
    V = base.config.vocabulary
    other = random_base(0, vocabulary=V, tokenizer=base.tokenizer, context=32, **fields)
    for refused in (lambda: tune(other, task, **QUICK), lambda: evaluate(other, None, task.test)):
        with pytest.raises(MiniptError, match="cannot learn to write responses: choose a causal"):
            refused()


def test_settings_that_are_for_labels(base, task):
    with pytest.raises(MiniptError, match="a head of its own is trained for labels"):
        tune(base, task, **QUICK, head=True)
    with pytest.raises(MiniptError, match="needs label words"):
        tune(base, task, **QUICK, method="labels")


def test_a_prompt_for_responses_knows_no_labels(tiny, learnt):
    with pytest.raises(MiniptError, match="only a tuned prompt knows its task"):
        evaluate(tiny, learnt.prompt, Split(["a"], np.array([0])))


def test_a_prompt_that_was_tuned_for_labels_is_asked_as_it_writes(base):
    """`generate` puts a text into the prompt's template, and so does the evaluation."""
    prompt = random_prompt(base, 3)
    prompt.about |= {"template": "{text}\n:", "label_words": [" good", " bad"]}
    found = evaluate(base, prompt, Pairs(["a day"], [" good"]))
    bare = SoftPrompt(prompt.vectors, prompt.fingerprint, prompt.base_name)
    assert found.loss == evaluate(base, bare, Pairs(["a day\n:"], [" good"])).loss


# The report and the command line.


def test_the_comparison_has_losses_and_no_rival_for_labels(tiny, task, learnt):
    scores = compare_with_rivals(tiny, task, learnt.test)
    assert list(scores) == ["majority", "untuned", "tuned"]
    assert scores["majority"].accuracy == task.majority_accuracy
    assert scores["untuned"].loss == evaluate(tiny, None, task.test).loss
    told = tell(tiny, task, learnt, scores)
    assert max(map(len, told.splitlines())) <= 100
    head, first, *_, last = told.split("\n\n")[0].splitlines()
    assert head.endswith("  95 % interval  loss a token")
    assert first.startswith(f"always {task.majority!r}")
    assert last.endswith(f" {learnt.test.loss:.3f}")
    by_hand = replace(task, instruction="Judge.")
    assert list(compare_with_rivals(tiny, by_hand, learnt.test))[2] == "written"


def test_ten_examples_show_what_is_written(tiny, task, learnt):
    many = replace(task, test=task.train)
    run = replace(learnt, test=evaluate(tiny, learnt.prompt, many.test))
    head, _, *rows = response_table(tiny, many, run).splitlines()
    assert head == "the first test prompts (x: wrong), 10 of 32"
    assert len(rows) == 10
    assert {row[0] for row in rows} == {"x", " "}
    for i, row in enumerate(rows):
        limit = len(tokens_of(tiny, many.test.responses[i])) + 1 + 5
        written = "".join(minipt.generate(tiny, run.prompt, many.test.texts[i], limit=limit))
        written = " ".join("".join(c if c.isprintable() else " " for c in written).split())
        assert row.endswith(shorten(written, 29).rstrip())
        assert row.startswith("  ") == run.test.right[i]


def test_an_example_may_go_on_beyond_its_response(tiny, task, learnt):
    prompt = random_prompt(tiny, 3)
    one = Pairs(["the day"], [" very"])
    run = replace(learnt, prompt=prompt, test=evaluate(tiny, prompt, one))
    row = response_table(tiny, replace(task, test=one), run).splitlines()[-1]
    assert row.startswith("x")
    limit = len(tokens_of(tiny, " very")) + 1 + 5
    shown, fewer = (
        " ".join("".join(minipt.generate(tiny, prompt, "the day", limit=n)).split())
        for n in (limit, limit - 1)
    )
    assert len(fewer) < len(shown) <= 29
    assert row.endswith(f" {shown}")


def test_an_example_may_be_too_long_for_the_base(tiny, task, learnt):
    long = Pairs(["cruel words " * 200 + "to the end", "the day"], [" good", " good" * 9])
    found = replace(learnt, test=evaluate(tiny, learnt.prompt, long))
    table = response_table(tiny, replace(task, test=long), found)
    assert "...rds cruel words to the end  good" in table
    assert max(map(len, table.splitlines())) <= 96


@pytest.fixture(scope="module")
def saved_base(tmp_path_factory):
    directory = tmp_path_factory.mktemp("bases") / "small"
    save_base(base_with_tokenizer(), directory)
    return str(directory)


@pytest.fixture
def call(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    json_lines(tmp_path / "verdicts.jsonl", PAIRS)
    return call


def test_a_start_from_words_needs_words_where_there_is_no_instruction(call, saved_base, tmp_path):
    status, _, err = call(
        "tune", "--pairs", "verdicts.jsonl", "--base", saved_base, "--init", "text"
    )
    assert (status, err.count("\n")) == (1, 1)
    assert 'the start "text" needs a text' in err
    assert not (tmp_path / "runs").exists()


def test_the_commands(call, saved_base, tmp_path):
    job = ("tune", "--pairs", "verdicts.jsonl", "--base", saved_base, "--length", 3, "--steps", 4)
    status, out, _ = call(*job)
    run = "runs/verdicts-small-0"
    assert status == 0
    assert f"next:    minipt generate {run} 'a text of your own'" in out
    record = json.loads((tmp_path / run / "run.json").read_text())
    assert (record["task"], record["labels"], record["counts"]) == ("verdicts", [], [])
    assert {"base", "fingerprint", "seed", "length", "steps", "seconds"} <= record.keys()
    assert 0 <= record["majority_accuracy"] <= 1
    assert 0 <= record["test_accuracy"] <= 1
    assert all(math.isfinite(record[name]) for name in ("test_loss", "untuned_loss"))
    assert (tmp_path / run / "curves.png").stat().st_size > 10_000
    status, out, _ = call("generate", run, "the sea was good:", "--limit", 4)
    assert (status, bool(out.strip("\n"))) == (0, True)
    for refused in (("predict", run, "a text"), ("xray", "a text", "--run", run)):
        status, out, err = call(*refused)
        assert (status, out) == (1, "")
        assert err.count("\n") == 1
        assert f"use `minipt generate {run}`" in err
    status, _, err = call(*job, "--head", "--name", "headed")
    assert (status, err.count("\n")) == (1, 1)
    assert "a head of its own is trained for labels" in err
    assert not (tmp_path / "runs/headed.unfinished").exists()


@pytest.mark.parametrize(
    "more",
    [("--task", "toy"), ("--csv", "a.csv"), ("--label-words", "a=b"), ("--text-column", "a")],
)
def test_pairs_are_a_task_of_their_own(call, saved_base, more):
    status, _, err = call("tune", "--pairs", "verdicts.jsonl", "--base", saved_base, *more)
    assert status == 2
    assert "usage: minipt tune" in err


def test_a_head_beside_the_prompt(call, saved_base, tmp_path):
    rows = [f"{prompt},{word.split()[1]}" for prompt, word in PAIRS]
    (tmp_path / "a.csv").write_text("\n".join(["text,label", *rows]), encoding="utf-8")
    columns = ("--csv", "a.csv", "--text-column", "text", "--label-column", "label")
    quick = ("--base", saved_base, "--length", 3, "--steps", 2)
    status, _, err = call("tune", *columns, *quick, "--head")
    assert status == 0, err
    record = json.loads((tmp_path / "runs/a-small-0/run.json").read_text())
    assert record["settings"]["head"] is True
    assert record["trained_numbers"] == 3 * 8 + 2 * 8
    assert record["reading"] == "a trained linear head"
    assert call("tune", *columns, *quick)[0] == 0
    record = json.loads((tmp_path / "runs/a-small-0-2/run.json").read_text())
    assert record["settings"]["head"] is False


def test_a_task_is_made_by_hand_too(base):
    pairs = Pairs(["a", "b", "c"], [" good", " bad", " good"])
    task = Task("made", (), (), "{text}", pairs, pairs, pairs, "here", instruction="")
    assert tune(base, task, **QUICK).test.total == 3

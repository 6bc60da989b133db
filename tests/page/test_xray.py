"""`minipt.xray`: what it returns, saves and refuses."""

import html
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.bases import base_that_reads, base_with_tokenizer, random_prompt, small_task
from helpers.pages import Page

import minipt
from minipt import MiniptError
from minipt.page.steps import MOST_STEPS

LABELS = {"labels": ["a", "b"], "label_words": [" good", " bad"], "template": "{text}\n:"}
TEXT = "the film was kind"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def base():
    return base_with_tokenizer()


@pytest.fixture
def prompt(base):
    prompt = random_prompt(base, 3)
    prompt.about |= LABELS
    return prompt


def test_an_xray_is_a_step_downhill_and_leaves_the_prompt_alone(base, prompt):
    before = prompt.vectors.copy()
    x = minipt.xray(base, prompt, TEXT, "b")
    assert prompt.vectors.tobytes() == before.tobytes()
    assert x.loss == pytest.approx(-np.log(x.probabilities["before"][1]), rel=1e-5)
    assert x.probabilities["after"][1] > x.probabilities["before"][1]
    np.testing.assert_array_equal(x.trace.grad("prompt.vectors"), x.gradient)
    assert x.gradient.shape == (3, 8)
    assert "".join(x.tokens) == f"{TEXT}\n:"


def test_both_wirings_take_the_same_step(base, prompt):
    shared, joined = (
        minipt.xray(base, prompt, TEXT, "b", wiring=w) for w in (None, "concatenated")
    )
    assert joined.loss == pytest.approx(shared.loss, rel=1e-5)
    np.testing.assert_allclose(joined.gradient, shared.gradient, 1e-3, 1e-6)
    assert joined.trace["text.h0.out"].shape[1] == 3 + len(joined.tokens)


def test_the_steps_are_the_first_of_tuning(base, prompt):
    """As `tune` takes them, with a batch that is this one text."""
    x = minipt.xray(base, prompt, TEXT, "b", steps=3)
    assert [step.rate for step in x.steps] == pytest.approx([0.015, 0.03, 0.045])
    assert x.steps[2].loss < x.steps[0].loss
    first, second = x.steps[:2]
    np.testing.assert_array_equal(first.after, second.before)
    one = minipt.xray(base, prompt, TEXT, "b")
    np.testing.assert_array_equal(one.steps[0].after, first.after)
    np.testing.assert_array_equal(x.probabilities["after"], x.steps[2].probabilities[1])
    # Adam's first step moves each number by the rate.
    np.testing.assert_allclose(np.abs(first.after - first.before), 0.015, 1e-3)


def test_without_a_label_the_least_likely_one_is_taken(base, prompt):
    x = minipt.xray(base, prompt, TEXT)
    assert x.subject.target == x.probabilities["before"].argmin()
    assert x.subject.chosen
    assert not minipt.xray(base, prompt, TEXT, "a").subject.chosen


def test_a_task_says_what_a_fresh_prompt_is_asked(base):
    prompt = minipt.init_prompt(base, 3)
    x = minipt.xray(base, prompt, TEXT, "bad", task=small_task())
    assert x.subject.labels == ["good", "bad"]
    assert "labels" not in prompt.about


@pytest.mark.parametrize("family", ["gpt2", "llama", "bert", "encoder"])
def test_every_family_can_be_saved_and_shows_itself(family, tmp_path):
    base = base_that_reads(family)
    prompt = random_prompt(base, 3)
    prompt.about |= LABELS
    x = minipt.xray(base, prompt, TEXT)
    x.save(tmp_path / "page.html")
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert page.step["base"]["layers"] == 2
    x.save(tmp_path / "page.PNG")
    assert (tmp_path / "page.PNG").read_bytes().startswith(b"\x89PNG")


def test_in_a_notebook_it_is_a_frame_with_the_same_page(base, prompt, tmp_path):
    x = minipt.xray(base, prompt, "</iframe><script>alert(1)</script>")
    shown = x._repr_html_()
    (source,) = re.fullmatch(r'<iframe [^>]*srcdoc="([^"]*)"></iframe>', shown).groups()
    x.save(str(tmp_path / "page.html"))
    assert html.unescape(source) == (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "alert(1)" not in shown


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"label": "c"}, "there is no label 'c': choose one of a, b"),
        ({"steps": 0}, "1 to 20 steps, not 0"),
        ({"steps": MOST_STEPS + 1}, "1 to 20 steps, not 21"),
        ({"steps": 1.5}, "1 to 20 steps, not 1.5"),
        ({"text": ["a"]}, "one text, a string"),
        ({"wiring": "twisted"}, "unknown wiring 'twisted'"),
    ],
)
def test_what_is_refused(base, prompt, change, match):
    with pytest.raises(MiniptError, match=re.escape(match)):
        minipt.xray(base, prompt, **({"text": TEXT} | change))


def test_a_prompt_without_labels_or_of_another_base_is_refused(base, prompt):
    with pytest.raises(MiniptError, match="knows no labels"):
        minipt.xray(base, minipt.init_prompt(base, 3), TEXT)
    with pytest.raises(MiniptError, match="was made for base"):
        minipt.xray(base_with_tokenizer(1), prompt, TEXT)


def test_a_step_into_infinity_is_refused(base, prompt):
    prompt.vectors[...] = 3e38
    with np.errstate(all="ignore"), pytest.raises(MiniptError, match="not a finite number"):
        minipt.xray(base, prompt, TEXT)


def test_other_endings_and_places_are_refused(base, prompt, tmp_path):
    x = minipt.xray(base, prompt, TEXT)
    with pytest.raises(MiniptError, match=r"saved as \.png or \.pdf or \.svg or \.html"):
        x.save(tmp_path / "page.htm")
    (tmp_path / "file").write_text("")
    with pytest.raises(MiniptError, match="cannot be written"):
        x.save(tmp_path / "file" / "page.html")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_name_is_public_and_imported_when_it_is_asked_for():
    program = "import sys, minipt\nbefore = 'minipt.page' in sys.modules\nminipt.xray\n"
    program += "print(before, 'minipt.page' in sys.modules, 'xray' in dir(minipt))\n"
    program += "from minipt import *\nprint(callable(xray))"
    command = [sys.executable, "-c", program]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout
    assert told == "False True True\nTrue\n"
    with pytest.raises(AttributeError, match="no attribute 'x_ray'"):
        getattr(minipt, "x_ray")  # noqa: B009


def test_a_page_names_no_other_place_and_loads_nothing(base, prompt, tmp_path):
    minipt.xray(base, prompt, TEXT).save(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert not re.search(r"""\b(src|href)\s*=\s*["']""", page)
    assert not re.search(r"@import|url\((?!data:)", page)
    assert "default-src 'none'" in page

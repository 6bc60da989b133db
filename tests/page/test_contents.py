"""What a page holds: every reference leads somewhere, every opened number adds up."""

import re
from importlib import resources

import numpy as np
import pytest
from helpers.bases import FAMILIES, LLAMA, base_that_reads, random_base, random_prompt
from helpers.pages import Page

from minipt.loading.load import load_base
from minipt.maths.ops import softmax
from minipt.page import fitting
from minipt.page.document import document
from minipt.page.xray import xray
from minipt.prompting.starts import init_prompt

LABELS = {"labels": ["a", "b"], "label_words": [" good", " bad"], "template": "{text}\n:"}
CASES = [
    (family, wiring)
    for family, fields in FAMILIES.items()
    for wiring in ("shared", "concatenated")
    if wiring == "concatenated" or fields.get("causal", True)
]
every_case = pytest.mark.parametrize(("family", "wiring"), CASES)
TEXT = "the film was good and the people in it were kind"


def xray_of(family="gpt2", wiring=None, text=TEXT, steps=1, P=3, label="a", about=LABELS, **sizes):
    base = base_that_reads(family, **sizes)
    prompt = random_prompt(base, P)
    prompt.about |= about
    return xray(base, prompt, text, label, steps, wiring=wiring)


def page_of(of):
    return Page(document(of))


@every_case
def test_every_array_is_there_as_the_trace_has_it(family, wiring):
    of = xray_of(family, wiring)
    page = page_of(of)
    (snapshot,) = page.step["snapshots"]
    names = [array["name"] for array in snapshot["arrays"]]
    assert names == [name for name, array in of.trace.activations.items() if array.size]
    for array in snapshot["arrays"]:
        name, shape = array["name"], array["shape"]
        value, gradient = of.trace[name], of.trace.gradients.get(name)
        assert shape == list(value.shape)
        shown = page.heat_map(array["value"], shape)
        finite = np.isfinite(value)
        largest = np.abs(value[finite]).max(initial=0.0)
        np.testing.assert_allclose(shown[finite], value[finite], atol=largest / 127)
        assert np.isnan(shown[~finite]).all()
        assert (gradient is None) == (array["gradient"] is None)
        if gradient is not None:
            shown = page.heat_map(array["gradient"], shape)
            np.testing.assert_allclose(shown, gradient, atol=np.abs(gradient).max() / 127)


@every_case
def test_the_size_of_a_row_is_its_mean_absolute_value(family, wiring):
    of = xray_of(family, wiring)
    page = page_of(of)
    for array in page.step["snapshots"][0]["arrays"]:
        value, change = of.trace[array["name"]], of.traces[1][array["name"]]
        if array["axes"][:2] == ["text", "row"]:
            np.testing.assert_allclose(page.floats(array["sizes"]), np.abs(value[0]).mean(-1), 1e-4)
            change = np.abs(change[0] - value[0]).mean(-1)
            np.testing.assert_allclose(page.floats(array["change_sizes"]), change, 1e-4, 1e-7)
        if array["ending"] == "attn.weights":
            share = value[0, :, :, :3].sum(-1).mean(0)
            np.testing.assert_allclose(page.floats(array["prompt_share"]), share, 1e-5)
        assert len(page.floats(array["sizes"])) == len(np.ravel(array["rows"] or [0]))


@every_case
def test_the_ticks_are_the_trace_forward_then_backward(family, wiring):
    of = xray_of(family, wiring)
    (snapshot,) = page_of(of).step["snapshots"]
    arrays, ticks = snapshot["arrays"], snapshot["ticks"]
    told = [(arrays[tick["array"]]["name"], tick["backward"]) for tick in ticks]
    forward = [(array["name"], False) for array in arrays]
    backward = [(name, True) for name in of.trace.gradients if of.trace[name].size]
    assert told == [*forward, *backward, ("prompt.vectors", False)]
    assert ticks[-1]["step"]
    written = set()
    for tick in ticks:  # nothing is read before it is written
        assert {tuple(read) for read in tick["reads"]} <= written, told[len(written)]
        written.add((tick["array"], tick["backward"]))


def test_in_the_shared_wiring_text_and_prompt_meet_at_keys_and_values():
    (snapshot,) = page_of(xray_of("llama", "shared")).step["snapshots"]
    names = [array["name"] for array in snapshot["arrays"]]
    forward, backward = set(), set()
    for tick in snapshot["ticks"]:
        name = names[tick["array"]]
        for index, gradient in tick["reads"]:
            if name.partition(".")[0] != names[index].partition(".")[0]:
                assert gradient in (False, tick["backward"])
                (backward if tick["backward"] else forward).add((name, names[index]))
    assert forward == {
        (f"text.h{layer}.attn.{reader}", f"prompt.h{layer}.attn.{read}")
        for layer in (0, 1)
        for reader, read in (("scores", "key"), ("context", "value"))
    }
    assert {name for name, _ in backward if name.startswith("prompt.")} == {
        f"prompt.h{layer}.attn.{read}" for layer in (0, 1) for read in ("key", "value")
    }


def opened(kind: str, numbers: np.ndarray, opening: dict) -> np.ndarray:
    """The value, or the row of values, that the arithmetic of an opening comes to."""
    numbers = numbers.astype(np.float64)
    if kind == "softmax":
        return softmax(numbers)
    if kind == "softmax_dx":
        weights, dweights = np.split(numbers, 2)
        return weights * (dweights - weights @ dweights)
    if kind == "norm":
        x, gain, bias = np.split(numbers[:-2], 3)
        mean, rstd = numbers[-2:]
        return gain * (x - mean) * rstd + bias
    if kind == "linear":
        x, weight = np.split(numbers[:-3], 2)
        rest, bias, factor = numbers[-3:]
        return factor * (x @ weight + rest + bias)
    if kind == "loss":
        return np.log(np.exp(numbers).sum()) - numbers[opening["target"]]
    assert kind == "ways"
    layers = opening["layers"]
    return numbers.reshape(2, layers, -1).sum((0, 1))


@every_case
def test_every_opened_number_adds_up(family, wiring):
    of = xray_of(family, wiring)
    page = page_of(of)
    (snapshot,) = page.step["snapshots"]
    kinds = set()
    for opening in snapshot["openings"]:
        array = snapshot["arrays"][opening["array"]]
        assert array["value"] is not None
        held = of.trace.grad(array["name"]) if opening["gradient"] else of.trace[array["name"]]
        kind = opening["kind"]
        kinds.add(kind)
        told = opened(kind, page.floats(opening["numbers"]), opening | {"layers": 2})
        expected = np.float64(held[tuple(opening["index"])])
        np.testing.assert_allclose(told, expected, 1e-4, 1e-6, err_msg=array["name"])
    assert kinds == {"softmax", "softmax_dx", "norm", "linear", "loss", "ways"}


def test_labels_of_several_tokens_open_their_loss():
    about = LABELS | {"label_words": [" a film", " a long night"]}
    of = xray_of("gpt2", about=about)
    page = page_of(of)
    rows = page.step["answer_rows"]
    assert [len(each) for each in rows] == of.subject.batch.counted.sum(1).tolist()
    assert [each[-1] for each in rows] == (3 + of.subject.batch.lengths - 1).tolist()
    (snapshot,) = page.step["snapshots"]
    (opening,) = (each for each in snapshot["openings"] if each["kind"] == "loss")
    assert opened("loss", page.floats(opening["numbers"]), opening) == pytest.approx(of.loss, 1e-5)
    assert page.step["text_names"] == ["a", "b"]
    assert [len(tokens) for tokens in page.step["tokens"]] == [of.subject.batch.ids.shape[1]] * 2
    assert "A label has several tokens" in " ".join(page.step["said"])


def test_all_that_came_by_each_way_is_there():
    of = xray_of("bert")
    page = page_of(of)
    (snapshot,) = page.step["snapshots"]
    assert page.floats(snapshot["ways"]).shape == (2 * 2 * 3,)
    for layer, crossing in enumerate(snapshot["crossings"]):
        assert min(crossing["rows"]) >= 3
        shown = page.heat_map(crossing["weights"], [len(crossing["rows"]), 3])
        weights = of.trace[f"text.h{layer}.attn.weights"][0].mean(0)[:, :3]
        np.testing.assert_allclose(shown, weights[-len(shown) :], atol=0.01)
        assert (page.floats(crossing["key_sizes"]) > 0).all()
        assert (page.floats(crossing["value_sizes"]) > 0).all()


def test_several_steps():
    of = xray_of("gpt2", steps=4)
    page = page_of(of)
    step = page.step
    assert [each["step"] for each in step["snapshots"]] == [0, 3]
    losses = [each["loss"] for each in step["steps"]]
    assert len(losses) == 4
    assert step["steps"][1]["loss"] == step["steps"][0]["loss_after"]
    assert step["steps"][1]["probabilities"] == step["steps"][0]["after"]
    assert step["answers"]["after"] == step["steps"][3]["after"]
    assert [each["snapshot"] for each in step["steps"]] == [0, None, None, 1]
    change = page.heat_map(step["change"]["all"], [3, 8])
    distance = np.linalg.norm(change, axis=1)
    np.testing.assert_allclose(distance, step["steps"][3]["distance"], 0.02)
    np.testing.assert_allclose(step["steps"][0]["moved"], step["steps"][0]["distance"])


def test_every_key_of_the_data_is_read_by_a_script():
    of = xray_of("gpt2", about=LABELS | {"label_words": [" a film", " a long night"]}, steps=2)
    folder = resources.files("minipt.page")
    scripts = [file.read_text("utf-8") for file in folder.iterdir() if file.name.endswith(".js")]
    words = set(re.findall(r"\w+", "".join(scripts)))

    def keys(part):
        if isinstance(part, dict):
            return set(part).union(*map(keys, part.values()))
        return set().union(*map(keys, part)) if isinstance(part, list) else set()

    assert keys(page_of(of).step) - words == set()


def test_a_text_of_one_token_and_a_text_that_is_cut():
    about = LABELS | {"template": "{text}"}
    one = page_of(xray_of("gpt2", text="f", about=about, label=None))
    assert one.step["tokens"] == [["f"]]
    assert "No label was given" in one.step["said"][0]
    cut = page_of(xray_of("gpt2", text=TEXT * 9))
    assert "lost its beginning" in cut.step["said"][0]
    assert len(cut.step["tokens"][0]) == 40 - 3


@pytest.mark.parametrize("size", [0.0, 1e15])
def test_vectors_of_zeros_and_very_large_ones(size):
    base = base_that_reads("gpt2")
    prompt = random_prompt(base, 3)
    prompt.vectors *= np.float32(size)
    prompt.about |= LABELS
    page = page_of(xray(base, prompt, TEXT, "a"))
    for array in page.step["snapshots"][0]["arrays"]:
        assert np.isfinite(page.floats(array["sizes"])).all()
    cosines = page.step["nearest"]["vectors"][0]["before_cosine"]
    assert np.isfinite(cosines).all()


@pytest.mark.parametrize(
    "text", ["<script>alert(1)</script>", "</script><!-- <b>", "a\u2028b\u2029", "\"&'<>", "a\0b"]
)
def test_a_text_is_data(text):
    about = LABELS | {"labels": ["</script>", text]}
    of = xray_of("gpt2", text=text, label=text, about=about)
    html = document(of)
    assert text not in html
    assert "alert(1)" not in html
    page = Page(html)
    assert page.step["text"] == text
    assert page.step["labels"] == ["</script>", text]
    assert "".join(page.step["tokens"][0]).startswith(text[:1])


def test_half_a_character_in_a_label_is_data():
    about = LABELS | {"labels": ["\ud800", "b"]}
    page = document(xray_of("gpt2", label="b", about=about))
    page.encode()
    assert Page(page).step["labels"][0] == "\ud800"


def text_of_30_tokens():
    return "WINNER! Call 0900 000 for your free prize now or text WIN today, ok? ok"


def test_tiny_with_20_vectors_and_30_tokens_takes_less_than_3_megabytes():
    base = load_base("tiny")
    prompt = init_prompt(base, 20)
    prompt.about |= LABELS | {"label_words": [" yes", " no"]}
    for steps in (1, 3):
        of = xray(base, prompt, text_of_30_tokens(), "a", steps)
        assert len(of.tokens) == 30
        html = document(of)
        assert len(html.encode()) < 3_000_000
        arrays = Page(html).step["snapshots"][0]["arrays"]
        whole = {array["ending"] for array in arrays if array["value"]}
        assert {"attn.weights", "attn.scores", "out", "attn.key", "attn.value"} <= whole


def test_100_vectors_are_summed_up_and_the_page_says_so():
    base = load_base("tiny")
    prompt = init_prompt(base, 100)
    prompt.about |= LABELS | {"label_words": [" yes", " no"]}
    html = document(xray(base, prompt, text_of_30_tokens() * 2, "a"))
    assert len(html.encode()) < 3_000_000
    page = Page(html)
    arrays = page.step["snapshots"][0]["arrays"]
    summed = {array["ending"] for array in arrays if array["value"] is None}
    assert summed
    (said,) = (each for each in page.step["said"] if "too large" in each)
    assert said.removesuffix(".").split(": ")[1].split(", ") == sorted(summed)
    for array in arrays:
        assert array["sizes"][1] > 0
    opening = next(x for x in page.step["snapshots"][0]["openings"] if x["kind"] == "ways")
    assert len(opening["index"]) == 2  # some coordinates only


def test_a_llama_of_30_layers_takes_less_than_6_megabytes():
    small = base_that_reads("gpt2")
    sizes = {"layers": 30, "channels": 576, "heads": 9, "context": 128}  # SmolLM2's
    sizes |= {"vocabulary": small.config.vocabulary, "tokenizer": small.tokenizer}
    base = random_base(0, **sizes, **(LLAMA | {"key_value_heads": 3}))
    prompt = init_prompt(base, 20)
    prompt.about |= LABELS
    of = xray(base, prompt, f"{TEXT} a long day", "a")
    assert len(of.tokens) >= 30
    html = document(of)
    assert len(html.encode()) < 6_000_000
    page = Page(html)
    arrays = page.step["snapshots"][0]["arrays"]
    whole = [array for array in arrays if array["value"] and array["layer"] is not None]
    assert {array["layer"] for array in whole if array["ending"] == "out"} == {0, 15, 29}
    weights = {array["layer"] for array in whole if array["ending"] == "attn.weights"}
    assert weights == {*range(30)}
    assert "layers 0, 15, 29" in " ".join(page.step["said"])
    assert len(page.step["snapshots"][0]["crossings"]) == 30


def test_what_does_not_fit_is_taken_out_until_it_does(monkeypatch):
    of = xray_of("gpt2")
    whole = len(document(of))
    monkeypatch.setitem(fitting.MOST_CHARACTERS, "shallow", 24_000)
    html = document(of)
    assert len(html) < whole
    data = sum(len(text) for text in html.split("<script") if 'id="' in text[:20])
    assert data < 24_000 + 200

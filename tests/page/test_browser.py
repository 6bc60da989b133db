"""The page in a browser: what a reader sees, reads and presses.

It needs Playwright (`pip install -e ".[page]"`) and Chromium on the path (Debian: `apt-get install
chromium`). Playwright's own browsers are never fetched.
"""

import math
import re
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import pytest
from helpers.bases import base_that_reads, random_prompt
from helpers.browsing import CHROMIUM, chromium

from minipt.page.xray import xray

pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on the path")

LABELS = {"labels": ["a", "b"], "label_words": [" good", " bad"], "template": "{text}\n:"}
# The first token does not tell " good day" from " good life": the page shows three texts.
THREE = LABELS | {"labels": ["a", "b", "c"], "label_words": [" good day", " good life", " bad"]}
TEXT = "the film was good and the people"
CASES = [("gpt2", "shared"), ("gpt2", "concatenated"), ("llama", "shared"), ("bert", None)]
RAISED = "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture
def show(browser, tmp_path):
    """Open the page of an `XRay`; what left the page or went wrong fails the test at its end."""
    wrong = []

    @contextmanager
    def show(of, width=1280, height=720, dark=False):
        file = tmp_path / "page.html"
        of.save(file)
        scheme = "dark" if dark else "light"
        size = {"width": width, "height": height}
        context = browser.new_context(viewport=size, color_scheme=scheme, reduced_motion="reduce")
        page = context.new_page()
        page.on("console", lambda message: wrong.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (wrong.append("a dialog opened"), dialog.dismiss()))
        page.on("request", lambda request: wrong.append(f"request: {request.url[:80]}"))
        page.goto(file.as_uri())
        page.wait_for_selector("body[data-ready]")
        yield page
        context.close()

    yield show
    allowed = f"request: {(tmp_path / 'page.html').as_uri()}"[:89]
    assert [each for each in wrong if each != allowed] == []


def xray_of(family="gpt2", wiring=None, text=TEXT, steps=1, P=3, about=LABELS, **sizes):
    base = base_that_reads(family, **sizes)
    prompt = random_prompt(base, P)
    prompt.about |= about
    return xray(base, prompt, text, about["labels"][0], steps, wiring=wiring)


def number(text: str) -> float:
    """A number as the page writes it: −1.5·10⁻⁴."""
    digits, _, power = text.replace("−", "-").replace("≈", "").strip().partition("·10")
    exponent = "".join("-0123456789"[RAISED.index(sign)] for sign in power)
    return float(digits) * 10.0 ** int(exponent or 0)


def arithmetic(line: str) -> float:
    """What stands before the last "=" of a line, computed: e^(1.2 − 3.4) / 5.6 = 0.02."""
    line = line.rpartition(" = ")[0].replace("−", "-").replace("e^", "exp")
    line = re.sub(f"·10([{RAISED}]+)", lambda found: f" * {number('1' + found[0])}", line)
    return eval(line.replace("·", "*"), {"exp": math.exp})


def until(page, condition: str) -> None:
    """Wait, without what the page's policy forbids: strings that become code."""
    for _ in range(600):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(100)
    raise TimeoutError(condition)


def place(page) -> int:
    return page.evaluate("page.timeline.tick")


def count(page) -> int:
    return page.evaluate("page.timeline.count")


def open_array(page, name: str) -> None:
    page.evaluate("name => page.open(page.snapshot.byName.get(name))", name)


def words_drawn(page) -> list[dict]:
    """What is written above the cells: each text, where it begins and ends, its size in pixels."""
    return page.evaluate(
        "() => { const {pen} = page.flows; const words = []; const fillText = pen.fillText;"
        " pen.fillText = (text, x, y) => { const {actualBoundingBoxLeft: left,"
        " actualBoundingBoxRight: right} = pen.measureText(text);"
        " words.push({text, left: x - left, right: x + right, y, size: parseFloat("
        "pen.font.match(/([\\d.]+)px/)[1])}); };"
        " page.flows.draw(); pen.fillText = fillText; return words; }"
    )


def read_cell(page, which: int, row: int, column: int) -> float:
    """The number under the pointer, in one of the heat maps that are open."""
    heatmap = page.locator(".heatmap").nth(which)
    canvas = heatmap.locator("canvas")
    at = page.evaluate(
        "([which, row, column]) => { const map = page.sheet.heatmaps[which];"
        " return {x: map.left + (column + 0.5) * map.cellWidth,"
        " y: map.top + (row + 0.5) * map.cellHeight}; }",
        [which, row, column],
    )
    canvas.scroll_into_view_if_needed()
    canvas.hover(position=at)
    return number(heatmap.locator(".reading").inner_text().split(": ")[-1].replace(" (opens)", ""))


@pytest.mark.parametrize(("family", "wiring"), CASES)
def test_play_runs_from_the_first_op_to_the_last(show, family, wiring):
    with show(xray_of(family, wiring)) as page:
        page.select_option("#speed", "16")
        page.evaluate(
            "() => { const show = page.timeline.onTick; window.seen = [];"
            " page.timeline.onTick = (tick) => { window.seen.push(tick); show(tick); }; }"
        )
        page.click("#play")
        until(page, "!page.timeline.playing")
        ticks = page.evaluate("window.seen")
        assert ticks == sorted(ticks) and ticks[-1] == count(page) - 1
        assert "step" in page.inner_text("#sentence")


@pytest.mark.parametrize(("family", "wiring"), CASES)
def test_each_op_says_what_it_is_reads_and_writes(show, family, wiring):
    of = xray_of(family, wiring)
    with show(of) as page:
        page.keyboard.press("Home")
        names = []
        for _ in range(count(page)):
            names.append(page.inner_text("#now"))
            page.keyboard.press("ArrowRight")
        assert not any(word in text for text in names for word in ("null", "undefined", "NaN"))
        forward = "\n".join(names)
        for name, array in of.trace.activations.items():
            assert (name in forward) == (array.size > 0)


def test_keys(show):
    with show(xray_of()) as page:
        press = page.keyboard.press
        press("ArrowRight")
        press("ArrowRight")
        assert place(page) == 1
        press("ArrowLeft")
        assert place(page) == 0
        press("End")
        assert place(page) == count(page) - 1
        press("Home")
        press("]")
        assert page.evaluate("page.snapshot.ticks[page.timeline.tick].act") == "text"
        press("[")
        assert place(page) == 0
        press(" ")
        until(page, "page.timeline.tick > 0")
        press(" ")
        assert not page.evaluate("page.timeline.playing")
        press("ArrowUp")
        assert page.evaluate("page.stage.focus") == 1
        press("Enter")
        assert page.is_visible("#sheet h2")
        press("Escape")
        assert not page.is_visible("#sheet")
        press("e")
        assert page.locator("#sentence .why").is_hidden()
        press("d")
        assert page.evaluate("document.documentElement.className") == "dark"
        press("b")
        assert "without a prompt" in page.inner_text("#sheet")


def test_a_click_on_a_cell_opens_its_array(show):
    with show(xray_of()) as page:
        cell = "const {strip, places} = page.snapshot.byName.get('text.h0.mlp.up');"
        cell += "const {x} = page.stage.columns[places[1][0]];"
        at = page.evaluate(f"() => {{ {cell} return {{x: x + 2, y: strip.y + 2}}; }}")
        page.hover("#cells", position=at)
        assert "text.h0.mlp.up" in page.inner_text("#hint")
        page.click("#cells", position=at)
        assert "text.h0.mlp.up" in page.inner_text("#sheet h2")
        page.locator("#sheet .links button", has_text="text.h0.ln2").click()
        assert "text.h0.ln2" in page.inner_text("#sheet h2")


def test_numbers_read_off_the_page_are_those_of_the_trace(show):
    of = xray_of(steps=1)
    trace = of.trace
    with show(of) as page:
        page.keyboard.press("b")
        told = page.inner_text("#sheet")
        assert number(re.search(r"before step: loss (\S+)", told)[1]) == pytest.approx(
            of.loss, 1e-3
        )
        shown = [float(each) for each in page.locator(".answer .track + span").all_inner_texts()]
        moments = np.concatenate([of.probabilities[m] for m in ("no prompt", "before", "after")])
        np.testing.assert_allclose(shown, moments, atol=5.1e-5)
        cells = [
            ("prompt.vectors", (2, 5)),
            ("prompt.h0.ln1", (0, 1, 7)),
            ("text.h0.mlp.up", (0, 4, 9)),
        ]
        cells += [("text.h1.out", (0, 0, 3)), ("text.h0.middle", (0, 2, 0))]
        for name, index in cells:
            open_array(page, name)
            for which, array in enumerate((trace[name], trace.grad(name))):
                shown = read_cell(page, which, *index[-2:])
                # Eight bits, and three figures
                assert shown == pytest.approx(
                    array[index], rel=6e-3, abs=float(np.abs(array).max()) / 100
                )


def test_attention_is_shown_head_by_head(show):
    of = xray_of()
    with show(of) as page:
        open_array(page, "text.h0.attn.weights")
        weights = of.trace["text.h0.attn.weights"]  # (B, H, T, P+T)
        for head in range(2):
            page.get_by_role("button", name=f"head {head}", exact=True).click()
            shown = read_cell(page, 0, 3, 1)
            assert shown == pytest.approx(weights[0, head, 3, 1], rel=6e-3, abs=0.01)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_opened_arithmetic_adds_up_to_the_number(show, family):
    of = xray_of(family)
    with show(of) as page:
        openings = page.evaluate(
            "page.snapshot.openings.map(({array, gradient, kind}) =>"
            " [kind, page.snapshot.arrays[array].name, gradient])"
        )
        by_kind = {kind: (name, gradient) for kind, name, gradient in openings}
        assert set(by_kind) == {"softmax", "softmax_dx", "norm", "linear", "loss", "ways"}
        for name, gradient in by_kind.values():
            open_array(page, name)
            side = "gradient" if gradient else "activation"
            page.locator(f".opened button.{side}").first.click()
            index = tuple(page.evaluate("page.sheet.openedIndex"))
            array = of.trace.grad(name) if gradient else of.trace[name]
            total = number(page.inner_text(".number .total"))
            assert total == pytest.approx(array[index], rel=1e-3, abs=1e-6)
            assert arithmetic(page.inner_text(".number .filled")) == pytest.approx(total, rel=0.02)


def test_a_text_is_never_read_as_html(show):
    bad = "<script>alert(1)</script>"
    about = LABELS | {"labels": [bad, "<img/src='x'/onerror=alert(2)>"]}
    with show(xray_of(text=bad, about=about, context=99)) as page:
        assert bad in page.inner_text("#question")
        page.keyboard.press("b")
        assert bad in page.inner_text("#sheet").replace("·", " ")
        assert page.locator("img").count() == 0
        assert "<img" in page.inner_text("#sheet")
        page.keyboard.press("Escape")
        page.keyboard.press("End")


@pytest.mark.parametrize(
    "of",
    [
        {"text": "a"},
        {"P": 100, "context": 140},
        {"layers": 1},
        {"layers": 30},
        {"steps": 4},
        {"about": THREE, "context": 60},
        {"text": "the film was good " * 40},
        {"family": "encoder"},
    ],
    ids=[
        "one token",
        "100 vectors",
        "one layer",
        "30 layers",
        "4 steps",
        "long labels",
        "cut",
        "encoder",
    ],
)
def test_it_moves_whatever_it_shows(show, of):
    with show(xray_of(**of)) as page:
        page.keyboard.press("End")
        assert place(page) == count(page) - 1
        open_array(page, "prompt.vectors")
        assert page.locator(".heatmap").count() >= 2
        page.keyboard.press("Escape")
        page.keyboard.press("b")
        assert "nearest words" in page.inner_text("#sheet")


def test_a_slider_goes_over_the_steps(show):
    of = xray_of(steps=4)
    with show(of) as page:
        page.keyboard.press("b")
        slider = page.locator("#sheet input[type=range]")
        slider.fill("1")
        assert "step 2 of 4" in page.inner_text("#sheet")
        page.keyboard.press("Escape")
        page.select_option("#snapshot", "1")
        page.keyboard.press("End")
        open_array(page, "prompt.vectors")


@pytest.mark.parametrize(("width", "height"), [(1280, 720), (844, 390)])
@pytest.mark.parametrize("dark", [False, True])
def test_a_tick_is_drawn_within_a_frame(show, width, height, dark):
    with show(xray_of(P=20, context=60, layers=6), width, height, dark) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate("document.documentElement.className") == ("dark" if dark else "")
        times = page.evaluate(
            "() => page.snapshot.ticks.map((_, tick) => { const start = performance.now();"
            " page.timeline.goTo(tick); return performance.now() - start; })"
        )
        assert np.median(times) < 50


def test_what_is_drawn_differs_with_what_it_shows(show):
    with show(xray_of()) as page:
        drawn = []
        page.keyboard.press("End")
        for quantity in ("played", "activation", "gradient", "change"):
            page.select_option("#colour", quantity)
            drawn.append(page.evaluate("document.getElementById('cells').toDataURL()"))
        assert len(set(drawn)) == 4


def test_the_handout_is_a_few_pages_of_paper(show):
    with show(xray_of(), dark=True) as page:
        page.keyboard.press("ArrowRight")
        paper = page.pdf(prefer_css_page_size=True)
        assert 3 <= len(re.findall(rb"/Type\s*/Page\b", paper)) <= 8
        page.emulate_media(media="print")
        assert page.is_visible("#handout img") and not page.is_visible("#transport")
        page.emulate_media(media="screen")
        assert place(page) == 0


def test_who_cannot_see_the_drawing_is_told(show):
    with show(xray_of()) as page:
        page.keyboard.press("ArrowRight")
        assert "stage" in page.get_attribute("#cells", "aria-label")
        for control in page.locator("button:visible, select:visible, input:visible").all():
            name = control.get_attribute("aria-label") or control.inner_text()
            assert name.strip()


def test_a_heat_map_is_read_with_the_keys(show):
    of = xray_of()
    with show(of) as page:
        open_array(page, "prompt.vectors")
        page.locator(".heatmap canvas").nth(1).focus()
        for key in ("ArrowRight", "ArrowDown", "ArrowRight"):
            page.keyboard.press(key)
        page.keyboard.press("Enter")
        gradient = of.trace.grad("prompt.vectors")[1, 1]
        assert number(page.inner_text(".number .total")) == pytest.approx(gradient, rel=1e-3)


def test_texts_stand_side_by_side_and_the_prompt_once(show):
    of = xray_of(about=THREE, context=60)
    with show(of) as page:
        vectors = page.evaluate("page.stage.columns.filter(({vector}) => vector).length")
        texts = page.evaluate("new Set(page.stage.columns.map(({text}) => text)).size")
        assert vectors == 3 and texts == 1 + 3
        open_array(page, "text.h0.attn.weights")
        page.get_by_role("button", name="text: b").click()
        assert page.locator(".heatmap").count() == 2
    with show(xray_of(about=THREE, wiring="concatenated", context=60)) as page:
        assert page.evaluate("page.stage.columns.filter(({vector}) => vector).length") == 3 * 3


@pytest.mark.parametrize("of", [{"P": 1}, {"text": "the film was good " * 40}, {"text": "a"}])
@pytest.mark.parametrize("key", ["Home", "End"])
def test_the_captions_below_the_blocks_stand_apart(show, of, key):
    with show(xray_of(**of)) as page:
        page.keyboard.press(key)
        words = words_drawn(page)
        low = max(word["y"] for word in words)
        captions = sorted((each["left"], each["right"]) for each in words if each["y"] == low)
        assert captions and captions[-1][1] <= page.evaluate("page.stage.width")
        assert all(right < left for (_, right), (left, _) in pairwise(captions))


def test_a_page_counts_one_vector_as_one(show):
    with show(xray_of(P=1, text="a")) as page:
        assert "1 vector." in page.inner_text("#now")


@pytest.mark.parametrize(("width", "height", "most"), [(1280, 720, 6), (844, 390, 3)])
def test_labels_on_the_stage_can_be_read(show, width, height, most):
    names = ["so so", "very good", "bad", "fine", "dull", "odd"]
    words = [" good", " bad", " the", " film", " was", " people"]
    of = xray_of(about=LABELS | {"labels": names, "label_words": words})
    with show(of, width, height) as page:
        page.keyboard.press("End")
        drawn = words_drawn(page)
        shown = {word["text"].removeprefix("✓ "): word for word in drawn}
        labels = [word for name, word in shown.items() if name in names]
        assert "so so" in shown and len(labels) >= most
        assert all(word["size"] >= 7 for word in labels)
        lines = sorted(word["y"] for word in labels)
        assert all(below - above >= 9 for above, below in pairwise(lines))
        assert f"{of.probabilities['after'][0]:.4f}" in shown


def test_the_arrived_gradient_leads_to_the_ways_it_took(show):
    with show(xray_of()) as page:
        page.keyboard.press("End")
        page.keyboard.press("ArrowLeft")
        page.get_by_role("button", name="through which layers it came").click()
        ways = page.locator(".heatmap").last
        assert "how the gradient came" in ways.inner_text()
        box = ways.locator("canvas").bounding_box()
        assert (
            0 <= box["y"]
            and box["y"] + box["height"] <= page.locator("#main").bounding_box()["height"] + 60
        )
        page.keyboard.press("Escape")
        page.keyboard.press("ArrowLeft")
        assert page.get_by_role("button", name="through which layers it came").count() == 0


@pytest.mark.parametrize(("family", "wiring"), CASES)
def test_each_letter_of_a_shape_is_explained(show, family, wiring):
    with show(xray_of(family, wiring)) as page:
        letters = page.evaluate("page.snapshot.arrays.flatMap(({letters}) => letters)")
        letters = {letter for each in letters for letter in each.split("+")} - {"1"}
        assert letters <= set(page.evaluate("Object.keys(LETTERS)"))
        page.keyboard.press("Home")
        assert "vectors" in page.inner_text("#now")


def test_signs_without_a_picture_are_seen(show):
    with show(xray_of()) as page:
        assert page.evaluate("showToken('a b\\u0001\\u007f\\n')") == "a·b␁␡⏎"

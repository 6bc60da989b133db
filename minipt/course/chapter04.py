"""The exercises of chapter 4: rows and operations of a step, counted by hand."""

from dataclasses import replace

from minipt.course.exercises import Exact, Guess
from minipt.loading.load import load_base
from minipt.rivals.lora import RANK
from minipt.studies.count import Step, count

TITLE = "Frozen is not free"
STEP = Step(P=20, B=16, T=24)  # of the guess


def _config(L, C, F):
    """The shape of a GPT-2 of L layers."""
    return replace(load_base("nano").config, layers=L, channels=C, hidden=F)


def _share_of_full():
    config = load_base("tiny").config
    return count(config, "shared", STEP).total / count(config, "full", STEP).total


def _one_layer(B, T, C, F):
    """What a layer more takes forward, in the library's count."""
    step = Step(P=1, B=B, T=T)
    two, one = (count(_config(L, C, F), "full", step).forward.total for L in (2, 1))
    return two - one


def _linear(B, T, C, F):
    return 2 * B * T * (4 * C * C + 2 * C * F)


def _forwards():
    """Operations of a forward pass, and of its attention."""
    for L, C, T in ((6, 192, 24), (2, 64, 100)):
        work = count(_config(L, C, 4 * C), "full", Step(P=1, B=16, T=T)).forward
        yield work.total, work.attention


def _lora(L, C, B, T, r):
    return count(_config(L, C, 4 * C), "lora", Step(P=1, B=B, T=T)).to_weights.total


def _products(L, C, B, T, r, rows_of_last=1, narrow=2):
    """LoRA's operations to weights, with so many rows in the last query and narrow products."""
    whole = 2 * B * C * C * ((L - 1) * 2 * T + rows_of_last + T)
    return whole + narrow * L * 2 * (2 * r * C * C)


EXERCISES = (
    Exact(
        name="4a",
        title="Rows",
        level=1,
        minutes=5,
        inputs=lambda: [(16, 20, 24), (3, 1, 7)],
        right=lambda B, P, T: (B * (P + T), P + B * T),
        mistakes={
            "The shared prompt runs once, not once for each text: P + B T.": (
                lambda B, P, T: (B * (P + T), B * (P + T))
            ),
            "The two are in the other order: in front of each text first, then shared.": (
                lambda B, P, T: (P + B * T, B * (P + T))
            ),
            "The prompt is computed too, if only once: add P.": (
                lambda B, P, T: (B * (P + T), B * T)
            ),
            "These are the rows of one text; a batch has B of them.": (
                lambda B, P, T: (P + T, P + T)
            ),
        },
        hint="In the first wiring each of B texts has P + T rows.",
    ),
    Guess(
        name="4b",
        title="A thousandth of the numbers",
        level=1,
        minutes=5,
        measure=_share_of_full,
        lesson="The gradient has to go all the way down, whatever learns in front.",
    ),
    Exact(
        name="4c",
        title="One layer",
        level=2,
        minutes=10,
        inputs=lambda: [(16, 24, 192, 768), (3, 7, 8, 20)],
        right=_one_layer,
        mistakes={
            "Attention is missing: two products of all T queries with all T keys, and so on.": (
                _linear
            ),
            "Attention has two products: the scores, and the sum of the values.": (
                lambda B, T, C, F: _linear(B, T, C, F) + 2 * B * T * T * C
            ),
            "A sum of k products takes k products and k additions: multiply by 2.": (
                lambda B, T, C, F: _one_layer(B, T, C, F) // 2
            ),
            "The MLP has two matrices, one up and one down.": (
                lambda B, T, C, F: _one_layer(B, T, C, F) - 2 * B * T * C * F
            ),
            "Attention has four matrices: query, key, value and out.": (
                lambda B, T, C, F: _one_layer(B, T, C, F) - 2 * B * T * C * C
            ),
            "This is one text; a batch has B of them.": (
                lambda B, T, C, F: _one_layer(B, T, C, F) // B
            ),
        },
        hint="2 B T for each number of the six matrices, and 2 B T T C twice.",
    ),
    Exact(
        name="4d",
        title="What only weights need",
        level=2,
        minutes=5,
        inputs=lambda: list(_forwards()),
        right=lambda forward, attention: (forward - attention) / (3 * forward),
        mistakes={
            "Attention has no weights: subtract it.": lambda forward, attention: 1 / 3,
            "This is the share of the forward pass; divide by forward and backward together.": (
                lambda forward, attention: (forward - attention) / forward
            ),
            "Attention goes back with twice its products, so to inputs is more than forward.": (
                lambda forward, attention: (forward - attention) / (3 * forward - attention)
            ),
            "This is the other part: what the way to the inputs takes.": (
                lambda forward, attention: (forward + attention) / (3 * forward)
            ),
        },
        hint="To weights: forward less attention. To inputs: forward plus attention.",
    ),
    Exact(
        name="4e",
        title="LoRA's share",
        level=3,
        minutes=10,
        inputs=lambda: [(6, 192, 16, 24, RANK), (3, 32, 5, 9, RANK)],
        right=_lora,
        mistakes={
            "In the last layer only B rows have a query: its dW takes 2 B C C.": (
                lambda L, C, B, T, r: _products(L, C, B, T, r, rows_of_last=T)
            ),
            "These are the gradients of the whole matrices; dU and dV need a product each too.": (
                lambda L, C, B, T, r: _products(L, C, B, T, r, narrow=0)
            ),
            "From each dW come two narrow gradients, dU and dV.": (
                lambda L, C, B, T, r: _products(L, C, B, T, r, narrow=1)
            ),
            "These are dU and dV alone; here each is made from a whole dW.": (
                lambda L, C, B, T, r: 8 * L * r * C * C
            ),
            "This is one of the two matrices; query and value both learn.": (
                lambda L, C, B, T, r: L * (2 * B * T * C * C + 4 * r * C * C)
            ),
        },
        hint="dW: 2 B T C C each, the last query's 2 B C C. Then 2 r C C for each dU and dV.",
    ),
    Exact(
        name="4f",
        title="Long texts",
        level=2,
        minutes=5,
        inputs=lambda: [(192, 768), (8, 20)],
        right=lambda C, F: 2 * C + F,
        mistakes={
            "The MLP is missing: two matrices of C F numbers.": lambda C, F: 2 * C,
            "The four matrices of attention are linear maps too.": lambda C, F: F,
            "Attention has two products of all pairs of rows, so half of this.": (
                lambda C, F: 4 * C + 2 * F
            ),
            "The factor is T T in attention and T in linear maps: divide by T on both sides.": (
                lambda C, F: (2 * C + F) ** 0.5
            ),
        },
        hint="2 B T (4 C C + 2 C F) = 4 B T T C: solve for T.",
    ),
    Exact(
        name="4g",
        title="A prompt further up",
        level=1,
        minutes=5,
        inputs=lambda: [(6, 3), (12, 2)],
        right=lambda L, k: (L, L - k),
        mistakes={
            "The texts still go through all L layers.": lambda L, k: (L - k, L - k),
            "Below the prompt nothing learns, so the gradient stops there.": lambda L, k: (L, L),
            "These are the layers below the prompt; the gradient passes those above.": (
                lambda L, k: (L, k)
            ),
            "The two are in the other order: forward first.": lambda L, k: (L - k, L),
        },
        hint="What stands below the prompt still computes; nothing in it needs a gradient.",
    ),
)

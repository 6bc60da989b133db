"""What each array of a step is: its formula, one sentence, and the arrays that it is made from.

In: a base. Out: one `Operation` for each ending of a name, such as `attn.weights`; families differ
in their norm, their activation and their positions. A trace knows names and their order, and not
what an op reads: that stands here and nowhere else. The formulas are those of `ops.py`. For an
array y, `dy` is d loss / d y.
"""

from dataclasses import dataclass, replace

from minipt.transformer.base import Config


@dataclass(frozen=True)
class Operation:
    """ending: of the names of these arrays. title: what they are called.

    formula, sentence: how they are computed. backward, backward_sentence: how their gradient is,
    "" where none is computed. function: in `minipt/maths/ops.py`. parameters: what is read of the
    frozen base, a layer's without its `h3.`.
    """

    ending: str
    title: str
    formula: str
    sentence: str
    function: str = ""
    backward: str = ""
    backward_sentence: str = ""
    parameters: tuple[str, ...] = ()


ADDS = "A sum passes its gradient on to each of its terms as it is."
FROM_LINEAR = "dx_i = Σ_j dy_j weight_ij"
DOWN_BACK = "The map down passes its gradient back through its weights, turned over."
OTHER_FACTOR = "The other factor of a product scales the gradient."
SHARE = "The activation lets this share of each number through."
BEND_BACK = (
    "The gradient passes the bend of the activation: much where it is steep, none where it is flat."
)
NORM_BACK = "The norm passes the gradient on without its mean and without its part along the row."
ALL_PATHS = "A number that several ops read gets the sum of what comes back from all of them."


def operations(config: Config, trained_head: bool = False) -> dict[str, Operation]:
    """All kinds of arrays that a base of this config can have in a trace, by their ending.

    trained_head: the answer is compared with vectors that were trained beside the prompt.
    """
    parts = (_outside, _projections, _attention, _sums, _mlp, _answer, _loss)
    rows = [row for part in parts for row in part(config)]
    norms = ["ln1", "ln2", "final"] if config.norm_first else ["embedding.norm", "ln1", "ln2"]
    for name in norms + ["head.norm"] * (config.head == "masked"):
        rows += _norm(name, config)
    table = {row.ending: row for row in rows}
    if trained_head and config.head == "masked":  # the base's own bias is of its words
        table["logits"] = replace(table["logits"], formula="logits_k = features · label_k")
    return table


def _linear(at: str, bias: bool) -> tuple[str, ...]:
    return (f"{at}.weight", f"{at}.bias") if bias else (f"{at}.weight",)


def _outside(config: Config) -> list[Operation]:
    places = [name for name in ("position.table",) if config.positions == "learned"]
    places += ["segment.table"] if config.segments else []
    return [
        Operation(
            "vectors",
            "the prompt's vectors",
            "the only numbers that learn",
            "These vectors stand in front of the text, as if they were words.",
            backward="d vectors = Σ over all paths to the loss",
            backward_sentence="All that the text asks of the prompt arrives here, and the "
            "optimizer changes the vectors against it.",
        ),
        Operation(
            "embedding",
            "embeddings",
            "x_t = table[id_t]" + " + position_t" * bool(places),
            "Each token is looked up in a table and becomes a row of numbers.",
            "embedding",
            parameters=("token.table", *places),
        ),
    ]


def _projections(config: Config) -> list[Operation]:
    bias = config.attention_bias
    turned = config.positions == "rotary"
    turn, by_place = (
        ("rotate({}, position)", " and is turned by the row's position") if turned else ("{}", "")
    )
    plus = " + bias" * bias
    return [
        Operation(
            "attn.key",
            "keys",
            "key = " + turn.format(f"x weight{plus}"),
            f"Each row makes a key for each head{by_place}; queries are compared with it.",
            "linear",
            "dkey_s = Σ_r dscores_rs query_r",
            "Each query that read this key pulls on it, by the gradient of their score.",
            _linear("attn.key", bias),
        ),
        Operation(
            "attn.value",
            "values",
            f"value = x weight{plus}",
            "Each row makes a value for each head: what it hands to those who attend to it.",
            "linear",
            "dvalue_s = Σ_r weights_rs dcontext_r",
            "Each row that took from this value sends back its gradient, times the weight it took.",
            _linear("attn.value", bias),
        ),
        Operation(
            "attn.query",
            "queries",
            "query = " + turn.format(f"(x weight{plus}) / √D"),
            f"Each row makes a query for each head{by_place}: what it looks for.",
            "linear",
            "dquery_r = Σ_s dscores_rs key_s",
            "The gradients of a row's scores, times the keys that it read, tell its query how to "
            "change.",
            _linear("attn.query", bias),
        ),
    ]


def _attention(config: Config) -> list[Operation]:
    bias, plus = config.attention_bias, " + bias" * config.attention_bias
    return [
        Operation(
            "attn.scores",
            "scores",
            "scores_rs = query_r · key_s; what a row may not read is -∞",
            "A query's product with each key says how well the two fit.",
            "attention",
            "dscores_s = weights_s (dweights_s - Σ_j dweights_j weights_j)",
            "The weights of a row sum to 1. So a score has a gradient only if its weight's "
            "gradient differs from the row's mean.",
        ),
        Operation(
            "attn.weights",
            "attention weights",
            "weights_s = e^scores_s / Σ_j e^scores_j",
            "The scores of a row become shares that sum to 1: whom this row attends to.",
            "softmax",
            "dweights_rs = dcontext_r · value_s",
            "A larger weight adds more of its value to the context. So its gradient is the "
            "context's, times that value.",
        ),
        Operation(
            "attn.context",
            "context",
            "context_r = Σ_s weights_rs value_s",
            "Each row takes a mean of the values, weighted by its attention.",
            "attention",
            FROM_LINEAR,
            "The output map passes its gradient back through its weights, turned over.",
        ),
        Operation(
            "attn.out",
            "output of attention",
            f"y = context weight{plus}",
            "The heads are put side by side and mixed by one linear map.",
            "linear",
            "d out = d sum",
            ADDS,
            _linear("attn.out", bias),
        ),
    ]


def _sums(config: Config) -> list[Operation]:
    first = config.norm_first
    back = "dx = d sum + d norm's input" if first else _norm_dx(config)
    return [
        Operation(
            "middle",
            "sum after attention",
            "middle = x + attn.out",
            "What attention found is added to the row; the row itself goes on too.",
            "",
            back,
            ALL_PATHS if first else NORM_BACK,
        ),
        Operation(
            "out",
            "sum after the MLP",
            "out = middle + mlp.down" if first else "out = ln1 + mlp.down",
            "What the MLP found is added to the row.",
            "",
            back,
            "What comes back from the layer above, through its attention and past it."
            if first
            else NORM_BACK,
        ),
    ]


def _activation(config: Config) -> tuple[str, str, str]:
    """The function in `ops`, the factor y / x and its backward."""
    return {
        "gelu_tanh": ("gelu", "σ(2u), u = √(2/π) (x + 0.044715 x³)", "dy (σ + x dσ/dx)"),
        "gelu": ("gelu_erf", "Φ(x)", "dy (Φ + x e^(-x²/2) / √(2π))"),
        "silu": ("silu", "σ(x) = 1 / (1 + e^-x)", "dy σ (1 + x (1 - σ))"),
    }[config.activation]


def _mlp(config: Config) -> list[Operation]:
    plus, bias, gated = " + bias" * config.mlp_bias, config.mlp_bias, config.gated
    down = Operation(
        "mlp.down",
        "output of the MLP",
        f"y = {'product' if gated else 'active'} weight{plus}",
        "A second linear map brings the row back to its old width.",
        "linear",
        "d down = d sum",
        ADDS,
        _linear("mlp.down", bias),
    )
    return [*_inside(config), *(_gated(config) if gated else []), down]


def _inside(config: Config) -> list[Operation]:
    """The map whose output goes through the activation, and the activation."""
    function, factor, back = _activation(config)
    plus, bias, gated = " + bias" * config.mlp_bias, config.mlp_bias, config.gated
    inner = "mlp.gate" if gated else "mlp.up"
    return [
        Operation(
            inner,
            "the gate's map" if gated else "hidden layer of the MLP",
            f"y = x weight{plus}",
            "A linear map to more channels looks for patterns in the row.",
            "linear",
            f"dx = {back}",
            BEND_BACK,
            _linear(inner, bias),
        ),
        Operation("mlp.y_over_x", "share that passes", f"y / x = {factor}", SHARE, function),
        Operation(
            "mlp.active",
            "after the activation",
            f"y = x · {factor.partition(',')[0]}",
            "Large numbers pass and negative ones are held back: the only bend in the MLP.",
            function,
            "d active = d product · up" if gated else FROM_LINEAR,
            OTHER_FACTOR if gated else DOWN_BACK,
        ),
    ]


def _gated(config: Config) -> list[Operation]:
    plus = " + bias" * config.mlp_bias
    return [
        Operation(
            "mlp.up",
            "hidden layer of the MLP",
            f"y = x weight{plus}",
            "A linear map to more channels; the gate will say how much of each passes.",
            "linear",
            "d up = d product · active",
            OTHER_FACTOR,
            _linear("mlp.up", config.mlp_bias),
        ),
        Operation(
            "mlp.product",
            "gated",
            "product = active · up",
            "The gate multiplies: it opens some channels and closes others.",
            "",
            FROM_LINEAR,
            DOWN_BACK,
        ),
    ]


def _norm_dx(config: Config) -> str:
    if config.norm == "rms":
        return "dx = rstd (gain dy - xhat mean(gain dy xhat))"
    return "dx = rstd (gain dy - mean(gain dy) - xhat mean(gain dy xhat))"


def _norm(name: str, config: Config) -> list[Operation]:
    layer = config.norm == "layer"
    mean, spread = (" - mean(x)", "(x - mean(x))²") if layer else ("", "x²")
    where = {
        "embedding.norm": "the norm of the embeddings",
        "ln1": "the norm before attention" if config.norm_first else "the norm after attention",
        "ln2": "the norm before the MLP" if config.norm_first else "the norm after the MLP",
        "final": "the last norm",
        "head.norm": "the norm of the head",
    }[name]
    what = "centred and brought" if layer else "brought"
    function = "layernorm" if layer else "rmsnorm"
    plus = " + bias" * layer
    return [
        Operation(
            f"{name}.xhat",
            f"{where}, before gain{' and bias' * layer}",
            f"xhat = (x{mean}) rstd" if layer else "xhat = x rstd",
            f"Each row is {what} to the size 1, so that no row is louder than another.",
            function,
        ),
        Operation(
            f"{name}.rstd",
            f"{where}: one over the row's size",
            f"rstd = 1 / √(mean({spread}) + epsilon)",
            "The norm multiplies each row by this number.",
            function,
        ),
        Operation(
            name,
            where,
            f"y = gain xhat{plus}",
            "Each channel gets a size of its own back, which the model learnt.",
            function,
            *_norm_back(name, config),
            tuple(f"{name}.{each}" for each in ("gain", "bias")[: 1 + layer]),
        ),
    ]


def _norm_back(name: str, config: Config) -> tuple[str, str]:
    """How the gradient of a norm's output is computed."""
    if name == "ln1" and config.norm_first:
        read = "the keys, values and queries"
    elif name == "ln2" and config.norm_first:
        read = "the MLP's gate and hidden layer" if config.gated else "the MLP's hidden layer"
    elif name == "ln1":
        read = "the MLP, and the sum that goes past it"
    elif name == "ln2":
        read = "the layer above or the answer"
    else:
        read = "the answer" if name in ("final", "head.norm") else "the first layer"
    return "dy = Σ of what comes back from all that read y", f"It comes back from {read}."


def _answer(config: Config) -> list[Operation]:
    rows = [
        Operation(
            "features",
            "what is compared with the labels",
            _features(config),
            "This row is compared with each label's vector.",
            "",
            "dfeatures = Σ_k dlogits_k label_k" + " / 0.05" * (config.head is None),
            "Each label pulls the row towards its vector or pushes it away.",
        ),
        Operation(
            "logits",
            "logits",
            {
                "language": "logits_k = features · label_k",
                "masked": "logits_k = features · label_k + bias_k",
                None: "logits_k = features · label_k / 0.05",
            }[config.head],
            "One number for each label: how well the row fits it.",
            "times_transposed",
            "dlogits_k = (p_k - [k = right]) dloss",
            "The gradient is the probability that is too much; the right label's is too little.",
        ),
    ]
    if config.head is None:
        rows += _pooled()
    return rows + (_masked(config) if config.head == "masked" else [])


def _loss(config: Config) -> list[Operation]:
    return [
        Operation(
            "probabilities",
            "probabilities",
            "p_k = e^logits_k / Σ_j e^logits_j",
            "The logits become probabilities, which sum to 1.",
            "cross_entropy",
        ),
        Operation(
            "loss",
            "loss",
            "loss = -log p_right",
            "The loss is 0 if the model is sure of the right label, and large if it is surprised.",
            "cross_entropy",
            "dloss = 1",
            "Here the way back begins: how much does the loss change, if ...?",
        ),
        Operation(
            "scores",
            "scores of labels of several tokens",
            "score_k = -Σ losses of label k's tokens",
            "A label of several tokens has the probability of all its tokens together.",
            "cross_entropy",
            "dscore_k = p_k - [k = right]",
            "The gradient is the probability that is too much.",
        ),
    ]


def _features(config: Config) -> str:
    return {
        "language": "features = the row at the text's end",
        "masked": "features = the head's row at the mask",
        None: "features = pooled / length",
    }[config.head]


def _pooled() -> list[Operation]:
    return [
        Operation(
            "pooled",
            "mean of the text's rows",
            "pooled = Σ_t x_t / T",
            "The text becomes one row, the mean of its tokens' rows.",
            "mean_pool",
            "dx = (dy - y (dy · y)) / length",
            "A row of length 1 cannot grow, so the part of the gradient along it is lost.",
        ),
        Operation(
            "length",
            "length of the mean row",
            "length = √(Σ_c pooled_c²)",
            "The mean row is divided by its length, so that products are cosines.",
            "normalize",
        ),
    ]


def _masked(config: Config) -> list[Operation]:
    function, factor, back = _activation(config)
    return [
        Operation(
            "head.dense",
            "the head's linear map",
            "y = x weight + bias",
            "The model has a small map of its own in front of the guess.",
            "linear",
            f"dx = {back}",
            BEND_BACK,
            _linear("head.dense", True),
        ),
        Operation("head.y_over_x", "share that passes", f"y / x = {factor}", SHARE, function),
        Operation(
            "head.active",
            "after the head's activation",
            f"y = x · {factor.partition(',')[0]}",
            "Large numbers pass and negative ones are held back.",
            function,
            _norm_dx(config),
            NORM_BACK,
        ),
    ]

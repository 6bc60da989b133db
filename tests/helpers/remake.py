"""Every array of a trace, and every gradient, made again from what the page says it is made from.

In: a subject, the name of an array, and its sources by name. Out: the array. Nothing else of the
trace is read, so a source that is missing in `minipt/page/sources.py` is a KeyError here.
"""

import numpy as np

from minipt.maths import ops
from minipt.page.places import Map, place_of
from minipt.page.steps import Subject
from minipt.prompting.readout import choice_vectors
from minipt.transformer.layer import NORMS
from minipt.transformer.model import ACTIVATIONS, embed_tokens, embed_vectors

KEYS = ("attn.key", "attn.value", "attn.query")


class Remaker:
    def __init__(self, subject: Subject) -> None:
        self.base, self.config = subject.base, subject.base.config
        self.params, self.batch, self.map = subject.base.params, subject.batch, Map(subject)
        self.head_channels = self.config.channels // self.config.heads
        self.inner = "mlp.gate" if self.config.gated else "mlp.up"

    # Forward

    def array(self, name: str, a: dict[str, np.ndarray]) -> np.ndarray:
        place = place_of(name)
        at, ending = name.removesuffix(place.ending), place.ending
        if ending == "embedding":
            return self.embedding(a)
        norm, _, part = ending.rpartition(".")
        if part in ("xhat", "rstd"):
            ((before, x),) = a.items()
            weights = self.norm_weights(f"{at}{norm}")
            outputs = NORMS[self.config.norm][0](
                self.rows_for(name, before, x), *weights, self.config.epsilon
            )
            return outputs[1 if part == "xhat" else 2]
        if f"{name}.xhat" in a:
            gain, *bias = self.norm_weights(name)
            return a[f"{name}.xhat"] * gain + sum(bias)
        if place.layer is None:
            return self.outside(ending, a)
        if ending in KEYS:
            ((before, x),) = a.items()
            return self.heads(name, self.linear(name, self.rows_for(name, before, x)))
        return self.in_layer(name, at, ending, a)

    def embedding(self, a: dict) -> np.ndarray:
        text = embed_tokens(self.base, self.batch.ids, self.map.P)
        if self.map.shared:
            return text
        prompt = embed_vectors(self.base, a["prompt.vectors"])
        prompts = np.broadcast_to(prompt, (len(text), *prompt.shape))
        return np.concatenate([prompts, text], axis=1)

    def outside(self, ending: str, a: dict) -> np.ndarray:
        if ending == "head.dense":
            (x,) = a.values()
            return self.linear("text.head.dense", x[self.batch.counted])
        if ending == "head.y_over_x":
            return ACTIVATIONS[self.config.activation][0](a["text.head.dense"])[1]
        if ending == "head.active":
            return a["text.head.dense"] * a["text.head.y_over_x"]
        if ending == "pooled":
            (hidden,) = a.values()
            return ops.mean_pool(hidden, self.real())
        if ending == "length":
            return ops.normalize(a["text.pooled"])[1]
        if ending == "features":
            return self.features(a)
        if ending == "logits":
            return self.logits(a["text.features"])
        if ending == "probabilities":
            return ops.softmax(a["text.logits"])
        if ending == "loss":
            return ops.cross_entropy(a["text.logits"], self.batch.counted_targets)[0]
        assert ending == "scores"
        sums = np.zeros(len(self.batch.ids))
        np.add.at(sums, self.batch.counted.nonzero()[0], -a["text.loss"])
        return sums.reshape(len(self.batch.labels), -1)

    def features(self, a: dict) -> np.ndarray:
        if self.config.head is None:
            return a["text.pooled"] / a["text.length"]
        (x,) = a.values()
        return x[self.batch.counted] if self.config.head == "language" else x

    def logits(self, features: np.ndarray) -> np.ndarray:
        logits = features @ choice_vectors(self.base, self.batch.choices).T
        if self.config.head == "masked" and self.batch.choices.ndim == 1:
            logits = logits + self.params["head.bias"][self.batch.choices]
        return logits / (0.05 if self.config.head is None else 1.0)

    def in_layer(self, name: str, at: str, ending: str, a: dict) -> np.ndarray:
        if ending == "attn.scores":
            return self.scores(name, at, a)
        if ending == "attn.weights":
            return ops.softmax(a[f"{at}attn.scores"])
        if ending == "attn.context":
            value = self.with_past(at, "attn.value", a)
            return a[f"{at}attn.weights"] @ value
        if ending == "attn.out":
            return self.linear(name, ops.merge_heads(a[f"{at}attn.context"]))
        if ending in ("mlp.up", "mlp.gate"):
            (x,) = a.values()
            return self.linear(name, x)
        if ending == "mlp.y_over_x":
            return ACTIVATIONS[self.config.activation][0](a[at + self.inner])[1]
        if ending == "mlp.active":
            return a[at + self.inner] * a[f"{at}mlp.y_over_x"]
        if ending == "mlp.product":
            return a[f"{at}mlp.active"] * a[f"{at}mlp.up"]
        if ending == "mlp.down":
            (x,) = a.values()
            return self.linear(name, x)
        assert ending in ("middle", "out")
        (before, x), (_, more) = a.items()
        return self.rows_for(name, before, x) + more

    def scores(self, name: str, at: str, a: dict) -> np.ndarray:
        key = self.with_past(at, "attn.key", a)
        scores = a[f"{at}attn.query"] @ key.swapaxes(-1, -2)
        if self.config.causal:
            place = place_of(name)
            rows, columns = self.map.rows(place), self.map.columns(place)
            later = columns[None, None, None] > rows[:, None, :, None]
            scores = np.where(later, -np.inf, scores)
        return scores

    def with_past(self, at: str, ending: str, a: dict) -> np.ndarray:
        """Keys or values of the past and the stream, one for each head. (B, H, S, D)"""
        own = a[at + ending]
        past = a.get(f"{at}{ending}".replace("text.", "prompt.")) if "text." in at else None
        if past is not None:
            own = np.concatenate([past.repeat(len(own), axis=0), own], axis=2)
        return own.repeat(self.config.heads // own.shape[1], axis=1)

    def linear(self, name: str, x: np.ndarray) -> np.ndarray:
        at = name.partition(".")[2]
        return ops.linear(x, self.params[f"{at}.weight"], self.params.get(f"{at}.bias"))

    def linear_dx(self, name: str, dy: np.ndarray) -> np.ndarray:
        return ops.linear_dx(dy, self.params[f"{name.partition('.')[2]}.weight"])

    def norm_weights(self, norm: str) -> list[np.ndarray]:
        at = norm.partition(".")[2]
        both = (self.params.get(f"{at}.{each}") for each in ("gain", "bias"))
        return [each for each in both if each is not None]

    def norm_dx(self, norm: str, g: dict) -> np.ndarray:
        dy, xhat, rstd = g[norm, True], g[f"{norm}.xhat", False], g[f"{norm}.rstd", False]
        return NORMS[self.config.norm][1](dy, self.norm_weights(norm)[0], xhat, rstd)

    def rotation(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Cosines and sines (B, n, 1, D) of the positions of an array's rows, which number them."""
        rows = self.map.rows(place_of(name))
        angles = ops.rotary_angles(
            rows, self.head_channels, self.config.rotary_base, self.base.dtype
        )
        return tuple(each[:, :, None] for each in angles)

    def heads(self, name: str, flat: np.ndarray) -> np.ndarray:
        """Keys, values or queries (B, n, H·D) -> (B, H, n, D), rotated and scaled."""
        parts = flat.reshape(*flat.shape[:2], -1, self.head_channels)
        if not name.endswith("value") and self.config.positions == "rotary":
            parts = ops.rotary(parts, *self.rotation(name))
        if name.endswith("query"):
            parts = parts * self.head_channels**-0.5
        return parts.swapaxes(1, 2)

    def heads_dx(self, name: str, dheads: np.ndarray) -> np.ndarray:
        """The backward of `linear` and `heads`: (B, H, n, D) -> (B, n, C)"""
        parts = dheads.swapaxes(1, 2)
        if name.endswith("query"):
            parts = parts * self.head_channels**-0.5
        if not name.endswith("value") and self.config.positions == "rotary":
            parts = ops.rotary_dx(parts, *self.rotation(name))
        return self.linear_dx(name, parts.reshape(*parts.shape[:2], -1))

    def rows_for(self, name: str, before: str, x: np.ndarray) -> np.ndarray:
        """The rows of x, the array `before`, that the array `name` has. (B, n, C)"""
        mine, theirs = (self.map.rows(place_of(each)) for each in (name, before))
        if before == "prompt.vectors":
            x = embed_vectors(self.base, x)[None]
        if mine is None or theirs is None:
            return x
        found = []
        for b, wanted in enumerate(mine):
            index = [theirs[b].tolist().index(row) for row in wanted]
            found.append(x[b][index])
        return np.stack(found)

    def spread(self, name: str, source: str, d: np.ndarray) -> np.ndarray:
        """The backward of `rows_for`: the rows of `source` among those of `name`, else zeros."""
        theirs, mine = (self.map.rows(place_of(each)) for each in (source, name))
        dx = np.zeros((len(mine), mine.shape[1], d.shape[-1]))
        for b, rows in enumerate(theirs):
            for r, row in enumerate(rows):
                dx[b, mine[b].tolist().index(row)] += d[b, r]
        return dx

    def real(self) -> np.ndarray:
        T = self.batch.ids.shape[1]
        return (np.arange(T) < self.batch.lengths[:, None]).astype(self.base.dtype)

    # Backward

    def gradient(self, name: str, g: dict[tuple[str, bool], np.ndarray]) -> np.ndarray:
        place = place_of(name)
        at, ending = name.removesuffix(place.ending), place.ending
        if ending == "vectors":
            return self.of_vectors(g)
        if place.layer is None:
            return self.gradient_outside(name, ending, g)
        if ending.startswith("attn."):
            return self.gradient_in_attention(at, ending, g)
        return self.gradient_in_layer(name, at, ending, place.layer, g)

    def gradient_outside(self, name: str, ending: str, g: dict) -> np.ndarray:
        batch = self.batch
        if ending == "loss":
            count = batch.counted.sum()
            if ("text.scores", True) in g:
                return -g["text.scores", True].ravel()[batch.counted.nonzero()[0]]
            return np.full(count, 1.0 / count)
        if ending == "scores":
            probabilities = ops.softmax(g["text.scores", False])
            return ops.cross_entropy_dx(np.ones(1), probabilities, batch.labels)
        if ending == "logits":
            dlosses, probabilities = g["text.loss", True], g["text.probabilities", False]
            return ops.cross_entropy_dx(dlosses, probabilities, batch.counted_targets)
        if ending == "features":
            dlogits = g["text.logits", True] / (0.05 if self.config.head is None else 1.0)
            return dlogits @ choice_vectors(self.base, batch.choices)
        if ending == "pooled":
            parts = (g["text.features", True], g["text.features", False], g["text.length", False])
            return ops.normalize_dx(*parts)
        if ending == "head.norm":
            return g["text.features", True]
        if ending == "head.active":
            return self.norm_dx("text.head.norm", g)
        if ending == "head.dense":
            keys = (("active", True), ("dense", False), ("y_over_x", False))
            parts = (g[f"text.head.{each}", gradient] for each, gradient in keys)
            return ACTIVATIONS[self.config.activation][1](*parts)
        assert ending == "final"
        return self.from_answer(name, g)

    def from_answer(self, name: str, g: dict) -> np.ndarray:
        """Into the rows that are read out. (B, R, C)"""
        ((source, _),) = g
        d = g[source, True]
        if source == "text.pooled":
            return ops.mean_pool_dx(d, self.real())
        if source == "text.head.dense":
            d = self.linear_dx(source, d)
        dhidden = np.zeros((*self.batch.counted.shape, d.shape[-1]))
        dhidden[self.batch.counted] = d
        return dhidden

    def gradient_in_attention(self, at: str, ending: str, g: dict) -> np.ndarray:
        if ending == "attn.out":
            return g[f"{at}middle", True]
        if ending == "attn.context":
            dout = self.linear_dx(f"{at}attn.out", g[f"{at}attn.out", True])
            return ops.split_heads(dout, self.config.heads)
        values = {name: x for (name, gradient), x in g.items() if not gradient}
        if ending == "attn.weights":
            value = self.with_past(at, "attn.value", values)
            return g[f"{at}attn.context", True] @ value.swapaxes(-1, -2)
        if ending == "attn.scores":
            return ops.softmax_dx(g[f"{at}attn.weights", True], g[f"{at}attn.weights", False])
        if ending == "attn.query":
            return g[f"{at}attn.scores", True] @ self.with_past(at, "attn.key", values)
        parts = {"attn.key": (("attn.scores", True), ("attn.query", False))}
        parts |= {"attn.value": (("attn.weights", False), ("attn.context", True))}
        total = self.column_sums([g.get((f"{at}{each}", d)) for each, d in parts[ending]])
        if at.startswith("prompt.") and self.map.shared:
            text = at.replace("prompt.", "text.")
            from_text = self.column_sums([g[f"{text}{each}", d] for each, d in parts[ending]])
            total = total + from_text.sum(0)[:, : self.map.P]
        elif self.map.shared:
            total = total[:, :, self.map.P :]
        return total

    def column_sums(self, factors: list[np.ndarray | None]) -> np.ndarray:
        """Σ over rows and over the heads that share a key. -> (B, Hkv, S, D)

        0 in the last layer of a prompt that stands alone: no query reads it there.
        """
        by_column, rows = factors
        if by_column is None and rows is None:
            return np.zeros((1, 1, 1, 1))
        sums = by_column.swapaxes(-1, -2) @ rows  # (B, H, S, D)
        Hkv = self.config.key_value_heads or self.config.heads
        B, H, S, D = sums.shape
        return sums.reshape(B, Hkv, H // Hkv, S, D).sum(2)

    def gradient_in_layer(self, name: str, at: str, ending: str, layer: int, g: dict) -> np.ndarray:
        config = self.config
        if ending == "mlp.down":
            return g[f"{at}out", True]
        if ending == "mlp.product" or (ending == "mlp.active" and not config.gated):
            return self.linear_dx(f"{at}mlp.down", g[f"{at}mlp.down", True])
        if ending == "mlp.active":
            return g[f"{at}mlp.product", True] * g[f"{at}mlp.up", False]
        if ending == "mlp.up" and config.gated:
            gate, share = g[f"{at}mlp.gate", False], g[f"{at}mlp.y_over_x", False]
            return g[f"{at}mlp.product", True] * gate * share
        if ending == self.inner:
            parts = ((f"{at}mlp.active", True), (name, False), (f"{at}mlp.y_over_x", False))
            return ACTIVATIONS[config.activation][1](*(g[each] for each in parts))
        if ending == ("ln2" if config.norm_first else "ln1"):
            up = self.linear_dx(f"{at}mlp.up", g[f"{at}mlp.up", True])
            if config.gated:
                up = up + self.linear_dx(f"{at}mlp.gate", g[f"{at}mlp.gate", True])
            return up if config.norm_first else up + g[f"{at}out", True]
        if ending == "middle":
            if not config.norm_first:
                return self.norm_dx(f"{at}ln1", g)
            return self.norm_dx(f"{at}ln2", g) + g[f"{at}out", True]
        if ending == "ln1":
            return self.into_attention(name, at, g)
        if ending == "out" and not config.norm_first:
            return self.norm_dx(f"{at}ln2", g)
        if layer < config.layers - 1:
            return self.from_layer(name, at.replace(f"h{layer}.", f"h{layer + 1}."), g)
        if config.norm_first:
            return self.norm_dx(f"{at.partition('.')[0]}.final", g)
        return self.from_answer(name, g)

    def into_attention(self, name: str, at: str, g: dict) -> np.ndarray:
        """The sum of what comes back from keys, values and queries. (B, n, C)"""
        names = [f"{at}{each}" for each in KEYS if not self.is_unread(f"{at}{each}")]
        return sum(self.spread(name, x, self.heads_dx(x, g[x, True])) for x in names)

    def is_unread(self, name: str) -> bool:
        """Whether it has no rows: in the last layer of a prompt that stands alone."""
        return self.map.rows(place_of(name)).size == 0

    def from_layer(self, name: str, above: str, g: dict) -> np.ndarray:
        """What comes back from a layer to what enters it: through attention, and past it."""
        if self.config.norm_first:
            dx = self.norm_dx(f"{above}ln1", g)
        else:
            dx = self.into_attention(name, above, g)
        past = f"{above}middle"
        return dx if self.is_unread(past) else dx + self.spread(name, past, g[past, True])

    def of_vectors(self, g: dict) -> np.ndarray:
        if self.map.shared:
            return self.from_layer("prompt.h0.ln1.xhat", "prompt.h0.", g)[0]
        query, key, weights = (g[f"text.h0.attn.{x}", False] for x in ("query", "key", "weights"))
        dcontext, dscores = (g[f"text.h0.attn.{each}", True] for each in ("context", "scores"))
        past = np.empty((key.shape[1], 0, key.shape[3]))
        T = key.shape[2]
        dheads = ops.attention_dx(dcontext, dscores, query, key, past, weights, T)
        names = ("query", "key", "value")
        into = {(f"text.h0.attn.{x}", True): d for x, d in zip(names, dheads, strict=True)}
        if not self.config.norm_first:
            dx = self.from_layer("text.embedding", "text.h0.", g | into)
            dx = self.norm_dx("text.embedding.norm", g | {("text.embedding.norm", True): dx})
        else:
            dnorm = self.into_attention("text.embedding", "text.h0.", into)
            dx = self.from_layer("text.embedding", "text.h0.", g | {("text.h0.ln1", True): dnorm})
        return dx[:, : self.map.P].sum(0)

"""What each array of a trace is made from, and what its gradient is made from.

In: the name of an array, and how the rows are laid out. Out: names of other arrays. Names that the
trace lacks are left out by the caller: a part of the rows may need no gradient.
"""

from collections.abc import Container

from minipt.page.places import Map, Place, place_of

Reference = tuple[str, bool]  # the name of an array, and whether its gradient is meant
KEYS = ("attn.key", "attn.value", "attn.query")


class Sources:
    """names: the arrays of the trace; gradients: those with one."""

    def __init__(self, layout: Map, names: Container[str], gradients: Container[str]) -> None:
        self.map, self.config = layout, layout.config
        self.names, self.gradients = names, gradients
        self.last = self.config.layers - 1

    def made_from(self, name: str) -> list[str]:
        """The arrays that the op which made this one has read."""
        return [each for each in self._made_from(place_of(name)) if each in self.names]

    def gradient_made_from(self, name: str) -> list[Reference]:
        """The arrays and gradients from which the gradient of this one was computed."""
        found = self._gradient_made_from(place_of(name))
        known = (self.names, self.gradients)
        return [(each, gradient) for each, gradient in found if each in known[gradient]]

    def _made_from(self, place: Place) -> list[str]:
        ending = place.ending
        if ending.endswith((".xhat", ".rstd")):
            return self._into_norm(place, ending.rpartition(".")[0])
        if f"{place.name}.xhat" in self.names:
            return [f"{place.name}.xhat"]
        if place.layer is None:
            return self._outside(ending)
        return self._in_layer(place)

    def _into_norm(self, place: Place, norm: str) -> list[str]:
        first = self.config.norm_first
        if norm == "embedding.norm":
            return ["text.embedding"]
        if norm == "head.norm":
            return ["text.head.active"]
        if norm == "final":
            return [self._at(place, "out", self.last)]
        if norm == "ln1":
            return [self._entering(place)] if first else [self._at(place, "middle")]
        return [self._at(place, "middle" if first else "out")]

    def _outside(self, ending: str) -> list[str]:
        before = {"logits": ["features"], "probabilities": ["logits"], "loss": ["logits"]}
        before |= {"length": ["pooled"], "scores": ["loss"]}
        before |= {"head.y_over_x": ["head.dense"], "head.active": ["head.dense", "head.y_over_x"]}
        top = "final" if self.config.norm_first else f"h{self.last}.ln2"
        before |= {"pooled": [top], "head.dense": [top], "features": [top]}
        if self.config.head is not None:
            before["features"] = ["head.norm"] if self.config.head == "masked" else [top]
        else:
            before["features"] = ["pooled", "length"]
        if ending == "embedding":
            return [] if self.map.shared else ["prompt.vectors"]
        return [f"text.{each}" for each in before.get(ending, [])]

    def _in_layer(self, place: Place) -> list[str]:
        first, inner = self.config.norm_first, "mlp.gate" if self.config.gated else "mlp.up"
        into_mlp = "ln2" if first else "ln1"
        before = {
            "attn.weights": ["attn.scores"],
            "attn.scores": ["attn.query", "attn.key"],
            "attn.context": ["attn.weights", "attn.value"],
            "attn.out": ["attn.context"],
            "mlp.gate": [into_mlp],
            "mlp.up": [into_mlp],
            "mlp.y_over_x": [inner],
            "mlp.active": [inner, "mlp.y_over_x"],
            "mlp.product": ["mlp.active", "mlp.up"],
            "mlp.down": ["mlp.product" if self.config.gated else "mlp.active"],
            "out": ["middle" if first else "ln1", "mlp.down"],
        }
        if place.ending in KEYS:
            return [self._at(place, "ln1")] if first else [self._entering(place)]
        if place.ending == "middle":
            return [self._entering(place), self._at(place, "attn.out")]
        past = {"attn.scores": "attn.key", "attn.context": "attn.value"}.get(place.ending)
        found = [self._at(place, each) for each in before[place.ending]]
        reads_past = past and place.stream == "text" and self.map.shared
        return [*found, *([f"prompt.h{place.layer}.{past}"] if reads_past else [])]

    def _entering(self, place: Place) -> str:
        """What enters the layer of this array."""
        if place.layer:
            return self._at(place, "out" if self.config.norm_first else "ln2", place.layer - 1)
        if place.stream == "prompt":
            return "prompt.vectors"
        return "text.embedding" if self.config.norm_first else "text.embedding.norm"

    def _at(self, place: Place, ending: str, layer: int | None = None) -> str:
        return f"{place.stream}.h{place.layer if layer is None else layer}.{ending}"

    def _gradient_made_from(self, place: Place) -> list[Reference]:
        if place.ending == "vectors":
            return self._of_vectors()
        if place.layer is None:
            return self._gradient_outside(place)
        if place.ending.startswith("attn."):
            return self._gradient_in_attention(place)
        return self._gradient_in_layer(place)

    def _of_vectors(self) -> list[Reference]:
        if self.map.shared:
            return self._back_from_layer("prompt", 0)
        parts = ("attn.key", "attn.value", "attn.query", "attn.weights")
        found = [(f"text.h0.{each}", False) for each in (*parts, "ln1.xhat", "ln1.rstd")]
        found += [(f"text.embedding.norm.{each}", False) for each in ("xhat", "rstd")]
        ends = ("attn.context", "attn.scores", "middle")
        return found + [(f"text.h0.{each}", True) for each in ends]

    def _gradient_outside(self, place: Place) -> list[Reference]:
        """From the loss down to the last layer."""
        labels = [("text.scores", True)] if "text.scores" in self.names else []
        found = {
            "loss": labels,
            "scores": [("text.scores", False)],
            "logits": [("text.loss", True), ("text.probabilities", False)],
            "features": [("text.logits", True)],
            "pooled": [("text.features", True), ("text.features", False), ("text.length", False)],
            "head.norm": [("text.features", True)],
            "head.active": self._back_from_norm("text.head.norm"),
            "head.dense": [
                ("text.head.active", True),
                ("text.head.dense", False),
                ("text.head.y_over_x", False),
            ],
            "final": [("text.features", True)],
        }[place.ending]
        if place.ending == "final" and self.config.head is None:
            found = [("text.pooled", True)]
        if place.ending == "final" and self.config.head == "masked":
            found = [("text.head.dense", True)]
        return [] if place.stream == "prompt" else found

    def _gradient_in_attention(self, place: Place) -> list[Reference]:
        def here(ending: str, gradient: bool) -> Reference:
            return self._at(place, ending), gradient

        asked = {
            "attn.out": [here("middle", True)],
            "attn.context": [here("attn.out", True)],
            "attn.weights": [here("attn.context", True), here("attn.value", False)],
            "attn.scores": [here("attn.weights", True), here("attn.weights", False)],
            "attn.query": [here("attn.scores", True), here("attn.key", False)],
            "attn.key": [here("attn.scores", True), here("attn.query", False)],
            "attn.value": [here("attn.context", True), here("attn.weights", False)],
        }[place.ending]
        if not self.map.shared:
            return asked
        if place.stream == "prompt":  # what the text sends back enters here
            if place.ending in ("attn.key", "attn.value"):
                asked = asked + [(f"text.{each.removeprefix('prompt.')}", g) for each, g in asked]
            return asked
        past = {"attn.weights": "attn.value", "attn.query": "attn.key"}.get(place.ending)
        return asked + ([(f"prompt.h{place.layer}.{past}", False)] if past else [])

    def _gradient_in_layer(self, place: Place) -> list[Reference]:
        def here(*endings: str, gradient: bool = True) -> list[Reference]:
            return [(self._at(place, ending), gradient) for ending in endings]

        gated, first, ending = self.config.gated, self.config.norm_first, place.ending
        inner = "mlp.gate" if gated else "mlp.up"
        into_mlp = here("mlp.up", "mlp.gate") if gated else here("mlp.up")
        if ending == "mlp.down":
            return here("out")
        if ending == "mlp.product" or (ending == "mlp.active" and not gated):
            return here("mlp.down")
        if ending == "mlp.active":
            return here("mlp.product") + here("mlp.up", gradient=False)
        if ending == "mlp.up" and gated:
            return here("mlp.product") + here(inner, "mlp.y_over_x", gradient=False)
        if ending == inner:
            return here("mlp.active") + here(inner, "mlp.y_over_x", gradient=False)
        if first:
            return {
                "ln2": into_mlp,
                "middle": self._back_from_norm(self._at(place, "ln2")) + here("out"),
                "ln1": here(*KEYS),
                "out": self._back_to_out(place),
            }[ending]
        return {
            "ln1": into_mlp + here("out"),
            "middle": self._back_from_norm(self._at(place, "ln1")),
            "out": self._back_from_norm(self._at(place, "ln2")),
            "ln2": self._back_to_out(place),
        }[ending]

    def _back_to_out(self, place: Place) -> list[Reference]:
        """From what reads a layer's output: the layer above, or the last norm, or the answer."""
        if place.layer < self.last:
            return self._back_from_layer(place.stream, place.layer + 1)
        if self.config.norm_first:
            return self._back_from_norm(f"{place.stream}.final")
        return [
            (
                "text.features"
                if self.config.head == "language"
                else "text.head.dense"
                if self.config.head == "masked"
                else "text.pooled",
                True,
            )
        ]

    def _back_from_layer(self, stream: str, layer: int) -> list[Reference]:
        """What enters a layer goes into its norm, or its attention, and past it."""
        past = (f"{stream}.h{layer}.middle", True)
        if self.config.norm_first:
            return [*self._back_from_norm(f"{stream}.h{layer}.ln1"), past]
        return [*((f"{stream}.h{layer}.{each}", True) for each in KEYS), past]

    def _back_from_norm(self, norm: str) -> list[Reference]:
        return [(norm, True), (f"{norm}.xhat", False), (f"{norm}.rstd", False)]

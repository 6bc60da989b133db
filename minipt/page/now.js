// What happens at this tick, in words: the sentence above the stage, and the column beside it.
// In: the tick, its arrays. Out: elements in #sentence and #now.
"use strict";

const COLOUR_OF_ACT = {
  prompt: "activation",
  text: "activation",
  answer: "activation",
  unanswer: "gradient",
  untext: "gradient",
  unprompt: "gradient",
  step: "change",
};

// The acts with the titles that fit the wiring.
function titlesOf(step) {
  const titles = structuredClone(ACTS);
  if (step.wiring !== "shared") {
    Object.assign(titles.prompt, {
      title: "vectors",
      story: "A copy of the vectors stands in front of each text.",
    });
    Object.assign(titles.text, {
      title: "forward",
      story: "The vectors and the text go up through the layers as one sequence.",
    });
    Object.assign(titles.untext, {
      title: "backward",
      story: "The gradient goes down through all rows.",
    });
    Object.assign(titles.unprompt, {
      title: "vectors",
      story: "What reached the prompt's rows is the vectors' gradient.",
    });
  }
  for (const [act, about] of Object.entries(titles)) about.colour = COLOUR_OF_ACT[act];
  return titles;
}

class Now {
  constructor(step, titles, open) {
    Object.assign(this, { step, titles, open });
  }

  show(snapshot, at) {
    const tick = snapshot.ticks[at];
    if (!tick) this.showStart();
    else if (tick.step) this.showStep(snapshot);
    else this.showOp(snapshot, tick);
  }

  showStart() {
    const { vectors, tokens, base } = this.step;
    this.say(
      "Press play.",
      `A training step goes up to the loss, and the gradient comes back to the prompt's vectors.`,
    );
    fill(
      byId("now"),
      element("h2", {}, "One training step"),
      element(
        "p",
        {},
        `On the left: the prompt, ${counted(vectors, "vector")}. On the right: the text, ${counted(tokens[0].length, "token")}. ` +
          `Both go up through ${counted(base.layers, "layer")} of a frozen model.`,
      ),
      element(
        "p",
        { class: "why" },
        this.step.wiring === "shared"
          ? "The prompt never sees the text. The text reads the prompt's keys and values in each layer: they are the only way across."
          : "A copy of the prompt stands in front of the text, and both run as one sequence.",
      ),
      element(
        "p",
        { class: "why" },
        "At the top the last row gives the answer, and its loss. The gradient comes down the same way. Only the vectors learn from it.",
      ),
      element(
        "p",
        { class: "quiet" },
        "Space plays. ← and → go one op. A click on a cell opens its array.",
      ),
      ...this.step.said.map((sentence) => element("p", { class: "quiet" }, sentence)),
    );
  }

  showOp(snapshot, tick) {
    const array = snapshot.arrays[tick.array];
    const { title, formula, sentence, backward, backward_sentence: back } = array.about;
    const act = this.titles[tick.act];
    const why = tick.backward ? (back ?? sentence) : sentence;
    const crossing = crossingOf(tick, array, this.step);
    this.say(
      `${act.title}${array.layer === null ? "" : `, layer ${array.layer}`}:`,
      crossing ?? (why || act.story),
    );
    const quantity = tick.backward ? "gradient" : "activation";
    fill(
      byId("now"),
      element(
        "div",
        { class: `direction ${quantity}` },
        tick.backward ? "backward: a gradient" : "forward: an activation",
      ),
      element("h2", {}, tick.backward ? `gradient of ${title}` : title),
      element("div", { class: "name" }, (tick.backward ? "∂loss / ∂ " : "") + array.name),
      element("p", { class: "formula" }, (tick.backward ? backward : formula) ?? ""),
      crossing ? element("p", { class: "why" }, why) : null,
      this.preview(array, tick.backward),
      this.linkToWays(snapshot, tick),
      ...shapeLines(array),
      element("h3", {}, "reads"),
      this.chips(snapshot, tick.reads),
      tick.backward || !array.parameters?.length
        ? null
        : element("p", { class: "quiet" }, `frozen: ${array.parameters.join(", ")}`),
      element("h3", {}, "writes"),
      this.chips(snapshot, [[tick.array, tick.backward]]),
    );
  }

  showStep(snapshot) {
    const made = this.step.steps[snapshot.step];
    const { optimizer } = this.step;
    this.say("the step:", this.titles.step.story);
    fill(
      byId("now"),
      element("div", { class: "direction change" }, "the optimizer's step"),
      element("h2", {}, optimizer.name),
      element("p", { class: "formula" }, optimizer.formula),
      element("p", { class: "why" }, optimizer.sentence),
      element("p", {}, `learning rate ${showNumber(made.rate)}`),
      element("p", {}, `loss ${showNumber(made.loss)} → ${showNumber(made.loss_after)}`),
      element(
        "button",
        { type: "button", onclick: () => this.open("answers") },
        "before and after",
      ),
    );
  }

  // Where the gradient arrives, the page can say through which layers it came.
  linkToWays(snapshot, { array, backward }) {
    if (!backward || snapshot.arrays[array].name !== "prompt.vectors" || !snapshot.ways) return null;
    const onclick = () => this.open("ways");
    return element("button", { type: "button", onclick }, "through which layers it came");
  }

  say(act, why) {
    const words = element("span", { class: "why" }, ` ${why}`);
    byId("sentence").replaceChildren(element("span", { class: "act" }, act), words);
  }

  chips(snapshot, pairs) {
    if (pairs.length === 0)
      return element("p", { class: "quiet" }, "nothing that was computed here");
    return element(
      "div",
      { class: "chips" },
      ...pairs.map(([index, gradient]) => this.chip(snapshot.arrays[index], gradient)),
    );
  }

  chip(array, gradient) {
    const attributes = {
      type: "button",
      class: `chip ${gradient ? "gradient" : "activation"}`,
      onclick: () => this.open(array),
    };
    return element("button", attributes, (gradient ? "∂ " : "") + array.name);
  }

  preview(array, gradient) {
    const part = gradient ? array.gradient : array.value;
    if (!part)
      return element(
        "p",
        { class: "quiet" },
        "This array is summed up: one mean size for each row.",
      );
    const canvas = smallPicture(array, part, gradient ? "gradient" : "activation", this.step, 0);
    canvas.setAttribute("aria-label", `small heat map of ${array.name}`);
    canvas.style.height = `${clamp(canvas.height * 3, 14, 96)}px`;
    canvas.style.imageRendering = "pixelated";
    canvas.addEventListener("click", () => this.open(array));
    return canvas;
  }
}

// What the story says where prompt and text meet. null: they do not meet at this tick.
function crossingOf(tick, array, step) {
  if (step.wiring !== "shared") return null;
  return CROSSINGS[`${array.stream} ${array.ending} ${tick.backward ? "back" : "on"}`] ?? null;
}

const CROSSINGS = {
  "text attn.scores on":
    "The text's queries meet the prompt's keys: the text reads the prompt.",
  "text attn.context on":
    "The text takes in the prompt's values, as much of each as its weights say.",
  "text attn.context back": "The gradient crosses back to the prompt's values and waits there.",
  "text attn.scores back": "The gradient crosses back to the prompt's keys and waits there.",
  "prompt attn.key back": "The prompt's keys pick up the gradient that waited for them.",
  "prompt attn.value back": "The prompt's values pick up the gradient that waited for them.",
  "prompt vectors back": "The gradient has arrived at the prompt's vectors.",
};

const LETTERS = {
  B: "texts",
  N: "answers",
  K: "labels",
  H: "heads",
  Hkv: "heads of keys and values",
  P: "vectors",
  T: "tokens",
  R: "rows that are read out",
  C: "channels",
  D: "channels of a head",
  F: "channels inside the MLP",
};

// The shape in letters and in numbers, and what the letters count.
function shapeLines({ letters, shape }, more = "") {
  const used = new Set(letters.flatMap((each) => each.split("+")).filter((each) => LETTERS[each]));
  const meanings = [...used].map((letter) => `${letter} ${LETTERS[letter]}`).join(", ");
  return [
    element("p", { class: "quiet" }, `shape (${letters.join(", ")}) = (${shape.join(", ")})${more}`),
    element("p", { class: "quiet why" }, meanings),
  ];
}

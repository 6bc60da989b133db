// Before and after: what the step changed in the answer, in the vectors, in their nearest words.
// In: the step. Out: elements in #sheet.
"use strict";

function openAnswers(sheet, step) {
  const several = step.steps.length > 1;
  const moments = element("div", {});
  const vectors = element("div", {});
  const show = (at) => {
    moments.replaceChildren(probabilitiesAt(step, at));
    vectors.replaceChildren(vectorsAt(step, at));
  };
  show(step.steps.length - 1);
  const { formula, sentence, name } = step.optimizer;
  sheet.show(
    [several ? "before and after each step" : "before and after the step"],
    several ? stepsSlider(step, show) : null,
    element(
      "div",
      { class: "columns" },
      element(
        "div",
        {},
        moments,
        element("h3", {}, `the optimizer's step: ${name}`),
        element("p", { class: "why" }, sentence),
        element("p", { class: "formula" }, formula),
      ),
      vectors,
    ),
    nearestWords(step),
  );
}

function probabilitiesAt(step, at) {
  const made = step.steps[at];
  const number = step.steps.length > 1 ? ` ${at + 1}` : "";
  return element(
    "div",
    {},
    probabilityBars("without a prompt", step.answers.no_prompt, step, "muted"),
    probabilityBars(
      `before step${number}: loss ${showNumber(made.loss)}`,
      made.probabilities,
      step,
      "activation",
    ),
    probabilityBars(
      `after step${number}: loss ${showNumber(made.loss_after)}`,
      made.after,
      step,
      "change",
    ),
  );
}

function probabilityBars(moment, probabilities, step, colour) {
  const lines = probabilities.flatMap((probability, label) => {
    const bar = element("div", {});
    Object.assign(bar.style, { width: `${100 * probability}%`, background: `var(--${colour})` });
    const name = (label === step.target ? "✓ " : "") + step.labels[label];
    return [
      element("span", {}, name),
      element("div", { class: "track" }, bar),
      element("span", {}, probability.toFixed(4)),
    ];
  });
  return element("div", { class: "answer" }, element("div", { class: "moment" }, moment), ...lines);
}

// Each vector: the size of its gradient, and how far the step moved it.
function vectorsAt(step, at) {
  const made = step.steps[at];
  const most = Math.max(...made.gradient_norms) || 1;
  const farthest = Math.max(...made.moved) || 1;
  const several = step.steps.length > 1;
  const row = (tag, cells) => element("tr", {}, ...cells.map((cell) => element(tag, {}, cell)));
  const lines = step.vector_names.map((name, vector) => {
    const [norm, moved] = [made.gradient_norms[vector], made.moved[vector]];
    const cells = [name, showNumber(norm), stroke(norm / most, "gradient")];
    cells.push(showNumber(moved), stroke(moved / farthest, "change"));
    return row("td", several ? [...cells, showNumber(made.distance[vector])] : cells);
  });
  const head = ["vector", "gradient", "", "moved by", "", ...(several ? ["from the start"] : [])];
  const norm = `norm of the whole gradient ${showNumber(made.gradient_norm)}`;
  const clipped = made.clipped ? `, clipped to ${showNumber(step.optimizer.clip)}` : "";
  return element(
    "div",
    {},
    element("h3", {}, "the step, vector by vector"),
    element("p", { class: "quiet" }, `${norm}${clipped}; learning rate ${showNumber(made.rate)}`),
    element("table", {}, row("th", head), ...lines),
  );
}

function stroke(share, colour) {
  const bar = element("span", { class: "stroke" });
  Object.assign(bar.style, {
    width: `${Math.round(90 * share)}px`,
    background: `var(--${colour})`,
  });
  return bar;
}

// A slider over the steps, and the loss of each as a small curve of bars.
function stepsSlider(step, show) {
  const last = step.steps.length - 1;
  const said = element("output", {}, "");
  const { curve, mark } = lossCurve(step);
  const say = (at) => {
    mark(at);
    const losses = [step.steps[at].loss, step.steps[at].loss_after].map(showNumber).join(" → ");
    said.textContent = `step ${at + 1} of ${last + 1}: loss ${losses}`;
  };
  const input = element("input", {
    type: "range",
    min: "0",
    max: String(last),
    value: String(last),
    "aria-label": "step",
  });
  input.addEventListener("input", () => {
    show(Number(input.value));
    say(Number(input.value));
  });
  say(last);
  return element("div", {}, curve, element("div", { class: "steps" }, input, said));
}

// Bars of the loss before each step and after the last. mark(at): colours step `at` as the
// probabilities are, before and after.
function lossCurve(step) {
  const losses = [...step.steps.map(({ loss }) => loss), step.steps.at(-1).loss_after];
  const most = Math.max(...losses) || 1;
  const bars = losses.map((loss, at) => {
    const bar = element("div", { title: `${at} steps: loss ${showNumber(loss)}` });
    Object.assign(bar.style, {
      flex: "1",
      height: `${4 + (56 * loss) / most}px`,
      borderRadius: "2px",
    });
    return bar;
  });
  const curve = element(
    "div",
    {
      role: "img",
      "aria-label": `the loss falls from ${showNumber(losses[0])} to ${showNumber(losses.at(-1))}`,
    },
    ...bars,
  );
  Object.assign(curve.style, {
    display: "flex",
    gap: "3px",
    alignItems: "flex-end",
    height: "62px",
    maxWidth: "640px",
  });
  const colours = (at) => ({ [at]: "activation", [at + 1]: "change" });
  const mark = (at) =>
    bars.forEach((bar, i) => (bar.style.background = `var(--${colours(at)[i] ?? "muted"})`));
  return { curve, mark };
}

function nearestWords(step) {
  if (!step.nearest?.vectors) return null;
  const words = (names, cosines) =>
    names.map((name, i) => `${showToken(name)} ${cosines[i].toFixed(2)}`).join("  ");
  const lines = step.nearest.vectors.map((row, vector) =>
    element(
      "tr",
      {},
      element("td", {}, step.vector_names[vector]),
      element("td", {}, words(row.before, row.before_cosine)),
      element("td", {}, words(row.after, row.after_cosine)),
    ),
  );
  const table = element(
    "table",
    { class: "words" },
    element(
      "tr",
      {},
      ...["vector", "nearest words before", "after"].map((name) => element("th", {}, name)),
    ),
    ...lines,
  );
  return element(
    "div",
    {},
    element("h3", {}, "nearest words, with their cosine"),
    element("p", { class: "quiet" }, step.nearest.caveat),
    table,
  );
}

// The handout: the whole step on a few pages of paper, made when the page is printed.
// In: the step, the stage. Out: elements in #handout, with pictures of the stage at four moments.
"use strict";

const PRINT_SIZE = [1080, 600];

function makeHandout(step, stage, flows, titles) {
  const dark = document.documentElement.classList.contains("dark");
  document.documentElement.classList.remove("dark");
  readPalette();
  const pictures = momentsOf(stage).map(([title, tick, text]) => [
    title,
    stagePicture(stage, flows, tick),
    text,
  ]);
  fill(
    byId("handout"),
    ...pictures.map(([title, image, text], i) =>
      paper(title, i === 0 ? question(step) : null, element("p", {}, text), image),
    ),
    paper(
      "before and after",
      element(
        "div",
        { class: "columns" },
        probabilitiesAt(step, step.steps.length - 1),
        vectorsAt(step, step.steps.length - 1),
      ),
    ),
    paper("the ops of a step, in their order", opsTable(stage.snapshot, titles)),
  );
  document.documentElement.classList.toggle("dark", dark);
  readPalette();
  stage.repaint();
  stage.drawAll();
  flows.draw();
}

function paper(title, ...content) {
  return element("div", { class: "sheet-of-paper" }, element("h2", {}, title), ...content);
}

function question(step) {
  return element(
    "p",
    {},
    `“${step.title}”, to be answered “${step.target === null ? "" : step.labels[step.target]}”. ` +
      `${step.base.name}: ${step.base.layers} layers, ${step.base.channels} channels, ${step.base.heads} heads; ${counted(step.vectors, "vector")}.`,
  );
}

// Title, tick and sentence of each picture: the ends of the two ways.
function momentsOf(stage) {
  const { ticks } = stage.snapshot;
  const last = (acts) => ticks.findLastIndex((tick) => acts.includes(tick.act));
  return [
    [
      "forward: from the vectors and the text to the loss",
      last(["answer"]),
      "Blue: the size of each row of each array. The text reads the prompt's keys and values in every layer.",
    ],
    [
      "backward: from the loss to the prompt's keys and values",
      last(["untext", "unanswer"]),
      "Orange: the size of each gradient. Squares wait at the prompt's keys and values: the gradient that the text sends back.",
    ],
    [
      "backward: from the keys and values to the vectors",
      last(["unprompt"]),
      "The prompt carries the gradient down to its vectors. The bars show what arrived.",
    ],
  ];
}

// The stage at a tick as an image; afterwards the stage is as it was.
function stagePicture(stage, flows, tick) {
  const { width, height } = stage;
  const before = stage.tick;
  const quantity = stage.quantity;
  stage.quantity = "played";
  stage.resize(...PRINT_SIZE);
  stage.tick = -1;
  stage.repaint(tick);
  stage.tick = tick;
  stage.drawAll();
  flows.draw();
  const joined = element("canvas", { width: stage.canvas.width, height: stage.canvas.height });
  const pen = joined.getContext("2d");
  for (const canvas of [stage.canvas, flows.canvas]) pen.drawImage(canvas, 0, 0);
  const image = element("img", {
    src: joined.toDataURL("image/png"),
    alt: `the stage after op ${tick + 1}`,
  });
  stage.quantity = quantity;
  stage.tick = before;
  stage.repaint(before);
  stage.resize(width, height);
  flows.draw();
  return image;
}

// One line for each kind of op, in the order of the trace: its formula, forward and backward.
function opsTable(snapshot, titles) {
  const seen = new Set();
  const lines = [];
  for (const tick of snapshot.ticks) {
    if (tick.step || tick.backward) continue;
    const { title, formula, backward } = snapshot.arrays[tick.array].about;
    if (seen.has(title)) continue;
    seen.add(title);
    lines.push(
      element(
        "tr",
        {},
        ...[title, formula ?? "", backward ?? ""].map((text) =>
          element("td", { class: "formula" }, text),
        ),
      ),
    );
  }
  return element(
    "table",
    { class: "ops" },
    element("tr", {}, ...["op", "forward", "backward"].map((name) => element("th", {}, name))),
    ...lines,
  );
}

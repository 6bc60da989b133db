// Puts the page together: the stage, the timeline, what opens, the switches and the keys.
// In: the data of the page. Out: a page that answers to pointer and keys.
"use strict";

const STORY = 440; // pixels: how far the story reaches to the right
const FOLDING = 220; // milliseconds

const HELP = [
  ["space", "play or pause"],
  ["← →", "one op back or on"],
  ["[ ]", "one act back or on"],
  ["Home, End", "to the first or the last op"],
  ["↑ ↓", "unfold the layer above or below"],
  ["Enter", "open the array that this op writes"],
  ["Esc", "close what is open"],
  ["e", "explanations on or off"],
  ["b", "before and after"],
  ["d", "dark or light"],
  ["?", "this list"],
];

class Page {
  constructor(step) {
    this.step = step;
    this.titles = titlesOf(step);
    this.snapshot = step.snapshots[0];
    setTheme(matchMedia("(prefers-color-scheme: dark)").matches);
    this.stage = new Stage(step, this.snapshot);
    this.flows = new Flows(this.stage);
    this.sheet = new Sheet(step, () => this.redraw());
    this.now = new Now(step, this.titles, (what) => this.open(what));
    this.timeline = new Timeline(this.snapshot.ticks, this.titles, (tick) => this.show(tick));
    this.nameQuestion();
    this.listen();
    this.makeLegend();
    this.stage.resize();
    this.timeline.showPlaying();
    this.timeline.goTo(-1);
  }

  nameQuestion() {
    const { step } = this;
    const answer =
      step.target === null
        ? []
        : [
            element("span", {}, "→ right answer:"),
            element("b", {}, step.labels[step.target]),
          ];
    document.title = `One training step: ${step.title}`;
    const title = step.title ? `“${step.title}”` : "an empty text";
    byId("question").append(element("b", {}, title), ...answer);
    byId("question").title = step.text;
    if (this.step.snapshots.length > 1) byId("switches").prepend(this.snapshotChoice());
  }

  // With several steps the whole arrays are of the first and the last one.
  snapshotChoice() {
    const options = this.step.snapshots.map((snapshot, i) =>
      element("option", { value: String(i) }, `step ${snapshot.step + 1}`),
    );
    const select = element(
      "select",
      { id: "snapshot", "aria-label": "which step the stage shows" },
      ...options,
    );
    select.addEventListener("change", () => {
      this.snapshot = this.step.snapshots[Number(select.value)];
      this.stage.show(this.snapshot);
      this.flows = new Flows(this.stage);
      this.timeline.setTicks(this.snapshot.ticks);
      this.stage.resize();
      this.timeline.goTo(Math.min(this.timeline.tick, this.timeline.count - 1));
    });
    return select;
  }

  show(tick) {
    if (this.sheet.isOpen) this.sheet.close();
    this.follow(tick);
    this.stage.goTo(tick);
    this.flows.draw();
    this.now.show(this.snapshot, tick);
    this.tellStory();
    byId("cells").setAttribute("aria-label", `the stage. ${byId("sentence").textContent}`);
  }

  // The act of this tick, as a part of the whole story.
  tellStory() {
    const { acts, tick } = this.timeline;
    const act = this.timeline.actAt(tick);
    const about = act && this.titles[act.act];
    const number = act && `${acts.indexOf(act) + 1} of ${acts.length}: ${about.title}`;
    byId("story").hidden = placeOfBars(this.stage).left < STORY;
    fill(byId("story"), act ? element("b", {}, number) : null, act ? about.story : null);
  }

  // Unfolds the layer of the op.
  follow(tick) {
    const op = this.snapshot.ticks[tick];
    const layer = op && !op.step ? this.snapshot.arrays[op.array].layer : null;
    if (layer !== null) this.unfold(layer);
  }

  unfold(layer) {
    if (this.stage.focus === layer) return;
    this.stage.focus = layer;
    const fast = this.timeline.playing && Number(byId("speed").value) > 2;
    if (fast || matchMedia("(prefers-reduced-motion: reduce)").matches) this.fold(1);
    else this.foldSlowly();
  }

  // Moves each layer a part of its way to being folded, and the layer in focus to being open.
  fold(part) {
    const { stage } = this;
    stage.unfolded.forEach((open, layer) => {
      stage.unfolded[layer] += part * ((layer === stage.focus ? 1 : 0) - open);
    });
    stage.place();
  }

  foldSlowly() {
    const { focus } = this.stage;
    const start = performance.now();
    let before = 0;
    const run = (now) => {
      if (this.stage.focus !== focus) return; // another layer was opened meanwhile
      const way = clamp((now - start) / FOLDING, 0, 1);
      this.fold(way >= 1 ? 1 : (way - before) / (1 - before));
      before = way;
      this.redraw();
      if (way < 1) requestAnimationFrame(run);
    };
    requestAnimationFrame(run);
  }

  redraw() {
    this.stage.drawAll();
    this.flows.draw();
  }

  // what: an array, "answers" or "ways".
  open(what) {
    this.timeline.pause();
    if (what === "answers") openAnswers(this.sheet, this.step);
    else if (what === "ways") this.sheet.openWays(this.snapshot);
    else this.sheet.openArray(this.snapshot, what);
  }

  listen() {
    const cells = byId("cells");
    cells.addEventListener("pointermove", (event) => this.pointAt(event));
    cells.addEventListener("pointerleave", () => (byId("hint").hidden = true));
    cells.addEventListener("click", (event) => this.click(event));
    document.addEventListener("keydown", (event) => this.onKey(event));
    new ResizeObserver(() => this.onResize()).observe(byId("drawing"));
    byId("explain").addEventListener("click", () => this.toggleExplanations());
    byId("answers").addEventListener("click", () => this.open("answers"));
    byId("theme").addEventListener("click", () => this.toggleTheme());
    byId("help").addEventListener("click", () => this.showHelp());
    byId("colour").addEventListener("change", () => this.colourBy(byId("colour").value));
    window.addEventListener("beforeprint", () => this.print());
    matchMedia("print").addEventListener("change", ({ matches }) => matches && this.print());
  }

  print() {
    makeHandout(this.step, this.stage, this.flows, this.titles);
  }

  onResize() {
    this.stage.resize();
    this.flows.draw();
    if (this.sheet.array) this.sheet.fit();
  }

  colourBy(quantity) {
    this.stage.quantity = quantity;
    this.stage.repaint();
    this.redraw();
  }

  place(event) {
    const box = byId("cells").getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  // Reads the cell under the pointer: its array, its row, its sizes.
  pointAt(event) {
    const [x, y] = this.place(event);
    const found = this.stage.find(x, y);
    const hint = byId("hint");
    hint.hidden = !found;
    if (!found) return;
    hint.textContent = hintOf(found, this.stage);
    hint.style.left = `${clamp(x + 14, 0, Math.max(0, this.stage.width - hint.offsetWidth - 4))}px`;
    const fits = y + 18 + hint.offsetHeight <= this.stage.height;
    hint.style.top = `${fits ? y + 18 : y - hint.offsetHeight - 10}px`;
  }

  click(event) {
    const [x, y] = this.place(event);
    const found = this.stage.find(x, y);
    if (found) this.open(found.array);
    else {
      const box = this.stage.boxes.find((each) => y >= each.y && y < each.y + each.height);
      if (box) this.unfoldByHand(box.layer);
    }
  }

  unfoldByHand(layer) {
    this.unfold(clamp(layer, 0, this.step.base.layers - 1));
    this.redraw();
  }

  toggleExplanations() {
    const off = document.body.classList.toggle("unexplained");
    byId("explain").setAttribute("aria-pressed", String(!off));
  }

  toggleTheme() {
    setTheme(!document.documentElement.classList.contains("dark"));
    this.stage.repaint();
    this.redraw();
    this.now.show(this.snapshot, this.timeline.tick);
    if (this.sheet.array) this.sheet.drawMaps();
  }

  showHelp() {
    this.timeline.pause();
    const lines = HELP.map(([key, what]) =>
      element("tr", {}, element("td", {}, key), element("td", {}, what)),
    );
    this.sheet.show(
      ["keys and colours"],
      element(
        "div",
        { class: "columns" },
        element("table", {}, ...lines),
        element(
          "ul",
          { class: "list" },
          ...notesOf(this.step).map((note) => element("li", {}, note)),
        ),
      ),
    );
  }

  makeLegend() {
    const key = (sign, text) =>
      element("span", { class: "key" }, element("span", { class: sign }), text);
    byId("legend").append(
      key("ramp activation", "activation"),
      key("ramp gradient", "gradient"),
      key("ramp change", "change"),
      key("frame", "written now"),
      key("frame thin", "read now"),
      element("span", {}, "full colour: the largest of its kind in all layers"),
    );
  }

  onKey(event) {
    const control = event.target.closest("button, select");
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (control && (event.key === " " || event.key === "Enter" || control.tagName === "SELECT"))
      return;
    const action = this.actionOf(event.key);
    if (!action) return;
    event.preventDefault();
    action();
  }

  actionOf(key) {
    const { timeline, stage } = this;
    const always = {
      Escape: () => this.sheet.isOpen && this.sheet.close(),
      e: () => this.toggleExplanations(),
      d: () => this.toggleTheme(),
      b: () => this.open("answers"),
      "?": () => this.showHelp(),
    };
    const onStage = {
      " ": () => timeline.toggle(),
      ArrowLeft: () => timeline.stopAt(timeline.tick - 1),
      ArrowRight: () => timeline.stopAt(timeline.tick + 1),
      Home: () => timeline.stopAt(0),
      End: () => timeline.stopAt(timeline.count - 1),
      "[": () => timeline.jumpAct(-1),
      "]": () => timeline.jumpAct(1),
      ArrowUp: () => this.unfoldByHand(stage.focus + 1),
      ArrowDown: () => this.unfoldByHand(stage.focus - 1),
      Enter: () => this.openWritten(),
    };
    return always[key] ?? (this.sheet.isOpen ? null : onStage[key]);
  }

  openWritten() {
    const tick = this.snapshot.ticks[this.timeline.tick];
    if (tick) this.open(this.snapshot.arrays[tick.array]);
  }
}

function hintOf({ array, entry, column }, stage) {
  const { shown, ending } = array;
  const { label, vector } = stage.columns[column];
  const lines = [array.name, `row: ${vector ? `vector ${label}` : label}`];
  if (ending === "attn.weights" && array.prompt_share)
    lines.push(
      `${(100 * shown.activation[entry]).toFixed(0)} % of its attention goes to the prompt`,
    );
  else lines.push(`mean size ${showNumber(shown.activation[entry])}`);
  lines.push(`gradient ${shown.gradient ? showNumber(shown.gradient[entry]) : "not computed"}`);
  if (shown.change) lines.push(`changed by ${showNumber(shown.change[entry])}`);
  return lines.join("\n");
}

function notesOf(step) {
  return [
    "A column of the stage is a row of the model: a prompt vector or a token. A strip is an array. Layers go up.",
    "The colour of a cell is the mean size of the array's row. All layers of a kind share one scale.",
    "As played: blue once a cell is computed, orange once its gradient is, green what the step changed.",
    "The strip “weights” shows which part of a row's attention goes to the prompt's vectors.",
    step.wiring === "shared"
      ? "The arrows between the blocks: to the right, the text has read the layer's keys and values; to the left, their gradient came back. Squares at keys and values: that gradient, waiting for the prompt's way back."
      : "In this wiring a copy of the prompt stands in front of the text.",
    "A cell that stays blue on the way back needs no gradient: the vectors do not change it, or the loss does not depend on it.",
    step.wiring === "shared"
      ? "In the last layer the prompt makes only keys and values, and only the rows that give the answer go on: nothing else reaches the loss."
      : null,
    step.tokens.flat().some((token) => token.includes("\ufffd"))
      ? "\ufffd: a token that holds only a part of a letter."
      : null,
    "Heat maps come from 8 bits. Framed cells, and rows with a bar, open and show their arithmetic in full.",
    ...step.said,
  ].filter(Boolean);
}

function setTheme(dark) {
  document.documentElement.classList.toggle("dark", dark);
  byId("theme").textContent = dark ? "light" : "dark";
  readPalette();
}

document.addEventListener("DOMContentLoaded", async () => {
  window.page = new Page(await readStep());
  document.body.dataset.ready = "yes";
});

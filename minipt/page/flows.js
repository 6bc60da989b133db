// Draws what a tick does on top of the cells: what it reads and writes, and what crosses between the
// prompt and the text.
// In: the stage at a tick. Out: pixels on #marks.
//
// The prompt speaks to the text only through keys and values. So between the two blocks stands a
// bridge: an arrow to the text once a layer's keys and values were read, an arrow back once the
// gradient returned. The gradient waits at the prompt's keys and values as a parcel, until the
// prompt's own way back picks it up.
"use strict";

const MOST_ARCS = 260;

class Flows {
  constructor(stage) {
    this.stage = stage;
    this.canvas = byId("marks");
    this.prepared = new Map();
  }

  draw() {
    const { stage } = this;
    const pen = (this.pen = this.canvas.getContext("2d"));
    pen.clearRect(0, 0, stage.width, stage.height);
    this.tick = stage.snapshot.ticks[stage.tick];
    this.drawParcels();
    this.drawArcs();
    this.drawBridges();
    this.drawMarks();
    this.drawAnswer();
    this.drawArrived();
  }

  array(name) {
    return this.stage.snapshot.byName.get(name);
  }

  done(array, backward) {
    if (!array) return false;
    return this.stage.times[array.index][backward ? "backward" : "forward"] <= this.stage.tick;
  }

  // A frame around the cells that the tick writes, and thin ones around those that it reads.
  drawMarks() {
    if (!this.tick || this.stage.tick < 0) return;
    const { snapshot } = this.stage;
    if (this.tick.step) {
      this.frame(this.array("prompt.vectors"), 2.5, []);
      return;
    }
    for (const [index] of this.tick.reads) this.frame(snapshot.arrays[index], 1.25, [3, 2]);
    this.frame(snapshot.arrays[this.tick.array], 2.5, []);
  }

  frame(array, thickness, dashes) {
    const { pen, stage } = this;
    pen.strokeStyle = plainColour("mark");
    pen.lineWidth = thickness;
    pen.setLineDash(dashes);
    for (const [first, last] of rangesOf(array, stage)) {
      const x = stage.columns[first].x - 1;
      const right = stage.columns[last].x + stage.wide;
      pen.strokeRect(x, array.strip.y - 0.5, right - x, Math.max(array.strip.height, 2) + 1);
    }
    pen.setLineDash([]);
  }

  // Where the bridge stands: between the prompt's block and the first text. null: no shared prompt.
  gap() {
    const { columns, step, wide } = this.stage;
    if (step.wiring !== "shared") return null;
    const left = columns[step.vectors - 1].x + wide;
    return { left, right: columns[step.vectors].x };
  }

  drawBridges() {
    const gap = this.gap();
    if (!gap) return;
    for (const box of this.stage.boxes) {
      const read = this.done(this.array(`text.h${box.layer}.attn.context`), false);
      const returned = this.done(this.array(`text.h${box.layer}.attn.scores`), true);
      const half = Math.min(7, box.height / 4);
      const middle = box.y + box.height / 2;
      this.arrow(gap.left + 5, gap.right - 5, middle - half, read ? "activation" : null, half);
      this.arrow(gap.right - 5, gap.left + 5, middle + half, returned ? "gradient" : null, half);
      if (box.height > 90 && !this.crossing()) this.nameBridge(gap, middle, read, returned);
    }
  }

  nameBridge(gap, middle, read, returned) {
    const { pen } = this;
    pen.font = `10px ${FONT}`;
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    const x = (gap.left + gap.right) / 2;
    pen.strokeStyle = plainColour("paper");
    pen.lineWidth = 4;
    const words = [
      ["keys,", -33, read && "activation"],
      ["values", -21, read && "activation"],
      ["their", 21, returned && "gradient"],
      ["gradient", 33, returned && "gradient"],
    ];
    for (const [word, down, colour] of words) {
      pen.fillStyle = plainColour(colour || "muted");
      pen.strokeText(word, x, middle + down);
      pen.fillText(word, x, middle + down);
    }
  }

  arrow(from, to, y, quantity, half) {
    const { pen } = this;
    const sign = Math.sign(to - from);
    pen.strokeStyle = pen.fillStyle = plainColour(quantity ?? "line");
    pen.lineWidth = quantity ? Math.min(2.5, half * 0.8) : 1;
    pen.beginPath();
    pen.moveTo(from, y);
    pen.lineTo(to - sign * 4, y);
    pen.stroke();
    const head = clamp(half, 1.5, 5);
    pen.beginPath();
    pen.moveTo(to, y);
    pen.lineTo(to - sign * head * 1.4, y - head);
    pen.lineTo(to - sign * head * 1.4, y + head);
    pen.fill();
  }

  // What the texts sent back waits at the prompt's keys and values.
  drawParcels() {
    const { snapshot, step } = this.stage;
    if (step.wiring !== "shared") return;
    for (const [ending, cause, sizes] of [
      ["attn.key", "scores", "key_sizes"],
      ["attn.value", "context", "value_sizes"],
    ]) {
      const most = Math.max(...snapshot.crossings.map((crossing) => largestOf(crossing[sizes])));
      for (const crossing of snapshot.crossings) {
        const prompt = this.array(`prompt.h${crossing.layer}.${ending}`);
        const sent = this.done(this.array(`text.h${crossing.layer}.attn.${cause}`), true);
        if (prompt && sent && !this.done(prompt, true))
          this.parcelsAt(prompt.strip, crossing[sizes], most);
      }
    }
  }

  parcelsAt(strip, sizes, most) {
    const { pen, stage } = this;
    const box = stage.boxes[strip.layer];
    const full = Math.min(stage.wide, Math.max(strip.height, Math.min(9, box.height * 0.6))) * 0.9;
    pen.fillStyle = plainColour("gradient");
    pen.strokeStyle = plainColour("paper");
    pen.lineWidth = 1;
    sizes.forEach((size, row) => {
      if (size === 0) return;
      const side = full * (0.3 + 0.7 * Math.sqrt(size / most));
      const x = stage.columns[row].x + (stage.wide - side) / 2;
      const y = strip.y + (strip.height - side) / 2;
      pen.fillRect(x, y, side, side);
      if (side > 3) pen.strokeRect(x - 0.5, y - 0.5, side + 1, side + 1);
    });
  }

  // Lines between the rows of the prompt and those of the text that this tick joins.
  drawArcs() {
    const crossing = this.crossing();
    if (!crossing) return;
    const { pen, stage } = this;
    const { pairs, most } = this.pairsOf(crossing);
    this.dim([crossing.prompt, crossing.text].map((array) => array.strip));
    pen.strokeStyle = plainColour(crossing.backward ? "gradient" : "activation");
    const from = crossing.prompt.strip.y + crossing.prompt.strip.height / 2;
    const to = crossing.text.strip.y + crossing.text.strip.height / 2;
    for (const { column, reader, size } of pairs) {
      pen.globalAlpha = 0.14 + 0.8 * (size / most);
      pen.lineWidth = 0.8 + 2.6 * (size / most);
      const [x, right] = [column, reader].map((at) => stage.columns[at].x + stage.wide / 2);
      const bend = Math.min(from, to) - 12 - Math.min(46, (right - x) * 0.12);
      pen.beginPath();
      pen.moveTo(x, from);
      pen.bezierCurveTo(x + (right - x) * 0.25, bend, x + (right - x) * 0.75, bend, right, to);
      pen.stroke();
    }
    pen.globalAlpha = 1;
  }

  // Makes the cells of the layers pale, but for some strips, so that lines above them can be seen.
  dim(strips) {
    const { pen, stage } = this;
    pen.fillStyle = plainColour("paper");
    pen.globalAlpha = 0.62;
    for (const strip of stage.strips) {
      if (strip.layer === null || strips.includes(strip)) continue;
      for (const [first, last] of stage.blocks()) {
        const x = stage.columns[first].x;
        pen.fillRect(x, strip.y, stage.columns[last].x + stage.wide - x, strip.height);
      }
    }
    pen.globalAlpha = 1;
  }

  // What this tick reads across the bridge, or sends back over it. null: nothing.
  crossing() {
    if (!this.tick || this.tick.step || this.stage.tick < 0) return null;
    const { snapshot, step } = this.stage;
    const text = snapshot.arrays[this.tick.array];
    const ending = text.ending;
    if (text.stream !== "text" || !/^attn\.(scores|context)$/.test(ending)) return null;
    const { backward } = this.tick;
    const part = ending === "attn.scores" ? "attn.key" : "attn.value";
    const stream = step.wiring === "shared" ? "prompt" : "text";
    const prompt = this.array(`${stream}.h${text.layer}.${part}`);
    const crossing = snapshot.crossings.find((each) => each.layer === text.layer);
    const codes = backward && part === "attn.key" ? crossing?.gradient : crossing?.weights;
    return prompt && codes
      ? { text, prompt, rows: crossing.rows, codes: codes.codes, backward }
      : null;
  }

  // The strongest pairs of a text's row and a vector.
  pairsOf(crossing) {
    if (!this.prepared.has(crossing.codes))
      this.prepared.set(crossing.codes, strongestPairs(crossing, this.stage));
    return this.prepared.get(crossing.codes);
  }

  // The answer: a bar for each label, and the loss.
  drawAnswer() {
    const { snapshot, step } = this.stage;
    const array = this.array("text.probabilities") ?? this.array("text.scores");
    if (!this.done(array, false) || step.labels.length === 0) return;
    const last = this.tick?.step;
    const made = step.steps[snapshot.step];
    drawBars(
      this,
      last ? made.after : made.probabilities,
      last ? made.loss_after : made.loss,
      last ? made.probabilities : null,
    );
  }

  // At the end of the way back: what arrived at each vector.
  drawArrived() {
    const { snapshot, step, low, columns, width, height } = this.stage;
    if (low) return;
    const arrived = this.done(this.array("prompt.vectors"), true);
    drawVectorBars(
      this,
      arrived ? step.steps[snapshot.step].gradient_norms : step.vector_names.map(() => 0),
    );
    const { pen } = this;
    pen.font = `12px ${FONT}`;
    pen.textAlign = "left";
    pen.textBaseline = "alphabetic";
    pen.fillStyle = plainColour("muted");
    this.stage.blocks().forEach(([first], block, blocks) => {
      const { vector, text, x } = columns[first];
      const next = blocks[block + 1];
      const room = (next ? columns[next[0]].x : width) - x - 8;
      const captions = vector ? captionsOfVectors(step, arrived) : captionsOfText(step, text);
      const words = captions.find((each) => pen.measureText(each).width < room);
      if (words) pen.fillText(words, x, height - 4);
    });
  }
}

// What stands below a block, the longest first.
function captionsOfVectors(step, arrived) {
  if (arrived)
    return ["the gradient that arrived at each vector", "the gradient that arrived", "gradient"];
  const vectors = counted(step.vectors, "vector");
  const start = `the prompt: ${vectors}`;
  return [`${start}. Here the gradient will arrive.`, start, vectors];
}

function captionsOfText(step, text) {
  const tokens = counted(step.tokens[text].length, "token");
  return [`the text: ${tokens}`, tokens];
}

function largestOf(numbers) {
  return numbers.reduce((most, number) => Math.max(most, number), 0);
}

// The columns of an array as ranges that stand together.
function rangesOf(array, stage) {
  const columns = array.places.flat().sort((a, b) => a - b);
  const ranges = [];
  for (const column of columns) {
    const last = ranges.at(-1);
    const joins = last && column === last[1] + 1 && !startsBlock(stage.columns, column);
    if (joins) last[1] = column;
    else ranges.push([column, column]);
  }
  return ranges;
}

function strongestPairs({ rows, codes }, { step, columns }) {
  const found = [];
  const text = step.tokens.keys().next().value; // crossings are of the first text
  const indexOf = (row) =>
    columns.findIndex((each) => (each.text ?? text) === text && each.row === row);
  const vectors = step.vector_names.map((_, row) => indexOf(row));
  rows.forEach((row, at) => {
    if (row < step.vectors) return; // the prompt reads itself: no crossing
    const reader = indexOf(row);
    vectors.forEach((column, vector) => {
      const size = (codes[at * step.vectors + vector] / 127) ** 2;
      if (size > 0) found.push({ column, reader, size });
    });
  });
  const pairs = found.sort((a, b) => b.size - a.size).slice(0, MOST_ARCS);
  return { pairs, most: pairs[0]?.size || 1 };
}

// Draws the stage: one cell for each array and row, coloured by a mean size.
// In: the step, a snapshot, the tick that was reached, which quantity colours the cells.
// Out: pixels on #cells. Each cell is one pixel of a small image. The image is drawn enlarged, so a
// tick writes a few pixels and copies one image for each layer.
"use strict";

const LEFT = 112; // room for the names of strips

class Stage {
  constructor(step, snapshot) {
    this.canvas = byId("cells");
    this.step = step;
    this.columns = placeColumns(step);
    this.layers = step.base.layers;
    this.unfolded = Array.from({ length: this.layers }, (_, layer) => (layer === 0 ? 1 : 0));
    this.focus = 0;
    this.quantity = "played";
    this.show(snapshot);
  }

  // Another snapshot of the same step: the same strips, other numbers.
  show(snapshot) {
    this.snapshot = snapshot;
    this.strips = makeStrips(snapshot);
    this.strips.forEach((strip, i) => (strip.index = i));
    this.image = new ImageData(this.columns.length, this.strips.length);
    this.pixels = new Uint32Array(this.image.data.buffer);
    this.small = element("canvas", { width: this.columns.length, height: this.strips.length });
    for (const array of snapshot.arrays)
      array.places = columnsOfArray(array, this.step, this.columns);
    this.shares = sharesOf(snapshot, this.step);
    this.times = timesOf(snapshot);
    this.tick = -1;
  }

  // Fits the stage to its place in the page, or to a given size.
  resize(width, height) {
    const box = this.canvas.parentElement.getBoundingClientRect();
    [this.width, this.height] = [Math.floor(width ?? box.width), Math.floor(height ?? box.height)];
    const ratio = window.devicePixelRatio || 1;
    for (const canvas of [this.canvas, byId("marks")]) {
      canvas.width = Math.round(this.width * ratio);
      canvas.height = Math.round(this.height * ratio);
      canvas.getContext("2d").setTransform(ratio, 0, 0, ratio, 0, 0);
    }
    this.low = this.height < 330;
    this.place();
    this.drawAll();
  }

  place() {
    this.left = this.low ? 70 : LEFT;
    const gap = this.step.wiring === "shared" ? (this.low ? 34 : 46) : 8;
    this.wide = spreadColumns(this.columns, this.left, this.width, gap);
    const below = this.low ? 46 : 92; // names of vectors and tokens, and the bars of the vectors
    const line = this.low ? 8 : 13;
    const bottom = spreadOutside(this.strips, "bottom", this.height - below, line + 3);
    const above = this.strips.filter((strip) => strip.zone === "top").length;
    const top = above * line + 8;
    this.area = {
      top: top + 6,
      bottom: this.height - below - bottom.length * (line + 3) - 8,
      gap: this.low || this.layers > 12 ? 1 : 4,
    };
    spreadOutside(this.strips, "top", top, line);
    this.answerBottom = top;
    this.boxes = spreadStrips(this.strips, this.layers, this.area, this.unfolded);
  }

  // Paints the pixels of one array as it stands at `tick`.
  paintArray(array, tick) {
    if (HELPER.test(array.name)) return;
    const quantity = this.quantityAt(array, tick);
    const colours = quantity ? palette.words[quantity] : null;
    const shares = quantity ? this.shares[array.index][quantity] : null;
    const start = array.strip.index * this.columns.length;
    array.places.forEach((places, entry) => {
      const word = shares ? colours[shares[entry]] : palette.words.empty;
      for (const column of places) this.pixels[start + column] = word;
    });
  }

  // Which quantity a cell shows at a tick; null: nothing was computed yet, or never is.
  quantityAt(array, tick) {
    const times = this.times[array.index];
    const has = (quantity) => this.shares[array.index][quantity] !== null;
    if (this.quantity !== "played")
      return this.reached(times, tick) && has(this.quantity) ? this.quantity : null;
    if (this.snapshot.ticks[tick]?.step && array.name === "prompt.vectors" && has("change"))
      return "change";
    if (times.backward <= tick) return "gradient";
    return times.forward <= tick ? "activation" : null;
  }

  reached(times, tick) {
    const last = this.snapshot.ticks.length - 1;
    const needed = { activation: times.forward, gradient: times.backward, change: last }[
      this.quantity
    ];
    return tick >= needed;
  }

  // Moves to a tick and repaints the arrays whose cells differ.
  goTo(tick) {
    const [low, high] = [Math.min(tick, this.tick), Math.max(tick, this.tick)];
    for (const array of this.snapshot.arrays) {
      const { forward, backward } = this.times[array.index];
      const touched = [forward, backward].some((time) => time > low && time <= high);
      if (touched || array.name === "prompt.vectors" || this.tick < 0) this.paintArray(array, tick);
    }
    const last = this.snapshot.ticks.length - 1;
    if (this.quantity === "change" && (tick === last) !== (this.tick === last)) this.repaint(tick);
    this.tick = tick;
    this.drawAll();
  }

  repaint(tick = this.tick) {
    for (const array of this.snapshot.arrays) this.paintArray(array, tick);
  }

  drawAll() {
    const pen = this.canvas.getContext("2d");
    pen.clearRect(0, 0, this.width, this.height);
    this.small.getContext("2d").putImageData(this.image, 0, 0);
    pen.imageSmoothingEnabled = false;
    for (const strip of this.strips) this.drawStrip(pen, strip);
    this.drawGrid(pen);
    this.drawNames(pen);
  }

  // One strip: a row of the image, enlarged block by block.
  drawStrip(pen, strip) {
    const y = Math.round(strip.y);
    const height = Math.max(1, Math.round(strip.y + strip.height) - y);
    for (const [first, last] of this.blocks()) {
      const count = last - first + 1;
      pen.drawImage(
        this.small,
        first,
        strip.index,
        count,
        1,
        this.columns[first].x,
        y,
        count * this.wide,
        height,
      );
    }
  }

  // First and last column of each block that stands together.
  blocks() {
    if (this.foundBlocks) return this.foundBlocks;
    const starts = this.columns
      .map((_, i) => i)
      .filter((i) => i === 0 || startsBlock(this.columns, i));
    this.foundBlocks = starts.map((start, i) => [
      start,
      (starts[i + 1] ?? this.columns.length) - 1,
    ]);
    return this.foundBlocks;
  }

  // Lines of paper between the cells that are large enough.
  drawGrid(pen) {
    pen.fillStyle = plainColour("paper");
    const tall = this.strips.filter((strip) => strip.height >= 7);
    for (const strip of tall) {
      pen.fillRect(this.left - 2, Math.round(strip.y), this.width, 1);
      if (this.wide < 6) continue;
      for (const column of this.columns) {
        pen.fillRect(column.x + this.wide - 1, strip.y, 1, strip.height);
      }
    }
  }

  drawNames(pen) {
    pen.textBaseline = "middle";
    pen.textAlign = "right";
    for (const box of this.boxes) this.nameLayer(pen, box);
    pen.fillStyle = plainColour("muted");
    pen.font = `${this.low ? 9 : 11}px ${FONT}`;
    const outside = this.strips.filter((strip) => strip.zone === "bottom");
    for (const strip of outside)
      pen.fillText(
        strip.ending === "input" ? "input" : strip.title,
        this.left - 8,
        strip.y + strip.height / 2,
      );
    const answer = Math.min(...this.answerColumns().map((column) => column.x));
    for (const strip of this.strips.filter((each) => each.zone === "top")) {
      pen.fillText(strip.title, answer - 8, strip.y + strip.height / 2);
    }
    this.nameColumns(pen);
  }

  nameLayer(pen, box) {
    const open = box.height / box.strips.length >= 9;
    pen.fillStyle = plainColour(open ? "ink" : "muted");
    pen.font = `${open ? 600 : 400} ${clamp(box.height * 0.8, 7, 12)}px ${FONT}`;
    if (!open) {
      pen.fillText(`layer ${box.layer}`, this.left - 8, box.y + box.height / 2);
      return;
    }
    pen.save();
    pen.translate(9, box.y + box.height / 2);
    pen.rotate(-Math.PI / 2);
    pen.textAlign = "center";
    pen.fillText(`layer ${box.layer}`, 0, 0);
    pen.restore();
    pen.fillStyle = plainColour("muted");
    pen.font = `${clamp(box.strips[0].height * 0.85, 7, 13)}px ${FONT}`;
    for (const strip of box.strips)
      pen.fillText(strip.title, this.left - 8, strip.y + strip.height / 2 + 0.5);
  }

  nameColumns(pen) {
    const lowest = this.strips.find((strip) => strip.zone === "bottom");
    const top = lowest.y + lowest.height + 5;
    this.columns.forEach((column) => {
      pen.font = `${clamp(this.wide * (column.vector ? 0.62 : 0.75), 7, 14)}px ${FONT}`;
      pen.fillStyle = plainColour(column.vector ? "muted" : "ink");
      if (column.vector && this.wide >= 12) {
        pen.textAlign = "center";
        pen.fillText(column.label, column.x + this.wide / 2, top + 5);
      } else if (this.wide >= 6 || !(column.row % Math.ceil(7 / this.wide))) {
        pen.save();
        pen.translate(column.x + this.wide / 2, top);
        pen.rotate(-Math.PI / 2.7);
        pen.textAlign = "right";
        pen.fillText(shortened(column.label, 10), 0, 0);
        pen.restore();
      }
    });
  }

  // The columns that have an answer above them.
  answerColumns() {
    const top = this.strips.filter((strip) => strip.zone === "top");
    const places = top.flatMap(({ arrays }) => arrays.flatMap((array) => array.places.flat()));
    return places.map((column) => this.columns[column]);
  }

  // The array and the entry of its sizes under a point of the canvas.
  find(x, y) {
    const strip = this.strips.find((each) => y >= each.y && y < each.y + each.height);
    const column = this.columns.findIndex((each) => x >= each.x && x < each.x + this.wide);
    if (!strip || column < 0) return null;
    for (const array of strip.arrays) {
      const entry = array.places.findIndex((places) => places.includes(column));
      if (entry >= 0) return { array, entry, column };
    }
    return null;
  }
}

const FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'DejaVu Sans', sans-serif";

function shortened(text, most) {
  return text.length > most ? text.slice(0, most - 1) + "…" : text;
}

// When each array is written: the ticks of its value and of its gradient.
function timesOf(snapshot) {
  const times = snapshot.arrays.map(() => ({ forward: Infinity, backward: Infinity }));
  snapshot.ticks.forEach((tick, at) => {
    if (tick.step) return;
    times[tick.array][tick.backward ? "backward" : "forward"] = at;
  });
  return times;
}

// Colour indices of all cells. Arrays of a kind have one scale, so that layers can be compared.
// Activations go from the smallest row to the largest; a square root keeps small gradients visible.
function sharesOf(snapshot, step) {
  const own = snapshot.arrays.map((array) => sizesByQuantity(array, step));
  const ends = new Map();
  const endsOf = (array, quantity) => {
    const key = `${array.strip.ending}/${quantity}`;
    if (!ends.has(key)) ends.set(key, { least: Infinity, most: 0 });
    return ends.get(key);
  };
  const eachSizes = (use) =>
    snapshot.arrays.forEach((array, i) =>
      QUANTITIES.forEach((quantity) => use(own[i][quantity], endsOf(array, quantity), i, quantity)),
    );
  eachSizes((sizes, end) =>
    sizes?.forEach((size) => {
      end.least = Math.min(end.least, size);
      end.most = Math.max(end.most, size);
    }),
  );
  const shares = snapshot.arrays.map(() => ({}));
  eachSizes((sizes, { least, most }, i, quantity) => {
    const share = (size) => (most > least ? (size - least) / (most - least) : 1);
    shares[i][quantity] =
      sizes && Uint8Array.from(sizes, (size) => scaleIndex(quantity, share(size)));
  });
  return shares;
}

// Of attention's weights the mean size says nothing, as each row sums to 1. The stage shows instead
// which part of a row's attention goes to the prompt's vectors.
function sizesByQuantity(array, step) {
  array.shown = {
    activation: array.prompt_share ?? array.sizes,
    gradient: array.gradient_sizes,
    change: array.name === "prompt.vectors" ? movedBy(step) : array.change_sizes,
  };
  return array.shown;
}

function movedBy(step) {
  return Float32Array.from(step.steps.at(-1).distance);
}

// Heat maps: an array as a table of colours, with names of rows and columns.
// In: an array, its codes (of the value or of the gradient), which text and which head.
// Out: a canvas, and a reading of the number under the pointer.
"use strict";

const ROW_AXES = ["row", "vector", "answer"];
const HEAD_AXES = ["head", "key_head"];

// An array laid out as a table. head null: the heads stand side by side.
// Returns rows and columns with labels, and `index(row, column)`, the place in the array.
function tableOf(array, step, text = 0, head = null) {
  const { axes, shape } = array;
  const rowAxis = axes.findIndex((axis) => ROW_AXES.includes(axis));
  const textAxis = axes.indexOf("text");
  const fixed = new Map();
  if (textAxis >= 0 && rowAxis >= 0) fixed.set(textAxis, Math.min(text, shape[textAxis] - 1));
  const headAxis = axes.findIndex((axis) => HEAD_AXES.includes(axis));
  if (headAxis >= 0 && head !== null) fixed.set(headAxis, head);
  const down = rowAxis >= 0 ? rowAxis : Math.max(0, textAxis);
  const across = axes.map((_, axis) => axis).filter((axis) => axis !== down && !fixed.has(axis));
  const rows = Array.from({ length: shape[down] }, (_, i) => nameOf(array, step, down, i, text));
  const columns = combinations(across.map((axis) => shape[axis])).map((own) => ({
    own,
    label: own.map((i, at) => nameOf(array, step, across[at], i, text)).join(", "),
  }));
  const index = (row, column) =>
    axes.map((_, axis) => {
      if (axis === down) return row;
      return fixed.has(axis) ? fixed.get(axis) : columns[column].own[across.indexOf(axis)];
    });
  const group = headAxis >= 0 && head === null ? shape.at(-1) : null; // columns of one head
  return { rows, columns, index, group, square: ["column", "way"].includes(axes.at(-1)) };
}

function combinations(lengths) {
  return lengths.reduce(
    (all, length) => all.flatMap((own) => Array.from({ length }, (_, i) => [...own, i])),
    [[]],
  );
}

// The name of place i on an axis of an array.
function nameOf(array, step, axis, i, text) {
  const kind = array.axes[axis];
  if (kind === "row" || kind === "vector")
    return rowName(step, array.rows[Math.min(text, array.rows.length - 1)][i], text);
  if (kind === "column") return rowName(step, array.columns[i], text);
  if (kind === "answer") return step.tokens.length > 1 ? `answer ${i}` : "answer";
  if (kind === "choice")
    return array.shape[axis] === step.labels.length ? step.labels[i] : `token ${i}`;
  if (kind === "one") return "";
  if (kind === "way") return `layer ${i >> 1} ${i % 2 ? "values" : "keys"}`;
  return `${{ inner: "channel", key_head: "head" }[kind] ?? kind} ${i}`;
}

function rowName(step, row, text) {
  if (row < step.vectors) return step.vector_names[row];
  return showToken(step.tokens[text]?.[row - step.vectors] ?? "");
}

function placeOf(array, index) {
  return index.reduce((place, i, axis) => place * array.shape[axis] + i, 0);
}

// One pixel for each cell.
function smallPicture(array, part, quantity, step, text, head = null) {
  return picture(array, part, quantity, tableOf(array, step, text, head));
}

function picture(array, part, quantity, table) {
  const [width, height] = [Math.max(1, table.columns.length), Math.max(1, table.rows.length)];
  const canvas = element("canvas", { width, height, role: "img" });
  const image = new ImageData(width, height);
  const words = new Uint32Array(image.data.buffer);
  const colours = palette.signedWords[quantity];
  const strides = array.shape.map((_, axis) =>
    array.shape.slice(axis + 1).reduce((a, b) => a * b, 1),
  );
  const startOf = (index) => index.reduce((sum, i, axis) => sum + i * strides[axis], 0);
  const across = table.columns.map((_, column) => startOf(table.index(0, column)));
  table.rows.forEach((_, row) => {
    const down = table.rows.length ? startOf(table.index(row, 0)) - across[0] : 0;
    for (let column = 0; column < table.columns.length; column++) {
      const code = part.codes[across[column] + down];
      words[row * width + column] = code === NO_NUMBER ? 0 : colours[signedIndex(code)];
    }
  });
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

// A heat map with names, a scale, the number under the pointer, and cells that open.
class HeatMap {
  // opens(row, column): does this cell open; open(row, column): opens it.
  constructor({ array, part, quantity, step, text = 0, head = null, opens, open, title }) {
    Object.assign(this, { array, part, quantity, step, opens, open, title });
    this.table = tableOf(array, step, text, head);
    this.small = picture(array, part, quantity, this.table);
    this.cursor = null;
    this.canvas = element("canvas", { tabindex: "0", role: "img", "aria-label": this.describe() });
    this.reading = element(
      "div",
      { class: "reading", role: "status", "aria-live": "polite" },
      "Point at a cell to read it.",
    );
    this.scroll = element("div", { class: "scroll" }, this.canvas);
    this.element = element(
      "div",
      { class: "heatmap" },
      element("h3", {}, title),
      this.scaleLine(),
      this.scroll,
      this.reading,
    );
    this.listen();
  }

  describe() {
    const { rows, columns } = this.table;
    return `${this.title}: ${rows.length} rows, ${columns.length} columns; arrow keys move, Enter opens`;
  }

  scaleLine() {
    const end = showNumber(Number(this.part.scale.toPrecision(3)));
    const signed = this.part.codes.some((code) => code < 0 && code !== NO_NUMBER);
    const bar = element("span", {
      class: signed ? `bar ${this.quantity}` : `ramp ${this.quantity}`,
    });
    return element("div", { class: "scale" }, signed ? `−${end}` : "0", bar, end);
  }

  listen() {
    this.canvas.addEventListener("pointermove", (event) => this.pointAt(this.cellAt(event)));
    this.canvas.addEventListener("click", (event) => this.choose(this.cellAt(event)));
    this.canvas.addEventListener("keydown", (event) => this.onKey(event));
  }

  // Fits the cells to the width that there is, then draws.
  fit(width, height) {
    const { rows, columns, square } = this.table;
    this.left = 76;
    this.top = square ? 58 : 16;
    const right = square ? 24 : 4; // the last slanted name leans over the edge
    this.cellWidth = clamp((width - this.left - right) / columns.length, 1.5, square ? 20 : 24);
    this.cellHeight = clamp((height - this.top) / rows.length, rows.length > 60 ? 7 : 11, 18);
    this.width = Math.ceil(this.left + this.cellWidth * columns.length + right);
    this.height = Math.ceil(this.top + this.cellHeight * rows.length + 4);
    const ratio = window.devicePixelRatio || 1;
    Object.assign(this.canvas, { width: this.width * ratio, height: this.height * ratio });
    Object.assign(this.canvas.style, { width: `${this.width}px`, height: `${this.height}px` });
    this.pen = this.canvas.getContext("2d");
    this.pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.draw();
  }

  draw() {
    const { pen, table, left, top, cellWidth, cellHeight } = this;
    pen.clearRect(0, 0, this.width, this.height);
    pen.imageSmoothingEnabled = false;
    const [right, bottom] = [cellWidth * table.columns.length, cellHeight * table.rows.length];
    pen.fillStyle = plainColour("empty");
    pen.fillRect(left, top, right, bottom);
    pen.drawImage(this.small, left, top, right, bottom);
    this.drawNames();
    this.drawGroups();
    this.markOpening();
    this.drawCursor();
  }

  drawNames() {
    const { pen, table, left, top, cellWidth, cellHeight } = this;
    pen.fillStyle = plainColour("ink");
    pen.textBaseline = "middle";
    pen.textAlign = "right";
    pen.font = `${clamp(cellHeight - 1, 7, 12)}px ${FONT}`;
    table.rows.forEach((label, row) => {
      pen.fillText(shortened(label, 11), left - 5, top + (row + 0.5) * cellHeight);
    });
    pen.fillStyle = plainColour("muted");
    pen.font = `10px ${FONT}`;
    if (table.square) this.nameColumns();
    else this.numberColumns();
  }

  nameColumns() {
    const { pen, table, left, top, cellWidth } = this;
    const every = Math.ceil(9 / cellWidth);
    table.columns.forEach(({ label }, column) => {
      if (column % every) return;
      pen.save();
      pen.translate(left + (column + 0.5) * cellWidth, top - 4);
      pen.rotate(-Math.PI / 2.6);
      pen.textAlign = "left";
      pen.fillText(shortened(label.replace("vector ", "v").replace("layer ", "h"), 9), 0, 0);
      pen.restore();
    });
  }

  numberColumns() {
    const { pen, table, left, top, cellWidth } = this;
    pen.textAlign = "center";
    const step =
      table.group ??
      [1, 2, 5, 10, 20, 50, 100, 200, 500].find((each) => each * cellWidth > 30) ??
      1000;
    for (let column = 0; column < table.columns.length; column += step) {
      const middle = table.group ? table.group / 2 : 0.5;
      const label = table.group ? `head ${column / table.group}` : String(column);
      if (!table.group || table.group * cellWidth > 36)
        pen.fillText(label, left + (column + middle) * cellWidth, top - 8);
    }
  }

  drawGroups() {
    const { pen, table, left, top, cellWidth } = this;
    if (!table.group) return;
    pen.fillStyle = plainColour("ink");
    for (let column = table.group; column < table.columns.length; column += table.group) {
      pen.fillRect(left + column * cellWidth - 0.5, top, 1, this.height - top - 4);
    }
  }

  // A dot in each cell that opens; a bar at the row's name where the whole row opens.
  markOpening() {
    const { pen, table, left, top, cellWidth, cellHeight } = this;
    if (!this.opens) return;
    pen.fillStyle = plainColour("mark");
    table.rows.forEach((_, row) => {
      const open = table.columns.filter((_, column) => this.opens(row, column)).length;
      if (open === table.columns.length && open > 0)
        pen.fillRect(left - 3, top + row * cellHeight + 1, 2, cellHeight - 2);
      else if (open > 0) {
        table.columns.forEach((_, column) => {
          if (!this.opens(row, column)) return;
          pen.strokeStyle = plainColour("mark");
          pen.strokeRect(
            left + column * cellWidth - 0.5,
            top + row * cellHeight + 0.5,
            Math.max(cellWidth, 4),
            cellHeight - 1,
          );
        });
      }
    });
  }

  drawCursor() {
    if (!this.cursor) return;
    const { pen, left, top, cellWidth, cellHeight } = this;
    const [row, column] = this.cursor;
    pen.strokeStyle = plainColour("mark");
    pen.lineWidth = 2;
    pen.strokeRect(
      left + column * cellWidth - 1,
      top + row * cellHeight - 1,
      Math.max(cellWidth, 3) + 2,
      cellHeight + 2,
    );
    pen.lineWidth = 1;
  }

  cellAt(event) {
    const box = this.canvas.getBoundingClientRect();
    const column = Math.floor((event.clientX - box.left - this.left) / this.cellWidth);
    const row = Math.floor((event.clientY - box.top - this.top) / this.cellHeight);
    const inside =
      row >= 0 && column >= 0 && row < this.table.rows.length && column < this.table.columns.length;
    return inside ? [row, column] : null;
  }

  pointAt(cell) {
    if (!cell) return;
    this.cursor = cell;
    this.reading.textContent = this.read(...cell);
    this.draw();
    this.onPoint?.(cell);
  }

  // The number of a cell in words. It comes from 8 bits, so it is rounded.
  read(row, column) {
    const { table, array, part } = this;
    const value = decode(part, placeOf(array, table.index(row, column)));
    const place = [table.rows[row], table.columns[column].label].filter(Boolean).join(" · ");
    const opens = this.opens?.(row, column) ? " (opens)" : "";
    return `${place}: ${value === null ? "masked" : "≈ " + showNumber(Number(value.toPrecision(3)))}${opens}`;
  }

  choose(cell) {
    if (!cell) return;
    this.pointAt(cell);
    this.open?.(...cell);
  }

  onKey(event) {
    const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    if (event.key === "Enter" && this.cursor) this.choose(this.cursor);
    else if (moves[event.key]) {
      const [row, column] = this.cursor ?? [0, -1];
      const [down, right] = moves[event.key];
      this.pointAt([
        clamp(row + down, 0, this.table.rows.length - 1),
        clamp(column + right, 0, this.table.columns.length - 1),
      ]);
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }
}

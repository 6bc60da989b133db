// An array, opened: what it is, what it was made from, its heat map and its gradient's beside it.
// In: an array of the snapshot. Out: elements in #sheet, which lies over the stage.
"use strict";

class Sheet {
  constructor(step, onClose) {
    this.step = step;
    this.onClose = onClose;
    this.element = byId("sheet");
    this.array = null;
  }

  get isOpen() {
    return !this.element.hidden;
  }

  // Opens the sheet with a title and content.
  show(title, ...content) {
    const close = element("button", { type: "button", onclick: () => this.close() }, "close (Esc)");
    fill(
      this.element,
      element("div", { class: "top" }, element("h2", {}, ...title), close),
      ...content,
    );
    if (!this.isOpen) this.before = document.activeElement;
    this.element.hidden = false;
    this.element.scrollTop = 0;
    this.element.focus({ preventScroll: true });
  }

  close() {
    const inside = this.element.contains(document.activeElement);
    this.element.hidden = true;
    this.element.replaceChildren();
    this.array = null;
    if (inside) this.before?.focus?.({ preventScroll: true });
    this.onClose();
  }

  openArray(snapshot, array, { text = 0, head = 0 } = {}) {
    Object.assign(this, { snapshot, array, text, head });
    const title = [`${array.about.title}`, element("code", {}, array.name)];
    this.maps = element("div", { class: "columns" });
    this.number = element("div", {});
    this.show(title, this.aboutArray(), this.choices(), this.opened(), this.number, this.maps);
    this.drawMaps();
  }

  // Opens the vectors, and shows the map of the ways that their gradient took.
  openWays(snapshot) {
    this.openArray(snapshot, snapshot.byName.get("prompt.vectors"));
    this.heatmaps.at(-1).element.scrollIntoView({ block: "end" });
  }

  // Buttons for the numbers of this array that open, or for the rows of which every number does.
  opened() {
    this.indexOpenings();
    const own = [...this.openings.values()].filter(
      ({ index }) => !this.byHead() || index[1] === this.head,
    );
    if (own.length === 0) return null;
    const buttons = own.slice(0, MOST_BUTTONS).map((opening) => {
      const onclick = () => this.openNumber(opening, wholeIndex(opening, this.array));
      return element(
        "button",
        { type: "button", class: `chip ${opening.gradient ? "gradient" : "activation"}`, onclick },
        this.placeName(wholeIndex(opening, this.array)),
      );
    });
    return element(
      "div",
      { class: "links opened" },
      element("div", {}, element("span", { class: "quiet" }, "numbers that open"), ...buttons),
    );
  }

  // An index in words: its row, then its column or channel.
  placeName(index) {
    const { array, step } = this;
    const text = array.axes.includes("text") ? index[array.axes.indexOf("text")] : 0;
    const names = index.map((i, axis) => {
      const [kind, name] = [array.axes[axis], nameOf(array, step, axis, i, text)];
      if (kind === "text" && array.shape[axis] === 1) return "";
      return ["row", "column"].includes(kind) && !name.startsWith("vector") ? `“${name}”` : name;
    });
    return names.filter(Boolean).join(", ");
  }

  aboutArray() {
    const { array, snapshot } = this;
    const { about } = array;
    const made = array.made_from.map((index) => snapshot.arrays[index]);
    const into = array.goes_into.map((index) => snapshot.arrays[index]);
    const frozen = array.parameters?.length ? `; frozen: ${array.parameters.join(", ")}` : "";
    return element(
      "div",
      { class: "columns" },
      element(
        "div",
        {},
        element("p", { class: "why" }, about.sentence),
        element("p", { class: "formula" }, about.formula),
        about.backward_sentence
          ? element("p", { class: "why" }, about.backward_sentence)
          : null,
        about.backward ? element("p", { class: "formula" }, `backward: ${about.backward}`) : null,
      ),
      element(
        "div",
        {},
        ...shapeLines(array, (about.function ? `, ${about.function}` : "") + frozen),
        element(
          "div",
          { class: "links" },
          this.links("made from", made),
          this.links("goes into", into),
        ),
      ),
    );
  }

  links(title, arrays) {
    const buttons = arrays.map((array) =>
      element(
        "button",
        {
          type: "button",
          class: "chip activation",
          onclick: () => this.openArray(this.snapshot, array, this),
        },
        array.name,
      ),
    );
    const none = buttons.length ? [] : [element("span", { class: "quiet" }, "none")];
    return element("div", {}, element("span", { class: "quiet" }, title), ...buttons, ...none);
  }

  // Buttons for the texts, and for attention a picture of each head.
  choices() {
    const { array, step } = this;
    const texts = array.axes.includes("text") ? array.shape[array.axes.indexOf("text")] : 1;
    const parts = [];
    if (texts > 1 && array.rows) {
      parts.push(
        element(
          "div",
          { class: "heads" },
          ...step.text_names.map((name, text) =>
            this.choice(`text: ${name}`, text === this.text, { text }),
          ),
        ),
      );
    }
    if (this.byHead() && array.value) {
      const heads = Array.from({ length: array.shape[1] }, (_, head) => {
        const small = smallPicture(array, array.value, "activation", step, this.text, head);
        return this.choice(`head ${head}`, head === this.head, { head }, small);
      });
      parts.push(element("div", { class: "heads", "aria-label": "heads" }, ...heads));
    }
    return element("div", {}, ...parts);
  }

  choice(name, pressed, change, ...content) {
    const onclick = () =>
      this.openArray(this.snapshot, this.array, { text: this.text, head: this.head, ...change });
    return element(
      "button",
      { type: "button", "aria-pressed": String(pressed), onclick },
      ...content,
      name,
    );
  }

  // Attention's scores and weights are shown head by head; other arrays with the heads side by side.
  byHead() {
    return (
      this.array.axes.includes("column") && this.array.axes.some((axis) => HEAD_AXES.includes(axis))
    );
  }

  drawMaps() {
    const { array } = this;
    const parts = [
      ["value", array.value, "activation", false],
      ["gradient: d loss / d value", array.gradient, "gradient", true],
    ];
    const change = array.name === "prompt.vectors" ? this.step.change?.all : null;
    if (change)
      parts.push([
        `change by ${this.step.steps.length} step${this.step.steps.length > 1 ? "s" : ""}`,
        change,
        "change",
        null,
      ]);
    const ways = array.name === "prompt.vectors" ? waysMap(this.snapshot, this.step) : null;
    this.heatmaps = parts.map(([title, part, quantity, gradient]) =>
      part ? this.heatMap(title, part, quantity, gradient) : this.without(title, gradient),
    );
    if (ways) this.heatmaps.push(ways);
    this.maps.replaceChildren(...this.heatmaps.map((each) => each.element ?? each));
    this.fit();
  }

  fit() {
    const columns = this.heatmaps.filter((each) => each.fit);
    const height = Math.max(220, this.element.clientHeight - this.maps.offsetTop - 86);
    for (const each of columns) each.fit(each.element.clientWidth - 14, height);
  }

  heatMap(title, part, quantity, gradient) {
    const { array, step, text } = this;
    const head = this.byHead() ? this.head : null;
    const find = (row, column) =>
      gradient !== null && this.findOpening(gradient, map.table.index(row, column));
    const map = new HeatMap({
      array,
      part,
      quantity,
      step,
      text,
      head,
      title,
      opens: (row, column) => Boolean(find(row, column)),
      open: (row, column) => this.open(find(row, column), map, row, column),
    });
    return map;
  }

  without(title, gradient) {
    const { array } = this;
    const sizes = gradient ? array.gradient_sizes : array.sizes;
    if (!sizes) {
      return element(
        "div",
        {},
        element("h3", {}, title),
        element(
          "p",
          { class: "quiet" },
          "No gradient was computed: no row of it needed one, or only some did, or it is a helper that the op's backward differentiates through.",
        ),
      );
    }
    return element(
      "div",
      {},
      element("h3", {}, `${title}: summed up`),
      element(
        "p",
        { class: "quiet" },
        "The whole array is too large for this page. This is the mean size of each row.",
      ),
      sizesTable(array, sizes, this.step, gradient ? "gradient" : "activation"),
    );
  }

  // The opening of a cell: of the whole row of cells, or of this cell alone.
  findOpening(gradient, index) {
    if (this.openingsOf !== this.array || this.openingsIn !== this.snapshot) this.indexOpenings();
    const key = (place) => `${gradient}/${place.join(",")}`;
    return this.openings.get(key(index)) ?? this.openings.get(key(index.slice(0, -1)));
  }

  indexOpenings() {
    [this.openingsOf, this.openingsIn] = [this.array, this.snapshot];
    const own = this.snapshot.openings.filter((opening) => opening.array === this.array.index);
    this.openings = new Map(
      own.map((opening) => [`${opening.gradient}/${opening.index.join(",")}`, opening]),
    );
  }

  open(opening, map, row, column) {
    if (opening) this.openNumber(opening, map.table.index(row, column));
    else {
      fill(
        this.number,
        element(
          "div",
          { class: "number" },
          element("h3", {}, map.read(row, column)),
          element(
            "p",
            { class: "quiet" },
            "Rounded to 8 bits. The sum behind it is in the page for the framed cells, and for rows with a bar.",
          ),
        ),
      );
    }
  }

  openNumber(opening, index) {
    this.openedIndex = index;
    fill(this.number, numberCard(opening, index, this.placeName(index), this.snapshot, this.step));
    this.number.scrollIntoView({ block: "nearest" });
  }
}

const MOST_BUTTONS = 12;

// An opening of a whole row stands for its largest number, if no cell was chosen.
function wholeIndex({ index, gradient }, array) {
  if (index.length === array.shape.length) return index;
  const part = gradient ? array.gradient : array.value;
  const width = array.shape.at(-1);
  const start = placeOf({ shape: array.shape }, [...index, 0]);
  let best = 0;
  for (let i = 1; i < width; i++) {
    if (Math.abs(part?.codes[start + i] ?? 0) > Math.abs(part?.codes[start + best] ?? 0)) best = i;
  }
  return [...index, best];
}

// How the gradient came to each vector: through which layer, by its keys or by its values.
function waysMap(snapshot, step) {
  const { ways } = snapshot;
  if (!ways) return null;
  const { layers } = step.base;
  const most = largestOf(ways) || 1;
  const codes = new Int8Array(ways.length);
  for (let way = 0; way < 2 * layers; way++) {
    const at = (way % 2) * layers + (way >> 1); // keys and values of a layer stand together
    for (let row = 0; row < step.vectors; row++) {
      codes[row * 2 * layers + way] = Math.round(
        127 * Math.sqrt(ways[at * step.vectors + row] / most),
      );
    }
  }
  const rows = [Array.from({ length: step.vectors }, (_, row) => row)];
  const array = { name: "ways", axes: ["vector", "way"], shape: [step.vectors, 2 * layers], rows };
  const title = "how the gradient came: the norm through each layer's keys and values";
  return new HeatMap({ array, part: { codes, scale: most }, quantity: "gradient", step, title });
}

// The mean sizes of an array's rows as bars, where the array itself is not in the page.
function sizesTable(array, sizes, step, quantity) {
  const most = sizes.reduce((a, b) => Math.max(a, b), 0) || 1;
  const names = rowsOfArray(array, step).map(([text, row]) => rowName(step, row, text ?? 0));
  return element(
    "table",
    {},
    ...Array.from(sizes, (size, i) => {
      const bar = element("span", { class: "stroke" });
      Object.assign(bar.style, {
        width: `${(120 * size) / most}px`,
        background: `var(--${quantity})`,
      });
      return element(
        "tr",
        {},
        element("td", {}, names[i] ?? `row ${i}`),
        element("td", {}, showNumber(size)),
        element("td", {}, bar),
      );
    }),
  );
}

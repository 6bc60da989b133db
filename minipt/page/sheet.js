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
    fill(this.element, element("div", { class: "top" }, element("h2", {}, ...title), close), ...content);
    if (!this.isOpen) this.before = document.activeElement;
    this.element.hidden = false;
    this.element.scrollTop = 0;
    this.element.focus({ preventScroll: true });
  }

  close() {
    this.element.hidden = true;
    this.element.replaceChildren();
    this.array = null;
    this.before?.focus?.({ preventScroll: true });
    this.onClose();
  }

  openArray(snapshot, array, { text = 0, head = 0 } = {}) {
    Object.assign(this, { snapshot, array, text, head });
    const title = [`${array.about.title}`, element("code", {}, array.name)];
    this.maps = element("div", { class: "columns" });
    this.number = element("div", {});
    this.show(title, this.aboutArray(), this.choices(), this.number, this.maps);
    this.drawMaps();
  }

  aboutArray() {
    const { array, snapshot } = this;
    const { about } = array;
    const made = array.made_from.map((index) => snapshot.arrays[index]);
    const into = array.goes_into.map((index) => snapshot.arrays[index]);
    return element("div", {},
      element("p", { class: "why" }, about.sentence),
      element("p", { class: "formula" }, about.formula),
      about.backward ? element("p", { class: "formula" }, `backward: ${about.backward}`) : null,
      element("p", { class: "quiet" }, `${shapeLine(array)}${about.function ? ` · ${about.function}` : ""}`),
      element("div", { class: "links" },
        this.links("made from", made), this.links("goes into", into),
        array.parameters?.length ? element("div", {}, element("span", { class: "quiet" }, `frozen: ${array.parameters.join(", ")}`)) : null),
    );
  }

  links(title, arrays) {
    const buttons = arrays.map((array) =>
      element("button", { type: "button", class: "chip activation", onclick: () => this.openArray(this.snapshot, array, this) }, array.name));
    const none = buttons.length ? [] : [element("span", { class: "quiet" }, "none")];
    return element("div", {}, element("span", { class: "quiet" }, title), ...buttons, ...none);
  }

  // Buttons for the texts, and for attention a picture of each head.
  choices() {
    const { array, step } = this;
    const texts = array.axes.includes("text") ? array.shape[array.axes.indexOf("text")] : 1;
    const parts = [];
    if (texts > 1 && array.rows) {
      parts.push(element("div", { class: "heads" }, ...step.text_names.map((name, text) =>
        this.choice(`text: ${showToken(name)}`, text === this.text, { text }))));
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
    const onclick = () => this.openArray(this.snapshot, this.array, { text: this.text, head: this.head, ...change });
    return element("button", { type: "button", "aria-pressed": String(pressed), onclick }, ...content, name);
  }

  // Attention's scores and weights are shown head by head; other arrays with the heads side by side.
  byHead() {
    return this.array.axes.includes("column") && this.array.axes.some((axis) => HEAD_AXES.includes(axis));
  }

  drawMaps() {
    const { array } = this;
    const parts = [
      ["value", array.value, "activation", false],
      ["gradient: d loss / d value", array.gradient, "gradient", true],
    ];
    const change = array.name === "prompt.vectors" ? this.step.change?.all : null;
    if (change) parts.push([`change by ${this.step.steps.length} step${this.step.steps.length > 1 ? "s" : ""}`, change, "change", null]);
    this.heatmaps = parts.map(([title, part, quantity, gradient]) =>
      part ? this.heatMap(title, part, quantity, gradient) : this.without(title, gradient));
    this.maps.replaceChildren(...this.heatmaps.map((each) => each.element ?? each));
    this.fit();
  }

  fit() {
    const columns = this.heatmaps.filter((each) => each.fit);
    const height = Math.max(180, this.element.clientHeight * 0.6);
    for (const each of columns) each.fit(each.element.clientWidth - 14, height);
  }

  heatMap(title, part, quantity, gradient) {
    const { array, step, text } = this;
    const head = this.byHead() ? this.head : null;
    const find = (row, column) => gradient !== null && this.findOpening(gradient, map.table.index(row, column));
    const map = new HeatMap({
      array, part, quantity, step, text, head, title,
      opens: (row, column) => Boolean(find(row, column)),
      open: (row, column) => this.openNumber(find(row, column), map, row, column),
    });
    return map;
  }

  without(title, gradient) {
    const { array } = this;
    const sizes = gradient ? array.gradient_sizes : array.sizes;
    if (!sizes) {
      return element("div", {}, element("h3", {}, title),
        element("p", { class: "quiet" }, "No gradient was computed: no row of it needed one, or only some did, or it is a helper that the op's backward differentiates through."));
    }
    return element("div", {}, element("h3", {}, `${title}: summed up`),
      element("p", { class: "quiet" }, "The whole array is too large for this page. This is the mean size of each row."),
      sizesTable(array, sizes, this.step, gradient ? "gradient" : "activation"));
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
    this.openings = new Map(own.map((opening) => [`${opening.gradient}/${opening.index.join(",")}`, opening]));
  }

  openNumber(opening, map, row, column) {
    const index = map.table.index(row, column);
    const place = [map.table.rows[row], map.table.columns[column].label].filter(Boolean).join(" · ");
    const content = opening
      ? numberCard(opening, index, place, this.snapshot, this.step)
      : element("div", { class: "number" }, element("h3", {}, map.read(row, column)),
        element("p", { class: "quiet" }, `Rounded to 8 bits. The sum behind it is stored for the ${map.opens ? "framed cells, and for rows with a bar" : "marked cells"} only.`));
    this.number.replaceChildren(content);
    if (opening) this.number.scrollIntoView({ block: "nearest" });
  }
}

// The mean sizes of an array's rows as bars, where the array itself is not in the page.
function sizesTable(array, sizes, step, quantity) {
  const most = sizes.reduce((a, b) => Math.max(a, b), 0) || 1;
  const names = rowsOfArray(array, step).map(([text, row]) => rowName(step, row, text ?? 0));
  return element("table", {}, ...Array.from(sizes, (size, i) => {
    const bar = element("span", { class: "stroke" });
    Object.assign(bar.style, { width: `${(120 * size) / most}px`, background: `var(--${quantity})` });
    return element("tr", {}, element("td", {}, names[i] ?? `row ${i}`), element("td", {}, showNumber(size)), element("td", {}, bar));
  }));
}

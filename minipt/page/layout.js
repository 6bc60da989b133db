// Places the stage: columns are rows of the model (vectors, tokens), strips are arrays, layers go up.
// In: the step, a snapshot, width and height in pixels, how far each layer is unfolded (0 to 1).
// Out: columns with x, strips with y, and for each array the strip and the columns of its rows.
"use strict";

const HELPER = /\.(xhat|rstd|y_over_x)$|^(text\.)?length$/; // shown in the strip of the op they help

// Every column once: in the shared wiring the prompt's rows stand once, in the other before each text.
function placeColumns(step) {
  const columns = [];
  const vector = (text) =>
    step.vector_names.map((_, row) => ({ text, row, vector: true, label: String(row) }));
  const token = (tokens, text) =>
    tokens.map((label, t) => ({
      text,
      row: step.vectors + t,
      vector: false,
      label: showToken(label),
    }));
  const shared = step.wiring === "shared";
  if (shared) columns.push(...vector(null));
  step.tokens.forEach((tokens, text) => {
    const real = tokens.findLastIndex((each) => each !== "") + 1; // behind it lies padding
    if (!shared) columns.push(...vector(text));
    columns.push(...token(tokens.slice(0, real), text));
  });
  return columns;
}

// Gives each column its x. A block is what stands together; between blocks lies a gap.
function spreadColumns(columns, left, width, gap) {
  const blocks = columns.filter((column, i) => i && startsBlock(columns, i)).length;
  const room = width - left - 10 - blocks * gap;
  const wide = clamp(Math.floor(room / columns.length), 3, 40);
  let x = left + Math.max(0, (room - wide * columns.length) / 2);
  columns.forEach((column, i) => {
    if (i && startsBlock(columns, i)) x += gap;
    column.x = Math.round(x);
    x += wide;
  });
  return wide;
}

function startsBlock(columns, i) {
  const [before, here] = [columns[i - 1], columns[i]];
  return before.text !== here.text || before.vector !== here.vector;
}

// The strips of the stage from bottom to top. A strip holds the arrays of all streams with its ending.
function makeStrips(snapshot) {
  const strips = [];
  const byKey = new Map();
  for (const array of snapshot.arrays) {
    const ending = stripEnding(array);
    const key = `${array.layer ?? placeOutside(array)}/${ending}`;
    if (!byKey.has(key)) {
      const strip = { ending, layer: array.layer, zone: zoneOf(array), arrays: [], title: "" };
      byKey.set(key, strip);
      strips.push(strip);
    }
    array.strip = byKey.get(key);
    if (array.strip.title === "" || !HELPER.test(array.name)) array.strip.title = shortTitle(array);
    if (!HELPER.test(array.name)) array.strip.arrays.push(array);
  }
  return orderStrips(strips.filter((strip) => strip.arrays.length > 0));
}

function stripEnding(array) {
  if (array.name === "prompt.vectors" || array.ending === "embedding") return "input";
  if (array.ending.endsWith("y_over_x")) return array.ending.replace("y_over_x", "active");
  return array.ending.replace(/\.(xhat|rstd)$/, "");
}

function placeOutside(array) {
  return zoneOf(array);
}

function zoneOf(array) {
  if (array.layer !== null) return "layer";
  return /^(vectors|embedding)/.test(array.ending) ? "bottom" : "top";
}

// Streams come one after the other in the trace; here each layer's strips stand together.
function orderStrips(strips) {
  const place = { bottom: -1, top: 1e6 };
  const rank = (strip) => (strip.zone === "layer" ? strip.layer : place[strip.zone]);
  return strips
    .map((strip, i) => [strip, i])
    .sort(([a, i], [b, j]) => rank(a) - rank(b) || i - j)
    .map(([s]) => s);
}

const SHORT = {
  ln1: "norm",
  "attn.key": "key",
  "attn.value": "value",
  "attn.query": "query",
  "attn.scores": "scores",
  "attn.weights": "weights",
  "attn.context": "context",
  "attn.out": "attention out",
  middle: "+ attention",
  ln2: "norm",
  "mlp.up": "up",
  "mlp.gate": "gate",
  "mlp.active": "active",
  "mlp.product": "product",
  "mlp.down": "down",
  out: "+ MLP",
  final: "norm",
  vectors: "vectors",
  embedding: "embedding",
  "embedding.norm": "norm",
};

function shortTitle(array) {
  return SHORT[array.ending] ?? array.ending.split(".").at(-1).replaceAll("_", " ");
}

// Heights: the unfolded layer gets strips that can be read, the others share what is left.
function spreadStrips(strips, layers, area, unfolded) {
  const inLayer = Math.max(...countByLayer(strips, layers));
  const room = area.bottom - area.top - layers * area.gap;
  const even = room / layers;
  const large = Math.max(even, Math.min(inLayer * 17, room * (layers > 12 ? 0.5 : 0.6)));
  const small = layers > 1 ? (room - large) / (layers - 1) : large;
  let y = area.bottom;
  const boxes = [];
  for (let layer = 0; layer < layers; layer++) {
    const height = small + (large - small) * unfolded[layer];
    const own = strips.filter((strip) => strip.zone === "layer" && strip.layer === layer);
    own.forEach((strip, i) => {
      strip.y = y - (height * (i + 1)) / own.length;
      strip.height = height / own.length;
    });
    boxes.push({ layer, y: y - height, height, strips: own });
    y -= height + area.gap;
  }
  return boxes;
}

function countByLayer(strips, layers) {
  return Array.from(
    { length: layers },
    (_, layer) => strips.filter((strip) => strip.layer === layer).length,
  );
}

// The strips outside the layers: the input below them, the answer above.
function spreadOutside(strips, zone, start, height) {
  const own = strips.filter((strip) => strip.zone === zone);
  own.forEach((strip, i) => {
    strip.height = height;
    strip.y = start - height * (i + 1);
  });
  return own;
}

// Which columns show the rows of an array: for each entry of its sizes the indices of columns.
function columnsOfArray(array, step, columns) {
  const find = new Map();
  columns.forEach((column, i) => {
    for (const text of column.text === null ? step.tokens.keys() : [column.text]) {
      find.set(`${text}/${column.row}`, i);
    }
  });
  const places = [];
  for (const [text, row] of rowsOfArray(array, step)) {
    if (text !== null) places.push([find.get(`${text}/${row}`)]);
    else
      places.push([...new Set([...step.tokens.keys()].map((each) => find.get(`${each}/${row}`)))]);
  }
  return places.map((place) => place.filter((column) => column !== undefined));
}

// Text and global row of each entry of `sizes`; text null: the row belongs to all texts.
function rowsOfArray(array, step) {
  if (array.axes.includes("answer")) return placesOfAnswers(array.shape[0], step.answer_rows);
  if (array.rows === null) return [];
  const all = array.stream === "prompt";
  return array.rows.flatMap((rows, text) => rows.map((row) => [all ? null : text, row]));
}

// Each answer stands at the row that it is read from. Where a text has one answer from several
// rows, it stands at the last of them.
function placesOfAnswers(count, answerRows) {
  const all = answerRows.flatMap((rows, text) => rows.map((row) => [text, row]));
  if (all.length === count) return all;
  return answerRows.slice(0, count).map((rows, text) => [text, rows.at(-1)]);
}

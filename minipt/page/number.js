// A number, opened: the arithmetic that made it, with the numbers in it.
// In: an opening of the snapshot, the index of the cell. Out: an element.
// All arithmetic here is of float32 numbers that the step itself used.
"use strict";

const MOST_TERMS = 12;

function numberCard(opening, index, place, snapshot, step) {
  const array = snapshot.arrays[opening.array];
  const { formula, filled, total, table, note } = ARITHMETIC[opening.kind](
    opening,
    index,
    array,
    snapshot,
    step,
  );
  return element(
    "div",
    { class: "number", "data-kind": opening.kind },
    element("h3", {}, `${opening.gradient ? "gradient of " : ""}${array.name}: ${place}`),
    element("p", { class: "formula" }, formula),
    element(
      "p",
      { class: "formula filled" },
      `${filled} = `,
      element("strong", { class: "total" }, showNumber(total)),
    ),
    note ? element("p", { class: "quiet" }, note) : null,
    table,
  );
}

const ARITHMETIC = {
  softmax: openSoftmax,
  softmax_dx: openSoftmaxGradient,
  norm: openNorm,
  linear: openLinear,
  loss: openLoss,
  ways: openWays,
};

const plus = (numbers) => numbers.reduce((sum, number) => sum + number, 0);

// weight_s = e^(score_s - max) / Σ e^(score - max)
function openSoftmax({ numbers }, index, array, snapshot, step) {
  const most = numbers.reduce((a, b) => Math.max(a, b));
  const exponentials = Array.from(numbers, (score) => Math.exp(score - most));
  const sum = plus(exponentials);
  const here = index.at(-1);
  const names = columnNames(array, step, index);
  return {
    formula: "weight = e^(score − max) / Σ e^(score − max)",
    filled: `e^(${showNumber(numbers[here])} − ${showNumber(most)}) / ${showNumber(sum)}`,
    total: exponentials[here] / sum,
    table: termsTable(
      ["read row", "score", "e^(score − max)", "weight"],
      exponentials,
      here,
      (s) => [
        names[s],
        showNumber(numbers[s]),
        showNumber(exponentials[s]),
        showNumber(exponentials[s] / sum),
      ],
      (rest) => ["", showNumber(rest), showNumber(rest / sum)],
      ["sum", "", showNumber(sum), "1"],
    ),
  };
}

// dscore_s = w_s (dw_s - Σ_j dw_j w_j)
function openSoftmaxGradient({ numbers }, index, array, snapshot, step) {
  const width = numbers.length / 2;
  const [weights, dweights] = [numbers.subarray(0, width), numbers.subarray(width)];
  const products = Array.from(weights, (weight, s) => weight * dweights[s]);
  const sum = plus(products);
  const here = index.at(-1);
  const names = columnNames(array, step, index);
  return {
    formula: "dscore = w (dw − Σ dw w)",
    filled: `${showNumber(weights[here])} · (${showNumber(dweights[here])} − ${bracketed(sum)})`,
    total: weights[here] * (dweights[here] - sum),
    table: termsTable(
      ["read row", "w", "dw", "dw · w"],
      products,
      here,
      (s) => [names[s], showNumber(weights[s]), showNumber(dweights[s]), showNumber(products[s])],
      (rest) => ["", "", showNumber(rest)],
      ["Σ dw w", "", "", showNumber(sum)],
    ),
  };
}

// y = gain (x - mean) rstd + bias
function openNorm({ numbers, rms }, index) {
  const channels = (numbers.length - 2) / 3;
  const here = index.at(-1);
  const [x, gain, bias] = [0, 1, 2].map((part) => numbers[part * channels + here]);
  const [mean, rstd] = numbers.subarray(3 * channels);
  const row = numbers.subarray(0, channels);
  const variance = plus(Array.from(row, (each) => (each - mean) ** 2)) / channels;
  return {
    formula: rms ? "y = gain · x · rstd" : "y = gain · (x − mean) · rstd + bias",
    filled: rms
      ? `${showNumber(gain)} · ${bracketed(x)} · ${showNumber(rstd)}`
      : `${showNumber(gain)} · (${showNumber(x)} − ${bracketed(mean)}) · ${showNumber(rstd)} + ${bracketed(bias)}`,
    total: gain * (x - mean) * rstd + bias,
    note: rms
      ? `rstd = 1 / √(mean of x² + ε); the mean of x² over the row's ${channels} channels is ${showNumber(variance)}.`
      : `The mean and the variance are of the row's ${channels} channels. The variance is ${showNumber(variance)}, and rstd = 1 / √(variance + ε).`,
    table: null,
  };
}

// y = factor (Σ x_i w_ij + rest + bias)
function openLinear(opening, index, array, snapshot) {
  const { numbers, terms } = opening;
  const count = terms.length;
  const [x, weight] = [numbers.subarray(0, count), numbers.subarray(count, 2 * count)];
  const [rest, bias, factor] = numbers.subarray(2 * count);
  const products = Array.from(x, (each, i) => each * weight[i]);
  const sum = plus(products) + rest + bias;
  const outside = factor === 1 ? "" : `${showNumber(factor)} · `;
  const rows = products.map((product, i) => [
    `channel ${terms[i]}`,
    showNumber(x[i]),
    showNumber(weight[i]),
    showNumber(product),
  ]);
  return {
    formula: `y = ${factor === 1 ? "" : "factor · "}(Σ x · w + bias)`,
    filled: `${outside}(${showNumber(sum - bias)} + ${bracketed(bias)})`,
    total: factor * sum,
    note: `x is a row of ${snapshot.arrays[opening.from].name}, w a column of ${opening.weight}, which is frozen. The largest ${count} terms are shown.`,
    table: plainTable(
      ["term", "x", "w", "x · w"],
      rows,
      ["all other terms", "", "", showNumber(rest)],
      ["bias", "", "", showNumber(bias)],
      ["sum", "", "", showNumber(sum)],
    ),
  };
}

// loss = log Σ e^logit - logit_target
function openLoss({ numbers, names, target }) {
  const most = numbers.reduce((a, b) => Math.max(a, b));
  const exponentials = Array.from(numbers, (logit) => Math.exp(logit - most));
  const whole = most + Math.log(plus(exponentials));
  const probability = (label) => showNumber(exponentials[label] / plus(exponentials));
  const rows = names.map((name, label) => [
    (label === target ? "✓ " : "") + name,
    showNumber(numbers[label]),
    probability(label),
  ]);
  return {
    formula: "loss = log Σ e^logit − logit of the right answer",
    filled: `${showNumber(whole)} − ${bracketed(numbers[target])}`,
    total: whole - numbers[target],
    note: `It is −log ${probability(target)}, the probability of the right answer.`,
    table: plainTable(["answer", "logit", "probability"], rows),
  };
}

// The prompt's way back is linear. So the gradient is the sum of what came through each layer.
// The numbers are of one coordinate (2, L), or of all channels of a vector (2, L, C).
function openWays(opening, index, array, snapshot, step) {
  const { layers } = step.base;
  const channels = opening.numbers.length / (2 * layers);
  const channel = channels === 1 ? 0 : index.at(-1);
  const numbers = opening.numbers.filter((_, i) => i % channels === channel);
  const [keys, values] = [numbers.subarray(0, layers), numbers.subarray(layers)];
  const rows = Array.from(keys, (key, layer) => [
    `layer ${layer}`,
    showNumber(key),
    showNumber(values[layer]),
    showNumber(key + values[layer]),
  ]);
  return {
    formula:
      "gradient = Σ over the layers (what came through the keys + what came through the values)",
    filled: `${showNumber(plus(keys))} + ${bracketed(plus(values))}`,
    total: plus(numbers),
    note: "The way back through the prompt is linear. So the parts that enter at each layer add up.",
    table: plainTable(["entered at", "through keys", "through values", "both"], rows, [
      "sum",
      showNumber(plus(keys)),
      showNumber(plus(values)),
      showNumber(plus(numbers)),
    ]),
  };
}

function bracketed(value) {
  return value < 0 ? `(${showNumber(value)})` : showNumber(value);
}

function columnNames(array, step, index) {
  return Array.from({ length: array.shape.at(-1) }, (_, s) =>
    nameOf(array, step, array.axes.length - 1, s, index[0]),
  );
}

// The largest terms and the chosen one, the others as one line, then the sum.
function termsTable(head, terms, chosen, lineOf, restOf, sum) {
  const order = terms.map((_, i) => i).sort((a, b) => Math.abs(terms[b]) - Math.abs(terms[a]));
  const shown = order.slice(0, MOST_TERMS);
  if (!shown.includes(chosen)) shown.push(chosen);
  const hidden = order.filter((i) => !shown.includes(i));
  const rows = shown.map((i) =>
    i === chosen ? ["▸ " + lineOf(i)[0], ...lineOf(i).slice(1)] : lineOf(i),
  );
  if (hidden.length)
    rows.push([`${hidden.length} others`, ...restOf(plus(hidden.map((i) => terms[i])))]);
  return plainTable(head, rows, sum);
}

function plainTable(head, rows, ...sums) {
  const line = (tag, cells) => element("tr", {}, ...cells.map((cell) => element(tag, {}, cell)));
  const last = sums.map((cells, i) => {
    const made = line("td", cells);
    if (i === sums.length - 1) made.className = "sum";
    return made;
  });
  return element("table", {}, line("th", head), ...rows.map((cells) => line("td", cells)), ...last);
}

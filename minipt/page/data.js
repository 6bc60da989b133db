// Reads the data of the page.
// In: the elements #step (JSON) and #numbers, both as base64 of zlib. Out: `step`, the JSON itself, in which
// every reference into the buffer is replaced by a typed array, with a few fields more (below).
// The module that writes the data says what each field means.
"use strict";

const NO_NUMBER = -128; // the code of a masked score, or of a number that is not finite

async function readStep() {
  const step = JSON.parse(new TextDecoder().decode(await inflate(byId("step").textContent)));
  const buffer = await inflate(byId("numbers").textContent);
  for (const snapshot of step.snapshots) {
    snapshot.arrays.forEach((array, index) => openArray(array, index, step, buffer));
    for (const opening of snapshot.openings) opening.numbers = floats(opening.numbers, buffer);
    snapshot.ways = floats(snapshot.ways, buffer);
    for (const crossing of snapshot.crossings) openCrossing(crossing, buffer);
    snapshot.byName = new Map(snapshot.arrays.map((array) => [array.name, array]));
    for (const tick of snapshot.ticks) {
      tick.act = actOf(tick, snapshot);
      tick.crosses = !tick.step && crossingOf(tick, snapshot.arrays[tick.array], step) !== null;
    }
  }
  for (const change of Object.values(step.change ?? {})) change.codes = bytes(change.codes, buffer);
  return step;
}

async function inflate(text) {
  const packed = Uint8Array.from(atob(text.trim()), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

function floats(reference, buffer) {
  return reference ? new Float32Array(buffer, reference[0], reference[1]) : null;
}

function bytes(reference, buffer) {
  return reference ? new Int8Array(buffer, reference[0], reference[1]) : null;
}

function openArray(array, index, step, buffer) {
  array.index = index;
  array.about = step.ops[array.op];
  array.sizes = floats(array.sizes, buffer);
  array.gradient_sizes = floats(array.gradient_sizes, buffer);
  array.change_sizes = floats(array.change_sizes, buffer);
  array.prompt_share = floats(array.prompt_share, buffer);
  for (const part of [array.value, array.gradient])
    if (part) part.codes = bytes(part.codes, buffer);
}

function openCrossing(crossing, buffer) {
  for (const part of [crossing.weights, crossing.gradient])
    if (part) part.codes = bytes(part.codes, buffer);
  crossing.key_sizes = floats(crossing.key_sizes, buffer);
  crossing.value_sizes = floats(crossing.value_sizes, buffer);
}

// The number that a code of a heat map stands for.
function decode(part, position) {
  const code = part.codes[position];
  if (code === NO_NUMBER) return null;
  return part.scale * Math.sign(code) * (code / 127) ** 2;
}

// The acts of a step, in the order of play. A tick belongs to one of them.
const ACTS = {
  prompt: {
    title: "prompt forward",
    story: "The prompt's vectors go up through the layers, alone.",
  },
  text: {
    title: "text forward",
    story: "The text goes up and reads the prompt's keys and values.",
  },
  answer: { title: "loss", story: "The last row becomes an answer, and the answer a loss." },
  unanswer: { title: "loss back", story: "The loss asks how the answer should change." },
  untext: {
    title: "text backward",
    story: "The gradient goes down through the text and back to the prompt's keys and values.",
  },
  unprompt: { title: "prompt backward", story: "The waiting gradients go down through the prompt, add up, and reach its vectors." },
  step: { title: "step", story: "The optimizer moves the vectors. Nothing else changes." },
};

function actOf(tick, snapshot) {
  if (tick.step) return "step";
  const array = snapshot.arrays[tick.array];
  if (array.stream === "prompt") return tick.backward ? "unprompt" : "prompt";
  const top = array.layer === null && !/embedding/.test(array.ending);
  return (tick.backward ? "un" : "") + (top ? "answer" : "text");
}

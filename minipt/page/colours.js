// Colours of the page: what they mean, and the scales between them.
// In: the variables of page.css, so that light, dark and print each have their own.
// Out: `palette`, with a scale from pale to full for each quantity, and one for signed numbers.
//
// Blue, orange and green stay apart in all common kinds of colour blindness, as do the two colours of
// a heat map: blue with brown, orange with teal, green with violet.
"use strict";

const STEPS = 64; // colours of a scale
const QUANTITIES = ["activation", "gradient", "change"];

let palette = null;

// Reads the colours anew: after a switch between dark and light, and for print.
function readPalette() {
  const style = getComputedStyle(document.documentElement);
  const read = (name) => parseColour(style.getPropertyValue(`--${name}`));
  palette = { plain: {}, scales: {}, signed: {} };
  for (const name of [
    "paper",
    "ink",
    "muted",
    "line",
    "empty",
    "mark",
    "activation",
    "gradient",
    "change",
  ]) {
    palette.plain[name] = css(read(name));
  }
  for (const quantity of QUANTITIES) {
    const [paper, positive, negative] = ["empty", quantity, `${quantity}-negative`].map(read);
    const zero = read("zero");
    palette.scales[quantity] = scale(paper, positive);
    palette.signed[quantity] = [...scale(negative, zero), ...scale(zero, positive)];
  }
  palette.words = { empty: asWords([palette.plain.empty])[0] };
  palette.signedWords = {};
  for (const quantity of QUANTITIES) {
    palette.words[quantity] = asWords(palette.scales[quantity]);
    palette.signedWords[quantity] = asWords(palette.signed[quantity]);
  }
}

function parseColour(text) {
  const hex = text.trim().slice(1);
  return [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16));
}

function css([red, green, blue]) {
  return `rgb(${red},${green},${blue})`;
}

function scale(from, to) {
  return Array.from({ length: STEPS }, (_, i) =>
    css(from.map((start, part) => Math.round(start + ((to[part] - start) * i) / (STEPS - 1)))),
  );
}

// Colours as numbers for ImageData (little endian: alpha, blue, green, red).
function asWords(colours) {
  return Uint32Array.from(colours, (colour) => {
    const [red, green, blue] = colour.match(/\d+/g).map(Number);
    return ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
  });
}

// The colour of a size. share: 0 to 1 between the smallest and the largest. What was computed is
// never as pale as what was not.
function scaleIndex(quantity, share) {
  const shown = quantity === "activation" ? clamp(share, 0, 1) : Math.sqrt(clamp(share, 0, 1));
  return Math.round((0.1 + 0.9 * shown) * (STEPS - 1));
}

// The colour of a heat map's code, -127 to 127, which holds a square root already.
function signedIndex(code) {
  return clamp(Math.floor((code / 127 + 1) * STEPS), 0, 2 * STEPS - 1);
}

function plainColour(name) {
  return palette.plain[name];
}

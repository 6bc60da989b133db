// Makes elements of the page, and writes numbers.
// In: a tag, attributes, children that are strings or elements. Out: elements.
// A string becomes a text node, so no text of the data is ever read as HTML.
"use strict";

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined)
      made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

// Puts children in place of what an element held; null stands for no child.
function fill(parent, ...children) {
  parent.replaceChildren(...children.filter((child) => child !== null && child !== undefined));
}

function byId(id) {
  return document.getElementById(id);
}

// A number as the page shows it everywhere: four figures, and powers of ten where they are shorter.
function showNumber(value) {
  if (value === null || value === undefined) return "–";
  if (value === -Infinity) return "−∞";
  if (!Number.isFinite(value)) return String(value);
  const size = Math.abs(value);
  if (size === 0) return "0";
  const text = size >= 1e-3 && size < 1e5 ? Number(size.toPrecision(4)).toString() : power(size);
  return (value < 0 ? "−" : "") + text;
}

function power(size) {
  const [digits, exponent] = size.toExponential(3).split("e");
  const raised = [...String(Number(exponent))].map(
    (sign) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(sign)],
  );
  return `${Number(digits)}·10${raised.join("")}`;
}

// A token as the page shows it: white space and other signs without a picture made visible.
function showToken(token) {
  const shown = token.replaceAll(" ", "·").replaceAll("\n", "⏎").replaceAll("\t", "⇥");
  return shown === "" ? "∅" : shown.replace(CONTROL, pictureOf);
}

const CONTROL = /[\u0000-\u001f\u007f]/g;

function pictureOf(control) {
  const code = control.charCodeAt(0);
  return String.fromCharCode(code === 0x7f ? 0x2421 : 0x2400 + code);
}

// "1 vector", "20 vectors".
function counted(count, word) {
  return `${count} ${word}${count === 1 ? "" : "s"}`;
}

function clamp(value, low, high) {
  return Math.min(high, Math.max(low, value));
}

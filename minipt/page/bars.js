// Bars on the stage: the answer's probabilities at the top, what arrived at the vectors at the bottom.
// In: the flows, which know the pen and the stage, and numbers. Out: pixels on #marks.
"use strict";

// Where the bars stand: left of the answer's column, and right of the story where there is room.
function placeOfBars(stage) {
  const right = Math.min(...stage.answerColumns().map((column) => column.x)) - 96;
  const length = clamp(right - stage.left - 500, 80, 220);
  return { right, length, left: right - length - 44 };
}

const LOWEST_BAR = 11; // pixels: a lower one has a name that nobody can read

// The right label and the likeliest others, in their own order; "before and after" shows all.
function labelsThatFit(probabilities, target, most) {
  const rank = (label) => (label === target ? Infinity : probabilities[label]);
  const labels = probabilities.map((_, label) => label).sort((a, b) => rank(b) - rank(a));
  return labels.slice(0, Math.max(2, most)).sort((a, b) => a - b);
}

// before: the probabilities before the step, as marks; null: the step was not yet made.
function drawBars(flows, probabilities, loss, before) {
  const { pen, stage } = flows;
  const { step } = stage;
  const { right, length, left } = placeOfBars(stage);
  const room = stage.answerBottom - 20;
  const labels = labelsThatFit(probabilities, step.target, Math.floor(room / LOWEST_BAR));
  const height = Math.min(16, room / labels.length);
  pen.font = `${clamp(height - 3, 7, 12)}px ${FONT}`;
  pen.textBaseline = "middle";
  labels.forEach((label, line) => {
    const probability = probabilities[label];
    const y = 6 + line * height;
    pen.textAlign = "right";
    pen.fillStyle = plainColour("ink");
    pen.fillText(
      shortened((label === step.target ? "✓ " : "") + step.labels[label], 16),
      left - 6,
      y + height / 2,
    );
    pen.fillStyle = plainColour("empty");
    pen.fillRect(left, y + 2, length, height - 4);
    pen.fillStyle = plainColour(before ? "change" : "activation");
    pen.fillRect(left, y + 2, length * probability, height - 4);
    pen.fillStyle = plainColour("ink");
    if (before) pen.fillRect(left + length * before[label] - 1, y, 2, height);
    pen.textAlign = "left";
    pen.fillStyle = plainColour("ink");
    pen.fillText(probability.toFixed(4), left + length + 6, y + height / 2);
  });
  pen.font = `600 12px ${FONT}`;
  pen.textAlign = "right";
  const y = 6 + labels.length * height + 8;
  pen.fillText(
    `${before ? "loss after the step" : "loss"} ${showNumber(loss)}`,
    right,
    Math.min(y, stage.answerBottom - 4),
  );
}

function drawVectorBars(flows, norms) {
  const { pen, stage } = flows;
  const bottom = stage.height - 18;
  const most = Math.max(...norms) || 1;
  const room = 44;
  norms.forEach((norm, row) => {
    const height = Math.max(1, (room * norm) / most);
    for (const column of stage.columns.filter((each) => each.vector && each.row === row)) {
      pen.fillStyle = plainColour(norm ? "gradient" : "line");
      pen.fillRect(column.x + 1, bottom - height, Math.max(1, stage.wide - 2), height);
    }
  });
}

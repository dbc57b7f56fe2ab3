// ---- Details of a cell, shown beside it by mouse, by touch and by keyboard

const tip = document.getElementById("tip");

function hush() {
  tip.hidden = true;
}

// A mouse that lies still says nothing of what scrolls past below it.
const mouse = { x: null, y: null };
addEventListener("mousemove", (event) => Object.assign(mouse, { x: event.screenX, y: event.screenY }), {
  capture: true,
  passive: true,
});
const isStill = (event) => event.screenX === mouse.x && event.screenY === mouse.y;

// When something scrolled: the details of the cell that has the focus follow it, as moving by keyboard scrolls.
function follow() {
  const cell = document.activeElement,
    box = cell?.getBoundingClientRect();
  if (!tip.hidden && cell?.getAttribute("aria-describedby") === "tip" && box.bottom > 0 && box.top < innerHeight)
    place(cell);
  else hush();
}

function tell(cell, numbers) {
  const index = Number(cell.parentNode.dataset.line),
    column = cell.dataset.column,
    line = numbers.lines[index];
  const ofLine = column === "*method" || column === "*rank";
  const { head = null, facts } = ofLine ? { facts: lineFacts(numbers, index) } : cellFacts(numbers, index, column);
  const title = ofLine
    ? line.method
    : `${line.method} on ${column === MEAN ? (numbers.protocol.lone ?? "the mean") : column}`;
  const known = facts.filter(([, value]) => value !== null && value !== undefined && value !== "");
  tip.replaceChildren(
    make("strong", {}, title),
    head && make("span", { class: "value" }, head),
    make("dl", {}, ...known.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, String(value))])),
  );
  for (const old of document.querySelectorAll("[aria-describedby=tip]")) old.removeAttribute("aria-describedby");
  cell.setAttribute("aria-describedby", "tip");
  tip.hidden = false;
  place(cell);
}

function place(cell) {
  const box = cell.getBoundingClientRect(),
    own = tip.getBoundingClientRect();
  const above = box.bottom + own.height + 8 > innerHeight;
  tip.style.top = `${above ? Math.max(4, box.top - own.height - 6) : box.bottom + 6}px`;
  tip.style.left = `${Math.max(6, Math.min(box.left, innerWidth - own.width - 6))}px`;
}

function lineFacts(numbers, index) {
  const line = numbers.lines[index];
  const facts = [
    ["rank", numbers.at(MEAN, "rank", index) ?? "none: " + numbers.whyUnranked(index)],
    ["trained on", line.training ?? (line.oracle ? "test data" : "not stated")],
    ["encoder", line.encoder && [line.encoder, line.weights && line.weights + " weights"].filter(Boolean).join(", ")],
    ["tap, view", [line.tap, line.view].filter(Boolean).join(", ")],
    ["head", line.head && [line.head, line.blocks && "blocks " + line.blocks].filter(Boolean).join(", ")],
    ["parameters", line.parameters && count(line.parameters)],
    ["source", line.source],
    ["note", line.note],
  ];
  return facts;
}

function cellFacts(numbers, index, column) {
  const line = numbers.lines[index],
    at = (field) => numbers.at(column, field, index);
  const value = at("value"),
    counted = numbers.counts(column, index);
  const facts = [];
  if (value !== null) {
    const low = at("ci_low"),
      std = at("std");
    const said = [numbers.cells[column].interval_note].filter(Boolean);
    if (low !== null) facts.push(["95 % interval", [`${fixed(low, 2)} to ${fixed(at("ci_high"), 2)}`, ...said].join(", ")]);
    else if (line.status === "measured") facts.push(["95 % interval", "none"]);
    if (std !== null) facts.push(["over seeds", `± ${fixed(std, 2)}, ${line.seeds} seeds`]);
    facts.push(...comparisonFacts(at));
    const beside = numbers.measuredBeside(column, index);
    if (beside)
      facts.push(
        ...besideFacts(beside, "measured", `${fixed(beside.value, 2)} %${interval(beside)}, ${beside.method}`),
      );
    for (const other of numbers.publishedBeside(column, index))
      facts.push(
        ...besideFacts(
          other,
          "published",
          `${fixed(other.published, 2)} %, ${other.line.method}, ${other.line.source}`,
        ),
      );
  }
  if (column === MEAN) facts.push(["coverage", numbers.at(MEAN, "coverage", index)]);
  if (counted) {
    facts.push(["images", counted.real === null ? null : `${count(counted.real)} real, ${count(counted.fake)} fake`]);
    facts.push(["quarantined", counted.quarantined === null ? null : count(counted.quarantined)]);
    facts.push(["leaked", counted.leaked === null ? null : count(counted.leaked)]);
  }
  if (line.status === "published") facts.push(["source", line.source]);
  return {
    head: value === null ? (line.status === "published" ? "not stated" : "not measured") : `${fixed(value, 2)} %`,
    facts,
  };
}

function comparisonFacts(at) {
  const difference = at("best_difference");
  if (difference === null) return at("tied_with_best") ? [["to the best", "none is better, of its training set"]] : [];
  const from = at("best_difference_low"),
    to = at("best_difference_high"),
    p = at("best_p_value");
  return [
    [
      "to the best",
      fixed(difference, 2) +
        (from === null ? "" : ` (${fixed(from, 2)} to ${fixed(to, 2)})`) +
        (at("tied_with_best") ? ", not told apart" : ", told apart"),
    ],
    ["p, corrected", p === null ? null : p < 0.001 ? "< .001" : p.toFixed(3).replace(/^0/, "")],
  ];
}

// The other side's account, and what was found of the two; the difference is ours less theirs, the interval ours.
function besideFacts({ difference, verdict, remark }, name, account) {
  return [
    [name, account],
    ["ours − published", `${signed(difference, 2)}, ${VERDICTS[verdict].words}`],
    ["the protocols differ", remark],
  ];
}

function interval({ low, high }) {
  return low === null ? "" : ` (${fixed(low, 2)} to ${fixed(high, 2)})`;
}

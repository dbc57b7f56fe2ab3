// ---- A benchmark's plots: what each of them shows of the lines of a protocol

const SHOWN_LINES = 8;
const GRIDS = JSON.parse(document.getElementById("grids").textContent);

// Curves are kept as whole numbers of thousandths.
const thousandths = (values) => values.map((value) => value / 1000);

class BoardPlots {
  constructor(numbers, chosen, testSet) {
    this.numbers = numbers;
    this.order = numbers.plotted();
    this.chosen = chosen;
    this.testSet = testSet;
    this.shown = new Set([chosen, ...this.order].filter((index) => index !== null).slice(0, SHOWN_LINES));
  }

  mark(index) {
    return {
      line: this.numbers.label(this.numbers.lines[index]),
      chosen: index === this.chosen,
      shown: this.shown.has(index),
    };
  }

  curvesOf(index, testSet = this.testSet) {
    const { methods = [], sets = {} } = this.numbers.protocol.curves,
      line = this.numbers.lines[index];
    const place = methods.findIndex(([method, training]) => method === line.method && training === line.training);
    return place < 0 ? null : (sets[testSet]?.[place] ?? null);
  }

  // Rows of every plot by its name.
  rows() {
    const chosen = this.chosen === null ? null : this.curvesOf(this.chosen);
    return {
      roc: this.order.flatMap((index) => rocRows(this.curvesOf(index), this.mark(index))),
      "roc-sets": this.rocBySet(),
      reliability: chosen ? reliabilityRows(chosen) : [],
      histogram: chosen ? histogramRows(chosen) : [],
      size: this.sizes(),
    };
  }

  // The chosen method on each test set, those with the smallest areas in colour.
  rocBySet() {
    if (this.chosen === null) return [];
    const sets = this.numbers.protocol.columns.filter((name) => name !== MEAN);
    const found = sets
      .map((name) => ({ name, curves: this.curvesOf(this.chosen, name) }))
      .filter((each) => each.curves);
    if (found.length < 2) return [];
    const mean = this.curvesOf(this.chosen, MEAN);
    found.sort((a, b) => areaBelow(a.curves.roc) - areaBelow(b.curves.roc));
    const coloured = mean ? SHOWN_LINES - 1 : SHOWN_LINES;
    return [
      ...rocRows(mean, { line: MEAN, chosen: true, shown: true }),
      ...found.flatMap(({ name, curves }, place) =>
        rocRows(curves, { line: name, chosen: false, shown: place < coloured }),
      ),
    ];
  }

  sizes() {
    const rows = this.order.flatMap((index) => {
      const line = this.numbers.lines[index],
        at = (field) => this.numbers.at(MEAN, field, index),
        y = at("value");
      return line.parameters && y !== null
        ? [{ ...this.mark(index), name: "", x: line.parameters, y, low: at("ci_low") ?? y, high: at("ci_high") ?? y }]
        : [];
    });
    return new Set(rows.map((row) => row.x)).size < 2 ? [] : named(rows); // sizes that are all alike explain nothing
  }

  // The same line's means along the protocols that differ in one thing.
  sweep(sweep) {
    const { numbers } = this;
    if (!sweep || !numbers.metric) return [];
    const key = (line) => JSON.stringify([line.method, line.training, line.oracle]);
    const steps = sweep.steps.map(({ label, protocol }) => {
      const { lines = [], cells = {} } = numbers.benchmark.protocols.find((each) => each.id === protocol) ?? {};
      const values = cells[numbers.metric.id]?.[MEAN]?.value ?? [];
      return {
        label,
        values: new Map(
          lines.flatMap((line, index) => (line.status === "measured" ? [[key(line), values[index] ?? null]] : [])),
        ),
      };
    });
    return this.order.flatMap((index) =>
      steps.flatMap(({ label, values }) => {
        const y = values.get(key(numbers.lines[index])) ?? null;
        return y === null ? [] : [{ ...this.mark(index), x: label, y }];
      }),
    );
  }

  // What a screen reader is told of each drawing.
  summaries(rows) {
    const names = (name) => [...new Set(rows[name].filter((row) => row.shown).map((row) => row.line))].join(", ");
    const chosen = this.chosen === null ? "" : this.numbers.label(this.numbers.lines[this.chosen]);
    const where = this.numbers.titleOf(this.testSet);
    return {
      roc: `True-positive against false-positive rate on ${where}, of ${names("roc")}; highlighted is ${chosen}.`,
      "roc-sets": `True-positive against false-positive rate of ${chosen} on ${names("roc-sets")}.`,
      reliability: `Share of fakes against mean score, of ${chosen} on ${where}.`,
      histogram: `How the scores of real and of fake images are spread from 0 to 1, of ${chosen} on ${where}.`,
      size: `${this.numbers.metric?.title} against trainable parameters, one dot a method; highlighted is ${chosen}.`,
      robustness: `${this.numbers.metric?.title} at each step, of ${names("robustness")}; highlighted is ${chosen}.`,
    };
  }
}

function rocRows(curves, mark) {
  if (!curves) return [];
  return thousandths(curves.roc).map((y, i) => ({ ...mark, x: GRIDS.roc[i], y, n: curves.n }));
}

function reliabilityRows(curves) {
  const [x, y, n] = curves.reliability;
  return x.map((_, i) => ({ x: x[i] / 1000, y: y[i] / 1000, n: n[i] }));
}

function histogramRows(curves) {
  return ["real", "fake"].flatMap((label) =>
    thousandths(curves[label]).map((y, i, all) => ({ x: i / all.length, y, x2: (i + 1) / all.length, label })),
  );
}

function areaBelow(roc) {
  return roc.reduce((sum, y, i) => (i ? sum + ((y + roc[i - 1]) / 2) * (GRIDS.roc[i] - GRIDS.roc[i - 1]) : 0), 0);
}

// Named are the chosen one, and those that no smaller head betters: many names would cover each other.
function named(rows) {
  let highest = -Infinity;
  for (const row of [...rows].sort((a, b) => a.x - b.x || b.y - a.y)) {
    if (row.y > highest || row.chosen) row.name = "right";
    highest = Math.max(highest, row.y);
  }
  const widths = rows.map((row) => Math.log(row.x)),
    middle = (Math.max(...widths) + Math.min(...widths)) / 2;
  for (const row of rows) if (row.name && Math.log(row.x) > middle) row.name = "left"; // names stay within
  const span = Math.max(...rows.map((row) => row.high)) - Math.min(...rows.map((row) => row.low)),
    kept = [];
  for (const row of rows.filter((each) => each.name).sort((a, b) => b.chosen - a.chosen || b.y - a.y)) {
    if (kept.some((other) => Math.abs(other.y - row.y) < span / 8))
      row.name = ""; // it would cover the other's
    else kept.push(row);
  }
  return rows;
}

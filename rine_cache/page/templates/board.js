// ---- A benchmark's panel: its controls, its table and plots

const PRINTED_COLUMNS = 12;

class Board {
  constructor(panel, data) {
    this.panel = panel;
    this.data = data;
    this.control = Object.fromEntries([...panel.querySelectorAll("[data-control]")].map((e) => [e.dataset.control, e]));
    this.kinds = [...panel.querySelectorAll("[data-kind]")];
    this.holder = panel.querySelector(".scroll");
    this.status = panel.querySelector(".status");
    this.control.protocol.addEventListener("change", () => this.openProtocol());
    this.control.metric.addEventListener("change", () => this.openMetric());
    for (const name of ["query", "training", "encoder", "both"])
      this.control[name].addEventListener("input", () => this.filter());
    for (const kind of this.kinds) kind.addEventListener("change", () => this.filter());
    this.control.intervals.addEventListener("change", () => this.render());
    for (const name of ["chosen", "set", "operation"]) this.control[name].addEventListener("change", () => this.draw());
    panel.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
    new Navigation(this);
  }

  get address() {
    return [this.data.id, this.protocol.id, this.numbers.metric?.id].filter(Boolean);
  }

  open(protocol, metric) {
    const found = this.data.protocols.findIndex((each) => each.id === protocol);
    // First that of which something was measured or stated.
    const first = Math.max(
      0,
      this.data.protocols.findIndex((each) => each.metrics.length),
    );
    this.control.protocol.value = found < 0 ? first : found;
    this.openProtocol(metric);
  }

  openProtocol(metric) {
    this.protocol = this.data.protocols[Number(this.control.protocol.value)];
    const { metrics, lines, columns, curves, lone } = this.protocol;
    options(
      this.control.metric,
      metrics.length ? metrics.map((each) => [each.id, each.title]) : [["", DASH]],
      metric ?? this.control.metric.value,
    );
    const distinct = (field) => [...new Set(lines.map((line) => line[field]).filter((value) => value !== null))].sort();
    options(
      this.control.training,
      [["", "any"], ...distinct("training").map((name) => ["=" + name, name])],
      this.control.training.value,
    );
    options(
      this.control.encoder,
      [["", "any"], ...distinct("encoder").map((name) => ["=" + name, name])],
      this.control.encoder.value,
    );
    const sets = columns.filter((name) => curves.sets?.[name]);
    options(
      this.control.set,
      sets.map((name) => [name, name === MEAN ? (lone ?? "mean of all") : name]),
      this.control.set.value,
    );
    this.control.set.closest(".field").hidden = sets.length < 2;
    for (const kind of this.kinds) {
      // A method has a second line where a metric makes an oracle of it.
      const size = new Set(
        lines
          .filter((line) => line.status === kind.dataset.kind)
          .map((line) => [line.method, line.training, line.source].join("\n")),
      ).size;
      this.panel.querySelector(`[data-count=${kind.dataset.kind}]`).textContent = size;
      kind.closest(".chip").hidden = size === 0;
    }
    this.openMetric();
  }

  openMetric() {
    const metric = this.protocol.metrics.find((each) => each.id === this.control.metric.value) ?? null;
    this.numbers = new Numbers(this.data, this.protocol, metric);
    this.sort = { column: MEAN, descending: !metric?.lower };
    const { from = 0, lower = false } = metric ?? {};
    this.panel.querySelector("[data-ramp=low]").textContent = lower ? "50" : `${from}${from ? " and less" : ""}`;
    this.panel.querySelector("[data-ramp=high]").textContent = lower ? "0, the best" : "100";
    this.both = new Set([...this.protocol.lines.keys()].filter((index) => this.numbers.hasBeside(index)));
    if (!this.both.size) this.control.both.checked = false;
    this.control.both.closest(".chip").hidden = !this.both.size;
    this.panel.querySelector("[data-count=both]").textContent = this.both.size;
    this.panel.querySelector("[data-key=beside]").hidden = !this.both.size;
    this.control.intervals.closest(".chip").hidden = !Object.values(this.numbers.cells).some((cell) => cell.ci_low);
    this.render();
    this.fillChosen();
    this.draw();
    remember(this);
  }

  render() {
    const { numbers, sort } = this;
    const table = new Table(numbers, {
      sort,
      intervals: this.control.intervals.checked,
      id: "caption-" + this.panel.dataset.benchmark,
    });
    this.holder.replaceChildren(table.element);
    this.arrange();
    this.filter();
  }

  // ---- Sorting and filtering

  sortBy(column) {
    const numeric = column !== "*method" && column !== "*rank";
    const first = numeric && !this.numbers.metric?.lower;
    this.sort = { column, descending: this.sort.column === column ? !this.sort.descending : first };
    for (const head of this.holder.querySelectorAll("thead th[data-column]")) {
      const own = head.dataset.column === column;
      if (own) head.setAttribute("aria-sort", this.sort.descending ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
      head.firstChild.tabIndex = own ? 0 : -1;
    }
    this.arrange();
  }

  key(index) {
    const {
      numbers,
      sort: { column },
    } = this;
    if (column === "*method") return numbers.lines[index].method.toLowerCase();
    if (column === "*rank") return numbers.at(MEAN, "rank", index);
    if (column === "*images") {
      const counted = numbers.counts(MEAN, index);
      return counted && counted.real + counted.fake;
    }
    if (column === "*coverage") {
      const [part, whole] = (numbers.at(MEAN, "coverage", index) ?? "").split("/");
      return whole ? part / whole : null;
    }
    return numbers.at(column, "value", index);
  }

  // What has no value is last, whichever way the others go.
  arrange(table = this.holder.firstChild) {
    const sign = this.sort.descending ? -1 : 1;
    const name = (index) => this.protocol.lines[index].method;
    for (const body of table.tBodies) {
      const rows = [...body.querySelectorAll("tr[data-line]")].map((row) => [
        this.key(Number(row.dataset.line)),
        Number(row.dataset.line),
        row,
      ]);
      rows.sort(([a, i], [b, j]) => {
        if (a === null || b === null) return (a === null) - (b === null) || name(i).localeCompare(name(j));
        return (a < b ? -sign : a > b ? sign : 0) || name(i).localeCompare(name(j));
      });
      body.append(...rows.map(([, , row]) => row));
    }
  }

  passes(index) {
    const line = this.protocol.lines[index],
      query = this.control.query.value.trim().toLowerCase();
    const { training, encoder, both } = this.control;
    return (
      (!query || line.method.toLowerCase().includes(query)) &&
      (!training.value || training.value === "=" + line.training) &&
      (!encoder.value || encoder.value === "=" + line.encoder) &&
      (!both.checked || this.both.has(index)) &&
      this.kinds.find((kind) => kind.dataset.kind === line.status).checked
    );
  }

  filter() {
    let shown = 0,
      all = 0;
    for (const body of this.holder.firstChild.tBodies) {
      let own = 0;
      for (const row of body.querySelectorAll("tr[data-line]")) {
        all += 1;
        row.hidden = !this.passes(Number(row.dataset.line));
        own += row.hidden ? 0 : 1;
      }
      body.classList.toggle("none", own === 0);
      shown += own;
    }
    this.status.textContent = [`${shown} of ${several(all, "line")} shown.`, ...this.remarks()].join(" ");
    // The first cell is the way into the table by keyboard.
    for (const old of this.holder.querySelectorAll("tbody [tabindex='0']")) old.tabIndex = -1;
    const first = this.holder.querySelector("tbody:not(.none) tr[data-line]:not([hidden]) > th");
    if (first) first.tabIndex = 0;
  }

  remarks() {
    const silent = this.numbers.silent(),
      { agrees, disagrees, other } = this.numbers.verdicts();
    const judged = agrees + disagrees;
    return [
      silent && `${several(silent, "more published line does", "more published lines do")} not state this metric.`,
      judged &&
        `Of ${several(judged, "published value")} beside ours, ${agrees} ${agrees === 1 ? "lies" : "lie"} within our interval and ${disagrees} ${disagrees === 1 ? "does" : "do"} not${other ? `; ${other} more ${other === 1 ? "is" : "are"} not judged` : ""}.`,
    ].filter(Boolean);
  }

  // ---- Plots

  fillChosen() {
    const { numbers } = this;
    options(
      this.control.chosen,
      numbers.plotted().map((index) => [String(index), numbers.label(numbers.lines[index])]),
      this.control.chosen.value,
    );
    options(
      this.control.operation,
      this.data.robustness.map((sweep, place) => [String(place), sweep.title]),
      this.control.operation.value,
    );
  }

  draw() {
    const { chosen, set, operation } = this.control;
    const plots = new BoardPlots(this.numbers, chosen.value === "" ? null : Number(chosen.value), set.value);
    const rows = plots.rows();
    const sweep = this.data.robustness[Number(operation.value || 0)];
    rows.robustness = plots.sweep(sweep);
    const summaries = plots.summaries(rows);
    const title = `${this.numbers.metric?.title ?? ""}, %`;
    const drawn = Object.entries(rows).map(([name, own]) => {
      const figure = this.panel.querySelector(`[data-plot=${name}]`);
      return plot(figure, name === "roc-sets" ? "roc" : name, own, {
        yTitle: ["size", "robustness"].includes(name) ? title : null,
        xTitle: name === "robustness" ? sweep?.title : null,
        summary: summaries[name],
      });
    });
    const left = this.panel.querySelector("[data-left-out]"),
      { left_out: leftOut = 0, methods = [] } = this.protocol.curves;
    left.hidden = leftOut === 0;
    left.textContent = `To keep this file small, curves of single test sets are here for the ${several(methods.length - leftOut, "method")} with the largest area below the ROC; ${several(leftOut, "other has", "others have")} those of the mean only.`;
    this.panel.querySelector(".plots").hidden = !drawn.some(Boolean);
  }

  // ---- Paper does not scroll: the columns that are seen are set in parts that fit its width

  print() {
    const { numbers, sort } = this;
    const parts = [];
    const rest = numbers.columns.filter((column) => column !== MEAN);
    for (let start = 0; start === 0 || start < rest.length; start += PRINTED_COLUMNS) {
      const { element } = new Table(numbers, {
        columns: [MEAN, ...rest.slice(start, start + PRINTED_COLUMNS)],
        withRest: false,
        intervals: this.control.intervals.checked,
        sort,
      });
      this.arrange(element);
      for (const row of element.querySelectorAll("tr[data-line]"))
        if (!this.passes(Number(row.dataset.line))) row.remove();
      for (const body of [...element.tBodies]) if (!body.querySelector("[data-line]")) body.remove();
      for (const button of element.querySelectorAll("thead button")) button.replaceWith(...button.childNodes);
      parts.push(element);
    }
    this.panel.querySelector(".print-boards").replaceChildren(...parts);
  }
}

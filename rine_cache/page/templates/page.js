"use strict";
// What the page does in a browser: tabs, tables, filters, plots. Text is only ever set as text, never as markup.
(() => {
  const ERRORS = 1; // what Vega may write to the console; of a layer without rows it would warn
  const MEAN = "mean", DASH = "–", MINUS = "−", SHOWN_LINES = 8, PRINTED_COLUMNS = 12;
  const STEPS = document.querySelectorAll(".steps")[0]?.children.length ?? 11;
  const CHARTS = JSON.parse(document.getElementById("charts").textContent);
  const tip = document.getElementById("tip");
  const tabs = [...document.querySelectorAll("[role=tab]")];

  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes))
      if (value === true) element.setAttribute(name, "");
      else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  };
  const fixed = (value, digits = 1) => (value < 0 ? MINUS : "") + Math.abs(value).toFixed(digits);
  const count = (value) => value.toLocaleString("en-US");
  const options = (select, entries, chosen) => {
    select.replaceChildren(...entries.map(([value, text]) => make("option", { value }, text)));
    select.value = entries.some(([value]) => value === String(chosen)) ? chosen : entries[0]?.[0] ?? "";
  };
  // A long name may break after these, and nowhere else.
  const breakable = (text) => text.split(/(?<=[_\-./+])/).flatMap((part, index) => (index ? [make("wbr"), part] : [part]));

  // ---- A benchmark's panel

  class Board {
    constructor(panel) {
      this.panel = panel;
      this.data = JSON.parse(panel.querySelector(".payload").textContent);
      this.control = Object.fromEntries([...panel.querySelectorAll("[data-control]")].map((e) => [e.dataset.control, e]));
      this.kinds = [...panel.querySelectorAll("[data-kind]")];
      this.holder = panel.querySelector(".scroll");
      this.status = panel.querySelector(".status");
      this.sort = { column: MEAN, descending: null };
      this.control.protocol.addEventListener("change", () => this.openProtocol());
      this.control.metric.addEventListener("change", () => this.openMetric());
      for (const name of ["query", "training", "encoder"]) this.control[name].addEventListener("input", () => this.filter());
      for (const kind of this.kinds) kind.addEventListener("change", () => this.filter());
      this.control.intervals.addEventListener("change", () => this.render());
      for (const name of ["chosen", "operation"]) this.control[name].addEventListener("change", () => this.draw());
      panel.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
      this.watchCells();
    }

    open(protocol, metric) {
      const found = this.data.protocols.findIndex((each) => each.id === protocol);
      // First that of which something was measured or stated.
      const first = Math.max(0, this.data.protocols.findIndex((each) => each.metrics.length));
      this.control.protocol.value = found < 0 ? first : found;
      this.openProtocol(metric);
    }

    openProtocol(metric) {
      this.protocol = this.data.protocols[Number(this.control.protocol.value)];
      const { metrics, lines } = this.protocol;
      options(this.control.metric, metrics.length ? metrics.map((each) => [each.id, each.title]) : [["", DASH]], metric ?? this.control.metric.value);
      const distinct = (field) => [...new Set(lines.map((line) => line[field]).filter((value) => value !== null))].sort();
      options(this.control.training, [["", "any"], ...distinct("training").map((name) => ["=" + name, name])], this.control.training.value);
      options(this.control.encoder, [["", "any"], ...distinct("encoder").map((name) => ["=" + name, name])], this.control.encoder.value);
      for (const kind of this.kinds) {
        // A method has a second line where a metric makes an oracle of it.
        const size = new Set(lines.filter((line) => line.status === kind.dataset.kind).map((line) => [line.method, line.training, line.source].join("\n"))).size;
        this.panel.querySelector(`[data-count=${kind.dataset.kind}]`).textContent = size;
        kind.closest(".chip").hidden = size === 0;
      }
      this.openMetric();
    }

    openMetric() {
      this.metric = this.protocol.metrics.find((each) => each.id === this.control.metric.value) ?? null;
      this.cells = this.metric ? this.protocol.cells[this.metric.id] : {};
      this.sort = { column: MEAN, descending: !this.metric?.lower };
      this.columns = this.protocol.columns.filter((name) => name === MEAN || this.cells[name]);
      const { from = 0, lower = false } = this.metric ?? {};
      this.panel.querySelector("[data-ramp=low]").textContent = lower ? "50" : `${from}${from ? " and less" : ""}`;
      this.panel.querySelector("[data-ramp=high]").textContent = lower ? "0, the best" : "100";
      this.panel.querySelector("[data-key=tied]").hidden = !Object.values(this.cells).some((cell) => cell.tied_with_best);
      const hasIntervals = Object.values(this.cells).some((cell) => cell.ci_low);
      this.control.intervals.closest(".chip").hidden = !hasIntervals;
      this.render();
      this.fillChosen();
      this.draw();
      remember([this.data.id, this.protocol.id, this.metric?.id].filter(Boolean));
    }

    at(column, field, index) { return this.cells[column]?.[field]?.[index] ?? null; }

    counts(column, index) {
      const coded = this.protocol.counts[column];
      const place = coded?.of[index] ?? null;
      if (place === null) return null;
      const [real, fake, quarantined, leaked] = coded.distinct[place];
      return { real, fake, quarantined, leaked };
    }

    hasValue(index) { return this.columns.some((column) => this.at(column, "value", index) !== null); }

    // Lines by the part of the table in which they stand. Published ones that do not state the metric are nowhere.
    groups() {
      const groups = { ranked: [], baseline: [], oracle: [], unmeasured: [] };
      this.protocol.lines.forEach((line, index) => {
        const has = this.hasValue(index);
        if (line.status === "unmeasured") { if (!line.oracle) groups.unmeasured.push(index); }
        else if (line.baseline) { if (has) groups.baseline.push(index); }
        else if (line.oracle) { if (has) groups.oracle.push(index); }
        else if (has || line.status === "measured") groups.ranked.push(index);
      });
      return groups;
    }

    step(value) {
      const { from, lower } = this.metric;
      const share = lower ? 1 - value / 50 : (value - from) / (100 - from);
      return Math.min(STEPS - 1, Math.max(0, Math.floor(share * STEPS)));
    }

    bests() {
      const sign = this.metric?.lower ? -1 : 1;
      return new Map(this.columns.map((column) => {
        const values = this.cells[column]?.value ?? [];
        let best = null;
        for (const index of this.grouped.ranked) {
          const value = values[index] ?? null;
          if (value !== null && !this.protocol.lines[index].aggregator && (best === null || sign * value > sign * best)) best = value;
        }
        return [column, best];
      }));
    }

    heads(columns, withRest) {
      const title = (column) => (column === MEAN ? this.protocol.lone ?? "mean" : column);
      const head = (key, text, kind) => {
        const sorted = this.sort.column === key ? (this.sort.descending ? "descending" : "ascending") : null;
        return make("th", { scope: "col", "data-column": key, class: kind, "aria-sort": sorted }, make("button", { type: "button" }, ...breakable(text)));
      };
      return make("tr", {}, head("*method", "method", "text"), withRest && this.anyRank ? head("*rank", "rank") : null,
        ...columns.map((column) => head(column, title(column), column === MEAN ? "mean" : null)),
        ...(withRest ? [head("*coverage", "coverage"), this.anyCount ? head("*images", "real + fake") : null, make("th", { scope: "col", class: "text", "data-column": "" }, make("button", { type: "button", disabled: true }, "source and notes"))] : []).filter(Boolean));
    }

    caption(id) {
      const counted = this.protocol.lines.map((_, index) => this.counts(MEAN, index)).find(Boolean);
      const images = counted ? ` ${count(counted.real)} real and ${count(counted.fake)} fake images${counted.quarantined ? `, ${count(counted.quarantined)} more could not be read` : ""}.` : "";
      return make("caption", { id }, make("strong", {}, this.metric ? this.metric.title + ", %" : "Nothing is measured"), ` · ${this.protocol.id}: ${this.protocol.heading}.${images}`);
    }

    row(index, columns, withRest) {
      const line = this.protocol.lines[index];
      const row = make("tr", { "data-line": index });
      row.append(this.nameCell(line));
      if (withRest && this.anyRank) row.append(make("td", { class: "rank", tabindex: -1, "data-column": "*rank" }, this.at(MEAN, "rank", index) === null ? "" : String(this.at(MEAN, "rank", index))));
      for (const column of columns) row.append(this.cell(index, column));
      if (withRest) {
        const counted = this.counts(MEAN, index);
        const images = [];
        if (counted) {
          images.push(`${count(counted.real)} + ${count(counted.fake)}`);
          if (counted.quarantined) images.push(make("span", { class: "under" }, `${count(counted.quarantined)} quarantined`));
        }
        const leaked = this.columns.filter((column) => column !== MEAN && this.counts(column, index)?.leaked > 0);
        if (leaked.length) images.push(make("span", { class: "under" }, make("span", { class: "flag" }, `leak in ${leaked.length} test set${leaked.length > 1 ? "s" : ""}`)));
        row.append(make("td", { class: "small num-text" }, this.at(MEAN, "coverage", index) ?? ""), ...(this.anyCount ? [make("td", { class: "small" }, ...images)] : []),
          make("td", { class: "small source" }, [line.source, line.as_published, line.note].filter(Boolean).join(" · ")));
      }
      return row;
    }

    nameCell(line) {
      const flags = [line.aggregator && "aggregator", line.oracle && !line.baseline && "oracle", line.baseline && "no pixels"].filter(Boolean);
      const kind = { measured: "measured", published: "published", unmeasured: "not measured here" }[line.status];
      const under = [kind, line.training ?? (line.oracle ? null : "training set not stated"), line.encoder];
      return make("th", { scope: "row", tabindex: -1, "data-column": "*method" }, make("span", { class: "name" }, ...breakable(line.method)),
        ...flags.flatMap((flag) => [" ", make("span", { class: "flag plain" }, flag)]),
        make("span", { class: "under" }, under.filter(Boolean).join(" · ")));
    }

    cell(index, column) {
      const value = this.at(column, "value", index);
      const classes = ["num"];
      if (column === MEAN) classes.push("mean");
      if (value === null) {
        const absent = make("td", { class: [...classes, "absent"].join(" "), tabindex: -1, "data-column": column }, DASH);
        return absent;
      }
      classes.push("q" + this.step(value));
      const text = fixed(value);
      const best = value === this.best.get(column) && this.grouped.ranked.includes(index);
      if (best) classes.push("best");
      const cell = make("td", { class: classes.join(" "), tabindex: -1, "data-column": column });
      if (this.counts(column, index)?.leaked > 0) cell.append(make("span", { class: "flag" }, "L"));
      cell.append(best ? make("b", {}, text) : text);
      if (!best && this.at(column, "tied_with_best", index)) cell.append(make("span", { class: "tied" }, "≈"), make("span", { class: "away" }, " does not differ from the best"));
      const low = this.at(column, "ci_low", index), std = this.at(column, "std", index);
      if (this.control.intervals.checked && low !== null) cell.append(make("span", { class: "ci" }, `${fixed(low)}–${fixed(this.at(column, "ci_high", index))}`));
      else if (column === MEAN && std !== null) cell.append(make("span", { class: "sd" }, `± ${fixed(std)}`));
      return cell;
    }

    table(columns, withRest, id) {
      const table = make("table", { class: "board" }, this.caption(id), make("thead", {}, this.heads(columns, withRest)));
      const width = columns.length + 1 + (withRest ? 2 + this.anyRank + this.anyCount : 0);
      const titles = {
        baseline: ["Metadata only", "a classifier that sees format, size and compression, and no pixel: what it scores is not a detector's merit."],
        oracle: ["Oracle", "fitted on the test data; never ranked, and no method to choose by."],
        unmeasured: ["Not measured here", "the data are not on this machine, or the heads not trained."],
      };
      for (const [name, indices] of Object.entries(this.grouped)) {
        const body = make("tbody", { "data-group": name });
        if (titles[name]) body.append(make("tr", { class: "heading" }, make("th", { scope: "rowgroup", colspan: width }, make("span", {}, make("strong", {}, titles[name][0]), ": " + titles[name][1]))));
        for (const index of indices) body.append(this.row(index, columns, withRest));
        table.append(body);
      }
      return table;
    }

    render() {
      this.anyRank = (this.cells[MEAN]?.rank ?? []).some((rank) => rank !== null);
      this.anyCount = Boolean(this.protocol.counts[MEAN]);
      this.grouped = this.groups();
      this.best = this.bests();
      const id = "caption-" + this.panel.dataset.benchmark;
      const table = this.table(this.columns, true, id);
      table.querySelector("thead").addEventListener("click", (event) => {
        const head = event.target.closest("th[data-column]");
        if (head && head.dataset.column) this.sortBy(head.dataset.column);
      });
      this.holder.replaceChildren(table);
      this.arrange();
      this.filter();
    }

    sortBy(column) {
      const numeric = column !== "*method" && column !== "*rank";
      const first = numeric && !this.metric?.lower;
      this.sort = { column, descending: this.sort.column === column ? !this.sort.descending : first };
      for (const head of this.holder.querySelectorAll("thead th")) {
        if (head.dataset.column === column) head.setAttribute("aria-sort", this.sort.descending ? "descending" : "ascending");
        else head.removeAttribute("aria-sort");
      }
      this.arrange();
    }

    key(index) {
      const { column } = this.sort;
      if (column === "*method") return this.protocol.lines[index].method.toLowerCase();
      if (column === "*rank") return this.at(MEAN, "rank", index);
      if (column === "*images") { const counted = this.counts(MEAN, index); return counted && counted.real + counted.fake; }
      if (column === "*coverage") { const [part, whole] = (this.at(MEAN, "coverage", index) ?? "").split("/"); return whole ? part / whole : null; }
      return this.at(column, "value", index);
    }

    // What has no value is last, whichever way the others go.
    arrange(table = this.holder.firstChild) {
      const sign = this.sort.descending ? -1 : 1;
      const name = (index) => this.protocol.lines[index].method;
      for (const body of table.tBodies) {
        const rows = [...body.querySelectorAll("tr[data-line]")].map((row) => [this.key(Number(row.dataset.line)), Number(row.dataset.line), row]);
        rows.sort(([a, i], [b, j]) => {
          if (a === null || b === null) return (a === null) - (b === null) || name(i).localeCompare(name(j));
          return (a < b ? -sign : a > b ? sign : 0) || name(i).localeCompare(name(j));
        });
        body.append(...rows.map(([, , row]) => row));
      }
    }

    passes(line) {
      const query = this.control.query.value.trim().toLowerCase();
      const { training, encoder } = this.control;
      return (!query || line.method.toLowerCase().includes(query)) && (!training.value || training.value === "=" + line.training)
        && (!encoder.value || encoder.value === "=" + line.encoder)
        && this.kinds.find((kind) => kind.dataset.kind === line.status).checked;
    }

    filter() {
      let shown = 0, all = 0;
      for (const body of this.holder.firstChild.tBodies) {
        let own = 0;
        for (const row of body.querySelectorAll("tr[data-line]")) {
          all += 1;
          row.hidden = !this.passes(this.protocol.lines[Number(row.dataset.line)]);
          own += row.hidden ? 0 : 1;
        }
        body.classList.toggle("none", own === 0);
        shown += own;
      }
      const silent = this.protocol.lines.filter((line, index) => line.status === "published" && !this.hasValue(index)).length;
      const others = silent ? ` ${silent} more published line${silent > 1 ? "s do" : " does"} not state this metric.` : "";
      this.status.textContent = `${shown} of ${all} line${all === 1 ? "" : "s"} shown.${others}`;
      // The first cell is the way into the table by keyboard.
      for (const old of this.holder.querySelectorAll("[tabindex='0']")) old.tabIndex = -1;
      const first = this.holder.querySelector("tbody:not(.none) tr[data-line]:not([hidden]) > th");
      if (first) first.tabIndex = 0;
    }

    // ---- Details of a cell, by mouse, by touch and by keyboard

    watchCells() {
      const cellOf = (event) => event.target.closest?.("tbody [data-column]");
      this.holder.addEventListener("mouseover", (event) => { const cell = cellOf(event); if (cell) this.tell(cell); else hush(); });
      this.holder.addEventListener("mouseleave", hush);
      this.holder.addEventListener("focusin", (event) => { const cell = cellOf(event); if (cell) this.tell(cell); });
      this.holder.addEventListener("focusout", hush);
      this.holder.addEventListener("scroll", hush, { passive: true });
      this.holder.addEventListener("keydown", (event) => {
        const cell = cellOf(event);
        if (!cell) return;
        if (event.key === "Escape") return hush();
        const target = this.neighbour(cell, event.key);
        if (!target) return;
        event.preventDefault();
        cell.tabIndex = -1;
        target.tabIndex = 0;
        target.focus({ preventScroll: true });
        target.scrollIntoView({ block: "nearest", inline: "nearest" });
        this.uncover(target);
        this.tell(target);
      });
    }

    // The sticky column and header must not hide what has the focus.
    uncover(cell) {
      const table = this.holder.firstChild;
      const box = cell.getBoundingClientRect(), frame = this.holder.getBoundingClientRect();
      const left = frame.left + table.querySelector("thead th").offsetWidth, top = frame.top + table.tHead.offsetHeight;
      if (cell.tagName === "TD" && box.left < left) this.holder.scrollLeft -= left - box.left + 4;
      if (box.top < top) this.holder.scrollTop -= top - box.top + 4;
    }

    neighbour(cell, key) {
      const cells = [...cell.parentNode.querySelectorAll("[data-column]")];
      const place = cells.indexOf(cell);
      if (key === "ArrowRight") return cells[place + 1];
      if (key === "ArrowLeft") return cells[place - 1];
      if (key === "Home") return cells[0];
      if (key === "End") return cells.at(-1);
      const step = { ArrowDown: 1, ArrowUp: -1 }[key];
      if (!step) return null;
      const rows = [...this.holder.querySelectorAll("tbody:not(.none) tr[data-line]:not([hidden])")];
      return rows[rows.indexOf(cell.parentNode) + step]?.querySelectorAll("[data-column]")[place];
    }

    tell(cell) {
      const index = Number(cell.parentNode.dataset.line), column = cell.dataset.column, line = this.protocol.lines[index];
      const facts = [];
      const fact = (name, value) => { if (value !== null && value !== undefined && value !== "") facts.push([name, value]); };
      let head = null;
      if (column === "*method" || column === "*rank") {
        fact("rank", this.at(MEAN, "rank", index) ?? "none: " + this.whyUnranked(line, index));
        fact("trained on", line.training ?? (line.oracle ? "test data" : "not stated"));
        fact("encoder", line.encoder && [line.encoder, line.weights && line.weights + " weights"].filter(Boolean).join(", "));
        fact("tap, view", [line.tap, line.view].filter(Boolean).join(", "));
        fact("head", line.head && [line.head, line.blocks && "blocks " + line.blocks].filter(Boolean).join(", "));
        fact("parameters", line.parameters && count(line.parameters));
        fact("source", line.source);
        fact("note", line.note);
      } else {
        const value = this.at(column, "value", index);
        const low = this.at(column, "ci_low", index), std = this.at(column, "std", index), counted = this.counts(column, index);
        head = value === null ? (line.status === "published" ? "not stated" : "not measured") : `${fixed(value, 2)} %`;
        if (value !== null) {
          if (low !== null) fact("95 % interval", `${fixed(low, 2)} to ${fixed(this.at(column, "ci_high", index), 2)}`);
          else if (line.status === "measured") fact("95 % interval", "none");
          if (std !== null) fact("over seeds", `± ${fixed(std, 2)}, ${line.seeds} seeds`);
          const difference = this.at(column, "best_difference", index);
          if (difference === null && this.at(column, "tied_with_best", index)) fact("to the best", "none is better, of its training set");
          if (difference !== null) {
            const from = this.at(column, "best_difference_low", index), to = this.at(column, "best_difference_high", index);
            fact("to the best", fixed(difference, 2) + (from === null ? "" : ` (${fixed(from, 2)} to ${fixed(to, 2)})`));
            const p = this.at(column, "best_p_value", index);
            if (p !== null) fact("p, corrected", p < 0.001 ? "< .001" : p.toFixed(3).replace(/^0/, ""));
          }
        }
        if (column === MEAN) fact("coverage", this.at(MEAN, "coverage", index));
        if (counted) {
          fact("images", counted.real === null ? null : `${count(counted.real)} real, ${count(counted.fake)} fake`);
          fact("quarantined", counted.quarantined === null ? null : count(counted.quarantined));
          fact("leaked", counted.leaked === null ? null : count(counted.leaked));
        }
        if (line.status === "published") fact("source", line.source);
      }
      const place = column.startsWith("*") ? line.method : `${line.method} on ${column === MEAN ? this.protocol.lone ?? "the mean" : column}`;
      tip.replaceChildren(make("strong", {}, place), ...(head ? [make("span", { class: "value" }, head)] : []),
        make("dl", {}, ...facts.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, String(value))])));
      for (const old of document.querySelectorAll("[aria-describedby=tip]")) old.removeAttribute("aria-describedby");
      cell.setAttribute("aria-describedby", "tip");
      tip.hidden = false;
      const box = cell.getBoundingClientRect(), own = tip.getBoundingClientRect();
      const above = box.bottom + own.height + 8 > innerHeight;
      tip.style.top = `${above ? Math.max(4, box.top - own.height - 6) : box.bottom + 6}px`;
      tip.style.left = `${Math.max(6, Math.min(box.left, innerWidth - own.width - 6))}px`;
    }

    whyUnranked(line, index) {
      if (!this.data.ranked) return "this benchmark is not ranked";
      if (line.oracle) return "an oracle";
      if (line.aggregator) return "an aggregator's number";
      if (line.weights === "random") return "random weights";
      if (this.at(MEAN, "value", index) === null) return "no mean";
      return line.training === null ? "training set not stated" : "not comparable";
    }

    // ---- Plots

    // Lines that plots may show, the best first, and after them what is fitted on test data.
    plotted() {
      const sign = this.metric?.lower ? 1 : -1;
      const value = (index) => this.at(MEAN, "value", index) ?? sign * Infinity;
      const { ranked, baseline, oracle } = this.grouped;
      const sorted = (indices) => [...indices].sort((a, b) => sign * (value(a) - value(b)) || a - b);
      return [...sorted(ranked), ...sorted([...baseline, ...oracle])].filter((index) => this.protocol.lines[index].status === "measured");
    }

    label(line) {
      const twins = this.protocol.lines.filter((each) => each.status !== "published" && each.method === line.method);
      return new Set(twins.map((each) => each.training)).size > 1 ? `${line.method} (${line.training})` : line.method;
    }

    fillChosen() {
      const before = this.control.chosen.value;
      options(this.control.chosen, this.plotted().map((index) => [String(index), this.label(this.protocol.lines[index])]), before);
      options(this.control.operation, this.data.robustness.map((sweep, place) => [String(place), sweep.title]), this.control.operation.value);
    }

    draw() {
      const order = this.plotted();
      const chosen = order.length ? Number(this.control.chosen.value) : null;
      const shown = new Set([chosen, ...order].slice(0, SHOWN_LINES + 1).filter((index) => index !== null).slice(0, SHOWN_LINES));
      const mark = (index) => ({ line: this.label(this.protocol.lines[index]), chosen: index === chosen, shown: shown.has(index) });
      const of = (kind, index) => (this.protocol.curves[kind] ?? []).filter((curve) => curve.method === this.protocol.lines[index].method && curve.training === this.protocol.lines[index].training);
      const points = (curve) => curve.x.map((x, i) => ({ x, y: curve.y[i], n: Array.isArray(curve.n) ? curve.n[i] : curve.n }));
      const rows = { roc: [], reliability: [], histogram: [], size: [], robustness: [] };
      for (const index of order) {
        rows.roc.push(...of("roc", index).flatMap((curve) => points(curve).map((point) => ({ ...mark(index), ...point }))));
        const line = this.protocol.lines[index], y = this.at(MEAN, "value", index);
        if (line.parameters && y !== null) rows.size.push({ ...mark(index), name: "", x: line.parameters, y, low: this.at(MEAN, "ci_low", index) ?? y, high: this.at(MEAN, "ci_high", index) ?? y });
      }
      if (chosen !== null) {
        rows.reliability = of("reliability", chosen).flatMap((curve) => points(curve));
        rows.histogram = of("histogram", chosen).flatMap((curve) => points(curve).map((point, i) => ({ ...point, x2: curve.x[i + 1] ?? 1, label: curve.label })));
      }
      rows.robustness = this.sweepRows(this.data.robustness[Number(this.control.operation.value || 0)], shown, chosen);
      if (new Set(rows.size.map((row) => row.x)).size < 2) rows.size = []; // sizes that are all alike explain nothing
      // Named are the chosen one, and those that no smaller head betters: many names would cover each other.
      let highest = -Infinity;
      for (const row of [...rows.size].sort((a, b) => a.x - b.x || b.y - a.y)) {
        if (row.y > highest || row.chosen) row.name = "right";
        highest = Math.max(highest, row.y);
      }
      const widest = Math.log(Math.max(...rows.size.map((row) => row.x))), narrowest = Math.log(Math.min(...rows.size.map((row) => row.x)));
      for (const row of rows.size) if (row.name && Math.log(row.x) > (widest + narrowest) / 2) row.name = "left"; // names stay within
      const span = Math.max(...rows.size.map((row) => row.high)) - Math.min(...rows.size.map((row) => row.low)), named = [];
      for (const row of rows.size.filter((each) => each.name).sort((a, b) => b.chosen - a.chosen || b.y - a.y)) {
        if (named.some((other) => Math.abs(other.y - row.y) < span / 12)) row.name = ""; // it would cover the other's
        else named.push(row);
      }
      const title = `${this.metric?.title ?? ""}, %`;
      const drawn = Object.entries(rows).map(([name, own]) => plot(this.panel.querySelector(`[data-plot=${name}]`), name, own, ["size", "robustness"].includes(name) ? title : null));
      this.panel.querySelector(".plots").hidden = !drawn.some(Boolean);
    }

    // The same line's means along a sweep's protocols.
    sweepRows(sweep, shown, chosen) {
      if (!sweep || !this.metric) return [];
      const key = (line) => JSON.stringify([line.method, line.training, line.oracle]);
      const names = new Map([...this.plotted()].map((index) => [key(this.protocol.lines[index]), index]));
      return sweep.steps.flatMap((step) => {
        const protocol = this.data.protocols.find((each) => each.id === step.protocol);
        const values = protocol?.cells[this.metric.id]?.[MEAN]?.value ?? [];
        return (protocol?.lines ?? []).flatMap((line, i) => {
          const index = names.get(key(line));
          if (index === undefined || (values[i] ?? null) === null) return [];
          return [{ line: this.label(line), chosen: index === chosen, shown: shown.has(index), x: step.label, y: values[i] }];
        });
      });
    }

    // Paper does not scroll: the columns that are seen are set in parts that fit its width.
    print() {
      const holder = this.panel.querySelector(".print-boards");
      const parts = [];
      const rest = this.columns.filter((column) => column !== MEAN);
      for (let start = 0; start === 0 || start < rest.length; start += PRINTED_COLUMNS) {
        const table = this.table([MEAN, ...rest.slice(start, start + PRINTED_COLUMNS)], false, null);
        this.arrange(table);
        for (const row of table.querySelectorAll("tr[data-line]")) if (!this.passes(this.protocol.lines[Number(row.dataset.line)])) row.remove();
        for (const body of [...table.tBodies]) if (!body.querySelector("[data-line]")) body.remove();
        parts.push(table);
      }
      for (const table of parts) for (const button of table.querySelectorAll("thead button")) button.replaceWith(...button.childNodes);
      holder.replaceChildren(...parts);
    }
  }

  function hush() { tip.hidden = true; }

  // ---- Plots

  // Draw rows with a specification, or hide the figure where there is nothing to draw. Says whether it is shown.
  function plot(figure, name, rows, yTitle = null, xTitle = null) {
    figure.hidden = rows.length === 0;
    figure.rows = rows;
    const details = figure.querySelector("details");
    details.ontoggle = () => { if (details.open) tabulate(figure); };
    if (details.open) tabulate(figure);
    if (figure.hidden) return false;
    const titles = [yTitle, xTitle].join("|");
    const label = `${figure.querySelector("h4").textContent}. ${figure.querySelector("figcaption p").textContent}`;
    if (figure.titles === titles && figure.drawing) {
      figure.drawing = figure.drawing.then((view) => view.data("points", figure.rows).runAsync());
    } else {
      const specification = structuredClone(CHARTS[name]);
      const walk = (part) => {
        for (const layer of part.layer ?? []) walk(layer);
        if (yTitle && part.encoding?.y) part.encoding.y.title = yTitle;
        if (xTitle && part.encoding?.x) part.encoding.x.title = xTitle;
      };
      walk(specification);
      const before = figure.drawing ?? Promise.resolve(null);
      figure.drawing = before.then((view) => {
        view?.finalize();
        return vegaEmbed(figure.querySelector(".canvas"), { ...specification, description: label, datasets: { ...specification.datasets, points: figure.rows } },
          { actions: false, renderer: "svg", logLevel: ERRORS }).then((result) => result.view);
      });
    }
    figure.titles = titles;
    figure.drawing.catch((error) => console.error(error));
    return true;
  }

  function tabulate(figure) {
    const rows = figure.rows.filter((row) => row.shown !== false);
    const names = Object.keys(rows[0] ?? {}).filter((name) => !["shown", "chosen", "name", "mean", "level", "low", "high"].includes(name));
    const text = (value) => (value === null || value === undefined ? DASH : typeof value === "number" ? String(Math.round(value * 1e4) / 1e4) : String(value));
    figure.querySelector(".data-table").replaceChildren(make("table", {}, make("caption", { class: "away" }, figure.querySelector("h4").textContent),
      make("thead", {}, make("tr", {}, ...names.map((name) => make("th", { scope: "col" }, name)))),
      make("tbody", {}, ...rows.map((row) => make("tr", {}, ...names.map((name) => make("td", {}, text(row[name]))))))));
  }

  class Blocks {
    constructor(panel) {
      this.panel = panel;
      this.data = JSON.parse(panel.querySelector(".payload").textContent);
      for (const select of panel.querySelectorAll("[data-control=ablation-metric]")) select.addEventListener("change", () => this.open());
    }

    open() {
      this.panel.querySelectorAll("[data-ablation]").forEach((section, place) => {
        const metric = section.querySelector("[data-control=ablation-metric]");
        const title = metric.selectedOptions[0].textContent + ", %";
        const { families, levels } = this.data.ablations[place];
        section.querySelectorAll("[data-plot=ablation]").forEach((figure, number) => {
          const curves = families[number].curves.filter((curve) => curve.metric === metric.value);
          const level = levels.filter((each) => each.metric === metric.value).map((each) => ({ level: true, line: "mean", x: each.label, y: each.y, std: each.std }));
          plot(figure, "ablation", [...curves.flatMap((curve, own) => this.rows(curve, own === 0)), ...level], title, families[number].axis);
        });
      });
      const figure = this.panel.querySelector("[data-plot=weights]");
      if (figure) {
        const twins = (line) => this.data.weights.filter((each) => each.method === line.method).length > 1;
        plot(figure, "weights", this.data.weights.flatMap((line, place) => line.x.map((x, i) => ({ line: twins(line) ? `${line.method} (${line.training})` : line.method, chosen: false, shown: place < SHOWN_LINES, x, y: line.y[i] }))));
      }
      remember(["blocks of the encoder"]);
    }

    // The first curve is the mean, or the only test set.
    rows(curve, mean) {
      const losses = curve.loss.filter((loss) => loss !== null);
      const lowest = Math.min(...losses);
      return curve.x.flatMap((x, i) => (curve.y[i] === null ? [] : [{
        line: curve.test_set, mean, chosen: false, lowest: mean && curve.loss[i] === lowest, x, y: curve.y[i], std: curve.std[i], loss: curve.loss[i],
        low: curve.y[i] - (curve.std[i] ?? 0), high: curve.y[i] + (curve.std[i] ?? 0),
      }]));
    }
  }

  // ---- Tabs, by the pattern of the ARIA authoring practices

  const contents = new Map();
  let quiet = true; // while the page opens, its address stays as it was

  function remember(parts) {
    if (quiet) return;
    try { history.replaceState(null, "", "#" + parts.map(encodeURIComponent).join("/")); } catch { /* some browsers refuse it for files */ }
  }

  function select(tab, { focus = false, protocol, metric } = {}) {
    for (const each of tabs) {
      const own = each === tab;
      each.setAttribute("aria-selected", own);
      each.tabIndex = own ? 0 : -1;
      document.getElementById(each.getAttribute("aria-controls")).hidden = !own;
    }
    hush();
    if (focus) tab.focus();
    tab.scrollIntoView({ block: "nearest", inline: "nearest" });
    const panel = document.getElementById(tab.getAttribute("aria-controls"));
    if (!contents.has(panel)) {
      const content = panel.dataset.benchmark !== undefined ? new Board(panel) : panel.id === "panel-blocks" ? new Blocks(panel) : null;
      contents.set(panel, content);
      content?.open(protocol, metric);
    } else {
      const content = contents.get(panel);
      if (protocol) content?.open(protocol, metric);
      else remember(content instanceof Board ? [content.data.id, content.protocol.id, content.metric?.id].filter(Boolean) : [tab.dataset.name]);
      dispatchEvent(new Event("resize")); // plots of a tab that was hidden learn their width
    }
    current = panel;
  }
  let current = null;

  document.querySelector("[role=tablist]").addEventListener("click", (event) => {
    const tab = event.target.closest("[role=tab]");
    if (tab) select(tab);
  });
  document.querySelector("[role=tablist]").addEventListener("keydown", (event) => {
    const place = tabs.indexOf(event.target);
    const next = { ArrowRight: place + 1, ArrowLeft: place - 1, Home: 0, End: tabs.length - 1 }[event.key];
    if (place < 0 || next === undefined) return;
    event.preventDefault();
    select(tabs[(next + tabs.length) % tabs.length], { focus: true });
  });

  for (const radio of document.querySelectorAll("[name=theme]")) {
    radio.checked = radio.value === document.documentElement.dataset.theme;
    radio.addEventListener("change", () => {
      document.documentElement.dataset.theme = radio.value;
      try { localStorage.setItem("rine-cache-theme", radio.value); } catch { /* then it is for this visit */ }
    });
  }
  addEventListener("keydown", (event) => { if (event.key === "Escape") hush(); });
  addEventListener("scroll", hush, { passive: true });
  addEventListener("beforeprint", () => { hush(); const content = contents.get(current); if (content instanceof Board) content.print(); });

  function openAddress() {
    const [name, protocol, metric] = location.hash.slice(1).split("/").map(decodeURIComponent);
    // Without an address: the first benchmark of which something was measured, or else the first.
    const measured = tabs.find((tab) => document.getElementById(tab.getAttribute("aria-controls")).dataset.measured !== undefined);
    const tab = tabs.find((each) => each.dataset.name === name) ?? measured ?? tabs[0];
    if (tab) select(tab, { protocol, metric });
  }
  openAddress();
  quiet = false;
  addEventListener("hashchange", openAddress);
})();

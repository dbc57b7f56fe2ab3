// ---- One protocol under one metric: its lines, their cells, and what can be said of them

const STEPS = document.querySelectorAll(".steps")[0]?.children.length ?? 11;

class Numbers {
  constructor(benchmark, protocol, metric) {
    this.benchmark = benchmark;
    this.protocol = protocol;
    this.metric = metric;
    this.lines = protocol.lines;
    this.cells = metric ? protocol.cells[metric.id] : {};
    this.columns = protocol.columns.filter((name) => name === MEAN || this.cells[name]);
    this.groups = this.grouped();
    this.best = this.bests();
    this.ties = this.tied();
    this.anyRank = (this.cells[MEAN]?.rank ?? []).some((rank) => rank !== null);
    this.anyCount = Boolean(protocol.counts[MEAN]);
  }

  at(column, field, index) {
    return this.cells[column]?.[field]?.[index] ?? null;
  }

  counts(column, index) {
    const coded = this.protocol.counts[column];
    const place = coded?.of[index] ?? null;
    if (place === null) return null;
    const [real, fake, quarantined, leaked] = coded.distinct[place];
    return { real, fake, quarantined, leaked };
  }

  hasValue(index) {
    return this.columns.some((column) => this.at(column, "value", index) !== null);
  }

  // Lines by the part of the table in which they stand. Published ones that do not state the metric are nowhere.
  grouped() {
    const groups = { ranked: [], baseline: [], oracle: [], unmeasured: [] };
    this.lines.forEach((line, index) => {
      const has = this.hasValue(index);
      if (line.status === "unmeasured") {
        if (!line.oracle) groups.unmeasured.push(index);
      } else if (line.baseline) {
        if (has) groups.baseline.push(index);
      } else if (line.oracle) {
        if (has) groups.oracle.push(index);
      } else if (has || line.status === "measured") groups.ranked.push(index);
    });
    return groups;
  }

  // How many published lines of the protocol do not state this metric.
  silent() {
    return this.lines.filter((line, index) => line.status === "published" && !this.hasValue(index)).length;
  }

  bests() {
    const sign = this.metric?.lower ? -1 : 1;
    return new Map(
      this.columns.map((column) => {
        const values = this.cells[column]?.value ?? [];
        let best = null;
        for (const index of this.groups.ranked) {
          const value = values[index] ?? null;
          if (value !== null && !this.lines[index].aggregator && (best === null || sign * value > sign * best))
            best = value;
        }
        return [column, best];
      }),
    );
  }

  isBest(column, index) {
    return this.ranked.has(index) && this.at(column, "value", index) === this.best.get(column);
  }

  get ranked() {
    return (this.rankedSet ??= new Set(this.groups.ranked));
  }

  // Which of the compared cells to mark, the fewer ones: those that are tied with the best, or those that are not.
  tied() {
    let tied = 0,
      apart = 0;
    for (const column of this.columns)
      for (const index of this.groups.ranked)
        if (this.isTied(column, index) !== null) this.isTied(column, index) ? (tied += 1) : (apart += 1);
    if (tied + apart === 0) return { mark: null, text: "" };
    const test = "by a paired test on the same images";
    if (apart === 0)
      return { mark: null, text: `No measured method is told apart from the best one of its kind, ${test}.` };
    if (tied === 0)
      return { mark: null, text: `Every measured method is told apart from the best one of its kind, ${test}.` };
    if (tied <= apart) return { mark: "tied", sign: "≈", text: `: not told apart from the best of its kind, ${test}.` };
    return {
      mark: "apart",
      sign: "▾",
      text: `: worse than the best of its kind, ${test}; the other measured methods are not told apart from it.`,
    };
  }

  // Null where nothing was compared, and of the best of the column itself.
  isTied(column, index) {
    const tied = this.at(column, "tied_with_best", index);
    return tied === null || this.isBest(column, index) ? null : Boolean(tied);
  }

  step(value) {
    const { from, lower } = this.metric;
    const share = lower ? 1 - value / 50 : (value - from) / (100 - from);
    return Math.min(STEPS - 1, Math.max(0, Math.floor(share * STEPS)));
  }

  titleOf(column) {
    return column === MEAN ? (this.protocol.lone ?? "mean") : column;
  }

  // ---- Published beside measured

  // Of a published cell the measured one that it is held against, or null.
  measuredBeside(column, index) {
    const [value, low, high, difference, method, verdict, remark] = this.cells[column]?.beside?.[index] ?? [];
    return verdict === undefined
      ? null
      : { value, low, high, difference, method, verdict, remark: this.protocol.remarks[remark] ?? "" };
  }

  // Of a measured cell the published ones that are held against it, each with its line.
  publishedBeside(column, index) {
    const line = this.lines[index],
      value = this.at(column, "value", index);
    if (line.status !== "measured" || value === null) return [];
    return Object.keys(this.cells[column]?.beside ?? {})
      .map(Number)
      .flatMap((other) => {
        const theirs = this.lines[other],
          beside = this.measuredBeside(column, other);
        const same = beside.method === line.method && theirs.training === line.training && beside.value === value;
        return same ? [{ ...beside, line: theirs, published: this.at(column, "value", other) }] : [];
      });
  }

  hasBeside(index) {
    return this.columns.some((column) =>
      this.lines[index].status === "published"
        ? this.measuredBeside(column, index) !== null
        : this.publishedBeside(column, index).length > 0,
    );
  }

  // Of how many published cells our interval holds the value, and of how many it does not.
  verdicts() {
    const found = { agrees: 0, disagrees: 0, other: 0 };
    for (const column of this.columns)
      for (const [, , , , , verdict] of Object.values(this.cells[column]?.beside ?? {}))
        found[verdict in found ? verdict : "other"] += 1;
    return found;
  }

  // ---- Measured lines for plots

  // The best first, and after them what is fitted on test data.
  plotted() {
    const sign = this.metric?.lower ? 1 : -1;
    const value = (index) => this.at(MEAN, "value", index) ?? sign * Infinity;
    const { ranked, baseline, oracle } = this.groups;
    const sorted = (indices) => [...indices].sort((a, b) => sign * (value(a) - value(b)) || a - b);
    return [...sorted(ranked), ...sorted([...baseline, ...oracle])].filter(
      (index) => this.lines[index].status === "measured",
    );
  }

  label(line) {
    const twins = this.lines.filter((each) => each.status !== "published" && each.method === line.method);
    return new Set(twins.map((each) => each.training)).size > 1 ? `${line.method} (${line.training})` : line.method;
  }

  whyUnranked(index) {
    const line = this.lines[index];
    if (!this.benchmark.ranked) return "this benchmark is not ranked";
    if (line.oracle) return "an oracle";
    if (line.aggregator) return "an aggregator's number";
    if (line.weights === "random") return "random weights";
    if (this.at(MEAN, "value", index) === null) return "no mean";
    return line.training === null ? "training set not stated" : "not comparable";
  }
}

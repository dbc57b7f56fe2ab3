// ---- The table of one protocol under one metric

const GROUPS = {
  baseline: [
    "Metadata only",
    "a classifier that sees format, size and compression, and no pixel: what it scores is not a detector's merit.",
  ],
  oracle: ["Oracle", "fitted on the test data; never ranked, and no method to choose by."],
  unmeasured: ["Not measured here", "the data are not on this machine, or the heads not trained."],
};
// What a cell says beside a published value, by what was found of it.
const VERDICTS = {
  agrees: { mark: "", words: "our 95 % interval holds it" },
  disagrees: { mark: "≠", words: "outside our 95 % interval" },
  "no interval": { mark: "(", words: "ours has no interval" },
  "not judged": { mark: "(", words: "not judged" },
};

// How a table is set: which columns, whether with the line's counts and source, with intervals, by which key it is sorted.
class Table {
  constructor(numbers, { columns = numbers.columns, withRest = true, intervals = false, sort, id = null }) {
    Object.assign(this, { numbers, columns, withRest, intervals, sort });
    this.element = make(
      "table",
      { class: "board", role: withRest ? "grid" : null },
      this.caption(id),
      make("thead", {}, this.heads()),
      ...this.bodies(),
    );
  }

  caption(id) {
    const { protocol, metric, lines, ties } = this.numbers;
    const counted = lines.map((_, index) => this.numbers.counts(MEAN, index)).find(Boolean);
    const images = counted
      ? ` ${count(counted.real)} real and ${count(counted.fake)} fake images${counted.quarantined ? `, ${count(counted.quarantined)} more could not be read` : ""}.`
      : "";
    const tied = ties.text
      ? make("span", { class: "ties" }, ties.sign ? make("b", {}, ties.sign) : null, ties.text)
      : null;
    return make(
      "caption",
      { id },
      make("strong", {}, metric ? metric.title + ", %" : "Nothing is measured"),
      ` · ${protocol.id}: ${protocol.heading}.${images} `,
      tied,
    );
  }

  heads() {
    const { numbers, sort, withRest } = this;
    const head = (key, text, kind) => {
      const sorted = sort.column === key ? (sort.descending ? "descending" : "ascending") : null;
      // A column's button is reached by arrow keys, as the cells below it are; that which sorts is the way in.
      const button = make(
        "button",
        { type: "button", tabindex: sorted ? 0 : -1, "aria-label": text },
        ...breakable(text),
      );
      return make("th", { scope: "col", "data-column": key, class: kind, "aria-sort": sorted }, button);
    };
    return make(
      "tr",
      {},
      head("*method", "method", "text"),
      withRest && numbers.anyRank ? head("*rank", "rank") : null,
      ...this.columns.map((column) => head(column, numbers.titleOf(column), column === MEAN ? "mean" : null)),
      ...(withRest
        ? [
            head("*coverage", "coverage"),
            numbers.anyCount ? head("*images", "real + fake") : null,
            make("th", { scope: "col", class: "text plain" }, "source and notes"),
          ]
        : []),
    );
  }

  bodies() {
    const { numbers, withRest } = this;
    const width = this.columns.length + 1 + (withRest ? 2 + numbers.anyRank + numbers.anyCount : 0);
    return Object.entries(numbers.groups).map(([name, indices]) => {
      const body = make("tbody", { "data-group": name });
      if (GROUPS[name])
        body.append(
          make(
            "tr",
            { class: "heading" },
            make(
              "th",
              { scope: "rowgroup", colspan: width },
              make("span", {}, make("strong", {}, GROUPS[name][0]), ": " + GROUPS[name][1]),
            ),
          ),
        );
      body.append(...indices.map((index) => this.row(index)));
      return body;
    });
  }

  row(index) {
    const { numbers, withRest } = this;
    const line = numbers.lines[index];
    const row = make("tr", { "data-line": index });
    row.append(this.nameCell(line));
    if (withRest && numbers.anyRank)
      row.append(
        make(
          "td",
          { class: "rank", tabindex: -1, "data-column": "*rank" },
          String(numbers.at(MEAN, "rank", index) ?? ""),
        ),
      );
    for (const column of this.columns) row.append(this.cell(index, column));
    if (!withRest) return row;
    const counted = numbers.counts(MEAN, index);
    const images = [];
    if (counted) {
      images.push(`${count(counted.real)} + ${count(counted.fake)}`);
      if (counted.quarantined)
        images.push(make("span", { class: "under" }, `${count(counted.quarantined)} quarantined`));
    }
    const leaked = numbers.columns.filter((column) => column !== MEAN && numbers.counts(column, index)?.leaked > 0);
    if (leaked.length)
      images.push(
        make(
          "span",
          { class: "under" },
          make("span", { class: "flag" }, `leak in ${several(leaked.length, "test set")}`),
        ),
      );
    row.append(
      make("td", { class: "small num-text" }, numbers.at(MEAN, "coverage", index) ?? ""),
      ...(numbers.anyCount ? [make("td", { class: "small" }, ...images)] : []),
      make("td", { class: "small source" }, [line.source, line.as_published, line.note].filter(Boolean).join(" · ")),
    );
    return row;
  }

  nameCell(line) {
    const flags = [
      line.aggregator && "aggregator",
      line.oracle && !line.baseline && "oracle",
      line.baseline && "no pixels",
    ].filter(Boolean);
    const kind = { measured: "measured", published: "published", unmeasured: "not measured here" }[line.status];
    const under = [kind, line.training ?? (line.oracle ? null : "training set not stated"), line.encoder].filter(
      Boolean,
    );
    return make(
      "th",
      {
        scope: "row",
        tabindex: -1,
        "data-column": "*method",
        "aria-label": [line.method, ...flags, ...under].join(", "),
      },
      make("span", { class: "name" }, ...breakable(line.method)),
      ...flags.flatMap((flag) => [" ", make("span", { class: "flag plain" }, flag)]),
      make("span", { class: "under" }, under.join(" · ")),
    );
  }

  cell(index, column) {
    const { numbers } = this;
    const value = numbers.at(column, "value", index),
      kind = column === MEAN ? "num mean" : "num";
    if (value === null) {
      const words = numbers.lines[index].status === "published" ? "not stated" : "not measured";
      return make("td", { class: kind + " absent", tabindex: -1, "data-column": column, "aria-label": words }, DASH);
    }
    const low = numbers.at(column, "ci_low", index),
      high = numbers.at(column, "ci_high", index),
      std = numbers.at(column, "std", index);
    const best = numbers.isBest(column, index),
      leaked = numbers.counts(column, index)?.leaked ?? 0,
      beside = numbers.measuredBeside(column, index);
    const tied = numbers.isTied(column, index);
    const text = fixed(value);
    // What a screen reader says, whatever is drawn.
    const words = [
      `${text} %`,
      best && "best of its column",
      low !== null && `95 % interval ${fixed(low)} to ${fixed(high)}`,
      tied === true && "not told apart from the best",
      tied === false && "worse than the best",
      leaked > 0 && `${several(leaked, "image")} of its training set in the test set`,
      beside && `ours ${fixed(beside.value)} %, ${signed(beside.difference)}, ${VERDICTS[beside.verdict].words}`,
    ];
    const cell = make("td", {
      class: `${kind} q${numbers.step(value)}${best ? " best" : ""}`,
      tabindex: -1,
      "data-column": column,
      "aria-label": words.filter(Boolean).join(", "),
    });
    if (leaked > 0) cell.append(make("span", { class: "flag" }, "L"));
    cell.append(best ? make("b", {}, text) : text);
    if (tied !== null && numbers.ties.mark === (tied ? "tied" : "apart"))
      cell.append(make("span", { class: "tied" }, numbers.ties.sign));
    if (this.intervals && low !== null) cell.append(make("span", { class: "ci" }, `${fixed(low)}–${fixed(high)}`));
    else if (column === MEAN && std !== null) cell.append(make("span", { class: "sd" }, `± ${fixed(std)}`));
    if (beside) cell.append(this.difference(beside));
    return cell;
  }

  difference({ difference, verdict, remark }) {
    const { mark } = VERDICTS[verdict],
      text = signed(difference),
      differs = remark ? "*" : "";
    return make(
      "span",
      { class: "beside", "data-verdict": verdict },
      mark === "(" ? `(${text})${differs}` : `${mark && mark + " "}${text}${differs}`,
    );
  }
}

// ---- Plots: each a figure with a title, a drawing by Vega, and its data as a table

const ERRORS = 1; // what Vega may write to the console; of a layer without rows it would warn
const CHARTS = JSON.parse(document.getElementById("charts").textContent);
// Of a row what only tells how it is drawn; and what the rest is called, beside x and y, which have their axes' titles.
const DRAWN = ["shown", "chosen", "name", "mean", "level", "low", "high"];
const COLUMNS = {
  line: "method",
  n: "images",
  x2: "to",
  label: "class",
  std: "std over seeds",
  loss: "validation loss",
  lowest: "lowest validation loss",
};

const OF_TEST_SETS = ["roc-sets", "ablation"];

// The title of a chart's axis, from the first layer that names it.
function axisTitle(part, axis) {
  return part.encoding?.[axis]?.title ?? (part.layer ?? []).map((layer) => axisTitle(layer, axis)).find(Boolean);
}

// Draw rows with a specification, or hide the figure where there is nothing to draw. Says whether it is shown.
function plot(figure, name, rows, { yTitle = null, xTitle = null, summary = "" } = {}) {
  figure.hidden = rows.length === 0;
  figure.rows = rows;
  figure.columns = {
    ...COLUMNS,
    x: xTitle ?? axisTitle(CHARTS[name], "x"),
    y: yTitle ?? axisTitle(CHARTS[name], "y"),
    ...(OF_TEST_SETS.includes(figure.dataset.plot) ? { line: "test set" } : {}),
  };
  const details = figure.querySelector("details");
  details.ontoggle = () => {
    if (details.open) tabulate(figure);
  };
  if (details.open) tabulate(figure);
  if (figure.hidden) return false;
  const canvas = figure.querySelector(".canvas");
  // To a screen reader the drawing is one image; its numbers are in the table below it. Vega labels what it draws into.
  canvas.setAttribute(
    "aria-label",
    [figure.querySelector("h4").textContent + ".", summary, "The numbers are in the table that follows."]
      .filter(Boolean)
      .join(" "),
  );
  const titles = [yTitle, xTitle].join("|");
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
      return vegaEmbed(
        canvas.firstChild,
        { ...specification, datasets: { ...specification.datasets, points: figure.rows } },
        { actions: false, renderer: "svg", logLevel: ERRORS },
      ).then((result) => result.view);
    });
  }
  figure.titles = titles;
  figure.drawing.catch((error) => console.error(error));
  return true;
}

function tabulate(figure) {
  const rows = figure.rows.filter((row) => row.shown !== false);
  const names = Object.keys(rows[0] ?? {}).filter((name) => !DRAWN.includes(name));
  const text = (value) =>
    value === null || value === undefined
      ? DASH
      : typeof value === "number"
        ? String(Math.round(value * 1e4) / 1e4)
        : String(value);
  figure
    .querySelector(".data-table")
    .replaceChildren(
      make(
        "table",
        {},
        make("caption", { class: "away" }, figure.querySelector("h4").textContent),
        make("thead", {}, make("tr", {}, ...names.map((name) => make("th", { scope: "col" }, figure.columns[name])))),
        make(
          "tbody",
          {},
          ...rows.map((row) => make("tr", {}, ...names.map((name) => make("td", {}, text(row[name]))))),
        ),
      ),
    );
}

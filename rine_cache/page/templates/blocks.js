// ---- The panel of the encoder's blocks: ablations, and what TIE learnt

class Blocks {
  constructor(panel, data) {
    this.panel = panel;
    this.data = data;
    for (const select of panel.querySelectorAll("[data-control=ablation-metric]"))
      select.addEventListener("change", () => this.open());
  }

  get address() {
    return ["blocks of the encoder"];
  }

  open() {
    this.panel.querySelectorAll("[data-ablation]").forEach((section, place) => {
      const metric = section.querySelector("[data-control=ablation-metric]");
      const title = metric.selectedOptions[0].textContent + ", %";
      const { families, levels } = this.data.ablations[place];
      section.querySelectorAll("[data-plot=ablation]").forEach((figure, number) => {
        const curves = families[number].curves.filter((curve) => curve.metric === metric.value);
        const level = levels
          .filter((each) => each.metric === metric.value)
          .map((each) => ({ level: true, line: "mean", x: each.label, y: each.y, std: each.std }));
        const rows = [...curves.flatMap((curve, own) => this.rows(curve, own === 0)), ...level];
        plot(figure, "ablation", rows, {
          yTitle: title,
          xTitle: families[number].axis,
          summary: `${title} by ${families[number].axis}.`,
        });
      });
    });
    const figure = this.panel.querySelector("[data-plot=weights]");
    if (figure) {
      const twins = (line) => this.data.weights.filter((each) => each.method === line.method).length > 1;
      const rows = this.data.weights.flatMap((line, place) =>
        line.x.map((x, i) => ({
          line: twins(line) ? `${line.method} (${line.training})` : line.method,
          chosen: false,
          shown: place < SHOWN_LINES,
          x,
          y: line.y[i],
        })),
      );
      plot(figure, "weights", rows, {
        summary: `Of ${[...new Set(rows.filter((row) => row.shown).map((row) => row.line))].join(", ")}.`,
      });
    }
    remember(this);
  }

  // The first curve is the mean, or the only test set.
  rows(curve, mean) {
    const losses = curve.loss.filter((loss) => loss !== null);
    const lowest = Math.min(...losses);
    return curve.x.flatMap((x, i) =>
      curve.y[i] === null
        ? []
        : [
            {
              line: curve.test_set,
              mean,
              chosen: false,
              lowest: mean && curve.loss[i] === lowest,
              x,
              y: curve.y[i],
              std: curve.std[i],
              loss: curve.loss[i],
              low: curve.y[i] - (curve.std[i] ?? 0),
              high: curve.y[i] + (curve.std[i] ?? 0),
            },
          ],
    );
  }
}

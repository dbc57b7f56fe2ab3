// ---- A board's table by mouse, by touch and by keyboard

class Navigation {
  constructor(board) {
    this.board = board;
    this.holder = board.holder;
    this.watch();
  }

  watch() {
    const cellOf = (event) => event.target.closest?.("tbody [data-column]");
    const show = (event) => {
      const cell = cellOf(event);
      if (cell) tell(cell, this.board.numbers);
      else hush();
    };
    this.holder.addEventListener("mouseover", (event) => {
      if (!isStill(event)) show(event);
    });
    this.holder.addEventListener("focusin", show);
    this.holder.addEventListener("mouseleave", (event) => {
      if (!isStill(event)) hush();
    });
    this.holder.addEventListener("focusout", hush);
    this.holder.addEventListener("scroll", follow, { passive: true });
    this.holder.addEventListener("click", (event) => {
      const head = event.target.closest("thead th[data-column]");
      if (head) this.board.sortBy(head.dataset.column);
    });
    this.holder.addEventListener("keydown", (event) => {
      const cell = event.target.closest?.("[data-column]");
      if (!cell) return;
      if (event.key === "Escape") return hush();
      const target = this.neighbour(cell, event.key);
      if (!target) return;
      event.preventDefault();
      this.moveTo(target);
    });
  }

  moveTo(cell) {
    const inHead = cell.closest("thead") !== null,
      focused = inHead ? cell.firstChild : cell;
    for (const old of this.holder.querySelectorAll(inHead ? "thead [tabindex='0']" : "tbody [tabindex='0']"))
      old.tabIndex = -1;
    focused.tabIndex = 0;
    focused.focus({ preventScroll: true });
    cell.scrollIntoView({ block: "nearest", inline: "nearest" });
    this.uncover(cell);
    if (!inHead) tell(cell, this.board.numbers); // where it now stands
  }

  // The sticky column and header must not hide what has the focus.
  uncover(cell) {
    const table = this.holder.firstChild;
    const box = cell.getBoundingClientRect(),
      frame = this.holder.getBoundingClientRect();
    const left = frame.left + table.querySelector("thead th").offsetWidth,
      top = frame.top + table.tHead.offsetHeight;
    if (cell.dataset.column !== "*method" && box.left < left) this.holder.scrollLeft -= left - box.left + 4;
    if (!cell.closest("thead") && box.top < top) this.holder.scrollTop -= top - box.top + 4;
  }

  neighbour(cell, key) {
    const cells = [...cell.parentNode.querySelectorAll("[data-column]")],
      place = cells.indexOf(cell);
    if (key === "ArrowRight") return cells[place + 1];
    if (key === "ArrowLeft") return cells[place - 1];
    if (key === "Home") return cells[0];
    if (key === "End") return cells.at(-1);
    const step = { ArrowDown: 1, ArrowUp: -1 }[key];
    if (!step) return null;
    // By the column's name: the header has columns that no cell below them is reached in.
    const rows = [...this.holder.querySelectorAll("thead tr, tbody:not(.none) tr[data-line]:not([hidden])")];
    return rows[rows.indexOf(cell.parentNode) + step]?.querySelector(
      `[data-column="${CSS.escape(cell.dataset.column)}"]`,
    );
  }
}

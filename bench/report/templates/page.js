"use strict";
for (const figure of document.querySelectorAll("figure.table[data-interactive]")) {
  const table = figure.querySelector("table");
  const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const collator = new Intl.Collator("en", { numeric: true });
  const key = (row, index) => {
    const cell = row.cells[index];
    if (heads[index].classList.contains("text")) return cell.textContent.trim();
    return cell.dataset.value === undefined ? null : Number(cell.dataset.value);
  };

  const sort = (index) => {
    const head = heads[index];
    const first = head.dataset.better === "higher" ? "descending" : "ascending";
    const other = first === "ascending" ? "descending" : "ascending";
    const order = head.getAttribute("aria-sort") === first ? other : first;
    for (const each of heads) each.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const keyed = rows.map((row) => [key(row, index), row]);
    // What has no number comes last in either order.
    keyed.sort(([a], [b]) =>
      a === null || b === null
        ? (a === null) - (b === null)
        : sign * (typeof a === "string" ? collator.compare(a, b) : a - b));
    body.append(...keyed.map(([, row]) => row));
  };
  heads.forEach((head, index) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(index));
    head.append(button);
  });

  const search = figure.querySelector("input[type=search]");
  const output = figure.querySelector("output");
  const texts = rows.map((row) => row.textContent.toLowerCase());
  const filter = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let seen = 0;
    rows.forEach((row, index) => {
      row.hidden = !words.every((word) => texts[index].includes(word));
      seen += !row.hidden;
    });
    output.textContent = `${seen} of ${rows.length} rows`;
  };
  search.addEventListener("input", filter);
  filter();

  const choices = figure.querySelector(".choices");
  heads.forEach((head, index) => {
    if (index === 0) return;
    const box = document.createElement("input");
    box.type = "checkbox";
    box.checked = !head.hidden;
    box.addEventListener("change", () => {
      for (const row of [head.parentElement, ...rows]) row.cells[index].hidden = !box.checked;
    });
    const label = document.createElement("label");
    label.append(box, " ", head.textContent.trim());
    choices.append(label);
  });
  figure.querySelector(".controls").hidden = false;
}

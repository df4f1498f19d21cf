"use strict";
/* The report: draws the curves, shows and hides pairs, sorts the table of benchmarks. */
const views = [];

async function drawCurves() {
  const { rows, charts } = await unpack("curve-data");
  for (const figure of document.querySelectorAll(".chart")) {
    const { spec } = charts[figure.dataset.chart];
    const drawn = await vegaEmbed(figure.querySelector(".drawn"), { ...spec, data: { values: rows } }, {
      actions: false, ast: true, logLevel: 1, renderer: "svg", defaultStyle: false, tooltip: { disableDefaultStyle: true },
    });
    views.push(drawn.view);
  }
  document.getElementById("pairs").addEventListener("change", showPairs);
  await showPairs();
  document.body.dataset.drawn = "yes";
}

/* Shows the ticked pairs. A browser keeps the ticks when the page is loaded again. */
function showPairs() {
  const shown = [...document.querySelectorAll("#pairs input:checked")].map(input => input.value);
  return Promise.all(views.map(view => view.signal("shown", shown).runAsync()));
}

function sortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, at) => head.firstElementChild.addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") !== "ascending";
    heads.forEach(each => each.setAttribute("aria-sort", each !== head ? "none" : up ? "ascending" : "descending"));
    const rows = [...table.tBodies[0].rows].map(row => ({ row, value: valueOf(row.cells[at]) }));
    rows.sort((a, b) => compare(a.value, b.value, up));
    table.tBodies[0].append(...rows.map(each => each.row));
  }));
}

/* The cell's number, else its text. It is null, which comes last, if the cell says why it has no number. */
function valueOf(cell) {
  const text = cell.dataset.value ?? cell.textContent.trim();
  if (cell.classList.contains("gap") || text === "") return null;
  return Number.isNaN(Number(text)) ? text : Number(text);
}

function compare(a, b, up) {
  if (a === null || b === null) return (a === null) - (b === null);
  const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
  return up ? order : -order;
}

document.querySelectorAll("#sortable").forEach(sortable);
drawCurves();

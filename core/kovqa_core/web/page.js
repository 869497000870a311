"use strict";
const root = document.documentElement;
const say = (language) => { root.dataset.lang = root.lang = language; };
if (navigator.language && !navigator.language.startsWith("ko")) say("en");
document.getElementById("language").addEventListener("click", () => say(root.dataset.lang === "ko" ? "en" : "ko"));

for (const button of document.querySelectorAll("table.sortable th button")) button.addEventListener("click", () => {
  const heading = button.closest("th"), body = button.closest("table").tBodies[0], text = "text" in heading.dataset;
  const before = heading.getAttribute("aria-sort"), down = before ? before === "ascending" : !text;
  for (const other of heading.parentNode.children) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  const value = (row) => row.cells[heading.cellIndex].dataset.value;
  const compare = (a, b) => text ? value(a).localeCompare(value(b), "ko") : value(a) - value(b);
  const rows = Array.from(body.rows).sort(compare);
  body.append(...(down ? rows.reverse() : rows));
});

"use strict";
const root = document.documentElement;
// Words of which an element holds one language at a time: options, placeholders, labels, the title.
const translate = (place) => {
  const words = place.dataset[root.dataset.lang], names = place.dataset.into;
  if (names) for (const name of names.split(" ")) place.setAttribute(name, words);
  else place.textContent = words;
};
const say = (language) => {
  root.dataset.lang = root.lang = language;
  document.querySelectorAll("[data-ko]").forEach(translate);
};
say(navigator.language && !navigator.language.startsWith("ko") ? "en" : "ko");
// What a server of kovqa answers a page in the page's language by; programs do not send it.
const ownHeaders = () => ({ "Kovqa-Page": "1", "Accept-Language": root.dataset.lang });
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

// What scrolls sideways can be reached with the keyboard.
const scrolling = new ResizeObserver((boxes) => {
  for (const { target: box } of boxes) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
});
for (const box of document.querySelectorAll(".box")) scrolling.observe(box);

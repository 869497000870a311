const cards = Array.from(document.querySelectorAll("#cards .card"));
const kind = document.getElementById("kind"), search = document.getElementById("search");
const verdicts = Array.from(document.querySelectorAll("[data-verdict]"));
let verdict = "all";
function filter() {
  const wanted = search.value.trim().normalize("NFC").toLowerCase();
  let shown = 0;
  for (const card of cards) {
    card.hidden = !((verdict === "all" || card.classList.contains(verdict))
      && (kind.value === "*" || card.dataset.kind === kind.value)
      && card.textContent.toLowerCase().includes(wanted));
    shown += !card.hidden;
  }
  document.getElementById("shown").textContent = shown + " / " + cards.length;
}
for (const button of verdicts) button.addEventListener("click", () => {
  verdict = button.dataset.verdict;
  for (const other of verdicts) other.setAttribute("aria-pressed", String(other === button));
  filter();
});
kind.addEventListener("change", filter);
search.addEventListener("input", filter);
filter();
root.dataset.ready = "yes";

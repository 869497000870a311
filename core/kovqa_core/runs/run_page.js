const axes = Array.from(document.querySelectorAll("[data-axis]"));
const showAxis = (axis) => {
  for (const button of axes) button.setAttribute("aria-pressed", String(button.dataset.axis === axis));
  for (const chart of document.querySelectorAll(".by-time")) {
    chart.hidden = axis !== "time";
    chart.previousElementSibling.hidden = axis === "time";
  }
};
for (const button of axes) button.addEventListener("click", () => showAxis(button.dataset.axis));
root.dataset.ready = "yes";

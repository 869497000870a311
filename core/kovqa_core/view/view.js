const find = (id) => document.getElementById(id);
const controls = find("controls"), panel = find("panel"), dialog = find("dialog");
const fields = Array.from(controls.querySelectorAll("[name]"));
const filterNames = ["q", "split", "type", "answer", "given", "given-b", "question", "a", "b", "pair", "low", "high", "sort"];
const splitNames = { train: ["학습", "train"], val: ["검증", "val"], test: ["시험", "test"] };
const steps = {
  "view.step-index": ["인덱스 읽는 중", "reading the index"],
  "view.step-texts": ["질문과 답 모으는 중", "collecting questions and answers"],
  "view.step-predictions": ["예측 비교 중", "comparing predictions"],
  "view.step-rows": ["표 쓰는 중", "writing the tables"],
};
const longest = 2000; // letters of a text in the address
const ended = ["서버가 끝났습니다. kovqa view를 다시 실행하세요.", "The server has ended: run kovqa view again."];
const refusals = {
  "view.bad-filter": ["주소에 쓸 수 없는 조건이 있습니다. ‘모두 지우기’를 누르세요.", "The address has a filter that cannot be: press ‘Clear all’."],
  "view.no-such-row": ["주소의 행이 없습니다. 인덱스가 바뀌었을 수 있습니다.", "There is no row of this address: the index may be another one."],
  "no-server": ended,
};
let state = null, shown = [], total = null, asking = 0, opener = null;

// ---- elements and words

/** An element with attributes and children; texts are texts, never markup. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value !== null && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}
const both = (korean, english) => [make("span", { lang: "ko" }, korean), make("span", { lang: "en" }, english)];
/** Words of an option or an attribute, which page.js changes with the language. */
const worded = (element, [korean, english], into = "") => {
  Object.assign(element.dataset, { ko: korean, en: english }, into ? { into } : {});
  const words = root.dataset.lang === "ko" ? korean : english;
  if (into) element.setAttribute(into, words);
  else element.textContent = words;
  return element;
};
const number = (value) => value.toLocaleString("en-US");
const percent = (value) => value === null || value === undefined ? "–" : (100 * value).toFixed(1) + "%";
const short = (text, letters = 300) => text.length > letters ? text.slice(0, letters) + "…" : text;
const mark = (right) => right === null || right === undefined ? "" : right ? "✓ " : "✗ ";
const splitName = (name) => splitNames[name] || [name, name];
const isCaption = () => state.task === "caption";
const models = () => ["a", "b"].slice(0, state.models.length);

// ---- the address: all that is chosen stands in it

const query = () => new URLSearchParams(location.search);
/** Another choice: null takes a name out of the address. A new filter begins at the first page. */
function choose(changes, { replace = false, keepPage = false } = {}) {
  const chosen = query();
  if (!keepPage) chosen.delete("page");
  for (const [name, value] of Object.entries(changes)) {
    if (value === null) chosen.delete(name);
    else chosen.set(name, Array.from(value).slice(0, longest).join("")); // the server finds what begins so
  }
  const address = chosen.size ? "?" + chosen : location.pathname;
  if (address !== location.search) history[replace ? "replaceState" : "pushState"](null, "", address);
  return show();
}
/** The filter as the server is asked: without a split in the address, the one that is shown first. */
function filter() {
  const chosen = new URLSearchParams(), given = query();
  for (const name of filterNames) if (given.has(name)) chosen.set(name, given.get(name));
  if (!chosen.has("split")) chosen.set("split", state.first_split);
  if (chosen.get("split") === "*") chosen.delete("split");
  return chosen;
}
async function ask(path, parameters = new URLSearchParams()) {
  const reply = await fetch(path + "?" + parameters, { headers: ownHeaders() }).catch(() => { throw Object.assign(new Error(ended[1]), { code: "no-server" }); });
  const value = await reply.json();
  if (!reply.ok) {
    const { en, ko } = value.error.messages;
    throw Object.assign(new Error(en), { code: value.error.code, korean: ko });
  }
  return value;
}

// ---- what is still being made

function showStatus(text, bad = false, done = null) {
  find("status").replaceChildren(...(text ? [make("div", { class: bad ? "status bad" : "status" }, text,
    done === null ? null : worded(make("progress", { max: 1, value: done }), ["진행", "progress"], "aria-label"))] : []));
}
async function watch() {
  try {
    state = await ask("/state");
  } catch {
    showStatus(both(...ended), true);
    return;
  }
  const [korean, english] = steps[state.step] || ["여는 중", "opening"];
  if (state.ready) showStatus("");
  else {
    showStatus(both(`통계를 내는 중: ${korean} (${state.done + 1}/${state.steps}). 거르기와 점수는 다 된 뒤에 나옵니다.`,
      `Counting: ${english} (${state.done + 1}/${state.steps}). Filters and scores come when it is done.`), false, state.done / state.steps);
    setTimeout(async () => { await watch(); if (state.ready) begin(); }, 500);
  }
}
function begin() {
  find("names").replaceChildren(state.name, ...state.models.map((name, place) => " · " + "AB"[place] + " = " + name));
  controls.disabled = !state.ready;
  for (const label of controls.querySelectorAll("[data-needs]")) label.hidden = !models().includes(label.dataset.needs);
  fillChoices();
  show();
}
function fillChoices() {
  const fill = (name, options) => controls.querySelector(`[name=${name}]`).replaceChildren(...options.map(([value, words]) =>
    typeof words === "string" ? make("option", { value }, short(words, 60)) : worded(make("option", { value }), words)));
  const all = ["전체", "all"], verdicts = [["", all], ["right", ["맞음", "right"]], ["wrong", ["틀림", "wrong"]]];
  const half = [["", all], ["right", ["위쪽 절반", "better half"]], ["wrong", ["아래쪽 절반", "other half"]]];
  fill("split", [...state.splits.map(({ name }) => [name, splitName(name)]), ["*", all]]);
  fill("type", [["\0", all], ...(state.types || []).map((name) => [name, name || ["종류 없음", "no type"]])]);
  fill("a", isCaption() ? half : verdicts);
  fill("b", isCaption() ? half : verdicts);
  fill("pair", [["", all], ["different", isCaption() ? ["서로 다른 설명", "different captions"] : ["서로 다른 답", "different answers"]], ["same", isCaption() ? ["같은 설명", "same caption"] : ["같은 답", "same answer"]],
    ["only-a", ["A만 맞음", "only A right"]], ["only-b", ["B만 맞음", "only B right"]], ["neither", ["둘 다 틀림", "both wrong"]]]);
  fill("sort", [["", ["인덱스 순", "as in the index"]], ["sure", ["확신 높은 순", "surest first"]],
    ["unsure", ["확신 낮은 순", "least sure first"]], ["low", ["점수 낮은 순", "lowest score first"]]]);
}

// ---- the choices, as the address has them

function showChoices() {
  const chosen = query();
  for (const field of fields) {
    if (field.name === "split") field.value = chosen.get("split") || state.first_split;
    else if (field.name === "type") field.value = chosen.has("type") ? chosen.get("type") : "\0";
    else if (field.name === "low" || field.name === "high") {
      field.value = chosen.get(field.name) && isFinite(chosen.get(field.name)) ? Math.round(100 * chosen.get(field.name)) : "";
    } else if (field !== document.activeElement || field.type !== "search") field.value = chosen.get(field.name) || "";
  }
  const names = { answer: ["정답", "truth"], given: ["A의 답", "A's answer"], "given-b": ["B의 답", "B's answer"], question: ["질문", "question"] };
  find("chips").replaceChildren(...Object.entries(names).filter(([name]) => chosen.has(name)).map(([name, [korean, english]]) =>
    make("button", { type: "button", click: () => choose({ [name]: null }) },
      both(`${korean}: `, `${english}: `), short(chosen.get(name), 80) || "–")));
  for (const form of ["csv", "jsonl", "xlsx"]) {
    const parameters = filter();
    parameters.set("format", form);
    find(form).href = "/export?" + parameters;
  }
}
// A phone shows the rows first.
find("more").open = matchMedia("(min-width: 721px)").matches;
let typing = 0;
for (const field of fields) {
  const changed = () => {
    let value = field.value;
    if (field.type === "number") value = value === "" ? null : String(Math.min(100, Math.max(0, value)) / 100);
    else if (field.name === "type") value = value === "\0" ? null : value;
    else if (field.name === "split") value = value === state.first_split ? null : value;
    else value = value.trim().normalize("NFC") || null;
    choose({ [field.name]: value }, { replace: field.type === "search" && query().has("q") });
  };
  if (field.type === "search") field.addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(changed, 250); });
  else field.addEventListener("change", changed);
}
find("reset").addEventListener("click", () => choose(Object.fromEntries(filterNames.map((name) => [name, null]))));

// ---- scores above everything

function tile([korean, english], value, note = "") {
  return make("div", { class: "tile" }, make("span", { class: "quiet" }, both(korean, english)), make("b", {}, value),
    make("span", { class: "quiet" }, note));
}
function showTiles(sums) {
  const tiles = [tile(["행", "Rows"], number(sums.rows))];
  for (const model of models()) {
    const rows = sums[model + "_rows"], right = sums[model + "_right"];
    const metric = isCaption() && state.predictions[models().indexOf(model)].metric;
    if (metric) tiles.push(tile([`${model.toUpperCase()} 평균 ${metric}`, `${model.toUpperCase()} mean ${metric}`],
      rows ? sums[model + "_score"].toFixed(3) : "–"));
    else tiles.push(tile([`${model.toUpperCase()}의 점수`, `Score of ${model.toUpperCase()}`], rows ? percent(sums[model + "_score"]) : "–",
      both(`${number(rows)}개 중 ${number(right)}개 맞음`, `${number(right)} of ${number(rows)} right`)));
  }
  if (state.models.length === 2 && sums.b_rows) tiles.push(tile(["서로 다른 답", "Different answers"], number(sums.different),
    both(`A만 맞음 ${number(sums.only_a)} · B만 맞음 ${number(sums.only_b)}`, `only A right ${number(sums.only_a)} · only B ${number(sums.only_b)}`)));
  find("tiles").replaceChildren(...tiles);
  find("notes").replaceChildren(...notes(sums).map(([korean, english]) => make("p", { class: "quiet" }, both(korean, english))));
}

/** What the scores leave out, said where they stand. */
function notes(sums) {
  const said = [];
  state.predictions.forEach(({ unusable_scores: unusable }, place) => {
    if (unusable) said.push([`${"AB"[place]}: 0과 1 사이가 아닌 확신 ${number(unusable)}개는 없는 것으로 봅니다.`,
      `${"AB"[place]}: ${number(unusable)} confidences that are not between 0 and 1 count as missing.`]);
  });
  if (state.models.length === 2 && sums.b_rows && !sums.different && filter().toString() === `split=${state.answered_split}`)
    said.push(["A와 B의 답이 모두 같습니다.", "A and B give the same answers."]);
  if (state.models.length && sums.rows !== sums.a_rows) said.push([`예측이 없는 행 ${number(sums.rows - sums.a_rows)}개는 점수에 들어가지 않습니다.`,
    `${number(sums.rows - sums.a_rows)} rows without a prediction do not count in the scores.`]);
  return said;
}

// ---- tabs

const tabs = {
  gallery: { words: ["보기", "Examples"], show: showGallery, needs: () => true },
  answers: { words: ["답 분포", "Answers"], show: showAnswers, needs: () => !isCaption() },
  frequency: { words: ["학습 빈도", "Training frequency"], show: showFrequency, needs: () => !isCaption() && state.models.length },
  calibration: { words: ["확신", "Confidence"], show: showCalibration, needs: () => !isCaption() && state.models.length },
  confusion: { words: ["헷갈린 답", "Confused answers"], show: showConfusion, needs: () => !isCaption() && state.models.length },
  questions: { words: ["질문별", "Questions"], show: showQuestions, needs: () => !isCaption() },
};
const tabName = () => {
  const name = query().get("tab");
  return state.ready && Object.hasOwn(tabs, name || "") && tabs[name].needs() ? name : "gallery";
};
function showTabs() {
  const chosen = tabName(), names = Object.keys(tabs).filter((name) => tabs[name].needs());
  const held = document.activeElement?.getAttribute("role") === "tab";
  find("tabs").replaceChildren(...names.map((name) => make("button", {
    type: "button", role: "tab", id: "tab-" + name, "aria-controls": "panel", "aria-selected": String(name === chosen),
    tabindex: name === chosen ? 0 : -1, disabled: state.ready || name === "gallery" ? false : "",
    click: () => choose({ tab: name === "gallery" ? null : name }, { keepPage: true }),
  }, both(...tabs[name].words))));
  panel.setAttribute("aria-labelledby", "tab-" + chosen);
  if (held) find("tab-" + chosen).focus();
}
find("tabs").addEventListener("keydown", (event) => {
  const buttons = Array.from(find("tabs").children), place = buttons.indexOf(document.activeElement);
  const to = { ArrowRight: place + 1, ArrowLeft: place - 1, Home: 0, End: buttons.length - 1 }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  buttons[(to + buttons.length) % buttons.length].click();
});

// ---- examples

const picture = (row, side) => {
  const box = make("div", { class: "picture" });
  const image = make("img", { src: `/image?split=${row.split}&line=${row.line}&side=${side}&key=${state.key}`, alt: row.image, loading: "lazy", decoding: "async",
    error: () => box.replaceChildren(make("span", {}, both("이미지를 읽을 수 없습니다", "this image cannot be read")), make("small", {}, short(row.image))) });
  box.append(image);
  return box;
};
const truth = (row) => isCaption() ? row.captions.join(" / ")
  : row.answers.map(({ answer, score }) => score === 1 ? answer : `${answer} (${+score.toFixed(2)})`).join(" · ");
function answerLines(row, letters) {
  const lines = [];
  for (const { model, answer, right, score, confidence } of row.models) {
    const notes = [isCaption() || (score > 0 && score < 1) ? both(`점수 ${score.toFixed(2)}`, `score ${score.toFixed(2)}`) : null,
      confidence === null ? null : both(`확신 ${percent(confidence)}`, `confidence ${percent(confidence)}`)].filter(Boolean);
    lines.push(make("dt", {}, model.toUpperCase()), make("dd", {}, make("span", { class: right ? "right" : "wrong" }, mark(right), short(answer, letters) || "—"),
      ...notes.flatMap((note) => [" ", make("small", {}, note)])));
  }
  return lines;
}
function rowWords(row, letters) {
  if (row.fault) return make("div", { class: "words" }, make("p", { class: "wrong" }, both(short(row.fault_in.ko), short(row.fault_in.en))));
  return make("div", { class: "words" }, row.question ? make("p", { class: "question" }, short(row.question, letters)) : null,
    make("dl", {}, make("dt", {}, isCaption() ? both("사람 설명", "People") : both("정답", "Truth")),
      make("dd", {}, truth(row) ? short(truth(row), letters) : both("없음", "none")), answerLines(row, letters)));
}
async function showGallery() {
  const parameters = filter(), page = Number(query().get("page") || 0);
  parameters.set("page", page);
  const { rows } = await ask("/rows", parameters);
  const cards = rows.map((row) => {
    const address = query();
    address.set("row", `${row.split}-${row.line}`);
    return make("li", { class: "card" }, make("a", { href: "?" + address, click: (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      opener = `${row.split}-${row.line}`;
      choose({ row: opener }, { keepPage: true });
    }, "data-row": `${row.split}-${row.line}` }, picture(row, 320), rowWords(row, 160)));
  });
  return () => {
    shown = rows.map((row) => `${row.split}-${row.line}`);
    const count = total === null ? state.splits.find(({ name }) => name === parameters.get("split"))?.rows : total;
    const pages = Math.max(1, Math.ceil((count ?? 0) / state.page_rows));
    const turn = (to) => { choose({ page: to ? String(to) : null }, { keepPage: true }); panel.focus(); scrollTo({ top: 0 }); };
    panel.replaceChildren(rows.length ? make("ul", { class: "cards" }, cards) : nothing(),
      make("nav", { class: "pager", "aria-label": "" },
        make("button", { type: "button", disabled: page ? false : "", click: () => turn(page - 1) }, "← ", both("앞쪽", "Back")),
        make("span", { "aria-live": "polite" }, `${number(page + 1)} / ${number(pages)}`),
        make("button", { type: "button", disabled: page + 1 < pages ? false : "", click: () => turn(page + 1) }, both("다음 쪽", "Next page"), " →")));
    worded(panel.querySelector("nav"), ["쪽", "pages"], "aria-label");
  };
}
const nothing = () => make("p", { class: "quiet" }, both("고른 조건에 맞는 행이 없습니다.", "No row fits these filters."));

// ---- tables

/** A table: a heading is [Korean, English], a cell a text or an element; the first one names its row. */
function table(headings, rows) {
  if (!rows.length) return nothing();
  const box = make("div", { class: "box" }, make("table", {}, make("thead", {}, make("tr", {}, headings.map(([korean, english]) => make("th", { scope: "col" }, both(korean, english))))),
    make("tbody", {}, rows.map(([first, ...cells]) => make("tr", {}, make("th", { scope: "row" }, first), cells.map((cell) => cell instanceof HTMLTableCellElement ? cell : make("td", {}, cell)))))));
  scrolling.observe(box);
  return box;
}
const note = (korean, english) => make("p", { class: "quiet" }, both(korean, english));
const textCell = (...children) => make("td", { class: "text" }, ...children);
const link = (text, changes) => make("button", { type: "button", class: "link", click: () => choose({ tab: null, ...changes }) }, short(text, 120) || "–");
function bar(text, share) {
  const inner = make("i");
  inner.style.setProperty("--share", Math.min(1, Math.max(0, share || 0)));
  return make("td", {}, text, make("div", { class: "bar", "aria-hidden": "true" }, inner));
}
const scoreHeadings = () => models().map((model) => [`${model.toUpperCase()}의 점수`, `score of ${model.toUpperCase()}`]);
const scoreCells = (row) => models().map((model) => bar(percent(row[model + "_score"]), row[model + "_score"]));

async function showAnswers() {
  const rows = await ask("/answers", filter());
  const most = Math.max(1, ...rows.map((row) => Math.max(row.true_rows, row.a_rows, row.b_rows)));
  return () => panel.replaceChildren(
    note(`가장 흔한 답 ${rows.length}개 (서로 다른 답 ${number(rows[0]?.answers ?? 0)}개 중). 답을 누르면 그 답이 정답인 행이 나옵니다.`,
      `The ${rows.length} most frequent of ${number(rows[0]?.answers ?? 0)} answers. Choose one to see the rows where it is true.`),
    table([["답", "answer"], ["정답인 행", "is true"], ...models().map((model) => [`${model.toUpperCase()}의 답인 행`, `given by ${model.toUpperCase()}`])],
      rows.map((row) => [link(row.answer, { answer: row.answer }), bar(number(row.true_rows), row.true_rows / most),
        ...models().map((model) => bar(number(row[model + "_rows"]), row[model + "_rows"] / most))])));
}
async function showFrequency() {
  const rows = await ask("/frequency", filter()), edges = state.frequency_edges;
  const range = (low) => {
    const high = edges[edges.indexOf(low) + 1];
    return low === 0 ? both("없음", "never") : high === undefined ? both(`${number(low)} 이상`, `${number(low)} or more`)
      : high - low === 1 ? number(low) : `${number(low)} – ${number(high - 1)}`;
  };
  return () => panel.replaceChildren(...(!state.splits.some(({ name }) => name === "train") ? [
    note("인덱스에 학습 분할이 없어, 정답이 학습에 몇 번 나왔는지 알 수 없습니다.",
      "The index has no training split: it is not known how often training saw the answers.")] : [
    note("정답이 학습 행에 몇 번 나왔는지에 따른 점수.", "Scores by how many training rows have the same true answer."),
    table([["학습 행", "training rows"], ["행", "rows"], ["서로 다른 정답", "different answers"], ...scoreHeadings()],
      rows.map((row) => [make("span", {}, range(row.low)), number(row.rows), number(row.answers), ...scoreCells(row)]))]));
}
async function showCalibration() {
  const found = await ask("/calibration", filter());
  const parts = models().filter((model) => found[model].bins.length);
  const chart = make("div", { class: "charts" });
  chart.innerHTML = found.chart; // drawn by the server of numbers alone
  return () => panel.replaceChildren(...(parts.length ? [chart,
    ...parts.flatMap((model) => [
      make("h2", {}, model.toUpperCase(), " · ECE ", percent(found[model].error)),
      table([["확신", "confidence"], ["행", "rows"], ["평균 확신", "mean confidence"], ["점수", "score"]],
        found[model].bins.map(({ bin, rows, confidence, score }) => [`${10 * bin} – ${10 * bin + 10}%`, number(rows), percent(confidence), bar(percent(score), score)])),
    ]),
    note("ECE: 확신과 점수의 차이를 행 수로 가중해 평균한 값 (10구간). 작을수록 확신을 믿을 수 있습니다.",
      "ECE: the distance of confidence and score, averaged over ten bins by their rows. The smaller, the more its confidence means."),
  ] : [note("이 예측에는 확신이 없습니다.", "These predictions do not say how sure the model was.")]));
}
async function showConfusion() {
  const found = await ask("/confusion", filter());
  return () => panel.replaceChildren(...models().flatMap((model) => [
    make("h2", {}, model.toUpperCase()),
    table([["정답", "truth"], ["모델의 답", "given"], ["행", "rows"], ["이 정답의 행 중", "of the rows with this truth"]],
      found[model].map((row) => [row.true_answer || "–", textCell(link(row.given, { answer: row.true_answer, [model === "a" ? "given" : "given-b"]: row.given, [model]: "wrong" })),
        number(row.rows), bar(percent(row.rows / row.all_rows), row.rows / row.all_rows)])),
  ]));
}
async function showQuestions() {
  const rows = await ask("/questions", filter());
  return () => panel.replaceChildren(
    note("여러 이미지에 같은 글로 물은 질문, 많은 것부터.", "Questions asked of many images in the same words, the most frequent first."),
    table([["질문", "question"], ["행", "rows"], ["서로 다른 정답", "different answers"], ["가장 흔한 정답", "commonest truth"],
      ...models().map((model) => [`${model.toUpperCase()}의 가장 흔한 답`, `commonest of ${model.toUpperCase()}`]), ...scoreHeadings()],
    rows.map((row) => [link(row.question, { question: row.question }), number(row.rows), number(row.answers), textCell(row.true_answer ?? "–"),
      ...models().map((model) => textCell(row[model + "_answer"] ?? "–")), ...scoreCells(row)])));
}

// ---- one row

async function showRow(turn) {
  const [split, line] = (query().get("row") || "").split("-");
  if (line === undefined) {
    if (dialog.open) dialog.close();
    return;
  }
  const row = await ask("/row", new URLSearchParams({ split, line }));
  if (turn !== asking) return;
  const place = shown.indexOf(`${split}-${line}`), list = make("dl", {});
  const add = ([korean, english], ...value) => list.append(make("dt", {}, both(korean, english)), make("dd", {}, ...value));
  if (!row.fault) {
    if (row.context) add(["읽을 글", "context"], short(row.context, 2000));
    if (row.choices.length) add(["고를 답", "choices"], row.choices.join(" · "));
    if (row.annotations.length) add(["사람들의 답", "people's answers"], row.annotations.join(" · "));
    for (const model of models()) if (row.likeliest[model].length) add([`${model.toUpperCase()}의 그럴듯한 답`, `${model.toUpperCase()}'s likeliest`],
      ...row.likeliest[model].flatMap(([answer, score]) => [make("div", {}, answer, " ", make("small", {}, percent(score)))]));
    if (row.trained !== null && state.models.length && !isCaption()) add(["학습 행 중 같은 정답", "training rows with this truth"], number(row.trained));
    if (row.type) add(["종류", "type"], row.type);
    for (const [name, text] of row.columns) list.append(make("dt", { class: "own" }, short(name, 60)), make("dd", {}, short(text, 2000)));
    add(["번호", "id"], row.id);
    add(["이미지", "image"], row.image);
  }
  find("detail").replaceChildren(picture(row, 1280), make("div", { class: "words" }, ...rowWords(row, 2000).children, list));
  find("before").disabled = place <= 0;
  find("next").disabled = place < 0 || place + 1 >= shown.length;
  if (!dialog.open) dialog.showModal();
}
function step(by) {
  const to = shown[shown.indexOf(query().get("row")) + by];
  if (to) choose({ row: opener = to }, { replace: true, keepPage: true });
}
const closeRow = () => choose({ row: null }, { keepPage: true });
find("before").addEventListener("click", () => step(-1));
find("next").addEventListener("click", () => step(1));
find("close").addEventListener("click", closeRow);
dialog.addEventListener("cancel", (event) => { event.preventDefault(); closeRow(); });
dialog.addEventListener("keydown", (event) => {
  if (event.key === "ArrowLeft") step(-1);
  else if (event.key === "ArrowRight") step(1);
});
dialog.addEventListener("close", () => document.querySelector(`[data-row="${opener}"]`)?.focus());
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && !event.target.closest("input, select, textarea, dialog")) { event.preventDefault(); fields[0].focus(); }
});

// ---- all of it

let panelKey = "";
async function show() {
  const turn = ++asking;
  showChoices();
  showTabs();
  try {
    // What lies behind a row that is opened or closed stays as it is.
    const behind = query();
    behind.delete("row");
    const key = `${state.ready} ${behind}`;
    if (key !== panelKey) {
      panel.setAttribute("aria-busy", "true");
      if (state.ready) {
        const sums = await ask("/summary", filter());
        if (turn !== asking) return;
        total = sums.rows;
        showTiles(sums);
      }
      const fill = await tabs[tabName()].show();
      // An answer to an earlier question comes too late.
      if (turn !== asking) return;
      fill();
      panelKey = key;
    }
    await showRow(turn);
    if (turn !== asking) return;
    if (state.ready) showStatus("");
    root.dataset.ready = state.ready ? "yes" : "soon";
  } catch (error) {
    if (turn === asking) showStatus(both(...(refusals[error.code] || [error.korean || `보이지 못했습니다 (${error.code || error.name}).`, error.message])), true);
  } finally {
    if (turn === asking) panel.removeAttribute("aria-busy");
  }
}
addEventListener("popstate", show);
watch().then(() => { if (state) begin(); });

const page = $("page"), question = $("question"), LIKELIEST = 5;
// For screen readers. Not "ko", which marks the Korean of what the page itself says, hidden on an English one.
const KOREAN = { lang: "ko-KR" };
// An entry is an image, a question and the results of one or two models. It is shown, and kept in the history.
let models = [], picture = null, shown = null, busy = null, looking = null, asked = [], taken = 0;

const motion = () => (matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth");

// ------------------------------------------------------------------------------------------ the image
function releaseUrls(before) {
  const kept = new Set([picture, shown && shown.picture, ...asked.map((entry) => entry.picture)]);
  for (const one of before) if (one && !kept.has(one)) URL.revokeObjectURL(one.url);
}

async function takeImage(file) {
  const mine = ++taken, most = Number(page.dataset.maxBytes), name = file.name || "image";
  showFault("image-error", null);
  if (most && file.size > most) {
    return showFault("image-error", [`${name}: 파일이 ${megabytes(file.size)}입니다. 이 서버는 ${megabytes(most)}까지 받습니다.`,
      `${name}: the file has ${megabytes(file.size)}; this server takes up to ${megabytes(most)}.`]);
  }
  let bytes;
  try {
    bytes = await file.arrayBuffer();  // at once: what is sent, and asked again later, is what was shown
  } catch {
    return showFault("image-error", [`${name}: 파일을 읽을 수 없습니다.`, `${name}: the file cannot be read.`]);
  }
  const blob = new Blob([bytes], { type: file.type });
  const url = URL.createObjectURL(blob), size = await measure(url), pixels = Number(page.dataset.maxPixels);
  if (mine !== taken) return URL.revokeObjectURL(url);
  // A JPEG is decoded smaller where it is large: the server says.
  if (size && pixels && file.type !== "image/jpeg" && size.width * size.height > pixels) {
    URL.revokeObjectURL(url);
    return showFault("image-error", [`${name}: ${size.width} × ${size.height} 화소입니다. 이 서버는 ${pixels.toLocaleString()} 화소까지 받습니다.`,
      `${name}: ${size.width} × ${size.height} pixels; this server takes up to ${pixels.toLocaleString()}.`]);
  }
  stop();
  const before = picture;
  shown = null;
  picture = { blob, url, size, name };
  releaseUrls([before]);
  renderImage();
  renderAnswers();
}

async function measure(url) {
  const image = new Image();
  image.src = url;
  try {
    await image.decode();
    return { width: image.naturalWidth, height: image.naturalHeight };
  } catch {
    return null;  // not for browsers, or damaged: the server says
  }
}

function renderImage() {
  $("empty").hidden = Boolean(picture);
  $("frame").hidden = !picture;
  $("stage").classList.toggle("full", Boolean(picture));
  if (!picture) return;
  $("frame").style.setProperty("--ratio", picture.size ? picture.size.width / picture.size.height : 1.5);
  $("image").hidden = !picture.size;
  $("unshown").hidden = Boolean(picture.size);
  $("image").src = picture.url;
  $("image").alt = picture.name;
}

$("stage").addEventListener("click", (event) => { if (event.target.closest("#empty")) $("choose").click(); });
for (const input of [$("choose"), $("photograph")]) input.addEventListener("change", () => {
  if (input.files.length) takeImage(input.files[0]);
  input.value = "";  // the same file can be chosen again
});
addEventListener("dragover", (event) => { event.preventDefault(); $("stage").classList.add("over"); });
addEventListener("dragleave", (event) => { if (!event.relatedTarget) $("stage").classList.remove("over"); });
addEventListener("drop", (event) => {
  event.preventDefault();
  $("stage").classList.remove("over");
  if (event.dataTransfer.files.length) takeImage(event.dataTransfer.files[0]);
  else showFault("image-error", ["이미지 파일만 놓을 수 있습니다. 웹 페이지의 이미지는 먼저 저장하십시오.",
    "Only image files can be dropped. Save an image of a web page first."]);
});
addEventListener("paste", (event) => {
  const file = Array.from(event.clipboardData.files).find((each) => each.type.startsWith("image/"));
  const isText = event.target === question && event.clipboardData.getData("text");
  if (file && !isText) { event.preventDefault(); takeImage(file); }
});

// ------------------------------------------------------------------------------------------ asking
const chosenModels = () => [$("model").value, $("other").value].filter((id, n, all) => id && all.indexOf(id) === n)
  .map((id) => models.find((model) => model.id === id));
const asksQuestion = () => chosenModels().some((model) => model.task !== "caption");

function renderForm() {
  const asks = asksQuestion() || !models.length;
  $("question-label").hidden = !asks;
  $("enter-hint").hidden = !asks;
  if ($("speech")) $("speech").hidden = !asks;
  $("no-question").hidden = asks;
  for (const option of $("other").options) option.hidden = option.disabled = option.value === $("model").value;
  if ($("other").value === $("model").value) $("other").value = "";
  $("send").classList.toggle("stop", Boolean(busy));
  $("send").replaceChildren(...(busy ? both("취소", "Cancel") : asks ? both("묻기", "Ask") : both("설명 쓰기", "Describe")));
}

function stop() {
  for (const running of [busy, looking]) if (running) running.abort();
  busy = looking = null;
  $("look-busy").hidden = true;
  renderForm();
}

async function send() {
  const text = question.value.trim(), chosen = chosenModels();
  for (const id of ["question-error", "image-error", "look-error"]) showFault(id, null);
  if (!picture) {
    $("choose").focus();
    return showFault("image-error", ["이미지를 먼저 고르십시오.", "Choose an image first."]);
  }
  if (!text && asksQuestion()) {
    question.focus();
    return showFault("question-error", ["질문을 쓰십시오.", "Write a question."]);
  }
  if (!chosen.length) return loadModels();
  stop();
  const entry = { picture, question: text, results: chosen.map((model) => ({ model })), looked: 0 };
  const mine = busy = new AbortController();
  shown = entry;
  $("said").replaceChildren();
  renderForm();
  renderAnswers();
  $("answers").scrollIntoView({ block: "nearest", behavior: motion() });
  await Promise.all(entry.results.map((result) => answer(entry, result, mine.signal)));
  if (busy !== mine) return;  // cancelled
  busy = null;
  renderForm();
  if (entry.results.some((result) => result.reply)) asked.unshift(entry);
  renderHistory();
  explain();
}

const requestFields = (entry, model) => ({
  image: new File([entry.picture.blob], entry.picture.name, { type: entry.picture.blob.type }), model: model.id,
  ...(model.task === "caption" ? {} : { question: entry.question }),
});

async function answer(entry, result, signal) {
  const { model } = result, path = model.task === "caption" ? "/v1/caption" : "/v1/vqa";
  const onWait = (wait) => { result.wait = wait; if (shown === entry) renderAnswers(); };
  try {
    result.reply = await askPatiently(path, { ...requestFields(entry, model), top_k: LIKELIEST }, signal, onWait);
    result.text = model.task === "caption" ? result.reply.caption : result.reply.answer;
  } catch (fault) {
    if (signal.aborted) result.stopped = true;
    else result.fault = fault;
  }
  if (isOfImage(result.fault) && shown === entry) {
    shown = null;
    showFault("image-error", faultWords(result.fault));
    if (!picture.size) picture = null;
    renderImage();
    return renderAnswers();
  }
  if (shown !== entry) return;
  renderAnswers();
  if (result.reply) $("said").append(make("p", KOREAN, `${model.id}: `, result.text));
}

// ------------------------------------------------------------------------------------------ answers
function bars(likeliest) {
  return make("ol", { class: "likeliest", "data-ko": "가장 그럴듯한 답", "data-en": "Likeliest answers", "data-into": "aria-label" },
    likeliest.slice(0, LIKELIEST).map(({ answer: text, score }) => {
      const bar = make("i", { "aria-hidden": "true" });
      bar.style.setProperty("--share", Math.min(Math.max(score, 0), 1));
      return make("li", {}, make("span", KOREAN, text || "—"), make("span", {}, percent(score)), bar);
    }));
}

function explained({ words, method, seconds: took, doubt }) {
  // Log-odds: what is little stays pale, and what is everything does not hide the rest.
  const most = Math.min(Math.max(1, ...words.map((word) => word.effect)), 10);
  const methods = { occlusion: ["가려 보기", "occlusion"], rollout: ["어텐션 롤아웃", "attention rollout"] };
  const [korean, english] = methods[method] || [method, method];
  const marked = words.flatMap(({ word, effect }) => {
    const mark = make("mark", { title: effect.toFixed(3) }, word);
    mark.style.setProperty("--share", Math.min(Math.max(effect, 0) / most, 1));
    return [mark, " "];
  });
  const strongest = words.reduce((best, word) => (word.effect > best.effect ? word : best), { effect: 0 });
  const named = strongest.word ? [make("p", { class: "unseen" }, both(`가장 크게 작용한 낱말: ${strongest.word}`, `Strongest word: ${strongest.word}`))] : [];
  const doubted = doubt ? [make("p", { class: "doubt" }, both(...faultWords(new Fault(200, doubt.code, doubt.message))))] : [];
  return make("div", { class: "explained" }, words.length ? make("p", { ...KOREAN, class: "words" }, marked) : [], named, doubted,
    make("span", { class: "quiet" }, both(`${korean}, ${seconds(took)}초`, `${english}, ${seconds(took)} s`)));
}

function answerCard(result, isAlone) {
  const { model, reply, fault } = result, card = make("article", { class: "card answer", "data-model": model.id });
  card.append(make("h3", isAlone && models.length < 2 ? { class: "unseen" } : {}, model.id));
  if (fault) card.append(make("p", { class: "error", role: "alert" }, both(...faultWords(fault))));
  else if (result.stopped) card.append(make("p", { class: "quiet" }, both("취소됨", "Cancelled")));
  else if (!reply) {
    const words = result.wait ? both(`서버에 요청이 많아 ${result.wait}초 뒤 다시 묻습니다`, `The server is busy; asking again in ${result.wait} s`) : both("답을 기다리는 중", "Waiting for the answer");
    card.append(make("p", { class: "busy quiet", role: "status" }, words));
  } else {
    const { likeliest = [], score, seconds: took, queue_seconds: queued } = reply;
    card.append(make("p", { ...KOREAN, class: result.text.length > 14 ? "given long" : "given" }, result.text || "—"));
    if (likeliest.length > 1) card.append(bars(likeliest));
    else if (score != null) card.append(make("span", { class: "quiet" }, both(`확신 ${percent(score)}`, `Confidence ${percent(score)}`)));
    if (reply.question_cut) card.append(make("p", { class: "quiet" }, both("질문이 길어 뒷부분은 모델이 읽지 못했습니다.", "The question is too long: the model did not read its end.")));
    if (result.explanation) card.append(explained(result.explanation));
    card.append(make("span", { class: "quiet" }, both(`모델 ${seconds(took)}초, 대기 ${seconds(queued)}초`, `Model ${seconds(took)} s, queue ${seconds(queued)} s`)));
  }
  return card;
}

function renderAnswers() {
  const results = shown ? shown.results : [];
  $("waiting").hidden = Boolean(shown);
  $("answers").replaceChildren(...results.map((result) => answerCard(result, results.length === 1)));
  $("answers").setAttribute("aria-busy", String(Boolean(busy)));
  renderLook();
}

// ------------------------------------------------------------------------------------------ where the model looked
const looked = () => shown && (shown.results[shown.looked].reply ? shown.results[shown.looked] : shown.results.find((result) => result.reply));

function renderLook() {
  const result = looked(), on = $("look-switch").checked, heat = on && result && result.explanation;
  page.dataset.look = on ? "on" : "off";
  $("look").hidden = !result;
  $("heat").hidden = !heat;
  if (heat) $("heat").src = result.explanation.heat;
  $("strength-label").hidden = !on;
  $("legend").hidden = !heat;
  const answered = shown ? shown.results.filter((each) => each.reply) : [];
  $("look-models").hidden = !on || answered.length < 2;
  for (const old of $("look-models").querySelectorAll("label")) old.remove();
  for (const each of answered) {
    const radio = make("input", { type: "radio", name: "looked", value: each.model.id });
    radio.checked = each === result;
    radio.addEventListener("change", () => { shown.looked = shown.results.indexOf(each); explain(); });
    $("look-models").append(make("label", {}, radio, each.model.id));
  }
}

async function explain() {
  if (looking) looking.abort();
  looking = null;
  showFault("look-error", null);
  const focused = document.activeElement && document.activeElement.name === "looked" && document.activeElement.value;
  renderLook();
  if (focused) for (const radio of document.getElementsByName("looked")) if (radio.value === focused) radio.focus();
  const entry = shown, result = looked();
  $("look-busy").hidden = true;
  if (!$("look-switch").checked || !result || result.explanation) return;
  const mine = looking = new AbortController();
  $("look-busy").hidden = false;
  try {
    result.explanation = await askPatiently("/v1/explain", requestFields(entry, result.model), mine.signal, () => {});
  } catch (fault) {
    if (!mine.signal.aborted) showFault("look-error", faultWords(fault));
  }
  if (looking !== mine) return;
  looking = null;
  $("look-busy").hidden = true;
  if (shown === entry) renderAnswers();
}

$("look-switch").addEventListener("change", explain);
$("strength").addEventListener("input", () => $("heat").style.setProperty("--strength", $("strength").value / 100));

// ------------------------------------------------------------------------------------------ history
function renderHistory() {
  $("past").hidden = !asked.length;
  $("history").replaceChildren(...asked.map((entry) => {
    const texts = entry.results.filter((result) => result.reply).map((result) => result.text || "—").join(" / ");
    const image = entry.picture.size ? make("img", { src: entry.picture.url, alt: "" }) : make("img", { alt: "" });
    const asked = entry.question ? [entry.question] : both("이미지 설명", "Description");
    const button = make("button", { type: "button", "aria-current": String(entry === shown) }, image, make("div", {}, make("span", { class: "quiet" }, asked), make("b", {}, texts)));
    button.addEventListener("click", () => bringBack(entry));
    return make("li", {}, button);
  }));
}

function bringBack(entry) {
  stop();
  for (const id of ["question-error", "image-error", "look-error"]) showFault(id, null);
  const before = picture;
  taken += 1;
  picture = entry.picture;
  shown = entry;
  question.value = entry.question || question.value;
  $("model").value = entry.results[0].model.id;
  $("other").value = entry.results.length > 1 ? entry.results[1].model.id : "";
  releaseUrls([before]);
  renderForm();
  renderImage();
  renderAnswers();
  renderHistory();
  explain();
  scrollTo({ top: 0, behavior: motion() });
}

$("clear").addEventListener("click", () => {
  const before = asked.map((entry) => entry.picture);
  asked = [];
  releaseUrls(new Set(before));
  renderHistory();
  question.focus();
});

// ------------------------------------------------------------------------------------------ start
async function loadModels() {
  showFault("server-error", null);
  try {
    models = (await (await ask("/v1/models", {})).json()).data;
  } catch (fault) {
    return showFault("server-error", faultWords(fault));
  }
  const options = (task) => models.filter((model) => (model.task === "caption") === (task === "caption")).map(({ id }) => make("option", { value: id }, id));
  for (const select of [$("model"), $("other")]) {
    const asking = options("vqa"), describing = options("caption");
    if (!asking.length || !describing.length) select.append(...asking, ...describing);
    else {
      select.append(make("optgroup", { "data-ko": "질문에 답하기", "data-en": "Answer questions", "data-into": "label" }, asking),
        make("optgroup", { "data-ko": "이미지 설명", "data-en": "Describe images", "data-into": "label" }, describing));
    }
  }
  $("model").value = models[0].id;
  $("models").hidden = models.length < 2;
  renderForm();
}

// Examples are a help: a server without them is no fault.
async function loadExamples() {
  const { examples } = await (await ask("/v1/examples", {})).json();
  for (const [n, example] of examples.entries()) {
    const blob = await (await ask(example.image, {})).blob();
    const button = make("button", { type: "button" }, make("img", {
      src: URL.createObjectURL(blob), "data-ko": `예시 이미지 ${n + 1}`, "data-en": `Example image ${n + 1}`, "data-into": "alt",
    }));
    button.addEventListener("click", async () => {
      await takeImage(new File([blob], example.image.split("/").pop(), { type: blob.type }));
      question.value = example.question;
      if (asksQuestion()) question.focus();
    });
    $("example-list").append(make("li", {}, button));
    $("examples").hidden = false;
  }
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (busy) stop();
  else send();
});
question.addEventListener("keydown", (event) => {
  // Enter also ends a syllable that is being composed.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
  event.preventDefault();
  if (!busy) send();
});
addEventListener("keydown", (event) => { if (event.key === "Escape" && busy && !event.isComposing) stop(); });
for (const select of [$("model"), $("other")]) select.addEventListener("change", renderForm);
// What was understood is looked over, and asked by who spoke.
offerSpeech((text) => { question.value = text; question.focus(); });
renderForm();
loadModels().then(() => loadExamples().catch(() => {})).finally(() => { root.dataset.ready = "yes"; });

// Elements in two languages, the faults of a server in words, and requests that wait where a server is busy.
const $ = (id) => document.getElementById(id);

// ------------------------------------------------------------------------------------------ elements and words
function make(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children.flat());
  if (made.dataset.ko) translate(made);
  return made;
}
const both = (korean, english) => [make("span", { lang: "ko" }, korean), make("span", { lang: "en" }, english)];
// What is not quite all or nothing does not look as if it were.
const percent = (share) => (share > 0 && share < 0.0005 ? "< 0.1%" : share < 1 && share >= 0.9995 ? "> 99.9%" : `${(100 * share).toFixed(1)}%`);
const seconds = (value) => (value < 10 ? value.toFixed(2) : value.toFixed(0));
const showFault = (id, words) => $(id).replaceChildren(...(words ? both(...words) : []));
const megabytes = (bytes) => `${Math.floor(bytes / 1e5) / 10} MB`;

// ------------------------------------------------------------------------------------------ faults
class Fault extends Error {
  constructor(status, code, told, wait, korean) {
    super(told);
    Object.assign(this, { status, code, wait, korean });
  }
}
// Where a person at a page needs other words than the server's, by their keys; what it did not say itself, by the status.
const KOREAN_BY_CODE = {
  "data.image-unreadable": "이미지를 읽을 수 없습니다. 파일이 손상되었거나 이미지가 아닙니다.",
  "data.image-cut-off": "이미지 파일이 중간에 끊겼습니다.",
  "data.image-many-pixels": "이미지의 화소 수가 서버의 한도를 넘습니다.",
  "data.image-memory": "이미지가 커서 서버의 메모리 한도를 넘습니다.",
  "data.image-file-too-large": "이미지 파일이 서버의 한도보다 큽니다.",
  "explain.flat": "어느 곳을 가려도 답이 거의 그대로입니다. 표시할 곳이 없습니다.",
  "explain.not-confirmed": "확인되지 않은 지도입니다. 표시한 곳을 흐리게 해도 다른 곳보다 답이 더 흔들리지 않습니다.",
  "speech.silent": "소리가 들리지 않습니다. 마이크에 더 가까이 대고 다시 말씀하십시오.",
  "speech.too-short": "소리가 너무 짧습니다. 다시 말씀하십시오.",
  "speech.too-long": "소리가 30초보다 깁니다.",
  "speech.nothing-understood": "알아들은 말이 없습니다. 마이크에 더 가까이 대고 다시 말씀하십시오.",
  "speech.unreadable": "소리 파일을 읽을 수 없습니다.",
  "serve.bad-field": "질문이 너무 길거나, 서버가 받지 않는 값이 있습니다.",
  "serve.no-such-model": "서버에 이 모델이 없습니다. 페이지를 새로 고치십시오.",
};
const KOREAN_BY_STATUS = {
  0: "서버에 연결할 수 없습니다. 서버가 켜져 있는지 확인하십시오.",
  401: "서버의 토큰이 필요합니다.",
  403: "서버가 이 주소로 연 페이지를 받지 않습니다.",
  404: "서버에 이 모델이나 기능이 없습니다.",
  408: "요청이 제시간에 도착하지 않았습니다.",
  413: "보낸 것이 서버의 한도보다 큽니다.",
  422: "모델이 이 요청을 처리할 수 없습니다.",
  429: "서버에 요청이 많습니다. 잠시 뒤 다시 시도하십시오.",
  500: "서버에서 오류가 났습니다. 자세한 내용은 서버의 로그에 있습니다.",
  503: "서버가 지금은 답할 수 없습니다. 잠시 뒤 다시 시도하십시오.",
  504: "답이 제시간에 나오지 않았습니다.",
};
function faultWords(fault) {
  if (!(fault instanceof Fault)) return ["이 페이지에서 오류가 났습니다.", `This page failed: ${fault}`];
  const korean = KOREAN_BY_CODE[fault.code] || fault.korean || KOREAN_BY_STATUS[fault.status];
  return [korean || `서버가 요청을 거절했습니다(${fault.status}, ${fault.code}).`, fault.message];
}
const isOfImage = (fault) => fault instanceof Fault && (/image|picture/.test(fault.code || "") || fault.status === 413);

// ------------------------------------------------------------------------------------------ the server
const MAX_TRIES = 8;

function sleep(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => { clearTimeout(timer); reject(signal.reason); }, { once: true });
  });
}

let tokenAsked = null;
function askToken(wasWrong) {
  tokenAsked = tokenAsked || new Promise((resolve) => {
    showFault("token-error", wasWrong ? ["토큰이 맞지 않습니다.", "This is not the token."] : null);
    $("token").value = "";
    $("token-dialog").addEventListener("close", () => {
      const token = $("token-dialog").returnValue === "ok" && $("token").value.trim();
      // A header holds ASCII: what no token can be is sent as one that is wrong.
      if (token) sessionStorage.setItem("kovqa-token", token.replace(/[^!-~]/g, "?"));
      tokenAsked = null;
      resolve(Boolean(token));
    }, { once: true });
    $("token-dialog").returnValue = "";
    $("token-dialog").showModal();
  });
  return tokenAsked;
}

async function ask(path, options, signal) {
  const token = sessionStorage.getItem("kovqa-token");
  let reply;
  try {
    reply = await fetch(path, { ...options, headers: { ...ownHeaders(), ...(token ? { Authorization: `Bearer ${token}` } : {}) }, signal });
  } catch (error) {
    if (signal && signal.aborted) throw error;
    throw new Fault(0, "", "The server cannot be reached. See whether it is running.");
  }
  if (reply.ok) return reply;
  if (reply.status === 401) {
    const other = sessionStorage.getItem("kovqa-token") !== token;  // given meanwhile, for another request
    if (other || await askToken(Boolean(token))) return ask(path, options, signal);
  }
  const { error = {} } = await reply.json().catch(() => ({}));
  const { en, ko } = error.messages || {};
  throw new Fault(reply.status, error.code, en || error.message || reply.statusText, Number(reply.headers.get("Retry-After")), ko);
}

// A server with a full queue says when to come again.
async function askPatiently(path, fields, signal, onWait) {
  for (let tries = 1; ; tries += 1) {
    const form = new FormData();
    for (const [name, value] of Object.entries(fields)) form.append(name, value);
    try {
      return await (await ask(path, { method: "POST", body: form }, signal)).json();
    } catch (fault) {
      if (fault.status !== 429 || tries === MAX_TRIES) throw fault;
      const wait = Math.min(Math.max(fault.wait || 1, 1), 60);
      onWait(wait);
      await sleep(1000 * wait, signal);
    }
  }
}


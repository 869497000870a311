// A spoken question: recorded here or a file, made a WAV of 16 kHz by the browser, written down by the server.
const SPEECH_RATE = 16000, MAX_SPEECH_SECONDS = 30;

// Where no page may listen (http to another machine), or no microphone is there, there is nothing to record with.
async function hasMicrophone() {
  if (!navigator.mediaDevices || !window.MediaRecorder) return false;
  const devices = await navigator.mediaDevices.enumerateDevices().catch(() => []);
  return devices.some((device) => device.kind === "audioinput");
}

// Records until `stop` is called, or for as long as a question may be.
async function startRecording(onEnd) {
  const stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1 } });
  const recorder = new MediaRecorder(stream), parts = [];
  const timer = setTimeout(() => recorder.stop(), 1000 * (MAX_SPEECH_SECONDS - 0.5));
  recorder.addEventListener("dataavailable", (event) => parts.push(event.data));
  recorder.addEventListener("stop", () => {
    clearTimeout(timer);
    for (const track of stream.getTracks()) track.stop();  // the browser's red light goes out
    onEnd(new Blob(parts, { type: recorder.mimeType }));
  }, { once: true });
  recorder.start();
  return { stop: () => recorder.state === "recording" && recorder.stop() };
}

// Whatever the browser can decode, as one channel of 16 kHz; null: it cannot.
async function decodeSpeech(blob) {
  try {
    const decoded = await new OfflineAudioContext(1, 1, SPEECH_RATE).decodeAudioData(await blob.arrayBuffer());
    const mixed = new OfflineAudioContext(1, Math.max(decoded.length, 1), SPEECH_RATE), source = mixed.createBufferSource();
    source.buffer = decoded;  // of the context's rate already
    source.connect(mixed.destination);  // which mixes the channels
    source.start();
    return (await mixed.startRendering()).getChannelData(0);
  } catch {
    return null;
  }
}

function wavFile(samples) {
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const write = (at, text) => [...text].forEach((letter, n) => view.setUint8(at + n, letter.charCodeAt(0)));
  write(0, "RIFF"); view.setUint32(4, 36 + 2 * samples.length, true);
  write(8, "WAVEfmt "); view.setUint32(16, 16, true);
  view.setUint16(20, 1, true); view.setUint16(22, 1, true);  // PCM, one channel
  view.setUint32(24, SPEECH_RATE, true); view.setUint32(28, 2 * SPEECH_RATE, true);
  view.setUint16(32, 2, true); view.setUint16(34, 16, true);  // bytes and bits of a sample
  write(36, "data"); view.setUint32(40, 2 * samples.length, true);
  samples.forEach((sample, n) => view.setInt16(44 + 2 * n, Math.round(32767 * Math.min(Math.max(sample, -1), 1)), true));
  return new File([view.buffer], "question.wav", { type: "audio/wav" });
}

// The text of a sound; throws a Fault of the server, or words of our own.
async function transcribe(blob, signal) {
  const samples = await decodeSpeech(blob);
  if (!samples) throw new SpeechFault(["브라우저가 이 소리 파일을 읽지 못합니다.", "The browser cannot read this sound."]);
  if (samples.length > MAX_SPEECH_SECONDS * SPEECH_RATE) {
    throw new SpeechFault([`소리가 ${MAX_SPEECH_SECONDS}초보다 깁니다. 질문만 잘라서 고르십시오.`, `The sound is longer than ${MAX_SPEECH_SECONDS} s. Cut out the question.`]);
  }
  return (await askPatiently("/v1/transcribe", { speech: wavFile(samples) }, signal, () => {})).text;
}

class SpeechFault extends Error {
  constructor(words) {
    super(words[1]);
    this.words = words;
  }
}

// The controls, which are in the page only where the server hears. `onText` gets what was understood.
async function offerSpeech(onText) {
  if (!$("speech")) return;
  let recording = null, running = null;
  const render = () => {
    $("record").replaceChildren(...(recording ? both("녹음 끝내기", "Stop recording") : both("말로 묻기", "Speak")));
    $("record").setAttribute("aria-pressed", String(Boolean(recording)));
    $("speech-busy").hidden = !running;
  };
  const hear = async (blob) => {
    if (running) running.abort();
    const mine = running = new AbortController();
    render();
    try {
      onText(await transcribe(blob, mine.signal));
    } catch (fault) {
      if (!mine.signal.aborted) showFault("question-error", fault.words || faultWords(fault));
    }
    if (running === mine) running = null;
    render();
  };
  $("record").addEventListener("click", async () => {
    showFault("question-error", null);
    if (recording) return recording.stop();
    try {
      recording = await startRecording((blob) => { recording = null; hear(blob); });
    } catch {
      showFault("question-error", ["마이크를 쓸 수 없습니다. 브라우저에서 이 페이지에 허락하십시오.", "The microphone cannot be used. Allow it for this page in the browser."]);
    }
    render();
  });
  $("speech-file").addEventListener("change", () => {
    showFault("question-error", null);
    if ($("speech-file").files.length) hear($("speech-file").files[0]);
    $("speech-file").value = "";  // the same file can be chosen again
  });
  $("record").hidden = !(await hasMicrophone());
  render();
}

"use strict";
// Whatever comes from documents, models or files is shown as text, never as HTML.

const by = (id) => document.getElementById(id);
const facts = document.body.dataset;
const documents = [];
let asked = null; // what was asked last, for the view of what was kept
let stopper = null; // stops the running question

function headers() {
  const key = by("key");
  const type = { "Content-Type": "application/json" };
  return key ? { ...type, Authorization: `Bearer ${key.value}` } : type;
}

function show(element, text) {
  element.textContent = text;
  element.hidden = !text;
}

async function send(path, body, signal) {
  const response = await fetch(path, {
    method: "POST", headers: headers(), body: JSON.stringify(body), signal,
  });
  if (response.ok) return response;
  let message = `the server said ${response.status}`;
  try {
    message = (await response.json()).error.message;
  } catch { /* no JSON: the status says all there is */ }
  throw new Error(message);
}

// ---- Documents ----

function usesFiles() {
  const choice = document.querySelector("input[name=from]:checked");
  return !choice || choice.value === "files";
}

function toBase64(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(new Error("it cannot be read"));
    reader.readAsDataURL(file);
  });
}

async function addFiles(files) {
  show(by("problem"), "");
  for (const file of files) {
    by("state").textContent = `Reading ${file.name} …`;
    try {
      if (documents.length >= Number(facts.mostDocuments)) throw new Error("these are too many");
      // A third more as base64.
      if (file.size * 1.4 > Number(facts.mostBytes)) throw new Error("it is too large");
      const content = file.size ? await toBase64(file) : "";
      const response = await send("/page/read", { name: file.name, content });
      documents.push({ id: file.name, title: file.name, text: (await response.json()).text });
    } catch (error) {
      show(by("problem"), `${file.name}: ${error.message}`);
    }
  }
  by("state").textContent = "";
  listDocuments();
}

function listDocuments() {
  by("list").replaceChildren(...documents.map((one, number) => {
    const item = document.createElement("li");
    const name = document.createElement("span");
    name.textContent = `${one.title} (${one.text.length.toLocaleString("en")} characters)`;
    const remove = document.createElement("button");
    remove.type = "button";
    remove.textContent = "Remove";
    remove.setAttribute("aria-label", `Remove ${one.title}`);
    remove.addEventListener("click", () => {
      documents.splice(number, 1);
      listDocuments();
      by("chosen").focus();
    });
    item.append(name, remove);
    return item;
  }));
}

by("chosen").addEventListener("change", async (event) => {
  await addFiles([...event.target.files]);
  event.target.value = "";
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  by("drop").addEventListener(kind, (event) => {
    event.preventDefault();
    by("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop") addFiles([...event.dataTransfer.files]);
  });
  // A file that misses the field would replace the page.
  window.addEventListener(kind, (event) => event.preventDefault());
}
for (const choice of document.querySelectorAll("input[name=from]")) {
  choice.addEventListener("change", () => { by("files").hidden = !usesFiles(); });
}

// ---- Answers ----

// Yields the lines of a stream as they come.
async function* linesOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    yield* lines;
  }
}

function showProgress(line) {
  const numbers = line.match(/read (\d+) of (\d+)/);
  if (!numbers) return;
  by("progress").hidden = false;
  by("progress").value = Number(numbers[1]);
  by("progress").max = Number(numbers[2]);
  by("state").textContent = `Reading: ${numbers[1]} of ${numbers[2]} tokens`;
}

// Annotations count characters as Python does: by code points.
function showSources(text, annotations) {
  const letters = [...text];
  const cited = annotations.map((one) => one.url_citation);
  const parts = [];
  const sources = [];
  let position = 0;
  for (const [number, one] of cited.entries()) {
    const mark = document.createElement("mark");
    mark.textContent = letters.slice(one.start_index, one.end_index).join("");
    const link = document.createElement("sup");
    link.textContent = `[${number + 1}]`;
    parts.push(letters.slice(position, one.start_index).join(""), mark, link);
    position = one.end_index;
    const source = document.createElement("li");
    const quote = document.createElement("q");
    quote.textContent = mark.textContent;
    source.append(quote, ` from ${one.title}`);
    sources.push(source);
  }
  by("answer").replaceChildren(...parts, letters.slice(position).join(""));
  by("sources").hidden = !sources.length;
  by("sources").querySelector("ol").replaceChildren(...sources);
}

function showFacts(finch) {
  if (!finch.document_tokens) {
    by("facts").textContent = "Answered without documents.";
    return;
  }
  const [kept, all] = [finch.kept_tokens, finch.document_tokens].map((n) => n.toLocaleString("en"));
  const of = finch.documents === 1 ? "one document" : `${finch.documents} documents`;
  by("facts").textContent = `From ${kept} of ${all} tokens of ${of}.`;
}

function running(is) {
  by("send").disabled = is;
  by("stop").hidden = !is;
  by("progress").hidden = true;
  by("progress").removeAttribute("value");
  if (!is) stopper = null;
}

async function ask() {
  const question = by("question").value.trim();
  const budget = Number(by("budget").value);
  if (usesFiles() && !documents.length) {
    show(by("problem"), "Give documents first: drop files into the field above.");
    by("chosen").focus();
    return;
  }
  stopper = new AbortController();
  running(true);
  show(by("problem"), "");
  by("result").hidden = by("kept").hidden = by("report").hidden = by("whole").hidden = true;
  by("answer").textContent = by("facts").textContent = "";
  by("sources").hidden = true;
  by("state").textContent = "Waiting …";
  const given = usesFiles() ? { documents: [...documents] } : {};
  const body = {
    ...given, model: facts.model, stream: true, target_size: budget,
    messages: [{ role: "user", content: question }], context_detection: "off",
  };
  let text = "";
  try {
    const response = await send("/v1/chat/completions", body, stopper.signal);
    by("result").hidden = false;
    for await (const line of linesOf(response)) {
      if (line.startsWith(":")) showProgress(line);
      if (!line.startsWith("data: {")) continue;
      const event = JSON.parse(line.slice(6));
      if (event.error) throw new Error(event.error.message);
      const delta = event.choices[0]?.delta ?? {};
      if (delta.content) {
        by("progress").hidden = true;
        by("state").textContent = "Answering …";
        text += delta.content;
        by("answer").textContent = text;
      }
      if (event.finch) {
        showSources(text, delta.annotations ?? []);
        showFacts(event.finch);
        asked = { question, answer: text, budget, given };
        by("kept").hidden = !event.finch.document_tokens;
      }
    }
    by("state").textContent = "Done.";
  } catch (error) {
    const stopped = error.name === "AbortError";
    by("state").textContent = stopped ? "Stopped." : "";
    if (!stopped) show(by("problem"), error.message);
  }
  running(false);
}

by("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  if (!stopper) ask();
});
by("stop").addEventListener("click", () => { stopper?.abort(); by("question").focus(); });
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") stopper?.abort();
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) by("ask").requestSubmit();
});

// ---- What was kept ----

by("compare").addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = event.submitter ?? by("compare").querySelector("button");
  const budgets = { half: Math.max(1, Math.floor(asked.budget / 2)), double: asked.budget * 2 };
  const other = by("other").value;
  button.disabled = true;
  show(by("problem"), "");
  by("state").textContent = "Choosing in both ways …";
  try {
    const response = await send("/page/kept", {
      ...asked.given, question: asked.question, answer: asked.answer,
      target_size: asked.budget, method: by("method").value,
      other: other in budgets ? String(budgets[other]) : other || null,
    });
    const { address } = await response.json();
    by("report").src = by("whole").href = address;
    by("report").hidden = by("whole").hidden = false;
    by("state").textContent = "";
  } catch (error) {
    by("state").textContent = "";
    show(by("problem"), error.message);
  }
  button.disabled = false;
});

"use strict";

// What was decided about examples. The log holds decisions in the order in which they were made, with those that were
// made anew, so that undo works after a reload: the last one of an example counts, and one without an action takes it
// back. The browser's storage keeps the log and the saved file what counts, both as the text that
// `noiseaudit clean --decisions` takes. Ids stay text: a number of JavaScript holds 53 bits of them.

const FILE_KIND = "noiseaudit decisions";
const ACTIONS = ["keep", "remove", "relabel"];

function writeDecisions({ data, labels }, decisions) {
  const head = JSON.stringify({ format: 1, kind: FILE_KIND, data, labels }).slice(0, -1);
  const lines = decisions.map(({ sample_id: id, ...others }) => `{"sample_id":${id},${JSON.stringify(others).slice(1)}`);
  return `${head},"decisions":[\n${lines.join(",\n")}\n]}\n`;
}

function readDecisions(text) {
  let value;
  try {
    value = JSON.parse(text, (key, item, context) => (
      key === "sample_id" ? String(context?.source ?? item) : item // the source, where the browser tells it
    ));
  } catch {
    throw new Error("it is no JSON file");
  }
  if (value?.kind !== FILE_KIND || !Array.isArray(value.decisions)) throw new Error("it holds no decisions of noiseaudit");
  if (value.format !== 1) throw new Error(`it has format ${value.format}, and this page reads format 1`);
  return value;
}

// `subject` says what the page is about: data and labels (digests), key (of the storage), names (of the classes) and
// given (the given label of each example on the page, by id).
function openDecisions(subject, { say, warn, changed }) {
  const names = new Set(subject.names.filter(Boolean));
  const key = `noiseaudit decisions ${subject.key}`;
  let log = [];
  let steps = []; // what undo goes back to: a log and its length then
  let counting = new Map();
  let isKept = true; // by the browser; if not, only in memory
  let isSaved = true;

  function isUsable(entry) {
    return entry !== null && typeof entry === "object" && /^-?\d+$/.test(entry.sample_id)
      && typeof entry.given_label === "string" && (entry.action === "" || ACTIONS.includes(entry.action))
      && (subject.given.get(entry.sample_id) ?? entry.given_label) === entry.given_label
      && (entry.action === "relabel" ? names.has(entry.new_label) && entry.new_label !== entry.given_label
        : entry.new_label === "");
  }

  const plain = (entries) => entries.filter(isUsable).map((entry) => ({
    sample_id: entry.sample_id,
    given_label: entry.given_label,
    action: entry.action,
    new_label: entry.new_label,
  }));

  function count() {
    counting = new Map();
    for (const entry of log) {
      counting.delete(entry.sample_id); // the place of a decision is that of the last one
      if (entry.action) counting.set(entry.sample_id, entry);
    }
  }

  function keep() {
    if (!isKept) return;
    try {
      localStorage.setItem(key, writeDecisions(subject, log));
    } catch {
      failToKeep();
    }
  }

  function failToKeep() {
    isKept = false;
    warn("This browser does not let the page keep decisions: save them before you close it.");
  }

  function read() {
    let text = null;
    try {
      text = localStorage.getItem(key);
    } catch {
      failToKeep();
    }
    try {
      log = text === null ? [] : plain(readDecisions(text).decisions);
    } catch (error) {
      log = [];
      say(`What this browser kept cannot be read (${error.message}); the page starts without it.`);
    }
    steps = [];
    count();
  }

  function change(next, isKnown = false) {
    next();
    count();
    keep();
    isSaved = isKnown;
    changed();
  }

  const remember = () => steps.push([log, log.length]);

  window.addEventListener("storage", (event) => {
    if (event.key !== key) return;
    read(); // another tab decided
    changed();
  });
  window.addEventListener("beforeunload", (event) => {
    if (!isKept && !isSaved && counting.size) event.preventDefault();
  });
  read();

  return {
    of: (id) => counting.get(id),
    size: () => counting.size,
    markSaved: () => { isSaved = true; },
    text: () => writeDecisions(subject, [...counting.values()]),
    decide(id, given, action, label) {
      change(() => {
        remember();
        log.push({ sample_id: id, given_label: given, action, new_label: label });
      });
    },
    // The id of the example whose decision was undone; "" where that were several; null without any.
    undo() {
      if (!steps.length && !log.length) return null;
      const [before, length] = steps.pop() ?? [log, log.length - 1];
      const id = before === log && log.length === length + 1 ? log[length].sample_id : "";
      change(() => {
        log = before;
        log.length = length;
      });
      return id;
    },
    clear() {
      change(() => {
        remember();
        log = [];
      });
    },
    // Adds the decisions of a saved file after those made so far; how many were taken and how many were not.
    load(text) {
      const file = readDecisions(text);
      if (file.data && subject.data && file.data !== subject.data) throw new Error("it belongs to other data");
      const isOther = Boolean(file.labels && subject.labels && file.labels !== subject.labels);
      const known = plain(file.decisions).filter((entry) => !isOther || subject.given.has(entry.sample_id));
      const wasEmpty = !log.length;
      change(() => {
        remember();
        log = [...log, ...known];
      }, wasEmpty);
      return { taken: known.length, left: file.decisions.length - known.length };
    },
  };
}

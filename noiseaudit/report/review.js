"use strict";

// Deciding on the cards of the gallery: buttons, keys, progress, and the file. Controls are put on a card when it is
// first shown; one listener serves all cards.

const TYPING = "select, textarea, input:not([type=checkbox]), [contenteditable]";

function startReview(gallery, cards, view) {
  const bar = element("review");
  const { data, labels, key } = bar.dataset;
  const names = JSON.parse(bar.dataset.names);
  const given = new Map(cards.map((card) => [card.node.dataset.id, names[card.given]]));
  let warning = ""; // stands where nothing else is to say
  const say = (text) => { element("message").textContent = text || warning; };
  const warn = (text) => say(warning = text);
  const decisions = openDecisions({ data, labels, key, names, given }, { say, warn, changed: paintAll });
  let current = null;

  const idOf = (card) => card.node.dataset.id;
  const cardOf = (target) => cards.find((card) => card.node === target.closest(".card"));
  const isDecided = (card) => decisions.of(idOf(card)) !== undefined;

  function suggestionFor(card) {
    return names[card.suggested] === names[card.given] ? "" : names[card.suggested];
  }

  function dress(card) {
    if (card.controls) return;
    card.controls = element("decide").content.cloneNode(true).firstElementChild;
    card.controls.setAttribute("aria-label", `Decision on example ${idOf(card)}`);
    card.node.append(card.controls);
    card.node.tabIndex = -1;
    paint(card);
  }

  function paint(card) {
    if (!card.controls) return;
    const decision = decisions.of(idOf(card));
    card.node.dataset.decision = decision?.action ?? "";
    for (const button of card.controls.querySelectorAll("[aria-pressed]")) {
      button.setAttribute("aria-pressed", String(button.dataset.action === decision?.action));
    }
    const label = decision?.new_label || suggestionFor(card);
    const button = card.controls.querySelector("[data-action=relabel]");
    button.classList.toggle("open", !label);
    button.title = label ? `Relabel to ${label}` : "Relabel";
    button.querySelector("bdi").textContent = label || "Relabel";
  }

  function paintProgress() {
    const actions = cards.map((card) => decisions.of(idOf(card))?.action).filter(Boolean);
    const wrong = actions.filter((action) => action !== "keep").length;
    const others = decisions.size() - actions.length;
    element("progress").textContent = `${actions.length} of ${cards.length} reviewed, ${wrong} wrong so far`
      + (others ? ` (${others} more not on this page)` : "");
    element("progress-bar").value = actions.length;
  }

  function paintAll() {
    cards.forEach(paint);
    paintProgress();
  }

  function setCurrent(card) {
    if (card === current) return;
    current?.node.classList.remove("current");
    current?.node.removeAttribute("aria-current");
    current = card;
    card.node.classList.add("current");
    card.node.setAttribute("aria-current", "true");
  }

  function goTo(card) {
    setCurrent(card);
    card.node.focus({ preventScroll: true });
    card.node.scrollIntoView({ block: "nearest", behavior: "instant" });
  }

  function move(step) {
    const list = view.list();
    const at = list.indexOf(current);
    const index = at < 0 ? Math.max(0, list.findIndex((card) => !isDecided(card))) : at + step;
    if (index < 0 || index >= list.length) return;
    view.reveal(index);
    goTo(list[index]);
  }

  function isOnScreen(card) {
    const box = card.node.getBoundingClientRect();
    return !card.node.hidden && box.bottom > 0 && box.top < window.innerHeight;
  }

  function decide(card, action, label = "") {
    say("");
    decisions.decide(idOf(card), names[card.given], action, action === "relabel" ? label : "");
  }

  // A decision by key is on the card that is outlined, on the screen; the next card follows.
  function decideByKey(action) {
    if (!current || !view.list().includes(current)) {
      move(1);
    } else if (!isOnScreen(current)) {
      goTo(current);
    } else if (action === "choose" || (action === "relabel" && !suggestionFor(current))) {
      chooseClass(current, true);
    } else {
      decide(current, action, suggestionFor(current));
      move(1);
    }
  }

  function decideByButton(card, button) {
    const { action } = button.dataset;
    const label = decisions.of(idOf(card))?.new_label || suggestionFor(card);
    setCurrent(card);
    if (button.getAttribute("aria-pressed") === "true") decide(card, "");
    else if (action === "choose" || (action === "relabel" && !label)) chooseClass(card, false);
    else decide(card, action, label);
  }

  function undo() {
    const id = decisions.undo();
    say(id === null ? "Nothing to undo." : "");
    const index = view.list().findIndex((card) => idOf(card) === id);
    if (id && index < 0) say(`Undone on example ${id}, which is not shown.`);
    if (index < 0) return;
    view.reveal(index);
    goTo(view.list()[index]);
  }

  // Another class, by a dialog: 1,000 names fit no card.
  const dialog = element("choose-class");
  const search = element("class-search");
  const list = element("class-list");
  let asked = null;

  function fillClasses() {
    const words = search.value.trim().toLowerCase();
    const collator = new Intl.Collator(undefined, { numeric: true });
    const found = names.filter((name) => name && name !== names[asked.card.given] && name.toLowerCase().includes(words));
    const decided = decisions.of(idOf(asked.card))?.new_label || suggestionFor(asked.card);
    list.replaceChildren(...found.sort(collator.compare).map((name) => {
      const option = document.createElement("option");
      option.value = names.indexOf(name);
      option.textContent = name;
      return option;
    }));
    list.selectedIndex = Math.max(found.indexOf(decided), found.length ? 0 : -1);
  }

  function chooseClass(card, isByKey) {
    asked = { card, isByKey };
    search.value = "";
    element("choose-what").querySelector("span").textContent = idOf(card);
    element("choose-what").querySelector("bdi").textContent = names[card.given];
    fillClasses();
    dialog.showModal();
    list.focus();
  }

  search.addEventListener("input", fillClasses);
  function takeClass(event) {
    event.preventDefault();
    if (list.selectedIndex < 0) return;
    dialog.close();
    decide(asked.card, "relabel", names[list.value]);
    if (asked.isByKey) move(1);
  }
  dialog.querySelector("form").addEventListener("submit", takeClass);
  list.addEventListener("dblclick", takeClass);
  list.addEventListener("keydown", (event) => { if (event.key === "Enter") takeClass(event); });
  for (const holder of document.querySelectorAll("dialog")) {
    holder.addEventListener("click", (event) => {
      if (event.target === holder || event.target.closest(".close")) holder.close();
    });
  }

  function save() {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([decisions.text()], { type: "application/json" }));
    link.download = "decisions.json";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000); // a phone may ask first
    decisions.markSaved();
    say("Saved as decisions.json, for noiseaudit clean --decisions decisions.json.");
  }

  async function load() {
    const [file] = element("file").files;
    if (!file) return;
    try {
      const { taken, left } = decisions.load(await file.text());
      say(`Loaded ${taken} decision${taken === 1 ? "" : "s"}`
        + `${left ? `; ${left} left out, which do not fit this data and its labels` : ""}.`);
    } catch (error) {
      say(`The file cannot be used: ${error.message}.`);
    }
    element("file").value = ""; // so that the same file can be chosen again
  }

  function clear() {
    const count = decisions.size();
    if (!count) say("There are no decisions to clear.");
    else if (window.confirm(`Clear ${count === 1 ? "the decision" : `all ${count} decisions`}?`)) {
      decisions.clear();
      say("Cleared. Undo brings them back.");
    }
  }

  const next = () => move(1);
  const previous = () => move(-1);
  const moves = { j: next, ArrowDown: next, ArrowRight: next, ArrowUp: previous, ArrowLeft: previous };
  const deeds = {
    k: () => decideByKey("keep"),
    x: () => decideByKey("remove"),
    r: () => decideByKey("remove"),
    l: () => decideByKey("relabel"),
    c: () => decideByKey("choose"),
    u: undo,
    "?": () => element("keys").showModal(),
  };

  function press(event) {
    const isPlain = !(event.ctrlKey || event.altKey || event.metaKey || event.isComposing);
    if (!isPlain || event.target.closest?.(TYPING) || document.querySelector("dialog[open]")) return;
    const name = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (event.shiftKey && name !== "?") return;
    const isArrow = name.startsWith("Arrow");
    if (isArrow && !(current && isOnScreen(current))) return; // there they scroll the page
    const act = moves[name] ?? (event.repeat ? undefined : deeds[name]);
    if (!act) return;
    event.preventDefault();
    act();
  }

  document.addEventListener("keydown", press);
  gallery.addEventListener("focusin", (event) => { setCurrent(cardOf(event.target)); });
  gallery.addEventListener("click", (event) => {
    const card = cardOf(event.target);
    if (!card) return;
    const button = event.target.closest("[data-action]");
    if (button) decideByButton(card, button);
    else setCurrent(card);
    const group = event.target.closest(".copy-link");
    if (group) document.querySelector(group.hash).closest("details")?.setAttribute("open", "");
  });
  element("undo").addEventListener("click", undo);
  element("save").addEventListener("click", save);
  element("load").addEventListener("click", () => element("file").click());
  element("file").addEventListener("change", load);
  element("clear-decisions").addEventListener("click", clear);
  element("show-keys").addEventListener("click", deeds["?"]);
  bar.hidden = false;
  paintProgress();

  return { dress, isDecided };
}

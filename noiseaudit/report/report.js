"use strict";

// The page is complete without this script. It adds filters, search and order of the gallery (PAGE cards at a
// time), sorting by column, and links from the tables to the gallery. Labels are compared by number, never by name.
// review.js and decisions.js, which come before it on the page, add deciding on the cards.

const PAGE = 40;
const element = (id) => document.getElementById(id);

function startGallery() {
  const gallery = element("gallery");
  const form = element("toolbar");
  const cards = [...gallery.children].map((node) => ({
    node,
    rank: Number(node.dataset.rank),
    id: Number(node.dataset.id),
    suspicion: Number(node.dataset.suspicion),
    given: node.dataset.given,
    suggested: node.dataset.suggested,
    isIssue: node.dataset.issue === "1",
    givenName: node.querySelector(".labels dd").textContent,
    text: `${node.dataset.id} ${node.querySelector(".source")?.textContent ?? ""}`.toLowerCase(),
  }));
  const names = new Intl.Collator(undefined, { numeric: true });
  const orders = {
    rank: (a, b) => a.rank - b.rank,
    suspicion: (a, b) => b.suspicion - a.suspicion || a.rank - b.rank,
    id: (a, b) => a.id - b.id,
    given: (a, b) => names.compare(a.givenName, b.givenName) || a.rank - b.rank,
  };
  let matching = cards;
  let shown = 0;
  const review = startReview(gallery, cards, { list: () => matching, reveal });

  function chosen() {
    const given = element("filter-given").value;
    const suggested = element("filter-suggested").value;
    const words = element("search").value.trim().toLowerCase();
    const onlyIssues = element("only-issues").checked;
    const onlyOpen = element("only-open").checked;
    return cards
      .filter((card) => (!given || card.given === given)
        && (!suggested || card.suggested === suggested)
        && (!onlyIssues || card.isIssue)
        && (!onlyOpen || !review.isDecided(card))
        && card.text.includes(words))
      .sort(orders[element("sort").value]);
  }

  function show(count) {
    const more = matching.slice(shown, count);
    shown += more.length;
    more.forEach((card) => {
      review.dress(card);
      card.node.hidden = false;
    });
    gallery.append(...more.map((card) => card.node));
    const matches = shown < matching.length && matching.length < cards.length ? ` (${matching.length} match)` : "";
    element("showing").textContent = `Showing ${shown} of ${cards.length}${matches}`;
    element("more").hidden = shown === matching.length;
    element("no-match").hidden = matching.length > 0;
  }

  // What matches is settled here: a card stays when a decision makes it match no more.
  function restart() {
    cards.forEach((card) => { card.node.hidden = true; });
    matching = chosen();
    shown = 0;
    show(PAGE);
  }

  function reveal(index) {
    if (index >= shown) show(Math.ceil((index + 1) / PAGE) * PAGE);
  }

  function showMore(count) {
    const next = matching[shown];
    show(shown + count);
    next?.node.focus({ preventScroll: true });
  }

  element("search").addEventListener("input", restart);
  for (const id of ["filter-given", "filter-suggested", "sort", "only-issues", "only-open"]) {
    element(id).addEventListener("change", restart);
  }
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(restart));
  element("show-more").addEventListener("click", () => showMore(PAGE));
  element("show-all").addEventListener("click", () => showMore(cards.length));
  form.hidden = false;
  restart();

  return function showLabels(given, suggested) {
    form.reset();
    element("filter-given").value = given;
    element("filter-suggested").value = suggested;
    restart();
    element("suspects").scrollIntoView();
  };
}

function startLinks(showLabels) {
  for (const link of document.querySelectorAll(".list a[data-given]")) {
    link.closest("tr").classList.add("linked");
    link.closest("tr").addEventListener("click", (event) => {
      event.preventDefault();
      showLabels(link.dataset.given, link.dataset.suggested ?? "");
    });
  }
}

function startSorting(holder) {
  const bodies = [...holder.querySelectorAll("tbody")];
  const shown = bodies[0].rows.length;
  const rows = bodies.flatMap((body) => [...body.rows]);
  const heads = [...holder.querySelectorAll("table:first-child thead th")];
  const names = new Intl.Collator(undefined, { numeric: true });

  function sortBy(column) {
    const isText = heads[column].classList.contains("text");
    const now = heads[column].getAttribute("aria-sort");
    const isUp = now ? now !== "ascending" : isText;
    heads.forEach((head) => head.removeAttribute("aria-sort"));
    heads[column].setAttribute("aria-sort", isUp ? "ascending" : "descending");
    const value = (row) => row.cells[column].dataset.value;
    rows.sort((a, b) => (isUp ? 1 : -1)
      * (isText ? names.compare(value(a), value(b)) : Number(value(a)) - Number(value(b))));
    bodies[0].append(...rows.slice(0, shown));
    bodies[1]?.append(...rows.slice(shown));
  }

  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    button.addEventListener("click", () => sortBy(column));
    head.replaceChildren(button);
  });
}

if (element("gallery")) startLinks(startGallery());
document.querySelectorAll(".sortable").forEach(startSorting);

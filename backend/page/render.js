// What is loaded, on the screen: all of it in one go, between two frames, so that nobody sees parts of two states.

import { byId, element, say } from "./dom.js";
import { shown } from "./exact.js";
import * as filters from "./filters.js";
import * as freshness from "./freshness.js";
import { sameState } from "./load.js";
import * as plot from "./plot.js";
import * as table from "./table.js";
import { download, hash, PAGE_ROWS } from "./view.js";

const FORMATS = { CSV: "csv", Arrow: "arrow", Parquet: "parquet" };

/** Show the picture; `before` is the one it takes the place of, if any. `go` is called with the view that is wanted. */
export function render(picture, before, go) {
  const { dataset, view } = picture;
  byId("sign-in").hidden = true;
  for (const id of ["view", "freshness"]) byId(id).hidden = false;
  document.title = `${dataset.name} · Analytics`;
  freshness.setClock(picture.now);
  freshness.show(picture);
  list(picture);
  say("dataset-name", dataset.name);
  say("dataset-description", dataset.description);
  describe(dataset);
  plot.draw(picture.chart);
  filters.offer(dataset);
  filters.list(view.filters, (index) =>
    go({ ...view, offset: 0, filters: view.filters.filter((_, other) => other !== index) }),
  );
  table.show(picture, (order) => go({ ...view, order, offset: 0 }));
  pages(picture);
  downloads(picture);
  say("problem", "");
  say("announcement", news(picture, before));
}

/** Show nothing: whoever comes next may not see it. */
export function clear() {
  for (const id of ["view", "freshness", "account"]) byId(id).hidden = true;
  for (const id of ["datasets", "rows", "chart-table", "plot", "filters", "columns", "formats"]) byId(id).replaceChildren();
  for (const id of ["dataset-name", "dataset-description", "chart-title", "chart-summary", "range", "who", "snapshot", "announcement"]) say(id, "");
  document.title = "Analytics";
}

function list({ datasets, dataset }) {
  const focused = document.activeElement?.dataset.id;
  const items = datasets.map(({ id, name, description, row_count }) => {
    const link = element("a", { href: hash({ dataset: id, filters: [] }) }, name);
    link.dataset.id = id;
    if (id === dataset.id) link.setAttribute("aria-current", "page");
    const rows = `${shown(row_count)} ${shown(row_count) === "1" ? "row" : "rows"}`;
    return element("li", {}, link, element("span", { className: "count" }, rows), element("p", {}, description));
  });
  byId("datasets").replaceChildren(...items);
  byId("datasets").querySelector(`[data-id="${CSS.escape(focused ?? "")}"]`)?.focus({ preventScroll: true });
}

function describe({ columns }) {
  byId("columns").replaceChildren(
    ...columns.flatMap(({ name, type, description }) => [
      element("dt", {}, name, " ", element("span", { className: "type" }, type)),
      element("dd", {}, description || "–"),
    ]),
  );
}

function pages({ view, page, count }) {
  say("range", page.rows.length ? `Rows ${range(view, page)} of ${count}` : "No rows");
  byId("previous").ariaDisabled = view.offset === 0;
  byId("next").ariaDisabled = page.next === null;
}

const range = ({ offset }, { rows }) => `${offset + 1} to ${offset + rows.length}`;

/** JSON comes in pages, the others whole. */
function downloads({ view, snapshot }) {
  const link = (name, file, parameters) =>
    element("a", { href: download(view, snapshot, parameters), download: file }, name);
  const page = { format: "json", limit: PAGE_ROWS, offset: view.offset };
  byId("formats").replaceChildren(
    ...Object.entries(FORMATS).map(([name, format]) => link(name, "", { format })),
    link("JSON of this page", `${view.dataset}.json`, page),
  );
}

/** One sentence for who can't see what changed; nothing where somebody only waits. */
function news(picture, before) {
  const { dataset, view, page, count } = picture;
  if (!before) return "";
  if (!sameState(picture, before)) return `New data, as of ${freshness.inWords(picture.last_refresh)}.`;
  if (dataset.id !== before.dataset.id) return `${dataset.name}, ${count} rows.`;
  return page.rows.length ? `Rows ${range(view, page)} of ${count}.` : "No rows.";
}

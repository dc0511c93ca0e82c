// The rows, to the letter, with columns that sort.

import { byId, element } from "./dom.js";
import { Exact, shown } from "./exact.js";
import { quoted } from "./view.js";

const SORTED = { asc: "ascending", desc: "descending" };
const NEXT = { none: "asc", asc: "desc", desc: "none" };
const MARK = { none: "", asc: " ▲", desc: " ▼" };

/** Rows and heads; whoever is on a head stays there. */
export function show({ dataset, page, view }, sort) {
  const focused = document.activeElement?.dataset.column;
  const heads = page.columns.map((column) => head(column, view.order, sort));
  const rows = page.rows.map((row) => element("tr", {}, ...page.columns.map(({ name }) => cell(row[name]))));
  byId("rows").replaceChildren(
    element("caption", { className: "unseen" }, `Rows of ${dataset.name}`),
    element("thead", {}, element("tr", {}, ...heads)),
    element("tbody", {}, ...rows),
  );
  byId("rows").querySelector(`[data-column="${CSS.escape(focused ?? "")}"]`)?.focus({ preventScroll: true });
}

function head({ name, type }, order, sort) {
  const way = ["asc", "desc"].find((way) => order === `${quoted(name)}.${way}`) ?? "none";
  const button = element("button", { type: "button" }, name, element("span", { ariaHidden: "true" }, MARK[way]));
  button.dataset.column = name;
  button.onclick = () => sort(NEXT[way] === "none" ? "" : `${quoted(name)}.${NEXT[way]}`);
  const made = element("th", { scope: "col" }, button, element("span", { className: "type" }, type));
  if (way !== "none") made.setAttribute("aria-sort", SORTED[way]);
  return made;
}

function cell(value) {
  const kind = value === null ? "null" : value instanceof Exact ? "number" : "text";
  return element("td", { className: kind }, shown(value));
}

// Conditions on columns: what people choose, and how the API writes it.

import { byId, element } from "./dom.js";
import { parameter } from "./view.js";

const CONDITIONS = [
  { prefix: "eq.", label: "is", kinds: "text uuid number time boolean" },
  { prefix: "neq.", label: "is not", kinds: "text uuid number time" },
  { prefix: "gt.", label: "is greater than", kinds: "number time" },
  { prefix: "gte.", label: "is at least", kinds: "number time" },
  { prefix: "lt.", label: "is less than", kinds: "number time" },
  { prefix: "lte.", label: "is at most", kinds: "number time" },
  { prefix: "ilike.", label: "is like (* stands for anything)", kinds: "text" },
  { prefix: "in.", label: "is one of (a,b,…)", kinds: "text uuid number time" },
  { prefix: "is.null", label: "is missing", kinds: "text uuid number time boolean other", alone: true },
  { prefix: "not.is.null", label: "is there", kinds: "text uuid number time boolean other", alone: true },
];

function kind(type) {
  if (type === "VARCHAR") return "text";
  if (type === "UUID" || type === "BOOLEAN") return type.toLowerCase();
  if (/^(U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?|DOUBLE|FLOAT|DECIMAL\(.*\))$/.test(type)) return "number";
  return /^(DATE|TIME.*)$/.test(type) ? "time" : "other";
}

let columns = [];

/** Offer these columns; what somebody is about to enter stays, unless the columns are others. */
export function offer(dataset) {
  if (JSON.stringify(dataset.columns) === JSON.stringify(columns)) return;
  columns = dataset.columns;
  byId("filter-column").replaceChildren(...columns.map(({ name }) => element("option", { value: name }, name)));
  byId("filter-value").value = "";
  offerConditions();
}

/** The conditions that the chosen column has. */
export function offerConditions() {
  const column = columns[byId("filter-column").selectedIndex];
  const fitting = CONDITIONS.filter(({ kinds }) => kinds.split(" ").includes(kind(column.type)));
  byId("filter-operator").replaceChildren(
    ...fitting.map(({ prefix, label }) => element("option", { value: prefix }, label)),
  );
  askForValue();
}

/** Whether the chosen condition takes a value. */
export function askForValue() {
  byId("filter-operand").hidden = CONDITIONS.find(({ prefix }) => prefix === byId("filter-operator").value).alone;
}

/** What was entered, as column and condition in the API's words. */
export function entered() {
  const prefix = byId("filter-operator").value;
  const value = byId("filter-operand").hidden ? "" : byId("filter-value").value;
  return [parameter(byId("filter-column").value), prefix + (prefix === "in." ? `(${value.replace(/^\(|\)$/g, "")})` : value)];
}

/** Show the filters in use, each with a button that takes it away. */
export function list(filters, remove) {
  byId("filters").replaceChildren(
    ...filters.map((filter, index) => {
      const text = inWords(filter);
      const button = element("button", { type: "button", onclick: () => remove(index) }, "Remove");
      button.setAttribute("aria-label", `Remove the filter ${text}`);
      return element("li", {}, text, " ", button);
    }),
  );
}

function inWords([column, condition]) {
  const known = CONDITIONS.find(({ prefix, alone }) => (alone ? condition === prefix : condition.startsWith(prefix)));
  if (!known) return `${column} ${condition}`;
  return `${column} ${known.label.replace(/ \(.*/, "")} ${condition.slice(known.prefix.length)}`.trim();
}

// What is asked for, as it stands in the address: #dataset?order=amount.desc&category=eq.Rent&offset=50, the API's own
// words. Never who asks.

export const PAGE_ROWS = 50;

const PARAMETERS = new Set(["select", "order", "limit", "offset", "snapshot", "cursor", "format", "dataset"]);

export function read(hash) {
  const [dataset, query] = hash.replace(/^#/, "").split(/\?(.*)/s);
  const parameters = new URLSearchParams(query);
  const filters = [...parameters].filter(([name]) => name !== "order" && name !== "offset");
  const offset = Number(parameters.get("offset"));
  return {
    dataset: decodeURIComponent(dataset),
    order: parameters.get("order") ?? "",
    offset: Number.isSafeInteger(offset) && offset > 0 ? offset : 0,
    filters,
  };
}

export function hash(view) {
  const parameters = new URLSearchParams(view.filters);
  if (view.order) parameters.set("order", view.order);
  if (view.offset) parameters.set("offset", view.offset);
  const query = parameters.toString();
  return `#${encodeURIComponent(view.dataset)}${query && `?${query}`}`;
}

/** A column's name as it stands in `select` and `order`. */
export function quoted(name) {
  return /^\w+$/.test(name) ? name : inQuotes(name);
}

/** The parameter that filters a column: in quotes where its name alone would mean something else. */
export function parameter(name) {
  return PARAMETERS.has(name) || name.startsWith('"') ? inQuotes(name) : name;
}

function inQuotes(name) {
  return `"${name.replace(/[\\"]/g, "\\$&")}"`;
}

/** Filters as properties of a query: one is text, several on one column are a list. */
export function conditions(view) {
  const all = new Map(); // an object has properties of its own, which a column may be called like
  for (const [column, condition] of view.filters) all.set(column, [...(all.get(column) ?? []), condition]);
  return Object.fromEntries([...all].map(([column, list]) => [column, list.length > 1 ? list : list[0]]));
}

/** Where the shown rows can be fetched from, with these parameters. */
export function download(view, snapshot, parameters) {
  const query = new URLSearchParams(view.filters);
  if (view.order) query.set("order", view.order);
  if (snapshot !== null) query.set("snapshot", snapshot);
  for (const [name, value] of Object.entries(parameters)) query.set(name, value);
  return `/api/analytics/datasets/${encodeURIComponent(view.dataset)}/query?${query}`;
}

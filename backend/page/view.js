// What is asked for, as it stands in the address: #dataset?order=amount.desc&category=eq.Rent&offset=50, the API's own
// words. Never who asks.

export const PAGE_ROWS = 50;

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
  return /^\w+$/.test(name) ? name : `"${name.replace(/[\\"]/g, "\\$&")}"`;
}

/** Filters as properties of a query: one is text, several on one column are a list. */
export function conditions(view) {
  const all = {};
  for (const [column, condition] of view.filters) (all[column] ??= []).push(condition);
  return Object.fromEntries(Object.entries(all).map(([column, list]) => [column, list.length > 1 ? list : list[0]]));
}

/** Where the shown rows can be fetched from, with these parameters. */
export function download(view, snapshot, parameters) {
  const query = new URLSearchParams(view.filters);
  if (view.order) query.set("order", view.order);
  if (snapshot !== null) query.set("snapshot", snapshot);
  for (const [name, value] of Object.entries(parameters)) query.set(name, value);
  return `/api/analytics/datasets/${encodeURIComponent(view.dataset)}/query?${query}`;
}

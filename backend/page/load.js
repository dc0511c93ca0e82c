// All that is shown together, from one state of the data.

import { ask, Refused } from "./api.js";
import * as chart from "./chart.js";
import { conditions, PAGE_ROWS } from "./view.js";

const ATTEMPTS = 5;

/** What there is now: datasets, snapshot and last refresh. Cheap. */
export async function state(signal) {
  const { answer, now } = await ask("/api/analytics/datasets", { signal });
  return { ...answer, now };
}

export function sameState(one, other) {
  return one.snapshot === other.snapshot && one.last_refresh === other.last_refresh;
}

/** The view's rows, their number and its chart with the list of datasets: of one state, or nothing. Throws Refused. */
export async function load(view, signal) {
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const current = await state(signal);
    const dataset = current.datasets.find(({ id }) => id === view.dataset) ?? current.datasets[0];
    if (!dataset) break;
    if (dataset.id !== view.dataset) view = { dataset: dataset.id, order: "", offset: 0, filters: [] };
    const results = await query(view, dataset, current, signal);
    if (!results) continue;
    const [page, counted, ...rest] = results;
    const count = counted.rows[0].count.valueOf();
    if (page.rows.length || view.offset === 0) {
      return { ...current, view, dataset, page, count, chart: chart.read(dataset, rest) };
    }
    view = { ...view, offset: Math.max(0, Math.ceil(count / PAGE_ROWS) - 1) * PAGE_ROWS }; // there are fewer rows by now
  }
  throw new Refused(503, { code: "changing", message: "The data is being replaced.", hint: "" });
}

/** The results, or null when the state is not there any more. */
async function query(view, dataset, current, signal) {
  const common = { dataset: dataset.id, ...conditions(view) };
  if (current.snapshot !== null) common.snapshot = current.snapshot;
  const order = view.order ? { order: view.order } : {};
  const queries = [
    { ...common, ...order, limit: PAGE_ROWS, offset: view.offset },
    { ...common, select: "count()" },
    ...chart.queries(dataset).map((more) => ({ ...common, ...more })),
  ];
  try {
    const { answer } = await ask("/api/analytics/query", { method: "POST", body: { queries }, signal });
    return sameState(answer, current) ? answer.results : null;
  } catch (error) {
    if (error.status === 410) return null;
    throw error;
  }
}

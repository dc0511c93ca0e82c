// Which chart fits a dataset, what to ask for it, and what came, as points. Drawing it is plot.js's.

import { quoted } from "./view.js";

const POINTS = 120;
const BARS = 12;
const UNITS = ["day", "month", "year"];

const isTime = ({ type }) => /^(DATE|TIMESTAMP|TIMESTAMP WITH TIME ZONE)$/.test(type);
const isFraction = ({ type }) => /^(DECIMAL|DOUBLE|FLOAT)/.test(type);
const isCount = ({ name, type }) => /^(TINYINT|SMALLINT|INTEGER|BIGINT)$/.test(type) && !/(^|_)id$/.test(name);
const isText = ({ type }) => type === "VARCHAR";

/** A measure over time where there is a time, else by the first text; null where neither makes sense. */
function choice({ columns }) {
  const measure = columns.find(isFraction) ?? columns.find(isCount);
  const time = columns.find(isTime);
  const by = time ?? columns.find(isText);
  return measure && by ? { kind: time ? "time" : "bars", measure: measure.name, by: by.name } : null;
}

/** The queries it takes, without filters. */
export function queries(dataset) {
  const chosen = choice(dataset);
  if (!chosen) return [];
  const by = `by:${quoted(chosen.by)}`;
  const value = `value:${quoted(chosen.measure)}.sum()`;
  return chosen.kind === "time"
    ? UNITS.map((unit) => ({ select: `${by}.trunc(${unit}),${value}`, order: "by", limit: POINTS }))
    : [{ select: `${by},${value}`, order: "value.desc.nullslast", limit: BARS }];
}

/** The chart in their results: `{kind, title, by, measure, points: [{by, value}]}`, values as they came. */
export function read(dataset, results) {
  const chosen = choice(dataset);
  if (!chosen) return null;
  const { measure, by, kind } = chosen;
  if (kind === "bars") {
    const [{ rows, next }] = results;
    return { kind, title: `Sum of ${measure} by ${by}${next ? `, the ${BARS} largest` : ""}`, by, measure, points: rows };
  }
  const index = finest(results);
  return { kind, title: `Sum of ${measure} by ${UNITS[index]} of ${by}`, by, measure, points: results[index].rows };
}

/** The finest unit that has few enough points, and more of them than the next. */
function finest(results) {
  let index = results.findIndex(({ next }) => next === null);
  if (index < 0) return results.length - 1;
  while (index + 1 < results.length && results[index + 1].rows.length === results[index].rows.length) index++;
  return index;
}

// A chart on the screen, and in words. Colours are the style sheet's.

import { byId, element, say } from "./dom.js";
import { shown } from "./exact.js";

const HEIGHT = 260;
const LABEL = 14;
const DAY = 86400;

let paint = () => {};
let painted = 0;
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => paint());
new ResizeObserver(() => byId("plot").clientWidth !== painted && paint()).observe(byId("plot"));

/** Draw the chart, or show none. */
export function draw(chart) {
  const figure = byId("chart");
  figure.hidden = !chart?.points.length;
  paint = () => {};
  if (figure.hidden) return;
  figure.dataset.kind = chart.kind;
  say("chart-title", `${chart.title}.`);
  say("chart-summary", summary(chart.points));
  byId("chart-table").replaceChildren(...table(chart));
  paint = () => {
    painted = byId("plot").clientWidth;
    byId("plot").replaceChildren();
    new uPlot(options(chart, painted, getComputedStyle(figure)), data(chart), byId("plot"));
  };
  paint();
}

function summary(points) {
  const there = points.filter(({ value }) => Number.isFinite(number(value)));
  if (!there.length) return "There are no values.";
  const [low, high] = there.reduce(
    ([low, high], point) => [number(point.value) < number(low.value) ? point : low, number(point.value) > number(high.value) ? point : high],
    [there[0], there[0]],
  );
  return `${points.length} values, lowest ${shown(low.value)} (${shown(low.by)}), highest ${shown(high.value)} (${shown(high.by)}).`;
}

function table({ title, by, measure, points }) {
  const heads = [by, measure].map((text) => element("th", { scope: "col" }, text));
  const rows = points.map((point) =>
    element("tr", {}, element("th", { scope: "row" }, shown(point.by)), element("td", {}, shown(point.value))),
  );
  return [
    element("caption", { className: "unseen" }, title),
    element("thead", {}, element("tr", {}, ...heads)),
    element("tbody", {}, ...rows),
  ];
}

function data({ kind, points }) {
  const x = kind === "time" ? points.map(({ by }) => seconds(by)) : points.map((_, index) => index);
  return [x, points.map(({ value }) => (Number.isFinite(number(value)) ? number(value) : null))];
}

const number = (value) => (value === null ? NaN : Number(value));

/** Dates and times without a zone are read as UTC, which is how they are shown. */
function seconds(text) {
  return Date.parse(text.length > 10 && !/(Z|[+-]\d\d:\d\d)$/.test(text) ? `${text}Z` : text) / 1000;
}

function options({ kind, by, measure, points }, width, style) {
  const [ink, line, mark] = ["--muted", "--line", "--accent"].map((name) => style.getPropertyValue(name));
  const axis = { stroke: ink, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 } };
  const exactly = (part) => (_, __, ___, index) => (index === null ? "–" : shown(points[index][part]));
  const bars = kind === "bars";
  return {
    width,
    height: HEIGHT,
    tzDate: (moment) => uPlot.tzDate(new Date(moment * 1000), "Etc/UTC"),
    cursor: { drag: { x: false, y: false } },
    scales: { x: bars ? { time: false, range: [-0.5, points.length - 0.5] } : {} },
    axes: [
      bars
        ? {
            ...axis,
            size: 100,
            rotate: -45,
            grid: { show: false },
            splits: points.map((_, index) => index),
            values: (_, splits) => splits.map((index) => shortened(shown(points[index].by))),
          }
        : { ...axis, space: 90, values: (_, splits, __, ___, step) => splits.map((moment) => date(moment, step)) },
      { ...axis, size: 64, values: (_, splits) => distinct(splits) },
    ],
    series: [
      { label: by, value: exactly("by") },
      {
        label: measure,
        value: exactly("value"),
        stroke: mark,
        width: 2,
        ...(bars ? { fill: mark, paths: uPlot.paths.bars({ size: [0.7, 60] }), points: { show: false } } : {}),
      },
    ],
  };
}

/** Short labels, with as many digits as it takes to tell them apart. */
function distinct(values) {
  for (let digits = 0; ; digits++) {
    const format = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: digits });
    const labels = values.map((value) => format.format(value));
    if (digits === 9 || new Set(labels).size === labels.length) return labels;
  }
}

/** ISO 8601, as far as two neighbours on the axis differ. */
function date(moment, step) {
  const text = new Date(moment * 1000).toISOString();
  if (step < DAY) return text.slice(11, 16);
  return text.slice(0, step < 28 * DAY ? 10 : step < 365 * DAY ? 7 : 4);
}

function shortened(text) {
  return text.length > LABEL ? `${text.slice(0, LABEL - 1)}…` : text;
}

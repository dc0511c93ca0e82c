// Of when the data is. Ages are measured by the server's clock: a visitor's may be wrong.

import { byId, say } from "./dom.js";

const ago = new Intl.RelativeTimeFormat("en", { numeric: "always" });
const date = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium", timeZone: "UTC" });
const UNITS = [
  ["day", 86400],
  ["hour", 3600],
  ["minute", 60],
  ["second", 1],
];

let ahead = 0; // milliseconds that the server's clock is ahead of this one

export function setClock(now) {
  ahead = now - Date.now();
}

export function inWords(moment) {
  return `${date.format(new Date(moment))} UTC`;
}

export function show({ last_refresh, snapshot }) {
  byId("refreshed").dateTime = last_refresh;
  say("refreshed", inWords(last_refresh));
  say("snapshot", snapshot === null ? "" : `· snapshot ${snapshot}`);
  tick();
}

function tick() {
  const moment = byId("refreshed").dateTime;
  if (moment) say("age", age((Date.now() + ahead - Date.parse(moment)) / 1000));
}

function age(seconds) {
  const [unit, size] = UNITS.find(([, size]) => seconds >= size) ?? UNITS.at(-1);
  return ago.format(-Math.max(0, Math.floor(seconds / size)), unit);
}

setInterval(tick, 1000);

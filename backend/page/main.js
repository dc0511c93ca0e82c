// Follows the address and the data: whichever changes, all is loaded anew and then shown at once.

import { byId, say } from "./dom.js";
import { supported } from "./exact.js";
import * as filters from "./filters.js";
import * as freshness from "./freshness.js";
import { load, sameState, state } from "./load.js";
import { clear, render } from "./render.js";
import * as session from "./session.js";
import { hash, PAGE_ROWS, read } from "./view.js";

const LOOK_SECONDS = 5;
const HIDDEN_SECONDS = 60;
const LONGEST_SECONDS = 60;
const TRY_AGAIN = new Set([0, 429, 500, 502, 503, 504]);

let picture = null; // what is shown, whole
let failures = 0;
let timer, loading;

/** Load what the address asks for and show it. Until then what was there stays. */
async function show() {
  const { signal } = begin();
  try {
    if (!picture) await session.welcome();
    const loaded = await load(read(location.hash), signal);
    render(loaded, picture, go);
    picture = loaded;
    history.replaceState(null, "", hash(picture.view));
    well();
  } catch (error) {
    if (!signal.aborted) failed(error);
  }
}

/** Look whether the data changed, and show it if so. */
async function look() {
  if (!picture || hash(read(location.hash)) !== hash(picture.view)) return show();
  const { signal } = begin();
  try {
    const current = await state(signal);
    freshness.setClock(current.now);
    if (!sameState(current, picture)) return show();
    well();
  } catch (error) {
    if (!signal.aborted) failed(error);
  }
}

/** One thing at a time: what is under way is of no use any more. */
function begin() {
  loading?.abort();
  clearTimeout(timer);
  loading = new AbortController();
  return loading;
}

function well() {
  failures = 0;
  say("notice", "");
  after(document.hidden ? HIDDEN_SECONDS : LOOK_SECONDS);
}

function after(seconds) {
  clearTimeout(timer);
  timer = setTimeout(look, seconds * 1000);
}

function failed(error) {
  if (error.status === 401 || error.status === 403) {
    const why = picture || error.status === 403 ? `Please sign in again: ${error.message}.` : "";
    forget();
    return session.offer(why);
  }
  if (!TRY_AGAIN.has(error.status)) return refused(error);
  failures += 1;
  const wait = error.code === "database_locked" ? "The data is being rebuilt." : error.message;
  say("notice", `${wait} ${picture ? "Shown is what was there before. " : ""}Trying again …`);
  after(Math.min(LONGEST_SECONDS, Math.max(error.retrySeconds ?? 0, 2 ** failures)));
}

/** What was asked for makes no sense: say so, and go back to what is shown. */
function refused(error) {
  if (error.status === undefined) throw error; // a mistake in here
  say("problem", `${error.message.replace(/^queries\[\d+\]: /, "")}. ${error.hint}`);
  history.replaceState(null, "", picture ? hash(picture.view) : "#");
  after(LOOK_SECONDS);
}

/** Nobody, or somebody else: what was shown is not theirs to see. */
function forget() {
  begin();
  picture = null;
  failures = 0;
  clear();
  say("notice", "");
}

function go(view) {
  location.hash = hash(view);
}

function turn(pages) {
  if (byId(pages < 0 ? "previous" : "next").ariaDisabled === "true") return;
  go({ ...picture.view, offset: Math.max(0, picture.view.offset + pages * PAGE_ROWS) });
}

const asking = () => !byId("sign-in").hidden;

function install() {
  addEventListener("hashchange", () => asking() || show());
  document.addEventListener("visibilitychange", () => document.hidden || asking() || look());
  byId("filter").addEventListener("submit", (event) => {
    event.preventDefault();
    go({ ...picture.view, offset: 0, filters: [...picture.view.filters, filters.entered()] });
  });
  byId("filter-column").addEventListener("change", filters.offerConditions);
  byId("filter-operator").addEventListener("change", filters.askForValue);
  byId("skip").addEventListener("click", (event) => {
    event.preventDefault(); // the address says what is shown, not where one is
    byId("content").focus();
  });
  byId("previous").addEventListener("click", () => turn(-1));
  byId("next").addEventListener("click", () => turn(1));
  session.install(() => {
    forget();
    show();
  });
}

if (supported) {
  install();
  show();
} else {
  say("notice", "This browser can't show every number exactly. Please use a newer one.");
}

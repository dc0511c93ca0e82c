// The API, asked. Who asks is in a cookie that scripts can't read.

import { parse } from "./exact.js";

/** An answer that is an error; `status` 0: there was none. */
export class Refused extends Error {
  constructor(status, { code, message, hint }, retrySeconds = 0) {
    super(message);
    Object.assign(this, { status, code, hint, retrySeconds });
  }
}

/** The answer to a request, and what time it is there. Throws Refused. */
export async function ask(path, { method = "GET", body, signal } = {}) {
  const headers = body === undefined ? {} : { "Content-Type": "application/json" };
  let response, text;
  try {
    response = await fetch(path, { method, headers, body: body && JSON.stringify(body), signal, cache: "no-cache" });
    text = await response.text();
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Refused(0, { code: "unreachable", message: "The server can't be reached.", hint: "" });
  }
  if (!response.ok) throw refusal(response, text);
  return { answer: text && parse(text), now: Date.parse(response.headers.get("Date")) };
}

function refusal(response, text) {
  const retrySeconds = Number(response.headers.get("Retry-After"));
  try {
    return new Refused(response.status, JSON.parse(text).error, retrySeconds);
  } catch {
    const message = `The server answered with status ${response.status}.`;
    return new Refused(response.status, { code: "no_envelope", message, hint: "" }, retrySeconds);
  }
}

// JSON with every digit. JavaScript's numbers have 53 bits: 9007199254740993 would be shown as …992, and 1.10 as 1.1.

/** A number as the API wrote it. */
export class Exact {
  constructor(source) {
    this.source = source;
  }

  toString() {
    return this.source;
  }

  /** Near enough for drawing and comparing. */
  valueOf() {
    return Number(this.source);
  }

  toJSON() {
    return JSON.rawJSON(this.source);
  }
}

/** Whether this browser gives the text of a number at all. */
export const supported = "rawJSON" in JSON;

export function parse(text) {
  return JSON.parse(text, (_, value, context) => (typeof value === "number" ? new Exact(context.source) : value));
}

/** A value of a row as text: what came, to the letter; lists and structures as JSON. */
export function shown(value) {
  return value !== null && typeof value === "object" && !(value instanceof Exact) ? JSON.stringify(value) : String(value);
}

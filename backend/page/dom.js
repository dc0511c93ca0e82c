// Elements, made from text only: nothing that came from data is ever read as HTML.

export const byId = (id) => document.getElementById(id);

export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  const { attributes = {}, ...own } = properties;
  Object.assign(made, own);
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
  made.append(...children);
  return made;
}

/** Write text only where it differs, so that nobody is told of a change that is none. */
export function say(id, text) {
  const where = byId(id);
  if (where.textContent !== text) where.textContent = text;
}

// Who is signed in. The token goes to the server once; it is kept where scripts can't read it.

import { ask } from "./api.js";
import { byId, say } from "./dom.js";

// Other tabs have the same cookie, so they show what it shows.
const tabs = new BroadcastChannel("session");

export async function welcome() {
  const { user_id, all_rows } = (await ask("/session")).answer;
  say("who", all_rows ? "Signed in, all users’ rows" : `Signed in as user ${user_id}`);
  byId("account").hidden = false;
}

/** Ask for a token, and say why, if there is something to say. */
export function offer(message) {
  byId("sign-in").hidden = false;
  say("sign-in-problem", message);
  byId("token").focus();
}

/** Call `changed` whenever somebody signed in or out, here or in another tab. */
export function install(changed) {
  tabs.onmessage = changed;
  const done = () => {
    tabs.postMessage("changed");
    changed();
  };
  byId("sign-in").addEventListener("submit", async (event) => {
    event.preventDefault();
    const token = byId("token").value.trim();
    byId("token").value = "";
    try {
      await ask("/session", { method: "POST", body: { token } });
      done();
    } catch (error) {
      offer(error.status === 422 ? "This is not a token." : `${error.message}.`);
    }
  });
  byId("sign-out").addEventListener("click", async () => {
    try {
      await ask("/session", { method: "DELETE" });
      done();
    } catch (error) {
      say("notice", `Signing out failed: ${error.message}`);
    }
  });
}

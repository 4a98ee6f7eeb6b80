// Asking the server, and listening to it. The token, where reading needs one, stays in this tab. Addresses are relative,
// since a proxy may serve the page under a path of its own.

const KEPT = "raysplit-token";

if (location.hash.startsWith("#token=")) {
  sessionStorage.setItem(KEPT, decodeURIComponent(location.hash.slice(7)));
  history.replaceState(null, "", location.pathname + location.search);
}

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export function setToken(token) {
  sessionStorage.setItem(KEPT, token);
}

function headers(more = {}) {
  const token = sessionStorage.getItem(KEPT);
  return token ? { ...more, Authorization: `Bearer ${token}` } : more;
}

export async function get(path, parameters = []) {
  const query = new URLSearchParams(parameters).toString();
  const answer = await fetch(query ? `${path}?${query}` : path, { headers: headers() });
  const body = await answer.json();
  if (!answer.ok) throw new Refused(answer.status, body.message ?? `status ${answer.status}`);
  return body;
}

// Follow /v1/events for ever. An own reader, since the browser's EventSource cannot send a token.
export async function follow({ onEvents, onState }) {
  let last = -1;
  let wait = 500;
  for (;;) {
    try {
      const answer = await fetch("v1/events", { headers: headers({ "Last-Event-ID": String(last) }), cache: "no-store" });
      if (!answer.ok) throw new Refused(answer.status, `status ${answer.status}`);
      onState("live");
      wait = 500;
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let text = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        text += value;
        const frames = text.split("\n\n");
        text = frames.pop();
        const events = [];
        for (const frame of frames) {
          const data = frame.split("\n").filter((line) => line.startsWith("data: ")).map((line) => line.slice(6)).join("\n");
          if (data) events.push(JSON.parse(data));
        }
        if (events.length) {
          const restarted = events[0].seq <= last;
          last = events.at(-1).seq;
          onEvents(events, restarted);
        }
      }
    } catch (error) {
      if (error instanceof Refused && error.status === 401) {
        onState("closed");
        return;
      }
    }
    onState("lost");
    await new Promise((resolve) => setTimeout(resolve, wait));
    wait = Math.min(2 * wait, 10000);
  }
}

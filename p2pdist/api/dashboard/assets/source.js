// Where the page's figures come from: the agent's events, or, where those do not arrive, asking again and again.

const QUIET = 25_000; // the agent sends something every 10 s
const POLL = 2_000;
const RETRY = 30_000; // how long to poll before events are tried again
const NAMES = ["status", "savings", "transfers", "peers", "images", "history", "beat"];

export class Source {
  // `take(name, value)` for each part that arrives; `tell(state)` when it becomes "live", "polling" or "lost".
  constructor(take, tell) {
    this.take = take;
    this.tell = tell;
    this.cursor = "";
    this.events = null;
    this.timer = 0;
    document.addEventListener("visibilitychange", () => (document.hidden ? this.stop() : this.start()));
  }

  start() {
    this.stop();
    if (!document.hidden) this.listen();
  }

  // Nobody looks: the agent need not compute anything.
  stop() {
    clearTimeout(this.timer);
    this.asking?.abort();
    this.events?.close();
    this.events = null;
  }

  listen() {
    const events = new EventSource(`api/v1/events?after=${encodeURIComponent(this.cursor)}`);
    this.events = events;
    this.watch();
    for (const name of NAMES) {
      events.addEventListener(name, (event) => {
        this.watch();
        if (event.lastEventId) this.cursor = event.lastEventId;
        this.tell("live");
        this.take(name, JSON.parse(event.data));
      });
    }
    // The browser connects again by itself where that makes sense; `watch` bounds how long that may take.
    events.addEventListener("error", () => (events.readyState === EventSource.CLOSED ? this.fallBack() : this.tell("lost")));
  }

  watch() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.fallBack(), QUIET);
  }

  fallBack() {
    this.stop();
    this.poll(Date.now() + RETRY);
  }

  async poll(until) {
    const asking = new AbortController();
    this.asking = asking;
    const bound = setTimeout(() => asking.abort(), QUIET);
    try {
      const answer = await fetch(`api/v1/overview?after=${encodeURIComponent(this.cursor)}`, { signal: asking.signal });
      if (!answer.ok) throw new Error(answer.status);
      const all = await answer.json();
      this.cursor = all.cursor;
      this.tell("polling");
      for (const name of NAMES) this.take(name, all[name]);
    } catch {
      if (this.asking !== asking || document.hidden) return;
      this.tell("lost");
      until = 0; // once the agent answers again, it may well have events
    } finally {
      clearTimeout(bound);
    }
    if (this.asking !== asking || document.hidden) return;
    this.timer = setTimeout(() => (Date.now() >= until ? this.listen() : this.poll(until)), POLL);
  }
}

// The timeline: where in the step the page stands, and how it moves.
// In: the ticks, with the act of each. Out: calls of `onTick(tick)`; tick -1 is before the first op.
"use strict";

const WHOLE_PLAY = 80; // seconds that a step plays at speed 1
const LONGER = 5; // times as long as another tick
const SLOWEST = 0.42; // seconds that a tick takes at most, at speed 1
const LEAST_SHARE = 0.11; // of the track that even the shortest act gets

class Timeline {
  constructor(ticks, titles, onTick) {
    this.onTick = onTick;
    this.titles = titles;
    this.tick = -1;
    this.playing = false;
    this.setTicks(ticks);
    byId("play").addEventListener("click", () => this.toggle());
    byId("first").addEventListener("click", () => this.stopAt(0));
    byId("last").addEventListener("click", () => this.stopAt(this.count - 1));
    byId("back").addEventListener("click", () => this.stopAt(this.tick - 1));
    byId("forward").addEventListener("click", () => this.stopAt(this.tick + 1));
    byId("scrub").addEventListener("input", () =>
      this.stopAt(this.tickAt(Number(byId("scrub").value) / 1000)),
    );
  }

  setTicks(ticks) {
    this.count = ticks.length;
    this.weights = ticks.map((tick) => tick.crosses);
    this.acts = [];
    ticks.forEach((tick, at) => {
      const last = this.acts.at(-1);
      if (last?.act === tick.act) last.end = at + 1;
      else this.acts.push({ act: tick.act, start: at, end: at + 1 });
    });
    this.shareTrack();
    this.makeParts();
    byId("scrub").max = 1000;
  }

  // The width of an act on the track: by its ops, but never too small for its name.
  shareTrack() {
    const shares = this.acts.map(({ start, end }) =>
      Math.max((end - start) / this.count, LEAST_SHARE),
    );
    const sum = shares.reduce((a, b) => a + b, 0);
    let left = 0;
    this.acts.forEach((act, i) => {
      act.left = left;
      act.share = shares[i] / sum;
      left += act.share;
    });
  }

  makeParts() {
    byId("acts").replaceChildren(
      ...this.acts.map((act) => {
        const { title, colour, story } = this.titles[act.act];
        const attributes = {
          type: "button",
          class: `act-part ${colour}`,
          title: story,
          onclick: () => this.stopAt(act.start),
        };
        act.button = element("button", attributes, title);
        act.button.style.flex = `${act.share} 1 0`;
        return act.button;
      }),
    );
  }

  positionOf(tick) {
    if (tick < 0) return 0;
    const act = this.actAt(tick);
    return act.left + (act.share * (tick - act.start + 1)) / (act.end - act.start);
  }

  tickAt(position) {
    const act = this.acts.findLast((each) => each.left <= position) ?? this.acts[0];
    const within = Math.ceil(((position - act.left) / act.share) * (act.end - act.start)) - 1;
    return clamp(act.start + within, -1, this.count - 1);
  }

  actAt(tick) {
    return this.acts.find(({ start, end }) => tick >= start && tick < end);
  }

  goTo(tick) {
    this.tick = clamp(tick, -1, this.count - 1);
    byId("scrub").value = this.positionOf(this.tick) * 1000;
    const act = this.actAt(this.tick);
    const place = this.tick < 0 ? "before the first op" : `op ${this.tick + 1} of ${this.count}`;
    byId("place").textContent = place;
    byId("scrub").setAttribute(
      "aria-valuetext",
      act ? `${place}, ${this.titles[act.act].title}` : place,
    );
    for (const each of this.acts) each.button.classList.toggle("on", each === act);
    this.onTick(this.tick);
  }

  stopAt(tick) {
    this.pause();
    this.goTo(tick);
  }

  jumpAct(by) {
    const at = this.acts.indexOf(this.actAt(this.tick));
    this.stopAt(this.acts[clamp(at + by, 0, this.acts.length - 1)].start);
  }

  toggle() {
    if (this.playing) this.pause();
    else this.play();
  }

  play() {
    if (this.tick >= this.count - 1) this.goTo(-1);
    this.playing = true;
    this.showPlaying();
    this.owed = 0;
    this.before = performance.now();
    const run = (now) => {
      if (!this.playing) return;
      this.owed += (now - this.before) / 1000 / this.secondsOfTick();
      this.before = now;
      let next = this.tick;
      while (next < this.count - 1 && this.owed >= this.weightOf(next))
        this.owed -= this.weightOf(next++);
      this.owed = Math.min(this.owed, LONGER); // a slow frame is not made good in a rush
      if (next > this.tick) this.goTo(next);
      if (this.tick >= this.count - 1) this.pause();
      else requestAnimationFrame(run);
    };
    requestAnimationFrame(run);
  }

  // How long the page stays at a tick, in ticks: longer where prompt and text meet.
  weightOf(tick) {
    return tick >= 0 && this.weights[tick] ? LONGER : 1;
  }

  secondsOfTick() {
    return Math.min(WHOLE_PLAY / this.count, SLOWEST) / Number(byId("speed").value);
  }

  pause() {
    this.playing = false;
    this.showPlaying();
  }

  showPlaying() {
    const word = this.playing ? "pause" : "play";
    byId("sentence").setAttribute("aria-live", this.playing ? "off" : "polite");
    byId("play").setAttribute("aria-label", word);
    byId("play").replaceChildren(
      this.playing ? "❚❚" : "▶",
      element("span", { class: "word" }, ` ${word}`),
    );
  }
}

"use strict";
(() => {
  const $ = (selector, root = document) => root.querySelector(selector);
  const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
  const make = (tag, name = "", text = null) => {
    const element = document.createElement(tag);
    if (name) element.className = name;
    if (text !== null) element.textContent = text;
    return element;
  };

  // --- colors -------------------------------------------------------------------------------------------
  const theme = $("#theme");
  const themes = ["system", "light", "dark"];
  const setTheme = (name) => {
    if (name === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = name;
    theme.textContent = `Colors: ${name}`;
  };
  theme.hidden = false;
  theme.addEventListener("click", () => {
    const now = document.documentElement.dataset.theme || "system";
    setTheme(themes[(themes.indexOf(now) + 1) % themes.length]);
  });
  window.addEventListener("beforeprint", () => {
    theme.dataset.before = document.documentElement.dataset.theme || "system";
    setTheme("light");
  });
  window.addEventListener("afterprint", () => setTheme(theme.dataset.before || "system"));

  // --- tabs ----------------------------------------------------------------------------------------------
  const tabs = $$('[role="tab"]');
  const galleries = {};
  const select = (tab, focus = true) => {
    for (const other of tabs) {
      const here = other === tab;
      other.setAttribute("aria-selected", String(here));
      other.tabIndex = here ? 0 : -1;
      const panel = document.getElementById(other.getAttribute("aria-controls"));
      panel.hidden = !here;
      panel.tabIndex = here ? 0 : -1;
    }
    if (focus) tab.focus();
    const shown = tab.getAttribute("aria-controls");
    for (const [name, gallery] of Object.entries(galleries)) if (name !== shown) gallery.stop();
    if (galleries[shown]) galleries[shown].open();
    try { history.replaceState(null, "", `#tab=${shown}`); } catch { /* some browsers refuse on files */ }
  };
  tabs.forEach((tab, number) => {
    tab.addEventListener("click", () => select(tab));
    tab.addEventListener("keydown", (event) => {
      const to = { ArrowRight: number + 1, ArrowLeft: number - 1, Home: 0, End: tabs.length - 1 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      event.stopPropagation();
      select(tabs[(to + tabs.length) % tabs.length]);
    });
  });

  // --- comparisons ---------------------------------------------------------------------------------------
  const chosen = $("#comparison");
  if (chosen) {
    const comparisons = $$(".comparison");
    const choose = () => comparisons.forEach((one, number) => { one.hidden = number !== chosen.selectedIndex; });
    chosen.addEventListener("input", choose);
    chosen.closest(".choose").hidden = false;
    choose();
  }

  // --- sound ---------------------------------------------------------------------------------------------
  const holder = $("#data");
  const data = holder ? JSON.parse(holder.textContent) : null;
  const addressOf = (media) => {
    if (media.url) return media.url;
    const stored = document.getElementById(`m-${media.key}`);
    return stored ? `data:${media.mime};base64,${stored.textContent}` : null;
  };
  const player = new Audio();
  player.id = "player";
  document.body.append(player);
  let playing = null; // {panel, head, sound, gallery}
  const stopPlaying = () => {
    player.pause();
    if (playing) playing.panel.classList.remove("playing");
    playing = null;
  };
  const tick = () => {
    if (!playing) return;
    const share = player.duration ? player.currentTime / player.duration : 0;
    playing.head.style.left = `${100 * Math.min(1, share) * playing.share}%`;
    requestAnimationFrame(tick);
  };
  player.addEventListener("ended", () => { const was = playing; stopPlaying(); if (was) was.gallery.say(""); });

  // --- galleries -----------------------------------------------------------------------------------------
  const LETTERS = "ABCDEFGHIJKLMNOPQR".split("");  // S is the clip
  const letter = (k) => LETTERS[k] || String(k + 1);
  const PAGE = 24;
  const number = (value, digits = 2) => (value === null || value === undefined ? "–" : Number(value).toFixed(digits));

  class Gallery {
    constructor(root, clips) {
      this.root = root;
      this.all = clips;
      this.list = $(".cards", root);
      this.status = $(".status", root);
      this.more = $(".more", root);
      this.current = 0;
      this.side = "S";
      this.shown = 0;
      this.opened = false;
      for (const select of $$("[data-filter]", root)) {
        const key = select.dataset.filter;
        const values = [...new Set(clips.map((clip) => clip[key]))];
        values.sort((a, b) => (typeof a === "number" ? a - b : String(a).localeCompare(String(b))));
        for (const value of values) select.append(new Option(key === "fold" && value === 0 ? "across folds" : String(value), String(value)));
        if (values.length < 2) select.closest("label").hidden = true;
      }
      for (const label of $$("[data-has]", root)) {
        label.hidden = !clips.some((clip) => clip[label.dataset.has] !== null);
        if (label.hidden) for (const option of $$(`option[value^="${label.dataset.has}"]`, root)) option.remove();
      }
      $(".tools", root).addEventListener("submit", (event) => event.preventDefault());
      $(".tools", root).addEventListener("input", (event) => { if (!event.target.matches("[data-keys]")) this.filter(); });
      this.more.addEventListener("click", () => { const at = this.shown; this.add(); this.focus(at); });
      this.list.addEventListener("click", (event) => {
        const panel = event.target.closest(".panel");
        const card = event.target.closest(".card");
        if (!card) return;
        this.mark(Number(card.dataset.at));
        if (panel) this.play(panel.dataset.side);
      });
      this.watch = new IntersectionObserver((entries) => {
        for (const entry of entries) if (entry.isIntersecting) { this.pictures(entry.target); this.watch.unobserve(entry.target); }
      }, { rootMargin: "600px" });
      this.end = new IntersectionObserver((entries) => { if (entries.some((entry) => entry.isIntersecting)) this.add(); }, { rootMargin: "900px" });
    }

    open() {
      if (this.opened) return;
      this.opened = true;
      this.filter();
      this.end.observe(this.more);
    }

    filter() {
      this.stop();
      let clips = this.all;
      for (const select of $$("[data-filter]", this.root)) if (select.value) clips = clips.filter((clip) => String(clip[select.dataset.filter]) === select.value);
      for (const input of $$("[data-min]", this.root)) {
        const least = Number(input.value);
        if (least > 0) clips = clips.filter((clip) => clip[input.dataset.min] !== null && clip[input.dataset.min] >= least);
      }
      const order = $("[data-sort]", this.root).value;
      const key = order.replace(/[+-]$/, "");
      const down = order.endsWith("-") ? -1 : 1;
      const value = (clip) => (key === "dur" ? data.sounds[clip.sound].dur : clip[key]);
      this.clips = [...clips].sort((a, b) => {
        const [x, y] = [value(a), value(b)];
        if (x === null || y === null) return (x === null) - (y === null);
        const order = typeof x === "number" ? x - y : String(x).localeCompare(String(y));
        return down * order || a.at - b.at;
      });
      this.list.replaceChildren();
      this.shown = 0;
      this.add();
      if (this.clips.length) this.mark(0);
      this.say("");
    }

    say(text) {
      const n = this.clips ? this.clips.length : 0;
      this.status.textContent = text || `${n.toLocaleString("en")} of ${this.all.length.toLocaleString("en")} clips`;
    }

    add() {
      if (!this.clips) return;
      const part = document.createDocumentFragment();
      const upto = Math.min(this.clips.length, this.shown + PAGE);
      for (let at = this.shown; at < upto; at += 1) part.append(this.card(this.clips[at], at));
      const begin = this.shown;
      this.shown = upto;
      this.list.append(part);
      for (let at = begin; at < upto; at += 1) this.watch.observe(this.list.children[at]);
      this.more.hidden = this.shown >= this.clips.length;
    }

    card(clip, at) {
      const card = make("article", "card");
      card.dataset.at = at;
      card.tabIndex = -1;
      const head = make("header");
      const title = make("h3", "", clip.cls);
      title.id = `${this.root.dataset.kind}-${clip.at}`;
      card.setAttribute("aria-labelledby", title.id);
      const tags = make("div", "tags");
      const tag = (name, text) => { const one = make("span", "", `${name} `); one.append(make("b", "", text)); tags.append(one); };
      if (clip.score !== null) tag("filter score", number(clip.score));
      if (clip.parents.length > 1) tag("alpha", number(clip.alpha));
      if (clip.near !== null) tag("distance", clip.dist.map((one) => number(one)).join(" / "));
      tag("fold", clip.fold === 0 ? "across" : String(clip.fold));
      tag("", clip.strategy);
      head.append(title, make("span", "id", clip.id), tags);
      const trio = make("div", "trio");
      const sides = [["A", clip.parents[0]], ["S", clip.sound], ...clip.parents.slice(1).map((sound, k) => [letter(k + 1), sound])];
      const longest = Math.max(...sides.map(([, sound]) => (sound === null ? 0 : data.sounds[sound].dur)));
      for (const [side, sound] of sides) trio.append(this.panel(clip, side, sound, longest));
      const more = make("details");
      const summary = make("summary", "", "Provenance");
      summary.tabIndex = -1;
      more.append(summary);
      more.addEventListener("toggle", () => {
        if (more.open && more.children.length === 1) {
          const rows = make("dl", "facts");
          for (const [name, text] of clip.row) { const row = make("div"); row.append(make("dt", "", name), make("dd", "", text)); rows.append(row); }
          more.append(rows);
        }
      });
      card.append(head, trio, more);
      return card;
    }

    panel(clip, side, index, longest) {
      const what = side === "S" ? "synthetic" : `parent ${side}`;
      if (index === null) return make("div", "missing", `${what} is not in the real source that was given`);
      const sound = data.sounds[index];
      const panel = make("button", side === "S" ? "panel synthetic" : "panel");
      panel.type = "button";
      panel.tabIndex = -1;
      panel.dataset.side = side;
      panel.dataset.sound = index;
      panel.setAttribute("aria-label", `Play ${what}, ${sound.cls}, ${number(sound.dur, 1)} seconds`);
      const box = make("span", "picture");
      const image = make("img");
      image.alt = "";
      panel.dataset.share = sound.dur / longest;
      image.style.width = `${100 * panel.dataset.share}%`;
      box.append(image, make("span", "head"));
      const name = make("span", "name");
      const label = make("span");
      label.append(make("b", "", side), ` ${side === "S" ? "synthetic" : "parent"}`);
      name.append(label, make("span", "", `${number(sound.dur)} s`));
      panel.append(box, name);
      return panel;
    }

    pictures(card) {
      for (const panel of $$(".panel", card)) {
        const address = addressOf(data.sounds[panel.dataset.sound].picture);
        if (address) $("img", panel).src = address;
        else document.addEventListener("DOMContentLoaded", () => this.pictures(card), { once: true });
      }
    }

    mark(at) {
      const before = this.list.children[this.current];
      if (before) {
        before.classList.remove("current");
        before.tabIndex = -1;
        for (const inside of $$("button, summary", before)) inside.tabIndex = -1;
      }
      this.current = at;
      const card = this.list.children[at];
      card.classList.add("current");
      card.tabIndex = 0;
      for (const inside of $$("button, summary", card)) inside.tabIndex = 0;
    }

    focus(at) {
      while (at >= this.shown && this.shown < this.clips.length) this.add();
      if (at < 0 || at >= this.shown) return;
      this.mark(at);
      const card = this.list.children[at];
      card.focus({ preventScroll: true });
      card.scrollIntoView({ block: "nearest" });
      this.pictures(card);
    }

    sides() {
      const card = this.list.children[this.current];
      return card ? $$(".panel", card) : [];
    }

    play(side) {
      const panel = this.sides().find((one) => one.dataset.side === side);
      if (!panel) return;
      const again = playing && playing.panel === panel;
      this.stop();
      this.side = side;
      if (again) return;
      for (const other of $$(".panel.on", this.list)) other.classList.remove("on");
      panel.classList.add("on");
      const sound = data.sounds[panel.dataset.sound];
      const address = addressOf(sound.audio);
      if (!address) return;
      player.src = address;
      player.currentTime = 0;
      playing = { panel, head: $(".head", panel), share: Number(panel.dataset.share), gallery: this };
      panel.classList.add("playing");
      this.say(`Playing ${side === "S" ? "the synthetic clip" : `parent ${side}`}: ${sound.cls}, ${number(sound.dur, 1)} s`);
      player.play().then(tick, () => this.say("This browser could not play the clip"));
    }

    stop() {
      if (playing && playing.gallery === this) { stopPlaying(); this.say(""); }
    }

    key(event) {
      const panels = this.sides().map((panel) => panel.dataset.side);
      const at = Math.max(0, panels.indexOf(this.side));
      const letter = event.key.length === 1 ? event.key.toUpperCase() : event.key;
      if (event.key === " ") this.play(panels[at]);
      else if (event.key === "ArrowRight") this.play(panels[Math.min(panels.length - 1, at + 1)]);
      else if (event.key === "ArrowLeft") this.play(panels[Math.max(0, at - 1)]);
      else if (event.key === "ArrowDown") { this.stop(); this.focus(this.current + 1); }
      else if (event.key === "ArrowUp") { this.stop(); this.focus(this.current - 1); }
      else if (event.key === "Escape") this.stop();
      else if (panels.includes(letter)) this.play(letter);
      else return;
      event.preventDefault();
    }
  }

  if (data) {
    for (const root of $$(".gallery")) {
      const rejected = root.dataset.kind === "rejected";
      galleries[rejected ? "rejected" : "listen"] = new Gallery(root, data.clips.filter((clip) => clip.rejected === rejected));
    }
    document.addEventListener("keydown", (event) => {
      const open = tabs.find((tab) => tab.getAttribute("aria-selected") === "true");
      const gallery = galleries[open.getAttribute("aria-controls")];
      if (!gallery || event.ctrlKey || event.metaKey || event.altKey) return;
      if (!$("[data-keys]", gallery.root).checked) return;
      if (event.target.closest("input, select, summary, [role=tab], #theme, .more, .skip")) return;
      // Space on a panel's button is that panel's own click.
      if (event.key === " " && event.target.closest(".panel")) return;
      gallery.key(event);
    });
  }
  // Not a panel's own id: browsers would scroll past the heading to it.
  const asked = tabs.find((tab) => `#tab=${tab.getAttribute("aria-controls")}` === location.hash);
  select(asked || tabs[0], false);
  document.documentElement.dataset.ready = String(Math.round(performance.now()));
})();

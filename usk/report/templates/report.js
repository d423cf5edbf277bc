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
  const kept = () => { try { return localStorage.getItem("usk-colors"); } catch { return null; } };
  theme.hidden = false;
  if (themes.includes(kept())) setTheme(kept());
  theme.addEventListener("click", () => {
    const now = document.documentElement.dataset.theme || "system";
    setTheme(themes[(themes.indexOf(now) + 1) % themes.length]);
    try { localStorage.setItem("usk-colors", document.documentElement.dataset.theme || "system"); } catch { /* no storage: the choice is not remembered */ }
  });
  window.addEventListener("beforeprint", () => {
    theme.dataset.before = document.documentElement.dataset.theme || "system";
    setTheme("light");
    for (const one of $$("details.sure")) one.open = true;
  });
  window.addEventListener("afterprint", () => setTheme(theme.dataset.before || "system"));

  // --- tabs ----------------------------------------------------------------------------------------------
  const tabs = $$('[role="tab"]');
  const galleries = {};
  let drawMap = () => {};
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
    stopPlaying();
    if (galleries[shown]) galleries[shown].open();
    if (shown === "map") drawMap();
    remember();
  };
  // The address contains the tab, the comparison, and a gallery's filters, order and clip, so that a link shows the same view.
  const linkTo = (values) => `#${new URLSearchParams(values)}`;
  const setAddress = (values) => { try { history.replaceState(null, "", linkTo(values)); } catch { /* some browsers refuse on files */ } };
  const remember = () => {
    const tab = tabs.find((one) => one.getAttribute("aria-selected") === "true").getAttribute("aria-controls");
    const more = tab === "compare" && chosen ? { comparison: chosen.selectedIndex + 1 } : galleries[tab] ? galleries[tab].chosen() : {};
    setAddress({ tab, ...more });
  };
  const follow = () => {
    const asked = new URLSearchParams(location.hash.slice(1));
    const tab = tabs.find((one) => one.getAttribute("aria-controls") === asked.get("tab")) || tabs[0];
    if (chosen && asked.get("comparison") > 0 && asked.get("comparison") <= chosen.options.length) {
      chosen.selectedIndex = asked.get("comparison") - 1;
      choose();
    }
    const gallery = galleries[tab.getAttribute("aria-controls")];
    if (gallery) gallery.set(asked);
    select(tab, false);
    if (!gallery || !asked.has("clip")) return;
    gallery.focus(gallery.clips.findIndex((clip) => clip.id === asked.get("clip")));
    setAddress(asked);
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
  const choose = () => $$(".comparison").forEach((one, number) => { one.hidden = number !== chosen.selectedIndex; });
  if (chosen) {
    chosen.addEventListener("input", () => { choose(); remember(); });
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
  let playing = null; // the argument of the last `play`
  const stopPlaying = () => {
    const was = playing;
    playing = null;
    player.pause();
    if (!was) return;
    was.element.classList.remove("playing");
    was.say("");
  };
  const tick = () => {
    if (!playing) return;
    if (playing.head) playing.head.style.left = `${100 * Math.min(1, player.currentTime / (player.duration || Infinity)) * playing.share}%`;
    requestAnimationFrame(tick);
  };
  const play = (sound, asked) => {
    stopPlaying();
    const address = addressOf(data.sounds[sound].audio);
    if (!address) return;
    player.src = address;
    player.loop = Boolean(asked.loop);
    player.currentTime = asked.at || 0;
    playing = asked;
    asked.element.classList.add("playing");
    // It is not an error if another sound has replaced this one.
    player.play().then(tick, (error) => { if (playing === asked && error.name !== "AbortError") asked.say("This browser could not play the clip"); });
  };
  player.addEventListener("ended", () => { if (playing && playing.ended) playing.ended(); stopPlaying(); });
  const drawn = (name, values, parent) => {
    const one = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(values)) one.setAttribute(key, value);
    return parent ? parent.appendChild(one) : one;
  };
  const peaksOf = (sound) => [...sound.peaks].map((digit) => (parseInt(digit, 36) / 35) ** 2);
  const waveform = (sound, share, loudest) => {
    const heights = peaksOf(sound).map((peak) => peak / loudest + 0.02);
    const n = heights.length;
    const svg = drawn("svg", { viewBox: `0 -1 ${n - 1} 2`, preserveAspectRatio: "none", "aria-hidden": "true", style: `width: ${100 * share}%` });
    const points = [...heights.map((height, at) => `${at} ${-height}`), ...heights.map((_, at) => `${n - 1 - at} ${heights[n - 1 - at]}`)];
    drawn("path", { d: `M${points.join("L")}Z` }, svg);
    return svg;
  };
  const save = (name, address) => {
    const link = make("a");
    link.href = address;
    link.target = "_blank"; // some browsers show the file instead of saving it
    link.download = name.replace(/[^A-Za-z0-9._-]+/g, "-");
    link.click();
  };

  // --- galleries -----------------------------------------------------------------------------------------
  const PAGE = 24;

  class Gallery {
    constructor(root, clips) {
      this.root = root;
      this.all = clips;
      this.list = $(".cards", root);
      this.status = $(".status", root);
      this.more = $(".more", root);
      this.current = 0;
      this.side = "S";
      this.position = 0; // where the current clip was paused, in seconds
      this.shown = 0;
      this.opened = false;
      for (const select of $$("[data-filter]", root)) {
        const key = select.dataset.filter;
        const values = [...new Set(clips.map((clip) => clip[key]))];
        values.sort((a, b) => (typeof a === "number" ? a - b : String(a).localeCompare(String(b))));
        for (const value of values) select.append(new Option(key === "fold" && value === 0 ? "across folds" : String(value), String(value)));
        if (values.length < 2) select.closest("label").hidden = true;
      }
      $("[data-reset]", root).addEventListener("click", () => { this.set(new Map()); this.filter(); remember(); });
      for (const label of $$("[data-has]", root)) {
        label.hidden = !clips.some((clip) => clip[label.dataset.has] !== null);
        if (label.hidden) for (const option of $$(`option[value^="${label.dataset.has}"]`, root)) option.remove();
      }
      $(".tools", root).addEventListener("submit", (event) => event.preventDefault());
      $(".tools", root).addEventListener("input", (event) => {
        if (event.target.matches("[data-loop]")) player.loop = event.target.checked;
        else if (!event.target.matches("[data-keys]")) { this.filter(); remember(); }
      });
      this.more.addEventListener("click", () => { const at = this.shown; this.add(); this.focus(at); });
      this.list.addEventListener("click", (event) => {
        const panel = event.target.closest(".panel");
        const card = event.target.closest(".card");
        if (!card) return;
        if (this.current !== Number(card.dataset.at)) { this.stop(); this.mark(Number(card.dataset.at)); }
        if (!panel) return;
        const side = panel.dataset.side;
        const box = event.target.closest(".picture");
        if (box) this.play(side, this.lengthOf(panel) * (event.clientX - box.getBoundingClientRect().left) / (box.clientWidth * panel.dataset.share));
        else if (event.target.closest(".save")) this.save(panel);
        else if (event.target.closest("button")) this.play(side);
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
      $("[data-reset]", this.root).hidden = clips.length === this.all.length;
      this.list.replaceChildren();
      this.shown = 0;
      this.add();
      if (this.clips.length) this.mark(0);
      this.say("");
    }

    // The name of a form's field in an address, and the values of all fields.
    fields() {
      return $$("[data-filter], [data-min], [data-sort]", this.root).map((field) => [field.dataset.filter || (field.dataset.min ? `least-${field.dataset.min}` : "sort"), field]);
    }

    chosen() {
      return Object.fromEntries(this.fields().filter(([, field]) => field.value !== (field.options ? field.options[0].value : field.defaultValue)).map(([name, field]) => [name, field.value]));
    }

    set(wanted) {
      for (const [name, field] of this.fields()) {
        field.value = wanted.get(name) ?? (field.options ? field.options[0].value : field.defaultValue);
        if (field.selectedIndex === -1) field.selectedIndex = 0;
      }
      if (this.opened) this.filter();
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
      for (const [name, text] of clip.tags) { const one = make("span", "", `${name} `); one.append(make("b", "", text)); tags.append(one); }
      const link = make("a", "id", clip.id);
      link.href = linkTo({ tab: this.root.closest("section").id, clip: clip.id });
      link.tabIndex = -1;
      head.append(title, link, tags);
      const trio = make("div", "trio");
      const longest = Math.max(...clip.sides.map(([, , sound]) => (sound === null ? 0 : data.sounds[sound].dur)));
      const loudest = Math.max(0.01, ...clip.sides.flatMap(([, , sound]) => (sound === null ? [] : peaksOf(data.sounds[sound]))));
      for (const side of clip.sides) trio.append(this.panel(...side, longest, loudest));
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

    panel(side, what, index, longest, loudest) {
      if (index === null) return make("div", "missing", `${what} is not in the real source that was given`);
      const sound = data.sounds[index];
      const panel = make("div", side === "S" ? "panel main" : "panel");
      panel.dataset.side = side;
      panel.dataset.sound = index;
      const box = make("div", "picture");
      const image = make("img");
      image.alt = "";
      panel.dataset.share = sound.dur / longest;
      image.style.width = `${100 * panel.dataset.share}%`;
      box.append(image, waveform(sound, panel.dataset.share, loudest), make("span", "head"));
      const row = make("div", "name");
      const button = (name, text, label) => {
        const one = make("button", name, text);
        one.type = "button";
        one.tabIndex = -1;
        one.setAttribute("aria-label", `${label} ${what}, ${sound.cls}, ${sound.dur.toFixed(1)} seconds`);
        return one;
      };
      const label = make("span");
      label.append(make("b", "", side), ` ${what}`);
      row.append(button("start", "", "Play"), label, make("span", "length", `${sound.dur.toFixed(2)} s`), button("save", "↓", "Download"));
      panel.append(box, row);
      return panel;
    }

    lengthOf(panel) { return data.sounds[panel.dataset.sound].dur; }

    save(panel) {
      const { audio } = data.sounds[panel.dataset.sound];
      const type = audio.url ? audio.url.split(".").pop() : { "audio/flac": "flac", "audio/ogg": "ogg" }[audio.mime] || "mp3";
      save(`${$(".id", panel.closest(".card")).textContent.split("/").pop()}-${panel.dataset.side}.${type}`, addressOf(audio));
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
        for (const inside of $$("button, summary, a", before)) inside.tabIndex = -1;
      }
      this.current = at;
      const card = this.list.children[at];
      card.classList.add("current");
      card.tabIndex = 0;
      for (const inside of $$("button, summary, a", card)) inside.tabIndex = 0;
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

    // Play from `at`, or else from the position of the card's other sound. If this sound plays already, pause it.
    play(side, at = null) {
      const panel = this.sides().find((one) => one.dataset.side === side);
      if (!panel) return;
      if (playing && playing.gallery === this) this.position = player.currentTime;
      const pause = at === null && playing && playing.element === panel;
      stopPlaying();
      this.side = side;
      if (pause) return;
      if (at !== null) this.position = at;
      if (this.position > this.lengthOf(panel) - 0.05) this.position = 0;
      for (const other of $$(".panel.on", this.list)) other.classList.remove("on");
      panel.classList.add("on");
      const say = (text) => this.say(text);
      play(panel.dataset.sound, {
        element: panel, head: $(".head", panel), share: Number(panel.dataset.share), gallery: this, say, at: this.position,
        loop: $("[data-loop]", this.root).checked, ended: () => { this.position = 0; },
      });
      const said = data.sounds[panel.dataset.sound];
      this.say(`Playing ${$(".name span", panel).textContent}: ${said.cls}, ${said.dur.toFixed(1)} s`);
    }

    stop() {
      this.position = 0;
      stopPlaying();
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
      else if (",.".includes(event.key)) this.play(panels[at], Math.max(0, (playing ? player.currentTime : this.position) + (event.key === "." ? 0.5 : -0.5)));
      else return;
      event.preventDefault();
    }
  }

  if (data) {
    for (const root of $$(".gallery")) {
      const { kind } = root.dataset;
      galleries[root.closest("section").id] = new Gallery(root, data.clips.filter((clip) => clip.kind === kind));
    }
    const changed = galleries.changed;
    if (changed) for (const figure of $$("figure[data-mix]")) {
      const { title, classes } = figure.closest(".comparison").dataset;
      const names = JSON.parse(classes);
      const of = (wanted) => changed.all.filter((clip) => Object.entries(wanted).every(([key, value]) => clip[key] === value));
      const mine = { comparison: title, mix: figure.dataset.mix };
      const opens = (element, wanted) => {
        if (!of(wanted).length) return;
        element.classList.add("opens");
        element.addEventListener("click", () => { changed.set(new Map(Object.entries(wanted))); select($("#tab-changed")); });
      };
      const button = $(".open", figure);
      button.hidden = !of(mine).length;
      opens(button, mine);
      for (const shape of $$("[data-open]", figure)) {
        const [cls, wrong] = shape.dataset.open.split("-").map((at) => names[at]);
        opens(shape, cls === wrong ? { ...mine, cls } : { ...mine, cls, wrong });
      }
    }
    document.addEventListener("keydown", (event) => {
      const open = tabs.find((tab) => tab.getAttribute("aria-selected") === "true");
      const gallery = galleries[open.getAttribute("aria-controls")];
      if (!gallery || event.ctrlKey || event.metaKey || event.altKey) return;
      if (!$("[data-keys]", gallery.root).checked) return;
      if (event.target.closest("input, select, summary, [role=tab], #theme, .more, .skip")) return;
      // On a button, the space key clicks the button.
      if (event.key === " " && event.target.closest("button")) return;
      gallery.key(event);
    });
  }
  // --- map -----------------------------------------------------------------------------------------------
  const plane = $("#map svg");
  if (plane) {
    const status = $("#map .status");
    const chosen = $("#map select");
    const classes = [...new Set(data.sounds.map((sound) => sound.cls))].sort();
    const colorOf = (cls) => `--dot: oklch(0.64 0.15 ${Math.round((360 * classes.indexOf(cls)) / classes.length)})`;
    for (const cls of classes) {
      chosen.append(new Option(cls, cls));
      const one = make("span", "", cls);
      one.style.cssText = colorOf(cls);
      $("#map .classes").append(one, " ");
    }
    drawMap = () => { // once, on first use, because thousands of dots take a while
      drawMap = () => {};
      data.places.forEach((place, at) => {
        if (!place) return;
        const { cls, id, real } = data.sounds[at];
        const dot = drawn("g", { class: `dot ${real ? "real" : "synthetic"}`, "data-at": at, style: colorOf(cls) }, plane);
        const at2d = { cx: 15 + 970 * place[0], cy: 605 - 590 * place[1] };
        drawn("circle", { ...at2d, r: 6 }, dot);
        if (data.copies.includes(at)) drawn("circle", { ...at2d, r: 11, class: "copy" }, dot);
        drawn("title", {}, dot).textContent = `${real ? "real" : "synthetic"} ${cls}, ${id}`;
      });
    };
    $("#map .copies").hidden = !data.copies.length;
    chosen.addEventListener("input", () => {
      for (const dot of $$(".dot", plane)) dot.classList.toggle("away", Boolean(chosen.value) && data.sounds[dot.dataset.at].cls !== chosen.value);
    });
    plane.addEventListener("click", (event) => {
      const dot = event.target.closest(".dot");
      if (!dot) return;
      play(dot.dataset.at, { element: dot, say: (text) => { status.textContent = text; } });
      status.textContent = `Playing ${$("title", dot).textContent}`;
    });
  }

  // --- tables as CSV -------------------------------------------------------------------------------------
  const csv = (table) => $$("tr", table).map((row) => [...row.children].map((cell) => {
    const text = cell.textContent.trim().replace(/\u2212/g, "-");
    const plain = /^[=+@\t-]/.test(text) && !/^[+-]?[\d.]+$/.test(text) ? `'${text}` : text; // a spreadsheet would run text that looks like a formula
    return /[",\n]/.test(plain) ? `"${plain.replaceAll('"', '""')}"` : plain;
  }).join(",")).join("\r\n");
  const withCsv = (table) => {
    const name = $("caption", table).textContent;
    const button = make("button", "csv", "CSV");
    button.type = "button";
    button.setAttribute("aria-label", `Download as CSV: ${name}`);
    button.addEventListener("click", () => save(`${name.slice(0, 60)}.csv`, URL.createObjectURL(new Blob([`${csv(table)}\r\n`], { type: "text/csv" }))));
    $("caption", table).append(" ", button);
  };
  $$("table").forEach(withCsv);

  // --- blind test ----------------------------------------------------------------------------------------
  const blind = $("#blind .test");
  if (blind) {
    const TRIALS = 20;
    const status = $(".status", blind);
    const [start, ...choices] = $$("button", blind);
    const pools = [true, false].map((real) => data.sounds.map((_, at) => at).filter((at) => data.sounds[at].real === real));
    let trials = [];
    const wilson = (right, n) => { // the 95 % interval of a fraction, in per cent
      const [p, z2] = [right / n, 1.96 ** 2];
      const half = 1.96 * Math.sqrt((p * (1 - p)) / n + z2 / (4 * n * n));
      return [-half, half].map((side) => Math.round((100 * (p + z2 / (2 * n) + side)) / (1 + z2 / n)));
    };
    const hear = () => play(trials.at(-1).sound, { element: blind, say: () => {} });
    const next = () => {
      const heard = new Set(trials.map((one) => one.sound));
      const pool = pools[Math.random() < 0.5 ? 0 : 1];
      const fresh = pool.filter((at) => !heard.has(at));
      const from = fresh.length ? fresh : pool;
      trials.push({ sound: from[Math.floor(Math.random() * from.length)] });
      status.textContent = `Clip ${trials.length} of ${TRIALS}`;
      start.textContent = "Play again";
      hear();
    };
    const truth = (one) => (data.sounds[one.sound].real ? "real" : "synthetic");
    const finish = () => {
      const right = trials.filter((one) => one.said === truth(one)).length;
      const [low, high] = wilson(right, TRIALS);
      const told = low > 50 ? "You can tell them apart." : high < 50 ? "You take one for the other." : "Guessing gives 50 %, which fits.";
      status.textContent = `${right} of ${TRIALS} right: ${Math.round((100 * right) / TRIALS)} %, 95 % interval ${low} to ${high} %. ${told}`;
      start.textContent = "Start again";
      for (const one of choices) one.hidden = true;
      const table = make("table");
      table.append(make("caption", "", "Blind test"));
      const line = (cells, tag) => { const row = make("tr"); for (const cell of cells) row.append(make(tag, "", cell)); return row; };
      const [head, body] = [make("thead"), make("tbody")];
      head.append(line(["trial", "clip", "class", "it was", "you said"], "th"));
      trials.forEach((one, at) => body.append(line([String(at + 1), data.sounds[one.sound].id, data.sounds[one.sound].cls, truth(one), one.said], "td")));
      table.append(head, body);
      withCsv(table);
      $(".outcome", blind).replaceChildren(table);
      trials = [];
    };
    start.addEventListener("click", () => {
      if (trials.length) { hear(); return; }
      $(".outcome", blind).replaceChildren();
      for (const one of choices) one.hidden = false;
      next();
    });
    for (const choice of choices) choice.addEventListener("click", () => {
      trials.at(-1).said = choice.value;
      if (trials.length < TRIALS) next(); else { stopPlaying(); finish(); }
    });
  }

  // The address does not use a panel's id, because browsers would scroll past the heading to it.
  follow();
  window.addEventListener("hashchange", follow);
  document.documentElement.dataset.ready = String(Math.round(performance.now()));
})();

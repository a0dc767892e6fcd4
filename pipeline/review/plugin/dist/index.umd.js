// The review panel beside an image in FiftyOne's App. Written by hand: it needs no build, and no package but what the
// App itself hands to plugins (React, recoil, and its own state and operators). Every box is drawn, and every decision
// kept, by the operators of pipeline/review_operators.py.
(function () {
  "use strict";

  const { createElement: h, useCallback, useEffect, useRef, useState } = window.React;
  const recoil = window.recoil;
  const fos = window.__fos__;
  const foo = window.__foo__;

  const PANEL = "camboxes_review";
  const IMAGE_PANEL = "fo-sample-modal-plugin";
  const LAYOUT = "fo-sample-modal-plugins"; // where the App keeps how the panels beside an image are arranged
  const OUR_LAYOUT = "camboxes-layout"; // where it is kept meanwhile, of runs and of other datasets
  const OTHERS_LAYOUT = "camboxes-layout-of-others";
  const HEAT_MAP = "heat_map"; // a field of the samples
  const NUDGE = 0.05; // of the threshold, by a key
  const SETTLED = 500; // ms after an answer by which the App has painted
  const KEYS = { a: "accepted", w: "rejected", n: "skipped" };
  const VERDICTS = [
    ["accepted", "Accept", "A", "#3fa45b"],
    ["rejected", "Reject", "W", "#d2544b"],
    ["skipped", "Skip", "N", "#7d8590"],
  ];

  const STYLE = `
.camboxes { height: 100%; overflow-y: auto; box-sizing: border-box; padding: 14px 16px; font-size: 13px;
  color: var(--fo-palette-text-primary); background: var(--fo-palette-background-level2, transparent); }
.camboxes section { padding: 10px 0; border-bottom: 1px solid var(--fo-palette-primary-plainBorder, #8884); }
.camboxes section:last-child { border-bottom: 0; }
.camboxes h4 { margin: 0 0 6px; font-size: 11px; font-weight: 600; letter-spacing: .04em; text-transform: uppercase;
  color: var(--fo-palette-text-secondary); }
.camboxes .row { display: flex; align-items: center; gap: 8px; margin: 5px 0; }
.camboxes .grow { flex: 1; min-width: 0; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.camboxes .quiet { color: var(--fo-palette-text-secondary); }
.camboxes .number { width: 40px; text-align: right; font-variant-numeric: tabular-nums; }
.camboxes .bar { flex: 1; height: 6px; border-radius: 3px; overflow: hidden; background: #8883; display: flex; }
.camboxes .bar > i { display: block; height: 100%; }
.camboxes input[type=range] { flex: 1; min-width: 60px; height: 6px; margin: 0; appearance: none; border-radius: 3px;
  background: #8886; }
.camboxes input[type=range]:disabled { opacity: .4; }
.camboxes input[type=range]::-webkit-slider-thumb { width: 14px; height: 14px; appearance: none; border-radius: 50%;
  background: var(--fo-palette-primary-main, #ff6d04); }
.camboxes input[type=range]::-moz-range-thumb { width: 14px; height: 14px; border: 0; border-radius: 50%;
  background: var(--fo-palette-primary-main, #ff6d04); }
.camboxes button { font: inherit; color: inherit; cursor: pointer; border: 1px solid #8886; border-radius: 5px;
  background: transparent; padding: 5px 9px; }
.camboxes button:hover:not(:disabled) { border-color: var(--fo-palette-primary-main, #ff6d04); }
.camboxes button:disabled { opacity: .4; cursor: default; }
.camboxes button[aria-pressed=true] { background: var(--fo-palette-primary-main, #ff6d04); color: #fff;
  border-color: transparent; }
.camboxes .decide button { flex: 1; padding: 9px 4px; font-weight: 600; color: #fff; border-color: transparent; }
.camboxes kbd { font: inherit; font-size: 11px; opacity: .75; margin-left: 5px; padding: 0 4px; border: 1px solid;
  border-radius: 3px; }
.camboxes .badge { padding: 1px 7px; border-radius: 9px; color: #fff; font-size: 11px; }
.camboxes .note { margin: 6px 0 0; line-height: 1.4; }
.camboxes .problem { color: #e8766e; }
.camboxes .name { flex: none; width: 78px; }
.camboxes .choice { gap: 5px; flex-wrap: wrap; }
.camboxes .choice button { flex: 1 0 auto; max-width: 100%; padding: 4px 6px; overflow: hidden; text-overflow: ellipsis;
  white-space: nowrap; }
.camboxes .pair { flex-wrap: nowrap; }
.camboxes .pair button { flex: 1 1 auto; min-width: 0; }
.camboxes .pair button:last-child { flex-shrink: 0; }
.camboxes summary { cursor: pointer; }
.camboxes .decide .plain { background: transparent; color: inherit; border-color: #8886; padding: 5px 4px; font-weight: 400; }
.camboxes .decide .plain[aria-pressed=true] { border-color: var(--fo-palette-primary-main, #ff6d04); }
span:has(> [data-cy=nav-right-button]) { transform: translateX(calc(-1 * var(--camboxes-width, 0px))); }
`;

  const COLOUR = Object.fromEntries(VERDICTS.map(([verdict, , , colour]) => [verdict, colour]));

  /** Asks an operator; its answer, or an Error whose message is a sentence for the reviewer. */
  function ask(operator, parameters) {
    return new Promise((resolve, reject) => {
      foo.executeOperator("@camboxes/review/" + operator, parameters, {
        callback: (answer) => {
          if (answer.error) reject(new Error(answer.errorMessage || String(answer.error)));
          else if (answer.delegated) resolve({ delegated: true });
          else if (answer.result?.problem) reject(new Error(answer.result.problem));
          else resolve(answer.result || {});
        },
      });
    });
  }

  const percent = (value) => (value === null || value === undefined ? "–" : (100 * value).toFixed(value < 0.0995 ? 1 : 0) + "%");

  function Bar({ parts }) {
    const of = (share) => (100 * share).toFixed(2) + "%";
    return h("span", { className: "bar" }, parts.map(([share, colour], i) => h("i", { key: i, style: { width: of(share), background: colour } })));
  }

  function Slider({ id, name, value, max, step, text, disabled, onChange }) {
    return h("label", { className: "row" },
      h("span", { className: "quiet name" }, name),
      h("input", { type: "range", id, min: 0, max, step, value, disabled, "aria-label": name, onChange: (event) => onChange(Number(event.target.value)), onPointerUp: (event) => event.currentTarget.blur() }),
      h("span", { className: "number" }, text));
  }

  function Choice({ options, value, disabled, onChange }) {
    return options.map(([key, text]) =>
      h("button", { key: String(key), disabled, "aria-pressed": key === value, onClick: () => onChange(key) }, text));
  }

  function Counts({ counts }) {
    const total = counts.accepted + counts.rejected + counts.skipped + counts.open || 1;
    return h("section", { id: "camboxes-counts" },
      h("div", { className: "row" }, h(Bar, { parts: VERDICTS.map(([verdict, , , colour]) => [counts[verdict] / total, colour]) })),
      h("div", { className: "quiet" },
        VERDICTS.map(([verdict]) => counts[verdict] + " " + verdict).join(" · ") + " · " + counts.open + " left",
        counts.unreadable ? " · " + counts.unreadable + " unreadable" : ""));
  }

  function Classes({ classes }) {
    return h("section", null, h("details", { id: "camboxes-classes" },
      h("summary", { className: "quiet" }, "Progress by class"),
      classes.map((of) => h("div", { className: "row", key: of.label },
        h("span", { className: "grow", title: of.label }, of.label),
        h(Bar, { parts: VERDICTS.map(([verdict, , , colour]) => [of[verdict] / of.images, colour]) }),
        h("span", { className: "number", style: { width: 70 } }, of.accepted + of.rejected + of.skipped + " / " + of.images)))));
  }

  function Panel() {
    const id = recoil.useRecoilValue(fos.currentSampleId);
    const opened = recoil.useRecoilValueLoadable(fos.modalSample);
    const selector = recoil.useRecoilValue(fos.modalSelector);
    const [shown, setShown] = recoil.useRecoilState(fos.activeFields({ modal: true }));
    const updateSamples = fos.useUpdateSamples();
    const setExpanded = fos.useSetExpandedSample();

    const refresh = fos.useRefresh();
    const page = recoil.useRecoilValue(fos.dataset); // another object once a refresh has ended

    const [seen, setSeen] = useState(null); // what the operators say of the image
    const [rule, setRule] = useState({ threshold: 0.25, min_area: 0, boxes: "largest", label: null });
    const [progress, setProgress] = useState(null); // counts and classes
    const [said, setSaid] = useState(null); // [sentence, whether it is a problem]
    const [busy, setBusy] = useState(false);

    const current = useRef(null); // the id, for answers that come late
    const sample = useRef(null); // the image's document as the App has it
    const drawing = useRef({ running: false, next: null });
    const refreshing = useRef({ running: false, again: false });
    const decided = useRef([]); // ids, for undo
    current.current = id;
    if (opened.state === "hasValue" && opened.contents?.sample?._id === id && sample.current?._id !== id) {
      sample.current = opened.contents.sample;
    }

    /** Shows an answer about the image, in the panel and on the image. */
    const show = useCallback((of, answer) => {
      if (answer.counts) setProgress((before) => ({ ...before, counts: answer.counts }));
      if (sample.current?._id === of) {
        sample.current = { ...sample.current, verdict: answer.verdict, boxes: { _cls: "Detections", detections: answer.boxes } };
        updateSamples([[of, sample.current]]);
      }
      if (current.current === of) setSeen(answer);
    }, [updateSamples]);

    /** The sliders stand where the boxes of an answer were drawn. */
    const follow = useCallback((answer) => {
      const first = answer.labels.find(({ level }) => level !== null);
      setRule({ ...answer.rule, threshold: first ? first.level : 0.25, label: null });
    }, []);

    const complain = useCallback((error) => setSaid([error.message, true]), []);

    const count = useCallback(() => ask("progress", {}).then(setProgress).catch(complain), [complain]);
    useEffect(() => { count(); }, [count]);

    useEffect(() => {
      setSaid(null);
      if (!id) return;
      ask("see", { sample: id }).then((answer) => {
        if (current.current !== id) return;
        setSeen(answer);
        follow(answer);
      }).catch(complain);
    }, [id, follow, complain]);

    /** The App drops what it is told while it still paints: the last boxes are told again, so that they are what is seen. */
    const settle = useCallback(() => {
      const last = sample.current;
      setTimeout(() => { if (last && sample.current === last) updateSamples([[last._id, last]]); }, SETTLED);
    }, [updateSamples]);

    /** One drawing at a time; of what is asked for meanwhile the last alone. */
    const draw = useCallback((parameters) => {
      const state = drawing.current;
      if (state.running) { state.next = parameters; return; }
      state.running = true;
      ask("redraw", parameters).then((answer) => {
        show(parameters.sample, answer);
        setSaid(null);
        if (parameters.threshold === undefined) follow(answer);
      }).catch(complain).finally(() => {
        state.running = false;
        const next = state.next;
        state.next = null;
        if (next) draw(next);
        else settle();
      });
    }, [show, follow, settle, complain]);

    const change = useCallback((part) => {
      const wanted = { ...rule, ...part };
      if ("label" in part) {
        const of = seen.labels.find(({ label, level }) => level !== null && (part.label === null || label === part.label));
        if (of) wanted.threshold = of.level;
        setRule(wanted);
        return;
      }
      setRule(wanted);
      draw({ sample: id, ...wanted });
    }, [rule, seen, id, draw]);

    const go = useCallback(async (from) => {
      const navigation = fos.modalNavigation.get();
      if (navigation && selector?.hasNext !== false) {
        setExpanded(await navigation.next(1));
        return;
      }
      const { sample: left } = await ask("next", { sample: from });
      if (left) setExpanded({ id: left, hasNext: false, hasPrevious: false });
      else setSaid(["Every image of this view is decided.", false]);
    }, [selector, setExpanded]);

    const decide = useCallback((verdict) => {
      if (busy || !id) return;
      setBusy(true);
      ask("decide", { sample: id, verdict }).then((answer) => {
        decided.current.push(id);
        show(id, answer);
        ask("progress", {}).then(setProgress);
        return go(id);
      }).catch(complain).finally(() => setBusy(false));
    }, [busy, id, show, go, complain]);

    const undo = useCallback(() => {
      const of = decided.current.length ? decided.current[decided.current.length - 1] : id;
      if (busy || !of) return;
      setBusy(true);
      ask("undo", { sample: of }).then(async (answer) => {
        decided.current.pop();
        show(of, answer);
        ask("progress", {}).then(setProgress);
        if (of !== id) {
          const before = selector?.hasPrevious !== false ? await fos.modalNavigation.get()?.previous(1) : null;
          setExpanded(before?.id === of ? before : { id: of, hasNext: false, hasPrevious: false });
        }
      }).catch(complain).finally(() => setBusy(false));
    }, [busy, id, selector, setExpanded, show, complain]);

    /** One refresh at a time: the App's router throws where a second one starts before the first has ended. */
    const refreshGrid = useCallback(() => {
      const state = refreshing.current;
      if (state.running) { state.again = true; return; }
      state.running = true;
      refresh();
    }, [refresh]);
    useEffect(() => {
      const { again } = refreshing.current;
      refreshing.current = { running: false, again: false };
      if (again) refreshGrid();
    }, [page]);

    /** Draws all undecided images with a label, or of the view where it is null: by a rule, or by none, as in the run. */
    const apply = useCallback((label, how) => {
      setSaid(["Drawing …", false]);
      setBusy(true);
      ask("apply", { ...how, label, everywhere: label !== null }).then(async (answer) => {
        const now = await ask("see", { sample: id });
        show(id, now);
        if (how.threshold === undefined && current.current === id) follow(now);
        settle();
        refreshGrid();
        setSaid([answer.delegated ? "So many images are drawn in the background: see the App's Runs." : answer.images + " undecided images were drawn anew.", false]);
      }).catch(complain).finally(() => setBusy(false));
    }, [id, show, follow, settle, refreshGrid, complain]);

    const toggle = useCallback(() => {
      setShown((fields) => (fields.includes(HEAT_MAP) ? fields.filter((field) => field !== HEAT_MAP) : [...fields, HEAT_MAP]));
    }, [setShown]);

    const readable = seen && seen.status !== "rejected";
    const locked = !readable || Boolean(seen.verdict);

    useEffect(() => {
      const onKey = (event) => {
        const typing = event.target.closest?.("input:not([type=range]), textarea, [contenteditable=true]");
        if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
        const key = event.key.toLowerCase();
        const step = { ",": -NUDGE, ".": NUDGE }[key];
        if (KEYS[key] && readable) decide(KEYS[key]);
        else if (key === "u") undo();
        else if (key === "h") toggle();
        else if (step && !locked) change({ threshold: Math.min(1, Math.max(0, Number((rule.threshold + step).toFixed(2)))) });
        else return;
        event.preventDefault();
        event.stopPropagation();
      };
      window.addEventListener("keydown", onKey, true);
      return () => window.removeEventListener("keydown", onKey, true);
    }, [decide, undo, toggle, change, rule, locked, readable]);

    if (!seen) return said ? h("p", { className: "problem" }, said[0]) : "…";
    const boxesOf = (name) => seen.boxes.filter(({ label }) => label === name).length;
    const label = rule.label || (seen.labels.length === 1 ? seen.labels[0].label : null);

    return h("div", { id: "camboxes-panel", onMouseEnter: () => !busy && ask("see", { sample: id }).then((answer) => current.current === id && setSeen(answer)).catch(complain) },
      h("div", { className: "row" },
        h("span", { className: "grow", title: seen.path }, seen.path),
        h("span", { className: "badge", id: "camboxes-verdict", style: { background: COLOUR[seen.verdict] || "#5b6470" } }, seen.verdict || "undecided")),
      h("section", { className: "decide" },
        h("div", { className: "row" }, VERDICTS.map(([verdict, text, key, colour]) =>
          h("button", { key: verdict, id: "camboxes-" + verdict, disabled: busy || !readable, style: { background: colour }, onClick: () => decide(verdict) }, text, h("kbd", null, key)))),
        h("div", { className: "row" },
          h("button", { id: "camboxes-undo", className: "plain", disabled: busy, onClick: undo }, "Undo", h("kbd", null, "U")),
          h("button", { id: "camboxes-heat-map", className: "plain", "aria-pressed": shown.includes(HEAT_MAP), onClick: toggle }, "Heat map", h("kbd", null, "H"))),
        said && h("p", { className: "note " + (said[1] ? "problem" : "quiet"), role: "status" }, said[0])),
      progress && h(Counts, progress),
      h("section", null,
        h("h4", null, "Labels"),
        seen.labels.map((of) => h("div", { className: "row", key: of.label },
          h("span", { className: "grow", title: of.label }, of.label),
          h("span", { className: "quiet" }, boxesOf(of.label) === 1 ? "1 box" : boxesOf(of.label) + " boxes"),
          h("span", { className: "number" }, percent(of.probability)))),
        h("details", null, h("summary", { className: "quiet" }, "What the network sees"),
          seen.top5.map((of) => h("div", { className: "row", key: of.name },
            h("span", { className: "grow", title: of.name }, of.name),
            h(Bar, { parts: [[of.probability, "var(--fo-palette-primary-main, #ff6d04)"]] }),
            h("span", { className: "number" }, percent(of.probability)))))),
      readable ? h("section", { id: "camboxes-rule" },
        h("h4", null, "Boxes from the heat map"),
        seen.labels.length > 1 && h("div", { className: "row choice" },
          h(Choice, { options: [[null, "all labels"], ...seen.labels.map((of) => [of.label, of.label])], value: rule.label, disabled: locked, onChange: (value) => change({ label: value }) })),
        h(Slider, { id: "camboxes-threshold", name: "threshold", value: rule.threshold, max: 1, step: 0.01, text: rule.threshold.toFixed(2), disabled: locked, onChange: (value) => change({ threshold: value }) }),
        h(Slider, { id: "camboxes-min-area", name: "min. area", value: rule.min_area, max: 0.25, step: 0.005, text: percent(rule.min_area), disabled: locked, onChange: (value) => change({ min_area: value }) }),
        h("div", { className: "row choice" },
          h(Choice, { options: [["largest", "largest"], ["peak", "peak"], ["all", "all"], ["instances", "instances"]], value: rule.boxes, disabled: locked, onChange: (value) => change({ boxes: value }) })),
        h("div", { className: "row" },
          h("span", { className: "grow quiet" }, h("kbd", { style: { marginLeft: 0 } }, ","), " ", h("kbd", { style: { marginLeft: 0 } }, "."), " move it"),
          h("button", { id: "camboxes-reset", disabled: locked, onClick: () => draw({ sample: id }) }, "as in the run")),
        seen.verdict && h("p", { className: "note quiet" }, "This image is decided, and its boxes stay. Undo to draw them again."),
        !seen.verdict && seen.corrected > 0 && h("p", { className: "note quiet" }, seen.corrected + (seen.corrected === 1 ? " box is" : " boxes are") + " yours; no threshold moves what a person drew.")) :
        h("section", null, h("p", { className: "note" }, "This file could not be read: " + seen.reason)),
      readable && h("section", null,
        h("h4", null, "Draw all undecided images"),
        [["as above", rule, "apply"], ["as in the run", {}, "restore"]].map(([text, how, key]) => h("div", { className: "row choice pair", key },
          h("span", { className: "quiet name" }, text),
          h("button", { id: `camboxes-${key}-class`, disabled: busy || !label, title: label || "choose one of the labels above", onClick: () => apply(label, how) }, label || "one label"),
          h("button", { id: `camboxes-${key}-view`, disabled: busy, onClick: () => apply(null, how) }, "this view")))),
      progress?.classes && h(Classes, progress));
  }

  /** The App's arrow to the next image stands at the image's edge, not on the panel. */
  function useRoomForTheArrow() {
    useEffect(() => {
      const root = document.documentElement.style;
      const watch = new ResizeObserver(([panel]) => root.setProperty("--camboxes-width", panel.target.offsetWidth + "px"));
      const panel = document.querySelector(".camboxes");
      if (panel) watch.observe(panel);
      return () => { watch.disconnect(); root.removeProperty("--camboxes-width"); };
    }, []);
  }

  /** The App shows panels before it has asked the server which operators there are. */
  function Ready() {
    useRoomForTheArrow();
    const ready = foo.useOperatorAvailability("@camboxes/review/see");
    return h("div", { className: "camboxes" }, ready ? h(Panel) : "…");
  }

  /**
   * The panel stands beside the image from the start, and nowhere beside the images of other datasets. The App keeps one
   * arrangement of panels for all of them, and would show an empty one where a panel of it does not fit; so there are two.
   */
  function arrange(ours) {
    const now = localStorage.getItem(LAYOUT);
    const empty = Boolean(now) && !JSON.parse(now).children.length; // between two images: the App would show nothing
    if (!empty && ours === (now || "").includes(PANEL)) return;
    const [before, after] = ours ? [OTHERS_LAYOUT, OUR_LAYOUT] : [OUR_LAYOUT, OTHERS_LAYOUT];
    if (now && !empty) localStorage.setItem(before, now);
    const container = (panel) => ({
      id: panel + "-container", type: "panel-container", activeChild: panel,
      children: [{ id: panel, type: panel, pinned: panel === IMAGE_PANEL, children: [] }],
    });
    const first = ours && JSON.stringify({
      id: "root", type: "panel-container", layout: "horizontal", sizes: [0.7, 0.3], activeChild: IMAGE_PANEL + "-container",
      children: [container(IMAGE_PANEL), container(PANEL)],
    });
    const wanted = localStorage.getItem(after) || first;
    if (wanted) localStorage.setItem(LAYOUT, wanted);
    else localStorage.removeItem(LAYOUT); // the App's own
  }

  document.head.appendChild(Object.assign(document.createElement("style"), { textContent: STYLE }));
  window.__fop__.registerComponent({
    name: PANEL,
    label: "Review boxes",
    component: Ready,
    type: window.__fop__.PluginComponentType.Panel,
    activator: ({ schema }) => {
      const ours = Boolean(schema?.review_priority && schema?.heat_map && schema?.shard);
      if (schema) arrange(ours);
      return ours;
    },
    panelOptions: { surfaces: "modal", allowDuplicates: false, isNew: false },
  });
})();

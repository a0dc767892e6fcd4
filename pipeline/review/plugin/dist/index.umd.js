// The review panel beside an image in FiftyOne's App. Written by hand: it needs no build, and no package but what the
// App itself hands to plugins (React, recoil, and its own state and operators). Every box is drawn, and every decision
// kept, by the operators of pipeline/review/operators.py.
//
// The App takes half a second to open an image. So the panel itself shows the next image at once, above the App's own
// (`Curtain`), and the App opens the one at which the person stops. A key counts for the image that was on the screen
// when it was pressed.
(function () {
  "use strict";

  const { createElement: h, useCallback, useEffect, useLayoutEffect, useReducer, useRef, useState } = window.React;
  const { createPortal } = window.ReactDOM;
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
  const REST = 600; // ms without a key after which the App follows
  const PAUSE = 1000; // ms in which no key counts, after the panel went back to an image by itself
  const AHEAD = 16; // images that are asked for before they are shown
  const KEPT = 60; // images that are remembered
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
#fo-sample-modal-plugin { position: relative; }
#camboxes-curtain { position: absolute; inset: 0; z-index: 1; display: grid; place-items: center; container-type: size;
  background: var(--fo-palette-background-level2, #1a1a1a); }
#camboxes-curtain > div { position: relative; }
#camboxes-curtain img { position: absolute; inset: 0; width: 100%; height: 100%; }
#camboxes-curtain .map { opacity: .7; }
#camboxes-curtain .box { position: absolute; box-sizing: border-box; border: 2px solid; }
#camboxes-curtain .box > span { position: absolute; bottom: 100%; left: -2px; padding: 3px 6px; color: #fff;
  font: bold 14px Palanquin, sans-serif; white-space: nowrap; }
span:has(> [data-cy=nav-right-button]) { transform: translateX(calc(-1 * var(--camboxes-width, 0px))); }
`;

  const COLOUR = Object.fromEntries(VERDICTS.map(([verdict, , , colour]) => [verdict, colour]));

  /** Asks an operator; its answer, or an Error whose message is a sentence for the reviewer. */
  function ask(operator, parameters) {
    return new Promise((resolve, reject) => {
      foo.executeOperator("@camboxes/review/" + operator, parameters, {
        callback: (answer) => {
          if (answer.error instanceof TypeError) reject(new Error("camboxes review does not answer; is it still running?"));
          else if (answer.error) reject(new Error(answer.errorMessage || String(answer.error)));
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

  function Counts({ counts, left }) {
    const total = counts.accepted + counts.rejected + counts.skipped + counts.open || 1;
    return h("section", { id: "camboxes-counts" },
      h("div", { className: "row" }, h(Bar, { parts: VERDICTS.map(([verdict, , , colour]) => [counts[verdict] / total, colour]) })),
      h("div", { className: "quiet" },
        VERDICTS.map(([verdict]) => counts[verdict] + " " + verdict).join(" · ") + " · " + counts.open + " left",
        counts.unreadable ? " · " + counts.unreadable + " unreadable" : "",
        left ? " · " + left + " not yet written" : ""));
  }

  function Classes({ classes }) {
    return h("section", null, h("details", { id: "camboxes-classes" },
      h("summary", { className: "quiet" }, "Progress by class"),
      classes.map((of) => h("div", { className: "row", key: of.label },
        h("span", { className: "grow", title: of.label }, of.label),
        h(Bar, { parts: VERDICTS.map(([verdict, , , colour]) => [of[verdict] / of.images, colour]) }),
        h("span", { className: "number", style: { width: 70 } }, of.accepted + of.rejected + of.skipped + " / " + of.images)))));
  }

  // What is known, and what is under way. It outlives the panel, which is there only while an image is open.
  const seen = new Map(); // by an image's id: what the operators say of it, and its picture
  const problems = new Map(); // by the same: why a decision about it was not kept
  const passed = new Set(); // ids of the images that were decided, in that order
  const work = { last: Promise.resolve(), left: 0, changed: () => {} }; // what the server has not answered

  /** Asks an operator when all that was asked before is answered: decisions reach the file in the order of their keys. */
  function send(operator, parameters) {
    const answer = work.last.then(() => ask(operator, parameters));
    const done = (by) => { work.left += by; work.changed(); };
    work.last = answer.catch(() => {}).finally(() => done(-1));
    done(1);
    return answer;
  }

  window.addEventListener("beforeunload", (event) => { if (work.left) event.preventDefault(); });

  /** Keeps what is known of an image. */
  function keep(id, answer) {
    const picture = seen.get(id)?.picture || Object.assign(new Image(), { src: fos.getSampleSrc(answer.filepath) });
    seen.delete(id); // so that it is the last
    seen.set(id, { ...answer, picture });
    for (const old of [...seen.keys()].slice(0, -KEPT)) seen.delete(old);
  }

  /** Asks about images; `changed` is called for each whose picture can be shown, or cannot be read. */
  async function see(ids, changed) {
    if (!ids.length) return;
    const answer = await ask("see", { samples: ids });
    for (const id of ids) {
      keep(id, answer.seen[id]);
      seen.get(id).picture.decode().then(changed, changed);
    }
  }

  /** Forgets the images of another dataset. */
  function begin(dataset) {
    if (work.dataset === dataset) return;
    for (const of of [seen, problems, passed]) of.clear();
    work.dataset = dataset;
  }

  const places = (boxes) => boxes.map(({ label, bounding_box }) => ({ label, bounding_box }));

  /** An image with its boxes, above the App's own picture, which is that of another image still. */
  function Curtain({ image, shown }) {
    const colorOf = recoil.useRecoilValue(fos.colorMap);
    const of = (share) => 100 * share + "%";
    const picture = ({ picture: { src, naturalWidth: width, naturalHeight: height }, path, map, boxes }) =>
      h("div", { "data-path": path, style: { aspectRatio: `${width} / ${height}`, width: `min(100cqw, ${(100 * width) / height}cqh)` } },
        h("img", { src, decoding: "sync", alt: "" }),
        shown.includes(HEAT_MAP) && map && h("img", { className: "map", src: map, decoding: "sync", alt: "" }),
        shown.includes("boxes") && boxes.map(({ _id, label, bounding_box: [left, top, width, height] }) =>
          h("div", { key: _id, className: "box", style: { left: of(left), top: of(top), width: of(width), height: of(height), borderColor: colorOf(label) } },
            h("span", { style: { background: colorOf(label) } }, label))));
    const place = document.getElementById(IMAGE_PANEL);
    return place && createPortal(h("div", { id: "camboxes-curtain" }, image?.picture.naturalWidth ? picture(image) : "…"), place);
  }

  /** Which images come after one, in the view's order, and then from its beginning. The App's arrows go by it, too. */
  function useOrder(at) {
    const sort = recoil.useRecoilValue(fos.gridSortBy);
    const order = useRef(Promise.resolve([]));
    useEffect(() => {
      order.current = ask("order", { sort }).then(({ samples }) => samples);
      order.current.catch(() => {}); // said by who waits for it
    }, [sort]);
    useEffect(() => {
      const step = async (by) => {
        const ids = await order.current;
        return { id: ids.at((ids.indexOf(at) + by) % ids.length), hasNext: true, hasPrevious: true };
      };
      fos.modalNavigation.set({ next: (by = 1) => step(by), previous: (by = 1) => step(-by), peek: async () => null });
    }, [at]);
    return useCallback(async (from) => {
      const ids = await order.current;
      const start = ids.indexOf(from) + 1;
      return [...ids.slice(start), ...ids.slice(0, start)].filter((id) => id !== from && !passed.has(id));
    }, []);
  }

  /**
   * Which image is shown, since when, and whether by a curtain. The App opens it, too, when the person rests there. What
   * the App opens by itself is shown.
   */
  function useShown() {
    const opened = recoil.useRecoilValue(fos.currentSampleId);
    const setExpanded = fos.useSetExpandedSample();
    const annotating = fos.useModalMode() === fos.ModalMode.ANNOTATE;
    const [at, setAt] = useState(opened);
    const [painted, setPainted] = useState(null); // the file that the App has on the screen
    const asked = useRef(opened); // what the App was asked to open
    const since = useRef(Infinity); // the time from which on a key is about the image that is shown
    const pause = useRef(0);

    useEffect(() => {
      const onPaint = (event) => {
        if (event.target.closest("[data-cy=modal-looker-container]")) setPainted(event.detail.sampleFilepath);
      };
      document.addEventListener("canvas-loaded", onPaint);
      return () => document.removeEventListener("canvas-loaded", onPaint);
    }, []);
    useEffect(() => {
      if (opened && opened !== asked.current) setAt(opened);
      if (opened) asked.current = opened;
    }, [opened]);
    const open = useCallback((id) => {
      asked.current = id;
      setExpanded({ id, hasNext: true, hasPrevious: true });
    }, [setExpanded]);
    useEffect(() => {
      if (at === asked.current) return undefined;
      const timer = setTimeout(() => open(at), REST);
      return () => clearTimeout(timer);
    }, [at, open]);

    const image = seen.get(at);
    const { complete, naturalWidth } = image?.picture || {};
    const byApp = opened === at && (!image || annotating || painted === image.filepath || (complete && !naturalWidth));
    const visible = Boolean(image && (byApp || naturalWidth));
    useLayoutEffect(() => {
      since.current = visible ? performance.now() + pause.current : Infinity;
      if (visible) pause.current = 0;
    }, [at, visible]);

    /** Shows an image; after a pause of so many ms a key is about it. */
    const now = useRef(null);
    now.current = at;
    const go = useCallback((id, wait = 0) => {
      if (id === now.current) return;
      since.current = Infinity;
      pause.current = wait;
      setAt(id);
    }, []);
    return { at, go, open, since, curtain: !byApp, annotating };
  }

  /** Hands what is known of an image to the App, where the App has that image in its memory. */
  function useTell() {
    const updateSamples = fos.useUpdateSamples();
    return useCallback((id) => {
      const records = fos.getCurrentEnvironment().getStore().getSource();
      const { sample } = records.get(id + "-modal") || records.get(id) || {};
      const known = seen.get(id);
      if (!sample || !known) return;
      const boxes = { _cls: "Detections", detections: known.boxes };
      updateSamples([[id, { ...(typeof sample === "string" ? JSON.parse(sample) : sample), verdict: known.verdict, boxes }]]);
    }, [updateSamples]);
  }

  function Panel() {
    begin(recoil.useRecoilValue(fos.datasetName));
    const { at, go, open, since, curtain, annotating } = useShown();
    const following = useOrder(at);
    const tell = useTell();
    const [shown, setShown] = recoil.useRecoilState(fos.activeFields({ modal: true }));
    const opened = recoil.useRecoilValueLoadable(fos.modalSample);
    const refresh = fos.useRefresh();
    const page = recoil.useRecoilValue(fos.dataset); // another object once a refresh has ended
    const close = fos.useClearModal();

    const [, render] = useReducer((count) => count + 1, 0);
    const [rule, setRule] = useState({ threshold: 0.25, min_area: 0, boxes: "largest", label: null });
    const [progress, setProgress] = useState(null); // counts and classes
    const [said, setSaid] = useState(null); // [sentence, whether it is a problem]
    const [busy, setBusy] = useState(false);

    const current = useRef(null); // the image that is shown, for answers that come late
    const drawing = useRef({ running: false, next: null });
    const refreshing = useRef({ running: false, again: false });
    const asking = useRef(false); // about images ahead
    current.current = at;
    const image = seen.get(at);
    const others = problems.size > 1 ? ` So it is with ${problems.size - 1} more, which come next.` : "";
    const note = problems.has(at) ? [problems.get(at) + others, true] : said;

    useEffect(() => {
      work.changed = render;
      return () => { work.changed = () => {}; };
    }, []);

    const complain = useCallback((error) => setSaid([error.message, true]), []);
    const count = useCallback(() => work.last.then(() => ask("progress", {})).then(setProgress).catch(complain), [complain]);
    const look = useCallback((ids) => see(ids, render).then(render, complain), [complain]);

    /** Shows an answer about an image, in the panel and on the App's picture. */
    const show = useCallback((of, answer) => {
      keep(of, answer);
      tell(of);
      render();
    }, [tell]);

    /** The sliders stand where the boxes of an image were drawn. */
    const follow = useCallback((of) => {
      if (of !== current.current || !seen.has(of)) return;
      const { labels, rule: drawn } = seen.get(of);
      const first = labels.find(({ level }) => level !== null);
      setRule({ ...drawn, threshold: first ? first.level : 0.25, label: null });
    }, []);

    useEffect(() => {
      if (!at) return undefined;
      if (seen.has(at)) follow(at);
      else look([at]).then(() => follow(at));
      const timer = setTimeout(() => { look([at]); count(); }, REST);
      return () => clearTimeout(timer);
    }, [at, follow, look, count]);

    /** What comes next is known before it is asked for. */
    useEffect(() => {
      if (!at || asking.current) return;
      following(at).then((ids) => {
        const ahead = ids.slice(0, AHEAD).filter((id) => !seen.has(id));
        if (asking.current || (ahead.length < AHEAD / 4 && ids.length > AHEAD)) return;
        asking.current = true;
        see(ahead, render).catch(() => {}).finally(() => { asking.current = false; }); // said when it is shown
      }).catch(complain);
    }, [at, following, complain]);

    /** Boxes that a person changed in the Annotate tab. */
    useEffect(() => {
      const sample = opened.state === "hasValue" && opened.contents?.sample;
      const known = seen.get(sample?._id);
      const changed = known && JSON.stringify(places(sample.boxes?.detections || [])) !== JSON.stringify(places(known.boxes));
      if (changed) look([sample._id]);
    }, [opened.contents, look]);

    /** One drawing at a time; of what is asked for meanwhile the last alone. */
    const draw = useCallback((parameters) => {
      const state = drawing.current;
      if (state.running) { state.next = parameters; return; }
      state.running = true;
      const of = parameters.sample;
      send("redraw", parameters).then((answer) => {
        show(of, answer);
        setSaid(null);
        if (parameters.threshold === undefined) follow(of);
      }).catch(complain).finally(() => {
        state.running = false;
        const next = state.next;
        state.next = null;
        if (next) draw(next);
        else setTimeout(() => tell(of), SETTLED); // the App drops what it is told while it still paints
      });
    }, [show, follow, tell, complain]);

    const change = useCallback((part) => {
      const wanted = { ...rule, ...part };
      if ("label" in part) {
        const of = image.labels.find(({ label, level }) => level !== null && (part.label === null || label === part.label));
        if (of) wanted.threshold = of.level;
        setRule(wanted);
        return;
      }
      setRule(wanted);
      draw({ sample: at, ...wanted });
    }, [rule, image, at, draw]);

    /** Goes back to an image whose decision was not kept, if it is the first one; the others follow it in the order. */
    const failed = useCallback((of, error) => {
      const first = !problems.size;
      problems.set(of, "Not kept: " + error.message);
      passed.delete(of);
      look([of]);
      count();
      if (!first) return;
      if (current.current) go(of, PAUSE);
      else open(of); // the panel was closed meanwhile
    }, [go, open, look, count]);

    const decide = useCallback(async (verdict) => {
      const before = image.verdict || "open";
      setSaid(null);
      problems.delete(at);
      passed.delete(at);
      passed.add(at);
      drawing.current.next = null;
      work.unseen = true;
      since.current = Infinity; // one key, one decision
      keep(at, { ...image, verdict });
      setProgress((now) => {
        const counts = { ...now?.counts };
        counts[before] -= 1;
        counts[verdict] += 1;
        return now && { ...now, counts };
      });
      send("decide", { sample: at, verdict, boxes: places(image.boxes) }).then((answer) => show(at, answer), (error) => failed(at, error));
      try {
        const [next] = await following(at);
        if (next) return go(next);
        setSaid(["Every image of this view is decided.", false]);
      } catch (error) {
        complain(error);
      }
      since.current = performance.now();
    }, [at, image, go, since, following, show, failed, complain]);

    const undo = useCallback(() => {
      const of = [...passed].pop() || at;
      setSaid(null);
      problems.delete(of);
      passed.delete(of);
      work.unseen = true;
      go(of);
      send("undo", { sample: of }).then((answer) => show(of, answer)).catch((error) => { look([of]); complain(error); }).finally(count);
    }, [at, go, show, look, count, complain]);

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

    /** The grid, and the App's own counts beside it, are read again when the panel is closed. */
    useEffect(() => () => {
      current.current = null;
      if (work.unseen) work.last.then(refresh);
      work.unseen = false;
    }, [refresh]);

    /** Draws all undecided images with a label, or of the view where it is null: by a rule, or by none, as in the run. */
    const apply = useCallback((label, how) => {
      setSaid(["Drawing …", false]);
      setBusy(true);
      send("apply", { ...how, label, everywhere: label !== null }).then(async (answer) => {
        seen.clear();
        await see([at], render);
        tell(at);
        if (how.threshold === undefined) follow(at);
        setTimeout(() => tell(at), SETTLED);
        refreshGrid();
        setSaid([answer.delegated ? "These images are drawn in the background; the App's Runs show the progress." : answer.images + " undecided images were drawn again.", false]);
      }).catch(complain).finally(() => setBusy(false));
    }, [at, tell, follow, refreshGrid, complain]);

    const toggle = useCallback(() => {
      setShown((fields) => (fields.includes(HEAT_MAP) ? fields.filter((field) => field !== HEAT_MAP) : [...fields, HEAT_MAP]));
    }, [setShown]);

    const readable = image && image.status !== "rejected";
    const locked = !readable || Boolean(image.verdict);

    /** A key or a click decides about the image that was on the screen at that time. */
    const take = (event, act) => {
      if (event.repeat || busy) return;
      if (event.timeStamp >= since.current) act();
      else setSaid(["The key came before this image was on the screen, so it did not count.", false]);
    };
    const onKey = useRef(null); // that of what is on the screen
    useLayoutEffect(() => {
      onKey.current = (event) => {
        const typing = event.target.closest?.("input:not([type=range]), textarea, [contenteditable=true]");
        if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
        const key = event.key.toLowerCase();
        const step = { ",": -NUDGE, ".": NUDGE }[key];
        if (KEYS[key] && readable) take(event, () => decide(KEYS[key]));
        else if (key === "u") take(event, undo);
        else if (key === "h") toggle();
        else if (key === "escape" && !annotating) close();
        else if (step && !locked) change({ threshold: Math.min(1, Math.max(0, Number((rule.threshold + step).toFixed(2)))) });
        else return;
        event.preventDefault();
        event.stopPropagation();
      };
    });
    useEffect(() => {
      const listen = (event) => onKey.current(event);
      window.addEventListener("keydown", listen, true);
      return () => window.removeEventListener("keydown", listen, true);
    }, []);

    if (!image) return note ? h("p", { className: "problem" }, note[0]) : "…";
    const boxesOf = (name) => image.boxes.filter(({ label }) => label === name).length;
    const label = rule.label || (image.labels.length === 1 ? image.labels[0].label : null);

    return h("div", { id: "camboxes-panel", onMouseEnter: () => look([at]) },
      curtain && h(Curtain, { image, shown }),
      h("div", { className: "row" },
        h("span", { className: "grow", title: image.path }, image.path),
        h("span", { className: "badge", id: "camboxes-verdict", style: { background: COLOUR[image.verdict] || "#5b6470" } }, image.verdict || "undecided")),
      h("section", { className: "decide" },
        h("div", { className: "row" }, VERDICTS.map(([verdict, text, key, colour]) =>
          h("button", { key: verdict, id: "camboxes-" + verdict, disabled: busy || !readable, style: { background: colour }, onClick: (event) => take(event, () => decide(verdict)) }, text, h("kbd", null, key)))),
        h("div", { className: "row" },
          h("button", { id: "camboxes-undo", className: "plain", disabled: busy, onClick: (event) => take(event, undo) }, "Undo", h("kbd", null, "U")),
          h("button", { id: "camboxes-heat-map", className: "plain", "aria-pressed": shown.includes(HEAT_MAP), onClick: toggle }, "Heat map", h("kbd", null, "H"))),
        note && h("p", { className: "note " + (note[1] ? "problem" : "quiet"), role: "status" }, note[0])),
      progress && h(Counts, { ...progress, left: work.left }),
      h("section", null,
        h("h4", null, "Labels"),
        image.labels.map((of) => h("div", { className: "row", key: of.label },
          h("span", { className: "grow", title: of.label }, of.label),
          h("span", { className: "quiet" }, boxesOf(of.label) === 1 ? "1 box" : boxesOf(of.label) + " boxes"),
          h("span", { className: "number" }, percent(of.probability)))),
        h("details", null, h("summary", { className: "quiet" }, "What the network sees"),
          image.top5.map((of) => h("div", { className: "row", key: of.name },
            h("span", { className: "grow", title: of.name }, of.name),
            h(Bar, { parts: [[of.probability, "var(--fo-palette-primary-main, #ff6d04)"]] }),
            h("span", { className: "number" }, percent(of.probability)))))),
      readable ? h("section", { id: "camboxes-rule" },
        h("h4", null, "Boxes from the heat map"),
        image.labels.length > 1 && h("div", { className: "row choice" },
          h(Choice, { options: [[null, "all labels"], ...image.labels.map((of) => [of.label, of.label])], value: rule.label, disabled: locked, onChange: (value) => change({ label: value }) })),
        h(Slider, { id: "camboxes-threshold", name: "threshold", value: rule.threshold, max: 1, step: 0.01, text: rule.threshold.toFixed(2), disabled: locked, onChange: (value) => change({ threshold: value }) }),
        h(Slider, { id: "camboxes-min-area", name: "min. area", value: rule.min_area, max: 0.25, step: 0.005, text: percent(rule.min_area), disabled: locked, onChange: (value) => change({ min_area: value }) }),
        h("div", { className: "row choice" },
          h(Choice, { options: [["largest", "largest"], ["peak", "peak"], ["all", "all"], ["instances", "instances"]], value: rule.boxes, disabled: locked, onChange: (value) => change({ boxes: value }) })),
        h("div", { className: "row" },
          h("span", { className: "grow quiet" }, h("kbd", { style: { marginLeft: 0 } }, ","), " ", h("kbd", { style: { marginLeft: 0 } }, "."), " move it"),
          h("button", { id: "camboxes-reset", disabled: locked, onClick: () => draw({ sample: at }) }, "as in the run")),
        image.verdict && h("p", { className: "note quiet" }, "This image is decided, so its boxes stay. Undo the decision to draw them again."),
        !image.verdict && image.corrected > 0 && h("p", { className: "note quiet" }, image.corrected + (image.corrected === 1 ? " box is" : " boxes are") + " yours; the threshold does not change boxes that a person drew.")) :
        h("section", null, h("p", { className: "note" }, "This file could not be read: " + image.reason)),
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

  localStorage.setItem("fiftyone-enterprise-tooltip-seen", "true"); // as after a click on the advertisement's "Dismiss"
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

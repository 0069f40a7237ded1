// Tissue, UMAP and table of the same cells: what is chosen in one is shown in all.
(() => {
  const root = document.getElementById("linked-cells");
  const data = JSON.parse(document.getElementById("linked-data").textContent);
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer;
  const places = new Uint16Array(bytes(data.places)), layout = new Uint16Array(bytes(data.layout));
  const codes = new Uint16Array(bytes(data.clusters)), slides = new Uint16Array(bytes(data.slides_of));
  const transcripts = new Uint32Array(bytes(data.transcripts));
  const n = codes.length, ROWS = 100, NEAR = 12, FAINT = "#e4e7eb", NONE = 65535;
  const slideChoice = root.querySelector("[data-slide]"), clusterChoice = root.querySelector("[data-cluster]");
  let chosen = null, marked = -1; // the cells that are chosen, or null for all; the cell with a ring, or -1

  const views = [...root.querySelectorAll("canvas")].map((canvas) => {
    const tissue = canvas.dataset.view === "tissue";
    const points = tissue ? places : layout;
    const margin = 14, scale = (canvas.width - 2 * margin) / 65535;
    const view = { canvas, context: canvas.getContext("2d"), from: null, to: null };
    view.shows = (i) => !tissue || slides[i] === Number(slideChoice.value);
    // y of the tissue grows downwards, as in the images of the instrument; that of a UMAP upwards.
    view.at = (i) => [margin + scale * points[2 * i],
      tissue ? margin + scale * points[2 * i + 1] : canvas.height - margin - scale * points[2 * i + 1]];
    return view;
  });
  const radius = Math.max(1, Math.min(3.5, 240 / Math.sqrt(n)));
  const colour = (i) => (codes[i] === NONE ? FAINT : data.colors[codes[i]]);
  const clusterName = (i) => (codes[i] === NONE ? "none" : data.clusters_named[codes[i]]);

  function paint(view) {
    const { context, canvas } = view;
    context.clearRect(0, 0, canvas.width, canvas.height);
    for (const wanted of [false, true]) {
      for (let i = 0; i < n; i++) {
        if ((chosen === null || chosen[i] === 1) !== wanted || !view.shows(i)) continue;
        const [x, y] = view.at(i);
        context.fillStyle = wanted ? colour(i) : FAINT;
        context.fillRect(x - radius, y - radius, 2 * radius, 2 * radius);
      }
    }
    context.strokeStyle = "#1f2933";
    context.lineWidth = 2;
    if (marked >= 0 && view.shows(marked)) {
      context.beginPath();
      context.arc(...view.at(marked), radius + 6, 0, 2 * Math.PI);
      context.stroke();
    }
    if (view.from && view.to) {
      const [a, b] = [view.from, view.to];
      context.strokeRect(a[0], a[1], b[0] - a[0], b[1] - a[1]);
    }
  }

  function show() {
    views.forEach(paint);
    const body = root.querySelector("tbody");
    body.replaceChildren();
    let count = 0;
    for (let i = 0; i < n; i++) {
      if (chosen !== null && !chosen[i]) continue;
      if (++count > ROWS) continue;
      const slide = slides[i], row = body.insertRow();
      const micrometres = (axis) => (data.origins[slide][axis] + data.scale * places[2 * i + axis]).toFixed(0);
      [data.names[i], data.slides[slide], clusterName(i), transcripts[i], micrometres(0), micrometres(1)].forEach(
        (value) => { row.insertCell().textContent = value; });
      const name = row.cells[0], button = document.createElement("button");
      button.textContent = name.textContent;
      button.onclick = () => { marked = i; slideChoice.value = slide; show(); };
      name.replaceChildren(button);
      if (i === marked) row.className = "kept";
    }
    const listed = count > ROWS ? `; the first ${ROWS} are listed` : "";
    root.querySelector("output").textContent =
      `${count.toLocaleString("en")} of ${n.toLocaleString("en")} cells ${chosen ? "chosen" : "shown"}${listed}.`;
  }

  function choose(test) { chosen = Uint8Array.from({ length: n }, (_, i) => (test(i) ? 1 : 0)); marked = -1; show(); }
  function clear() { chosen = null; marked = -1; clusterChoice.value = ""; show(); }

  function nearest(view, [x, y]) {
    let best = -1, distance = NEAR * NEAR;
    for (let i = 0; i < n; i++) {
      if (!view.shows(i)) continue;
      const [a, b] = view.at(i), d = (a - x) ** 2 + (b - y) ** 2;
      if (d < distance) [best, distance] = [i, d];
    }
    return best;
  }

  for (const view of views) {
    const { canvas } = view;
    const place = (event) => {
      const box = canvas.getBoundingClientRect();
      return [(event.clientX - box.left) * canvas.width / box.width,
        (event.clientY - box.top) * canvas.height / box.height];
    };
    canvas.onpointerdown = (event) => { canvas.setPointerCapture(event.pointerId); view.from = place(event); };
    canvas.onpointermove = (event) => { if (view.from) { view.to = place(event); paint(view); } };
    canvas.onpointercancel = () => { view.from = view.to = null; paint(view); };
    canvas.onpointerup = (event) => {
      const [a, b] = [view.from, place(event)];
      view.from = view.to = null;
      if (!a) return;
      clusterChoice.value = "";
      if (Math.hypot(a[0] - b[0], a[1] - b[1]) > 4) {
        const between = (value, axis) => (value - a[axis]) * (value - b[axis]) <= 0;
        choose((i) => { const p = view.at(i); return view.shows(i) && between(p[0], 0) && between(p[1], 1); });
        return;
      }
      const cell = nearest(view, b);
      if (cell < 0) { clear(); return; }
      choose((i) => i === cell);
      marked = cell;
      slideChoice.value = slides[cell];
      show();
    };
  }
  slideChoice.onchange = show;
  clusterChoice.onchange = () => {
    if (clusterChoice.value === "") clear();
    else choose((i) => codes[i] === Number(clusterChoice.value));
  };
  root.querySelector("[data-clear]").onclick = clear;
  show();
})();

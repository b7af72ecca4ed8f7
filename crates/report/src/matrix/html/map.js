// The heat map: a grid of which only the part in sight is in the document, with roving focus.

const PlainMap = (() => {
  const axes = M.axes.map((_, i) => i);
  let above = chooseColumns();
  let rows = [], columns = [], at = new Map();
  let active = [0, 0];
  let size = { w: 40, h: 26, left: [], top: [] };
  let same = new Set();
  let open = -1;
  const body = el('div', { class: 'cells', role: 'grid', 'aria-label': 'cells of the matrix' });
  const heads = el('div', { class: 'heads', 'aria-hidden': 'true' });
  const names = el('div', { class: 'names', 'aria-hidden': 'true' });
  const corner = el('div', { class: 'corner', 'aria-hidden': 'true' });
  const plane = el('div', { class: 'plane' }, corner, heads, names, body);
  const scroller = el('div', { class: 'scroller' }, plane);
  const overview = el('canvas', { id: 'overview', hidden: true, 'aria-hidden': 'true' });
  const switches = el('div', { class: 'switches', role: 'group', 'aria-label': 'axes above the map' });
  const root = el('div', { id: 'map' }, switches, overview, scroller);

  /** The last axes stand above, as many as make the map about as high as wide. */
  function chooseColumns() {
    const sizes = M.axes.map((a) => Math.max(1, a.values.length));
    let best = Infinity, split = axes.length;
    for (let s = axes.length - 1; s >= 0; s -= 1) {
      const wide = sizes.slice(s).reduce((a, b) => a * b, 1);
      const high = sizes.slice(0, s).reduce((a, b) => a * b, 1);
      const cost = Math.abs(Math.log((high * 26 + 60) / (wide * 60 + 120)) + 0.4);
      if (cost < best) { best = cost; split = s; }
    }
    return new Set(axes.slice(split));
  }

  const left = () => axes.filter((a) => !above.has(a));
  const top = () => axes.filter((a) => above.has(a));

  function arrange() {
    const keyed = (which) => {
      // One number for the values on these axes, in their order.
      const number = (cell) => which.reduce((n, a) => n * (M.axes[a].values.length + 1) + cell.at[a], 0);
      const found = new Map();
      for (const cell of M.cells) {
        const id = number(cell);
        let line = found.get(id);
        if (!line) found.set(id, line = { id, key: which.map((a) => cell.at[a]), sick: 0, judged: 0 });
        line.sick += cell.sick;
        line.judged += cell.sick + cell.healthy;
      }
      const order = [...found.values()].sort((x, y) => x.id - y.id);
      order.forEach((line, i) => { line.place = i; });
      return [order, (cell) => found.get(number(cell)).place];
    };
    let rowOf, columnOf;
    [rows, rowOf] = keyed(left());
    [columns, columnOf] = keyed(top());
    at = new Map(M.cells.map((cell) => [rowOf(cell) * columns.length + columnOf(cell), cell]));
    measure();
    active = [clamp(active[0], 0, rows.length - 1), clamp(active[1], 0, columns.length - 1)];
    if (!cellAt(...active)) active = next(0, 0, 1, false) ?? active;
    switches.replaceChildren(el('span', {}, 'above:'), ...axes.map((a) => el('button', {
      type: 'button', class: 'chip', 'aria-pressed': String(above.has(a)),
      onclick: () => { above.has(a) ? above.delete(a) : above.add(a); arrange(); draw(); switches.children[a + 1]?.focus(); },
    }, M.axes[a].name)));
    switches.hidden = axes.length < 2;
    sketch();
  }

  const cellAt = (r, c) => at.get(r * columns.length + c);
  const labelOf = (axis, v) => M.axes[axis].values[v]?.[0] ?? '?';
  const wide = (text) => text.length * 7.7 + 18;

  function measure() {
    const dense = columns.length > 28 || rows.length * columns.length > 4000;
    let w = 26;
    if (!dense) {
      w = columns.length > 12 ? 46 : 76;
      for (const cell of M.cells) w = Math.max(w, wide(glyph(cell, false)) + 4);
      w = Math.min(w, 150);
    }
    const h = dense ? 20 : M.cells.length > 200 ? 26 : 32;
    const widest = (axis) => M.axes[axis].values.reduce((n, v) => Math.max(n, wide(v[0])), wide(M.axes[axis].name));
    const lefts = left().map((a) => Math.min(180, widest(a)));
    const tops = top().map((a, i) => {
      const last = i + 1 === top().length;
      const span = last ? w : w * 2;
      const longest = M.axes[a].values.reduce((n, v) => Math.max(n, wide(v[0])), 0);
      const upright = last && longest > Math.max(w, 46) * (dense ? 0.9 : 1.6);
      if (last && !upright && !dense) w = Math.max(w, Math.min(longest, 150));
      return { upright, height: upright ? Math.min(150, longest + 4) : 22, span };
    });
    size = { w, h, left: lefts, top: tops, dense };
    const lw = lefts.reduce((a, b) => a + b, 0) + 34;
    const th = tops.reduce((a, t) => a + t.height, 0) + (tops.some((t) => t.upright) ? 10 : 28);
    plane.style.gridTemplateColumns = `${lw}px ${columns.length * w}px`;
    plane.style.gridTemplateRows = `${th}px ${rows.length * h}px`;
    scroller.style.setProperty('--w', `${w}px`);
    scroller.style.setProperty('--h', `${h}px`);
    scroller.style.maxInlineSize = `${lw + columns.length * w + 2}px`;
    root.classList.toggle('dense', dense);
    body.setAttribute('aria-rowcount', rows.length);
    body.setAttribute('aria-colcount', columns.length);
    let x = 0;
    corner.replaceChildren(...left().map((a, i) => {
      const name = el('span', { class: 'axis-name' }, M.axes[a].name);
      name.style.insetInlineStart = `${x}px`;
      name.style.inlineSize = `${lefts[i]}px`;
      x += lefts[i];
      return name;
    }), ...top().map((a, i) => {
      const name = el('span', { class: 'axis-name above' }, M.axes[a].name);
      name.style.insetBlockStart = `${tops.slice(0, i).reduce((s, t) => s + t.height, 0)}px`;
      return name;
    }));
  }

  function glyph(cell, dense) {
    const letters = M.letters(cell).join('');
    if (dense) {
      if (cell.answer === HEALTHY) return '·';
      if (cell.answer === PENDING) return '';
      if (cell.answer === ERROR) return 'e';
      return letters.slice(0, 2) || '×';
    }
    const flaky = cell.answer === FLAKY ? `${cell.sick}/${cell.sick + cell.healthy}` : cell.mark;
    return (cell.answer === PENDING ? '' : flaky) + (letters ? ` ${letters}` : '');
  }

  function box(cell, r, c) {
    const node = document.createElement('div');
    let classes = `cell ${ANSWERS[cell.answer]}`;
    if (EXPECTATIONS && cell.expected === 0) classes += ' unexpected';
    if (!Filter.kept[cell.index]) classes += ' dim';
    if (same.size && M.bugsOf(cell).some((b) => same.has(b))) classes += ' same';
    if (cell.index === open) classes += ' open';
    node.className = classes;
    node.setAttribute('role', 'gridcell');
    node.setAttribute('aria-colindex', c + 1);
    node.setAttribute('aria-label', cell.said ??= spoken(cell));
    node.setAttribute('aria-selected', cell.index === open);
    node.tabIndex = r === active[0] && c === active[1] ? 0 : -1;
    node.dataset.r = r;
    node.dataset.c = c;
    node.textContent = glyph(cell, size.dense);
    node.style.insetInlineStart = `${c * size.w}px`;
    if (cell.answer === FLAKY) node.style.setProperty('--rate', `${Math.round(100 * cell.sick / (cell.sick + cell.healthy))}%`);
    return node;
  }

  function range(from, length, step, count, extra) {
    const first = clamp(Math.floor(from / step) - extra, 0, Math.max(0, count - 1));
    return [first, clamp(Math.ceil((from + length) / step) + extra, 0, count)];
  }

  let whole = false;
  let drawn = { c0: -1, c1: -1, extra: -1, rows: new Map() };

  function makeRow(r, c0, c1) {
    const row = el('div', { role: 'row', 'aria-rowindex': r + 1, class: 'row' });
    row.style.insetBlockStart = `${r * size.h}px`;
    for (let c = c0; c < c1; c += 1) {
      const cell = cellAt(r, c);
      if (cell) row.append(box(cell, r, c));
    }
    // The cell that has the focus stays in the document, wherever one scrolls.
    if (r === active[0] && (active[1] < c0 || active[1] >= c1)) {
      const cell = cellAt(...active);
      if (cell) row.append(box(cell, ...active));
      drawn.extra = r;
    }
    return row;
  }

  /** Puts the part in sight into the document; after a mere scroll, rows that stand stay. */
  function draw(fresh = true) {
    if (!rows.length) return;
    const focused = body.contains(document.activeElement);
    const [r0, r1] = whole ? [0, rows.length] : range(scroller.scrollTop, scroller.clientHeight, size.h, rows.length, 4);
    let [c0, c1] = whole ? [0, columns.length] : range(scroller.scrollLeft, scroller.clientWidth, size.w, columns.length, 4);
    // In steps, so that not every column that comes into sight makes every row anew.
    c0 -= c0 % 16;
    c1 = Math.min(columns.length, c1 + (16 - (c1 % 16)));
    const keep = !fresh && drawn.c0 === c0 && drawn.c1 === c1 ? new Map(drawn.rows) : new Map();
    keep.delete(drawn.extra);
    if (active[1] < c0 || active[1] >= c1) keep.delete(active[0]);
    const before = drawn.rows;
    drawn = { c0, c1, extra: -1, rows: new Map() };
    const put = (r) => drawn.rows.set(r, keep.get(r) ?? makeRow(r, c0, c1));
    for (let r = r0; r < r1; r += 1) put(r);
    if (active[0] < r0 || active[0] >= r1) put(active[0]);
    for (const [r, row] of before) if (drawn.rows.get(r) !== row) row.remove();
    const fresher = [...drawn.rows.values()].filter((row) => row.parentNode !== body);
    body.append(...fresher);
    drawNames(r0, r1);
    drawHeads(c0, c1);
    if (focused && !body.contains(document.activeElement)) current()?.focus({ preventScroll: true });
  }

  function rateBar(line) {
    const bar = el('span', { class: 'rate' }, el('i'));
    bar.firstChild.style.setProperty('--rate', `${line.judged ? 100 * line.sick / line.judged : 0}%`);
    bar.title = line.judged ? `${percent(line.sick / line.judged)} of ${plural(line.judged, 'run')} sick` : 'no run';
    return bar;
  }

  function drawNames(r0, r1) {
    const parts = [];
    for (let r = r0; r < r1; r += 1) {
      let x = 0;
      let repeats = r > r0;
      left().forEach((a, i) => {
        const v = rows[r].key[i];
        repeats = repeats && rows[r - 1].key[i] === v;
        if (!repeats) {
          const name = el('span', { class: 'name', title: labelOf(a, v) }, labelOf(a, v));
          name.style.insetBlockStart = `${r * size.h}px`;
          name.style.insetInlineStart = `${x}px`;
          name.style.inlineSize = `${size.left[i]}px`;
          if (i === 0 && r > 0 && left().length > 1) name.classList.add('first');
          parts.push(name);
        }
        x += size.left[i];
      });
      const bar = rateBar(rows[r]);
      bar.style.insetBlockStart = `${r * size.h}px`;
      parts.push(bar);
    }
    names.replaceChildren(...parts);
  }

  function drawHeads(c0, c1) {
    const parts = [];
    const levels = top();
    let y = 0;
    levels.forEach((a, i) => {
      const { upright, height } = size.top[i];
      for (let c = c0; c < c1; c += 1) {
        const key = columns[c].key;
        const differs = (d) => key.slice(0, i + 1).some((v, k) => columns[d].key[k] !== v);
        if (c > c0 && !differs(c - 1)) continue;
        let end = c + 1;
        while (end < columns.length && end < c1 && !differs(end)) end += 1;
        const name = el('span', { class: upright ? 'head upright' : 'head', title: labelOf(a, key[i]) }, labelOf(a, key[i]));
        // Physical sides: an upright label has a writing mode of its own.
        name.style.left = `${c * size.w}px`;
        name.style.width = `${(end - c) * size.w}px`;
        name.style.top = `${y}px`;
        name.style.height = `${height}px`;
        parts.push(name);
      }
      y += height;
    });
    for (let c = c0; c < c1; c += 1) {
      const bar = rateBar(columns[c]);
      bar.style.insetInlineStart = `${c * size.w}px`;
      parts.push(bar);
    }
    heads.replaceChildren(...parts);
  }

  const current = () => body.querySelector(`[data-r="${active[0]}"][data-c="${active[1]}"]`);

  /** The first cell from (r, c) on, along a row or the whole table, that exists and is wanted. */
  function next(r, c, step, notable) {
    const total = rows.length * columns.length;
    let i = r * columns.length + c;
    for (let n = 0; n < total && i >= 0 && i < total; n += 1, i += step) {
      const cell = at.get(i);
      if (cell && (!notable || (cell.answer !== HEALTHY && cell.answer !== PENDING && Filter.kept[cell.index]))) {
        return [Math.floor(i / columns.length), i % columns.length];
      }
    }
    return null;
  }

  function moveTo(r, c, focus = true) {
    const old = current();
    if (old) old.tabIndex = -1;
    active = [r, c];
    const y = r * size.h, x = c * size.w;
    const high = scroller.clientHeight - plane.firstChild.offsetHeight;
    const broad = scroller.clientWidth - corner.offsetWidth;
    if (y < scroller.scrollTop) scroller.scrollTop = y;
    else if (y + size.h > scroller.scrollTop + high) scroller.scrollTop = y + size.h - high + 4;
    if (x < scroller.scrollLeft) scroller.scrollLeft = x;
    else if (x + size.w > scroller.scrollLeft + broad) scroller.scrollLeft = x + size.w - broad + 4;
    draw(false);
    const now = current();
    if (now) now.tabIndex = 0;
    if (focus) now?.focus({ preventScroll: true });
  }

  /** Steps over holes of the table. */
  function step(dr, dc) {
    let [r, c] = active;
    for (;;) {
      r += dr; c += dc;
      if (r < 0 || c < 0 || r >= rows.length || c >= columns.length) return;
      if (cellAt(r, c)) { moveTo(r, c); return; }
    }
  }

  body.addEventListener('keydown', (event) => {
    if (event.altKey || event.metaKey) return;
    const page = Math.max(1, Math.floor(scroller.clientHeight / size.h) - 3);
    const lastCell = () => next(rows.length - 1, columns.length - 1, -1, false);
    const inRow = (from, d) => {
      for (let c = from; c >= 0 && c < columns.length; c += d) if (cellAt(active[0], c)) { moveTo(active[0], c); return; }
    };
    const down = (n) => {
      const r = clamp(active[0] + n, 0, rows.length - 1);
      const found = cellAt(r, active[1]) ? [r, active[1]] : next(r, active[1], Math.sign(n), false);
      if (found) moveTo(...found);
    };
    const keys = {
      ArrowUp: () => step(-1, 0), ArrowDown: () => step(1, 0), ArrowLeft: () => step(0, -1), ArrowRight: () => step(0, 1),
      Home: () => (event.ctrlKey ? moveTo(...(next(0, 0, 1, false) ?? active)) : inRow(0, 1)),
      End: () => (event.ctrlKey ? moveTo(...(lastCell() ?? active)) : inRow(columns.length - 1, -1)),
      PageUp: () => down(-page), PageDown: () => down(page),
      Enter: () => Panel.show(cellAt(...active).index), ' ': () => Panel.show(cellAt(...active).index),
      n: () => { const i = active[0] * columns.length + active[1] + 1; const f = next(Math.floor(i / columns.length), i % columns.length, 1, true); if (f) moveTo(...f); },
      p: () => { const i = active[0] * columns.length + active[1] - 1; const f = i < 0 ? null : next(Math.floor(i / columns.length), i % columns.length, -1, true); if (f) moveTo(...f); },
    };
    const act = keys[event.key];
    if (!act || (event.ctrlKey && !['Home', 'End'].includes(event.key))) return;
    event.preventDefault();
    act();
  });

  const boxOf = (event) => event.target.closest?.('[data-r]');
  body.addEventListener('click', (event) => {
    const node = boxOf(event);
    if (!node) return;
    moveTo(Number(node.dataset.r), Number(node.dataset.c));
    Panel.show(cellAt(...active).index);
  });
  /** Cells with a bug of this one stand out while it is pointed at. */
  function point(node) {
    const cell = node && cellAt(Number(node.dataset.r), Number(node.dataset.c));
    const bugs = new Set(cell ? M.bugsOf(cell) : []);
    if ([...bugs].join() === [...same].join()) return;
    same = bugs;
    for (const box of body.querySelectorAll('[data-r]')) {
      const other = cellAt(Number(box.dataset.r), Number(box.dataset.c));
      box.classList.toggle('same', same.size > 0 && M.bugsOf(other).some((b) => same.has(b)));
    }
  }
  body.addEventListener('pointerover', (event) => {
    const node = boxOf(event);
    if (node && !node.title) node.title = spoken(cellAt(Number(node.dataset.r), Number(node.dataset.c)));
    point(node);
  });
  body.addEventListener('pointerleave', () => point(null));
  body.addEventListener('focusin', (event) => point(boxOf(event)));

  let waiting = false;
  let stale = false;
  const later = (fresh) => {
    stale ||= fresh;
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; draw(stale); stale = false; });
  };
  scroller.addEventListener('scroll', () => later(false), { passive: true });
  new ResizeObserver(() => later(false)).observe(scroller);
  Filter.listen(() => { sketch(); later(true); });

  /** A large table as a picture of a pixel or more for each cell; a click goes there. */
  function sketch() {
    overview.hidden = M.cells.length <= 2000 || !rows.length;
    if (overview.hidden) return;
    const broad = Math.min(columns.length, 1200), high = Math.min(rows.length, 400);
    overview.width = broad;
    overview.height = high;
    overview.style.inlineSize = `${Math.min(900, broad * Math.max(1, Math.floor(420 / broad)))}px`;
    overview.style.blockSize = `${Math.min(260, high * Math.max(1, Math.floor(160 / high)))}px`;
    const context = overview.getContext('2d');
    const image = context.createImageData(broad, high);
    const weight = [1, 0, 4, 3, 2];
    const dark = matchMedia('(prefers-color-scheme: dark)').matches
      ? document.documentElement.dataset.theme !== 'light' : document.documentElement.dataset.theme === 'dark';
    const colours = dark
      ? [[40, 48, 56], [30, 66, 45], [226, 76, 68], [219, 158, 44], [140, 120, 214]]
      : [[225, 229, 233], [196, 226, 205], [196, 43, 43], [230, 160, 40], [128, 104, 200]];
    const worst = new Int8Array(broad * high).fill(-1);
    for (const [place, cell] of at) {
      if (!Filter.kept[cell.index]) continue;
      const r = Math.floor(place / columns.length), c = place % columns.length;
      const i = Math.floor(r * high / rows.length) * broad + Math.floor(c * broad / columns.length);
      if (worst[i] < 0 || weight[cell.answer] > weight[worst[i]]) worst[i] = cell.answer;
    }
    worst.forEach((answer, i) => {
      if (answer >= 0) image.data.set([...colours[answer], 255], i * 4);
    });
    context.putImageData(image, 0, 0);
  }
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => sketch());
  overview.addEventListener('click', (event) => {
    const place = overview.getBoundingClientRect();
    const r = Math.floor((event.clientY - place.top) / place.height * rows.length);
    const c = Math.floor((event.clientX - place.left) / place.width * columns.length);
    const found = next(clamp(r, 0, rows.length - 1), clamp(c, 0, columns.length - 1), 1, false);
    if (found) moveTo(...found);
  });

  return {
    root,
    start() { arrange(); draw(); },
    resketch: sketch,
    focus() { (current() ?? body).focus?.(); },
    opened(index) {
      open = index;
      drawn.rows.forEach((row) => row.remove());
      drawn.rows.clear();
      if (index >= 0) {
        for (const [place, cell] of at) {
          if (cell.index === index) { moveTo(Math.floor(place / columns.length), place % columns.length, false); return; }
        }
      }
      draw();
    },
    print(on) {
      whole = on && M.cells.length <= PRINTED;
      // What does not fit on a sheet in its natural size is made smaller.
      plane.style.zoom = whole ? Math.min(1, 700 / plane.offsetWidth) : '';
      draw();
    },
  };
})();

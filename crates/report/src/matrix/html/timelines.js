// One bar for each wanted cell: how long its most telling run spent in each phase.

function phaseName(phase) {
  return M.phases[phase] ?? '?';
}

/** The bar of a run, `limit` milliseconds wide; what is longer is cut, and says so. */
function timelineBar(run, limit) {
  const bar = el('span', { class: 'bar', 'aria-hidden': 'true' });
  const share = (ms) => clamp(100 * ms / Math.max(1, limit), 0, 100);
  for (const s of segments(run)) {
    const width = share(s.to) - share(s.from);
    if (width <= 0) continue;
    const ill = s.last && run.outcome !== 0;
    const part = el('i', { class: `phase p${s.phase}${ill ? ' ended' : ''}`, title: `${phaseName(s.phase)}: ${duration(s.to - s.from)}` });
    part.style.insetInlineStart = `${share(s.from)}%`;
    part.style.inlineSize = `${width}%`;
    bar.append(part);
  }
  if (finite(run.wall) > limit) bar.classList.add('cut');
  return bar;
}

function phaseLegend() {
  return el('p', { class: 'legend' }, ...M.phases.map((name, p) => el('span', {},
    el('i', { class: `swatch phase p${p}`, 'aria-hidden': 'true' }), name)),
  el('span', {}, el('i', { class: 'swatch phase ended', 'aria-hidden': 'true' }), 'hatched: where a run that is not healthy ended'));
}

const Timelines = (() => {
  const HEIGHT = 24;
  let order = [];
  let active = 0;
  let limit = 1;
  let sort = 'table';
  let full = false;
  const list = el('div', { class: 'lines', role: 'list', 'aria-label': 'timelines' });
  const scroller = el('div', { class: 'scroller lines-scroller' }, list);
  const select = el('select', { id: 'sort', onchange: () => { sort = select.value; arrange(); } },
    el('option', { value: 'table' }, 'order of the table'), el('option', { value: 'wall' }, 'longest first'),
    ...M.phases.map((p, i) => el('option', { value: String(i) }, `longest ${p} first`)));
  let whole = false;
  const uncut = el('input', { type: 'checkbox', id: 'uncut', onchange: () => { full = uncut.checked; arrange(); } });
  const root = el('div', { id: 'timelines', hidden: true },
    el('div', { class: 'switches' }, el('label', { for: 'sort' }, 'sort:'), select,
      el('label', { for: 'uncut' }, uncut, 'whole length')),
    phaseLegend(), scroller);

  const telling = (cell) => M.runs(cell)[M.telling(cell)];
  function length(cell) {
    const run = telling(cell);
    if (!run) return -1;
    if (sort === 'wall') return finite(run.wall);
    return segments(run).filter((s) => s.phase === Number(sort)).reduce((n, s) => n + s.to - s.from, 0);
  }

  function arrange() {
    if (root.hidden) return;
    order = M.cells.filter((c) => Filter.kept[c.index]);
    if (sort !== 'table') {
      const lengths = new Map(order.map((c) => [c.index, length(c)]));
      order.sort((a, b) => lengths.get(b.index) - lengths.get(a.index));
    }
    const longest = M.cells.reduce((n, c) => c.raw.reduce((m, r) => Math.max(m, finite(r[2])), n), 1);
    const slowest = healthyMedians().slowest;
    // Hung runs are long: beside them nobody would see which phase of a healthy boot is slow.
    limit = full || !slowest ? longest : Math.min(longest, slowest * 2);
    active = clamp(active, 0, Math.max(0, order.length - 1));
    list.style.blockSize = `${order.length * HEIGHT}px`;
    draw();
  }

  function draw() {
    const focused = list.contains(document.activeElement);
    const first = whole ? 0 : Math.max(0, Math.floor(scroller.scrollTop / HEIGHT) - 4);
    const last = whole ? order.length : Math.min(order.length, Math.ceil((scroller.scrollTop + scroller.clientHeight) / HEIGHT) + 4);
    const shown = [];
    for (let i = first; i < last; i += 1) shown.push(i);
    if (order.length && (active < first || active >= last)) shown.push(active);
    list.replaceChildren(...shown.map((i) => {
      const cell = order[i];
      const run = telling(cell);
      const bugs = M.letters(cell).join('');
      const row = el('a', {
        class: 'line', href: `#c${cell.index}`, tabindex: i === active ? '0' : '-1', 'data-i': i,
        'aria-label': `${spoken(cell)}${run ? `, ${duration(finite(run.wall))}` : ''}`,
      }, el('span', { class: 'name' }, M.name(cell)),
      el('span', { class: `tag ${ANSWERS[cell.answer]}` }, (cell.answer === FLAKY ? `${cell.sick}/${cell.sick + cell.healthy}` : cell.mark) + (bugs ? ` ${bugs}` : '')),
      run ? timelineBar(run, limit) : el('span', { class: 'bar' }),
      el('span', { class: 'time' }, run ? duration(finite(run.wall)) : ''));
      const item = el('div', { role: 'listitem', class: 'item' }, row);
      item.style.insetBlockStart = `${i * HEIGHT}px`;
      return item;
    }));
    if (focused) list.querySelector(`[data-i="${active}"]`)?.focus({ preventScroll: true });
  }

  function moveTo(i) {
    active = clamp(i, 0, order.length - 1);
    const y = active * HEIGHT;
    if (y < scroller.scrollTop) scroller.scrollTop = y;
    else if (y + HEIGHT > scroller.scrollTop + scroller.clientHeight) scroller.scrollTop = y + HEIGHT - scroller.clientHeight;
    draw();
    list.querySelector(`[data-i="${active}"]`)?.focus({ preventScroll: true });
  }
  list.addEventListener('keydown', (event) => {
    const page = Math.max(1, Math.floor(scroller.clientHeight / HEIGHT) - 1);
    const to = {
      ArrowUp: active - 1, ArrowDown: active + 1, PageUp: active - page, PageDown: active + page, Home: 0, End: order.length - 1,
    }[event.key];
    if (to === undefined || event.altKey || event.metaKey || event.ctrlKey) return;
    event.preventDefault();
    moveTo(to);
  });
  list.addEventListener('click', (event) => {
    const row = event.target.closest?.('[data-i]');
    if (row) active = Number(row.dataset.i);
  });
  scroller.addEventListener('scroll', () => requestAnimationFrame(draw), { passive: true });
  Filter.listen(arrange);
  return { root, arrange, focus: () => moveTo(active), print(on) { whole = on && order.length <= PRINTED; draw(); } };
})();

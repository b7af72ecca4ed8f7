// Which cells are wanted: a text, answers, a bug, values of axes. Views listen to changes.

const Filter = (() => {
  const wanted = {
    text: '', answers: new Set(), unexpected: false, bug: -1, values: M.axes.map(() => new Set()),
  };
  const kept = new Uint8Array(M.cells.length).fill(1);
  const listeners = [];
  let names = null;
  let count = M.cells.length;

  function apply() {
    const words = wanted.text.toLowerCase().split(/\s+/).filter(Boolean);
    if (words.length && !names) {
      names = M.cells.map((c) => `${M.name(c)} ${c.mark} ${M.letters(c).join(' ')}`.toLowerCase());
    }
    count = 0;
    M.cells.forEach((cell, i) => {
      const keep = (wanted.answers.size === 0 || wanted.answers.has(cell.answer))
        && (!wanted.unexpected || cell.expected === 0)
        && (wanted.bug < 0 || M.bugsOf(cell).includes(wanted.bug))
        && wanted.values.every((set, axis) => set.size === 0 || set.has(cell.at[axis]))
        && words.every((w) => names[i].includes(w));
      kept[i] = keep ? 1 : 0;
      if (keep) count += 1;
    });
    listeners.forEach((listen) => listen());
  }

  const toggle = (set, value) => (set.has(value) ? set.delete(value) : set.add(value));
  const active = () => wanted.text !== '' || wanted.answers.size > 0 || wanted.unexpected
    || wanted.bug >= 0 || wanted.values.some((s) => s.size > 0);
  return {
    wanted, kept, apply, active,
    count: () => count,
    listen: (f) => listeners.push(f),
    answer(a) { toggle(wanted.answers, a); apply(); },
    unexpected() { wanted.unexpected = !wanted.unexpected; apply(); },
    bug(b) { wanted.bug = wanted.bug === b ? -1 : b; apply(); },
    value(axis, v) { toggle(wanted.values[axis], v); apply(); },
    text(t) { wanted.text = t; apply(); },
    clear() {
      wanted.text = ''; wanted.answers.clear(); wanted.unexpected = false; wanted.bug = -1;
      wanted.values.forEach((s) => s.clear());
      apply();
    },
  };
})();

/** A row of chips: one for each answer that occurs, each a switch. */
function answerChips() {
  const counts = ANSWERS.map((_, a) => M.cells.reduce((n, c) => n + (c.answer === a ? 1 : 0), 0));
  const surprises = M.cells.reduce((n, c) => n + (c.expected === 0 ? 1 : 0), 0);
  const words = ['pending', 'healthy', 'sick', 'flaky', 'without an answer'];
  const chips = [SICK, FLAKY, ERROR, PENDING, HEALTHY].filter((a) => counts[a] > 0).map((a) => {
    const chip = el('button', { type: 'button', class: `chip ${ANSWERS[a]}`, 'aria-pressed': 'false', onclick: () => Filter.answer(a) },
      el('i', { class: `swatch ${ANSWERS[a]}`, 'aria-hidden': 'true' }), `${counts[a]} ${words[a]}`);
    Filter.listen(() => chip.setAttribute('aria-pressed', String(Filter.wanted.answers.has(a))));
    return chip;
  });
  if (EXPECTATIONS && surprises > 0) {
    const chip = el('button', { type: 'button', class: 'chip', 'aria-pressed': 'false', onclick: () => Filter.unexpected() },
      el('i', { class: 'swatch unexpected', 'aria-hidden': 'true' }), `${surprises} not as expected`);
    Filter.listen(() => chip.setAttribute('aria-pressed', String(Filter.wanted.unexpected)));
    chips.push(chip);
  }
  return chips;
}

/** For each axis the rate of sick runs by value; a value is a switch of the filter. */
function marginals() {
  const parts = M.axes.map((axis, number) => {
    const rows = axis.values.map(() => ({ cells: 0, ill: 0, sick: 0, judged: 0 }));
    for (const cell of M.cells) {
      const row = rows[cell.at[number]];
      if (!row) continue;
      row.cells += 1;
      if (cell.answer === SICK || cell.answer === FLAKY) row.ill += 1;
      row.sick += cell.sick;
      row.judged += cell.sick + cell.healthy;
    }
    const list = el('ul', {});
    const shown = rows.map((row, v) => v);
    // A long unordered axis says most where it is sickest.
    if (!axis.ordered && shown.length > 12) {
      shown.sort((a, b) => rows[b].sick / (rows[b].judged || 1) - rows[a].sick / (rows[a].judged || 1));
    }
    for (const v of shown.slice(0, 300)) {
      const row = rows[v];
      const [label, value, note] = axis.values[v];
      const rate = row.judged ? row.sick / row.judged : 0;
      const bar = el('span', { class: 'rate', 'aria-hidden': 'true' }, el('i'));
      bar.firstChild.style.inlineSize = `${rate * 100}%`;
      const said = row.judged ? percent(rate) : '–';
      const button = el('button', {
        type: 'button', 'aria-pressed': 'false',
        title: [value !== label ? value : '', note].filter(Boolean).join('\n') || null,
        'aria-label': `${axis.name} ${label}: ${said} of runs sick, ${row.ill} of ${plural(row.cells, 'cell')} sick or flaky`,
        onclick: () => Filter.value(number, v),
      }, el('span', { class: 'value' }, label), bar, el('span', { class: 'figure' }, said),
      el('span', { class: 'cells' }, `${row.ill}/${row.cells}`));
      Filter.listen(() => button.setAttribute('aria-pressed', String(Filter.wanted.values[number].has(v))));
      list.append(el('li', {}, button));
    }
    if (shown.length > 300) list.append(el('li', { class: 'more' }, `and ${shown.length - 300} more`));
    return el('section', { class: 'axis' }, el('h3', {}, axis.name), list);
  });
  return el('section', { id: 'marginals', 'aria-label': 'rate of sick runs for each value' },
    el('p', { class: 'caption', 'aria-hidden': 'true' }, 'sick runs, and sick or flaky cells, for each value'),
    ...parts);
}

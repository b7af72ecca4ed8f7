// One cell beside the map: what it says, its runs, and of a run the proof and the console.

const Panel = (() => {
  const root = byId('panel');
  let shown = -1;
  let back = null;
  let followed = '';
  const link = (cell, run) => `#c${cell}${run ? `r${run}` : ''}`;
  const section = (title, ...children) => el('section', {}, el('h3', {}, title), ...children);
  const row = (name, ...value) => [el('dt', {}, name), el('dd', {}, ...value)];

  function details(cell, run) {
    const block = byId(`d${cell.index}-${run}`);
    return block ? JSON.parse(block.textContent) : null;
  }

  function conditions(cell) {
    const list = el('dl', { class: 'facts' });
    M.axes.forEach((axis, i) => {
      const [label, value, note] = axis.values[cell.at[i]] ?? ['?', '', ''];
      list.append(...row(axis.name, el('b', {}, label), value && value !== label ? ` ${value}` : '',
        note ? el('span', { class: 'note' }, ` ${note}`) : ''));
    });
    return list;
  }

  function answer(cell) {
    const judged = cell.healthy + cell.sick;
    const parts = [el('span', { class: `tag ${ANSWERS[cell.answer]}` }, cell.answer === PENDING ? 'pending' : cell.mark)];
    if (judged > 0) {
      parts.push(` ${cell.sick} of ${plural(judged, 'run')} sick`);
      const bar = el('span', { class: 'interval', role: 'img', 'aria-label': `between ${percent(cell.low)} and ${percent(cell.high)} at ${percent(M.confidence)} confidence` }, el('i'), el('b'));
      bar.firstChild.style.insetInlineStart = `${clamp(cell.low, 0, 1) * 100}%`;
      bar.firstChild.style.inlineSize = `${clamp(cell.high - cell.low, 0, 1) * 100}%`;
      bar.lastChild.style.insetInlineStart = `${100 * cell.sick / judged}%`;
      parts.push(bar, `${percent(cell.low)} to ${percent(cell.high)}`);
    }
    if (cell.errors > 0) parts.push(` · ${plural(cell.errors, 'failure')} of our own`);
    if (cell.expected === 0) parts.push(el('strong', { class: 'surprise' }, ' not as expected'));
    const expected = cell.expect.length ? el('p', { class: 'note' }, `expected: ${cell.expect.join(' or ')}`) : null;
    return el('div', { class: 'answer' }, el('p', {}, ...parts), expected);
  }

  function command(cell) {
    if (cell.command < 0) return el('p', { class: 'note' }, 'The command of this cell is not in this file.');
    if (!M.text(cell.command)) return null;
    const code = el('code', {}, M.text(cell.command));
    const button = el('button', { type: 'button', onclick: async () => {
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = 'copied';
      } catch {
        getSelection().selectAllChildren(code);
        button.textContent = 'selected';
      }
      setTimeout(() => { button.textContent = 'copy'; }, 1500);
    } }, 'copy');
    return section('Again', el('div', { class: 'command' }, code, button));
  }

  function runList(cell, current) {
    const runs = M.runs(cell);
    if (runs.length < 2) return null;
    const words = ['ok', 'sick', 'undecided', 'failed'];
    const classes = ['healthy', 'sick', 'error', 'error'];
    const list = el('nav', { class: 'runs', 'aria-label': 'runs of this cell' }, ...runs.map((run, r) => {
      const bug = run.bug >= 0 ? M.bugs[run.bug].letter : '';
      const verdict = run.verdict >= 0 ? M.verdicts[run.verdict][0] : 'failed';
      return el('a', { class: `tag ${classes[run.outcome]}`, href: link(cell.index, r + 1), 'aria-current': r === current ? 'true' : null,
        'aria-label': `run ${r + 1}: ${verdict}${bug ? `, bug ${bug}` : ''}`, title: `${verdict}, ${duration(finite(run.wall))}${run.details ? '' : ', console not in this file'}` },
      `${r + 1}${bug ? ` ${bug}` : run.outcome === 0 ? '' : ` ${words[run.outcome]}`}`);
    }));
    return section(`${runs.length + cell.more} runs`, list, cell.more ? el('p', { class: 'note' }, `${cell.more} more are not in this file`) : null);
  }

  function verdict(run) {
    const [name, , meaning] = run.verdict >= 0 ? M.verdicts[run.verdict] : ['failed', '', 'kolumbo, QEMU or the host failed; this says nothing about the guest'];
    const list = el('dl', { class: 'facts' }, ...row('verdict', el('b', { title: meaning }, name)));
    if (run.reason) list.append(...row('why', run.reason));
    if (run.signature) {
      list.append(...row('signature', run.bug >= 0 ? el('b', { class: 'letter' }, M.bugs[run.bug].letter) : '', el('code', {}, run.signature)));
    }
    list.append(...row('came to', phaseName(run.phase)));
    list.append(...row('time', `${duration(finite(run.wall))}, decided after ${duration(finite(run.decided))}`));
    if (run.attempt > 1) list.append(...row('attempt', String(run.attempt)));
    if (run.folder) list.append(...row('folder', el('code', {}, run.folder)));
    return list;
  }

  function timeline(run) {
    const steps = segments(run);
    if (steps.length === 0) return null;
    const usual = healthyMedians();
    let from = 0;
    const flat = [];
    usual.phases.forEach((ms, phase) => { flat.push(phase, from); from += ms; });
    const median = { timeline: flat, wall: from, outcome: 0 };
    const limit = Math.max(finite(run.wall), from, 1);
    const table = el('table', { class: 'phases' }, el('thead', {}, el('tr', {},
      ...['phase', 'this run', usual.runs ? 'healthy' : ''].map((h) => el('th', { scope: 'col' }, h)))));
    const body = el('tbody');
    for (const s of steps) {
      const ms = s.to - s.from;
      const ordinary = usual.phases[s.phase] ?? 0;
      const slow = usual.runs > 0 && ms > 2 * ordinary && ms - ordinary > 500;
      const ended = s.last && run.outcome !== 0;
      const remark = ended ? 'ended here' : slow ? `slow: ${ordinary > 0 ? `${(ms / ordinary).toFixed(1)} times` : 'unusual'}` : '';
      body.append(el('tr', { class: slow || ended ? 'slow' : null },
        el('th', { scope: 'row' }, el('i', { class: `swatch phase p${s.phase}`, 'aria-hidden': 'true' }), phaseName(s.phase)),
        el('td', {}, duration(ms)), el('td', {}, usual.runs ? duration(ordinary) : ''), el('td', {}, remark)));
    }
    table.append(body);
    return section('Timeline', el('div', { class: 'bars' },
      el('span', {}, 'this run'), timelineBar(run, limit),
      ...(usual.runs ? [el('span', { title: 'the median of each phase over healthy runs' }, 'healthy'), timelineBar(median, limit)] : [])), el('div', { class: 'sideways' }, table));
  }

  function equals(cell, run) {
    if (run.bug < 0) return null;
    const bug = M.bugs[run.bug];
    const others = M.cells.filter((c) => c.index !== cell.index && M.bugsOf(c).includes(run.bug));
    const links = others.slice(0, 60).map((c) => {
      const at = c.raw.findIndex((r) => r[1][4] === run.bug);
      return el('li', {}, el('a', { href: link(c.index, at + 1) }, M.name(c)));
    });
    if (others.length > 60) links.push(el('li', {}, `and ${others.length - 60} more`));
    return section(`Bug ${bug.letter}`, el('p', {}, bug.sentence || bug.signature), el('p', { class: 'note' }, bug.strikes),
      others.length ? el('p', {}, 'The same failure in:') : null, others.length ? el('ul', { class: 'links' }, ...links) : null);
  }

  function samples(evidence) {
    const vcpus = evidence.filter((e) => e.cpu !== undefined);
    const lines = evidence.filter((e) => e.cpu === undefined);
    const parts = [];
    if (lines.length) {
      parts.push(section('Proof', el('ol', { class: 'proof' }, ...lines.map((e) => el('li', {},
        el('span', { class: 'time' }, duration(finite(e.t))), el('span', { class: 'from' }, e.from), el('code', {}, e.text))))));
    }
    if (vcpus.length) {
      const heads = ['CPU', 'samples', 'shows', 'stands at'];
      parts.push(section('Virtual CPUs', el('div', { class: 'sideways', tabindex: '0', role: 'region', 'aria-label': 'samples of the virtual CPUs' }, el('table', { class: 'samples' },
        el('thead', {}, el('tr', {}, ...heads.map((h) => el('th', { scope: 'col' }, h)))),
        el('tbody', {}, ...vcpus.map((e) => el('tr', {}, el('th', { scope: 'row' }, String(e.cpu)),
          el('td', {}, `${e.samples} in ${duration(Math.max(0, finite(e.t) - finite(e.since)))}`),
          el('td', {}, e.text, el('span', { class: 'note' }, ` ${e.doing}, interrupts ${e.interrupts ? 'on' : 'off'}`)),
          el('td', {}, el('code', {}, e.place), el('br'), el('code', {}, e.instruction)))))))));
    }
    return parts;
  }

  /** The console with a search that marks what it finds. */
  function console_(text, before) {
    const MOST = 2000;
    const pre = el('pre', { class: 'console', tabindex: '0', role: 'region', 'aria-label': 'console' }, text);
    const said = el('span', { class: 'note', role: 'status' });
    let marks = [], at = -1;
    function go(to) {
      if (!marks.length) return;
      marks[at]?.classList.remove('here');
      at = (to + marks.length) % marks.length;
      marks[at].classList.add('here');
      const up = marks[at].offsetTop - pre.clientHeight / 2;
      pre.scrollTop = up;
      said.textContent = `${at + 1} of ${marks.length}${marks.length === MOST ? ' or more' : ''}`;
    }
    function search(words) {
      marks = []; at = -1;
      const needle = words.toLowerCase();
      // Lower case may be of another length for a few letters; then case counts.
      const lower = text.toLowerCase();
      const hay = lower.length === text.length ? lower : text;
      const pieces = [];
      let from = 0;
      for (let i = needle ? hay.indexOf(needle) : -1; i >= 0 && marks.length < MOST; i = hay.indexOf(needle, from)) {
        const mark = el('mark', {}, text.slice(i, i + needle.length));
        pieces.push(text.slice(from, i), mark);
        marks.push(mark);
        from = i + needle.length;
      }
      pre.replaceChildren(...pieces, text.slice(from));
      said.textContent = needle ? (marks.length ? '' : 'not found') : '';
      if (marks.length) go(marks.length - 1);
    }
    let timer = 0;
    const input = el('input', { type: 'search', id: 'find', placeholder: 'search the console', 'aria-label': 'search the console', autocomplete: 'off', spellcheck: 'false',
      oninput: () => { clearTimeout(timer); timer = setTimeout(() => search(input.value), 120); },
      onkeydown: (event) => {
        if (event.key === 'Enter') { event.preventDefault(); go(at + (event.shiftKey ? -1 : 1)); }
        if (event.key === 'Escape' && input.value) { event.stopPropagation(); input.value = ''; search(''); }
      } });
    const older = before > 0 ? el('p', { class: 'note' }, `${before} bytes before this are in the case folder`) : null;
    const tools = el('div', { class: 'find' }, input,
      el('button', { type: 'button', 'aria-label': 'previous', onclick: () => go(at - 1) }, '↑'),
      el('button', { type: 'button', 'aria-label': 'next', onclick: () => go(at + 1) }, '↓'), said);
    const part = section('Console', tools, older, pre);
    part.classList.add('console-part');
    // What went wrong last stands at the end.
    requestAnimationFrame(() => { pre.scrollTop = pre.scrollHeight; });
    return part;
  }

  function render(cell, r) {
    const runs = M.runs(cell);
    const current = clamp(r, 0, Math.max(0, runs.length - 1));
    const run = runs[current];
    const title = el('h2', { id: 'panel-title', tabindex: '-1' }, M.name(cell));
    const close = el('button', { type: 'button', class: 'close', 'aria-label': 'close', title: 'Esc', onclick: () => hide() }, '×');
    const parts = [el('div', { class: 'panel-head' }, title, close), answer(cell), conditions(cell)];
    if (run) {
      const found = run.details ? details(cell, current) : null;
      parts.push(runList(cell, current), section(runs.length > 1 ? `Run ${current + 1}` : 'Run', verdict(run)));
      if (found?.explanation) parts.push(section('Explanation', el('pre', { class: 'explanation' }, found.explanation)));
      parts.push(timeline(run), equals(cell, run));
      if (found?.evidence) parts.push(...samples(found.evidence));
      if (found?.left) parts.push(el('p', { class: 'note' }, `${found.left} more pieces of proof are in the case folder`));
      if (found?.console !== undefined) parts.push(console_(found.console, finite(found.before)));
      if (found?.case) parts.push(section('Circumstances', el('dl', { class: 'facts' }, ...found.case.flatMap(([n, v]) => row(n, v)))));
      if (!found) parts.push(el('p', { class: 'note' }, 'Console and proof of this run are not in this file; they are in its case folder.'));
    }
    parts.push(command(cell));
    root.replaceChildren(...parts.filter(Boolean));
    root.setAttribute('role', 'dialog');
    root.setAttribute('aria-labelledby', 'panel-title');
    root.hidden = false;
    document.body.classList.add('with-panel');
    root.scrollTop = 0;
    return title;
  }

  function follow() {
    if (location.hash === followed && !root.hidden) return;
    followed = location.hash;
    const found = /^#c(\d+)(?:r(\d+))?$/.exec(location.hash);
    const cell = found && M.cells[Number(found[1])];
    if (!cell) {
      if (!root.hidden) hide(false);
      return;
    }
    if (root.hidden) back = document.activeElement;
    shown = cell.index;
    const run = found[2] ? Number(found[2]) - 1 : M.telling(cell);
    const title = render(cell, run);
    PlainMap.opened(cell.index);
    title.focus({ preventScroll: true });
  }

  function hide(forget = true) {
    root.hidden = true;
    root.replaceChildren();
    document.body.classList.remove('with-panel');
    shown = -1;
    PlainMap.opened(-1);
    if (forget) history.replaceState(null, '', '#');
    if (back?.isConnected && back !== document.body) back.focus({ preventScroll: true });
    else View.focus();
    back = null;
  }

  addEventListener('hashchange', follow);
  return {
    show(index) {
      location.hash = link(index, 0);
      // The event for the change comes later, and a key may come before it.
      follow();
    },
    follow,
    hide,
    isOpen: () => !root.hidden,
    shown: () => shown,
  };
})();

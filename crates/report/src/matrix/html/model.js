// The data of the page, as data.rs writes it, under names. Text only ever becomes text nodes.

const byId = (id) => document.getElementById(id);

/** An element with properties, attributes and children; strings become text nodes. */
function el(name, properties = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (key === 'class') node.className = value;
    else if (key.startsWith('on')) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? '' : String(value));
  }
  node.append(...children.filter((c) => c !== null && c !== undefined));
  return node;
}

const finite = (x, otherwise = 0) => (Number.isFinite(x) ? x : otherwise);
const clamp = (x, low, high) => Math.min(high, Math.max(low, x));
const plural = (n, word) => `${n} ${word}${n === 1 ? '' : 's'}`;

function percent(rate) {
  const p = Math.round(rate * 100);
  if (p === 0 && rate > 0) return '<1%';
  if (p === 100 && rate < 1) return '>99%';
  return `${p}%`;
}

function duration(ms) {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 100000) return `${(Math.floor(ms / 100) / 10).toFixed(1)} s`;
  const s = Math.floor(ms / 1000);
  if (s >= 7200) return `${Math.floor(s / 3600)} h ${String(Math.floor(s / 60) % 60).padStart(2, '0')} min`;
  return `${Math.floor(s / 60)} min ${String(s % 60).padStart(2, '0')} s`;
}

const ANSWERS = ['pending', 'healthy', 'sick', 'flaky', 'error'];
const PENDING = 0, HEALTHY = 1, SICK = 2, FLAKY = 3, ERROR = 4;

const M = (() => {
  const raw = JSON.parse(byId('matrix').textContent);
  const text = (n) => (n < 0 ? '' : raw.texts[n] ?? '');
  const run = ([a, b, wall, decided, timeline, details]) => ({
    repeat: a[0], attempt: a[1], folder: text(a[2]), started: text(a[3]),
    verdict: b[0], reason: text(b[1]), phase: b[2], signature: text(b[3]), bug: b[4], outcome: b[5],
    wall, decided, timeline, details: details === 1,
  });
  const cells = raw.cells.map(([a, b, runs, more], index) => ({
    index, at: a[0], answer: a[1], expected: a[2], healthy: a[3], sick: a[4], errors: a[5],
    low: clamp(finite(b[0]), 0, 1), high: clamp(finite(b[1], 1), 0, 1), mark: b[2], expect: b[3], command: b[4],
    raw: runs, more,
  }));
  const runs = (cell) => (cell.runs ??= cell.raw.map(run));
  const label = (cell, axis) => raw.axes[axis].values[cell.at[axis]]?.[0] ?? '?';
  const name = (cell) => raw.axes.map((_, axis) => label(cell, axis)).join('/');
  const bugsOf = (cell) => (cell.bugs ??= [...new Set(cell.raw.map((r) => r[1][4]))]
    .filter((b) => b >= 0).sort((a, b) => a - b));
  const letters = (cell) => bugsOf(cell).map((b) => raw.bugs[b].letter);
  /** The run that says most about a cell: the first sick one, or the first with an end. */
  const telling = (cell) => {
    const outcomes = cell.raw.map((r) => r[1][5]);
    for (const wanted of [1, 2, 0, 3]) {
      const at = outcomes.indexOf(wanted);
      if (at >= 0) return at;
    }
    return 0;
  };
  return {
    ...raw.head, axes: raw.axes, bugs: raw.bugs, cells, text, runs, label, name, bugsOf, letters,
    telling,
  };
})();

/** Cells that are printed whole; of a larger table only the sums. */
const PRINTED = 4000;

/** Somebody expects sickness: else "not as expected" says nothing that "sick" does not say. */
const EXPECTATIONS = M.cells.some((c) => c.expected >= 0 && (c.expected === 0) !== (c.answer === SICK || c.answer === FLAKY));

/** What a cell says, in words for a reader that hears the page. */
function spoken(cell) {
  const where = M.axes.map((a, axis) => `${a.name} ${M.label(cell, axis)}`).join(', ');
  const what = cell.answer === PENDING ? 'not run yet' : cell.mark;
  const bugs = M.letters(cell);
  const counts = cell.healthy + cell.sick > 0
    ? `, ${cell.sick} of ${plural(cell.healthy + cell.sick, 'run')} sick` : '';
  const bug = bugs.length ? `, bug ${bugs.join(' and ')}` : '';
  return `${where}: ${what}${counts}${bug}${cell.expected === 0 ? ', not as expected' : ''}`;
}

/** Phases of a run as `{phase, from, to, last}`, cut to what is sensible. */
function segments(run) {
  const steps = [];
  for (let i = 0; i + 1 < run.timeline.length; i += 2) {
    const from = finite(run.timeline[i + 1]);
    if (steps.length === 0 || from >= steps[steps.length - 1].from) {
      steps.push({ phase: run.timeline[i], from });
    }
  }
  const end = Math.max(finite(run.wall), steps.length ? steps[steps.length - 1].from : 0);
  steps.forEach((step, i) => {
    step.last = i + 1 === steps.length;
    step.to = step.last ? end : steps[i + 1].from;
  });
  return steps;
}

/** For each phase the median of how long healthy runs spent in it, and of their whole time. */
const healthyMedians = (() => {
  let known = null;
  return () => {
    if (known) return known;
    const times = M.phases.map(() => []);
    const walls = [];
    let seen = 0;
    for (const cell of M.cells) {
      if (seen > 5000) break;
      for (const raw of cell.raw) {
        if (raw[1][5] !== 0) continue;
        seen += 1;
        walls.push(raw[2]);
        for (const s of segments({ timeline: raw[4], wall: raw[2] })) times[s.phase]?.push(s.to - s.from);
      }
    }
    const median = (list) => list.sort((a, b) => a - b)[Math.floor(list.length / 2)] ?? 0;
    walls.sort((a, b) => a - b);
    known = { phases: times.map(median), wall: median(walls), slowest: walls[walls.length - 1] ?? 0, runs: walls.length };
    return known;
  };
})();

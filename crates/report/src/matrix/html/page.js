// Puts the page together: tools, views, keys, theme, printing.

const View = (() => {
  const views = [['map', 'Map', PlainMap], ['timelines', 'Timelines', Timelines]];
  let current = 0;
  const tabs = views.map(([id, title], i) => el('button', {
    type: 'button', role: 'tab', id: `tab-${id}`, 'aria-controls': id, 'aria-selected': String(i === 0), tabindex: i === 0 ? '0' : '-1',
    onclick: () => show(i),
    onkeydown: (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step) return;
      event.preventDefault();
      show((current + step + views.length) % views.length);
      tabs[current].focus();
    },
  }, title));
  function show(i) {
    current = i;
    views.forEach(([, , view], n) => {
      view.root.hidden = n !== i;
      tabs[n].setAttribute('aria-selected', String(n === i));
      tabs[n].tabIndex = n === i ? 0 : -1;
    });
    byId('columns')?.classList.toggle('narrow-view', i === 0);
    if (i === 1) Timelines.arrange();
  }
  views.forEach(([id, , view]) => {
    view.root.setAttribute('role', 'tabpanel');
    view.root.setAttribute('aria-labelledby', `tab-${id}`);
  });
  return { tabs, roots: views.map((v) => v[2].root), show, focus: () => views[current][2].focus() };
})();

(() => {
  const search = el('input', { type: 'search', id: 'search', placeholder: 'filter cells   /', 'aria-label': 'filter cells by the words of their names', autocomplete: 'off', spellcheck: 'false' });
  let timer = 0;
  search.addEventListener('input', () => { clearTimeout(timer); timer = setTimeout(() => Filter.text(search.value), M.cells.length > 5000 ? 200 : 60); });
  search.addEventListener('keydown', (event) => {
    if (event.key === 'Escape' && search.value) { event.stopPropagation(); search.value = ''; Filter.text(''); }
    if (event.key === 'Enter') { event.preventDefault(); View.focus(); }
  });
  const count = el('span', { class: 'note', role: 'status' });
  const clear = el('button', { type: 'button', hidden: true, onclick: () => { search.value = ''; Filter.clear(); } }, 'show all');
  Filter.listen(() => {
    clear.hidden = !Filter.active();
    count.textContent = Filter.active() ? `${Filter.count()} of ${plural(M.cells.length, 'cell')}` : '';
  });
  const bar = el('div', { id: 'filter', role: 'search' }, el('div', { role: 'tablist', 'aria-label': 'view' }, ...View.tabs), ...answerChips(), search, count, clear);
  byId('work').append(bar, el('div', { id: 'columns', class: 'narrow-view' }, el('div', { id: 'views' }, ...View.roots), marginals()));

  for (const item of document.querySelectorAll('#bugs [data-bug]')) {
    const bug = Number(item.dataset.bug);
    const button = el('button', { type: 'button', 'aria-pressed': 'false', 'aria-label': `show only cells with bug ${M.bugs[bug].letter}`, onclick: () => Filter.bug(bug) }, plural(M.bugs[bug].cells, 'cell'));
    Filter.listen(() => {
      button.setAttribute('aria-pressed', String(Filter.wanted.bug === bug));
      item.classList.toggle('chosen', Filter.wanted.bug === bug);
    });
    item.append(button);
  }

  const themes = ['auto', 'dark', 'light'];
  let theme = 'auto';
  try { theme = themes.includes(localStorage.getItem('kolumbo-theme')) ? localStorage.getItem('kolumbo-theme') : 'auto'; } catch { /* a file without storage */ }
  const themeButton = el('button', { type: 'button', onclick: () => { setTheme(themes[(themes.indexOf(theme) + 1) % 3]); } });
  function setTheme(to) {
    theme = to;
    if (to === 'auto') delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = to;
    themeButton.textContent = `theme: ${to}`;
    try { localStorage.setItem('kolumbo-theme', to); } catch { /* a file without storage */ }
    PlainMap.resketch();
  }

  const keys = [['arrows, Home, End, PgUp, PgDn', 'move in the map or the timelines'], ['n, p', 'next or previous cell that is not healthy'], ['Enter', 'open a cell'],
    ['Esc', 'close it'], ['/', 'filter, or search the console of an open cell'], ['m, t', 'map, timelines'], ['?', 'this list']];
  const help = el('dialog', { id: 'help', 'aria-label': 'keys' }, el('h2', {}, 'Keys'), el('dl', { class: 'facts' },
    ...keys.flatMap(([k, what]) => [el('dt', {}, ...k.split(/(, | or )/).map((x) => (x === ', ' ? ' ' : el('kbd', {}, x)))), el('dd', {}, what)])),
  el('button', { type: 'button', onclick: () => help.close() }, 'close'));
  const helpButton = el('button', { type: 'button', onclick: () => help.showModal() }, 'keys: ?');
  byId('tools').append(helpButton, themeButton);
  document.body.append(help);

  addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || help.open) return;
    const typing = event.target.matches?.('input, select, textarea');
    if (event.key === 'Escape' && Panel.isOpen()) { event.preventDefault(); Panel.hide(); return; }
    if (event.key === 'Escape' && typing) { View.focus(); return; }
    if (typing) return;
    const acts = {
      '/': () => ((Panel.isOpen() && byId('find')) || search).focus(),
      '?': () => help.showModal(),
      m: () => { View.show(0); PlainMap.focus(); },
      t: () => { View.show(1); Timelines.focus(); },
    };
    const act = acts[event.key];
    if (act) { event.preventDefault(); act(); }
  });
  byId('work').append(el('p', { id: 'unprinted' }, `The ${plural(M.cells.length, 'cell')} are too many to be printed one by one.`));
  document.body.classList.toggle('too-large', M.cells.length > PRINTED);
  addEventListener('beforeprint', () => { PlainMap.print(true); Timelines.print(true); });
  addEventListener('afterprint', () => { PlainMap.print(false); Timelines.print(false); });

  PlainMap.start();
  setTheme(theme);
  Panel.follow();
})();

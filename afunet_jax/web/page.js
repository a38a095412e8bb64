'use strict';
// The page of the server: sends photos, follows the merge, shows the result in the viewer of report.js.
// Names and messages reach the page only as text, never as markup.
(() => {
  const POLL = 400, KEEP = 60000;  // milliseconds
  const MIDDLE = 2, GONE = 404;  // the middle photo's place in the viewer; the answer for a job that is not there
  const STEPS = ['uploading', 'waiting', 'reading', 'compiling', 'merging', 'writing'];
  const WORDS = {
    uploading: 'Sending the photos', waiting: 'Waiting', reading: 'Reading and aligning the photos',
    compiling: 'Compiling the network for photos of this size, once', merging: 'Merging', writing: 'Writing the files',
  };
  const allowed = JSON.parse(document.getElementById('allowed').textContent);
  const at = (id) => document.getElementById(id);
  let photos = [], job = null, shown = null, stem = 'merged', run = 0;

  function make(tag, name = '', text = '') {
    const element = document.createElement(tag);
    if (name) element.className = name;
    element.textContent = text;
    return element;
  }

  const megabytes = (bytes) => `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;
  const clock = (seconds) => {
    const whole = Math.round(seconds);
    return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, '0')}`;
  };

  // ---- the list of photos -----------------------------------------------------------------------------

  function add(files) {
    photos.push(...[...files].map((file) => ({ file, exposure: '' })));
    photos.sort((a, b) => a.file.name.localeCompare(b.file.name, undefined, { numeric: true }));
    list();
  }

  function list() {
    at('photos').hidden = !photos.length;
    at('photos').replaceChildren(...photos.map((photo, i) => {
      const item = make('li'), label = make('label', '', 'Exposure'), input = make('input');
      const remove = make('button', '', '×');
      input.type = 'text';
      input.placeholder = 'as the file says';
      input.title = 'EV as 0, 2, 4, or seconds as 1/250; for every photo or for none';
      input.setAttribute('aria-label', `Exposure of ${photo.file.name}, EV or seconds`);
      input.value = photo.exposure;
      input.addEventListener('input', () => { photo.exposure = input.value; });
      remove.type = 'button';
      remove.setAttribute('aria-label', `Remove ${photo.file.name}`);
      remove.addEventListener('click', () => {
        photos.splice(i, 1);
        list();
        (at('photos').querySelectorAll('button')[Math.min(i, photos.length - 1)] ?? at('files')).focus();
      });
      const name = make('bdi', '', photo.file.name), cell = make('span', 'name');
      cell.append(name);
      label.append(input);
      item.append(cell, make('span', 'size', megabytes(photo.file.size)), label, remove);
      return item;
    }));
  }

  // ---- requests ---------------------------------------------------------------------------------------

  class Told extends Error {
    constructor({ error, cures }, status = 0) {
      super(error);
      this.cures = cures ?? [];
      this.status = status;
    }
  }

  async function ask(method, path, body) {
    let answer;
    try {
      answer = await fetch(path, { method, body });
    } catch {
      const error = 'The server does not answer. See whether it still runs in its terminal, and try again.';
      throw new Told({ error });
    }
    const data = await answer.json().catch(() => ({ error: `The server answered ${answer.status}.` }));
    if (!answer.ok) throw new Told(data, answer.status);
    return data;
  }

  function asked() {
    const value = (id) => at(id).value, checked = (id) => at(id).checked;
    return JSON.stringify({
      photos: photos.map(({ file }) => ({ name: file.name, bytes: file.size })),
      exposures: photos.map(({ exposure }) => exposure),
      curve: value('curve'), align: value('align'), max_side: Number(value('max_side')),
      estimate: checked('estimate'), trust_exposures: checked('trust_exposures'),
    });
  }

  async function merge() {
    const mine = ++run, chosen = [...photos];
    forget(shown);
    shown = job = null;
    show({ progress: true });
    step({ state: 'uploading' }, `1 of ${chosen.length}`);
    stem = chosen[0]?.file.name.replace(/\.[^.]*$/, '') || 'merged';
    try {
      const made = (await ask('POST', '/api/jobs', asked())).job;
      if (mine !== run) return forget(made);
      job = made;
      for (const [i, { file }] of chosen.entries()) {
        step({ state: 'uploading' }, `${i + 1} of ${chosen.length}`, i / chosen.length);
        await ask('PUT', `/api/jobs/${job}/photos/${i}`, file);
        if (mine !== run) return;
      }
      await follow(mine);
    } catch (error) {
      if (mine !== run) return;
      forget(job);
      job = null;
      fail(error);
    }
  }

  async function follow(mine) {
    remember({ job, stem });
    for (;;) {
      const told = await ask('GET', `/api/jobs/${job}`);
      if (mine !== run) return;
      if (told.state === 'failed') throw new Told(told);
      if (told.state === 'finished') return finish(told.result);
      step(told);
      await new Promise((resolve) => setTimeout(resolve, POLL));
    }
  }

  function forget(id) {
    if (id) fetch(`/api/jobs/${id}`, { method: 'DELETE', keepalive: true }).catch(() => {});
    remember(null);
  }

  function remember(what) {
    if (what) sessionStorage.setItem('afunet', JSON.stringify(what));
    else sessionStorage.removeItem('afunet');
  }

  // ---- what is shown ----------------------------------------------------------------------------------

  function show({ progress = false, error = false, result = false }) {
    at('progress').hidden = !progress;
    at('error').hidden = !error;
    at('result').hidden = !result;
    at('merge').disabled = progress;
    const scene = document.querySelector('.scene');
    if (result) return;
    scene.open = false;
    at('picture').removeAttribute('src');
  }

  function step({ state, stage, ahead, spent, left }, extra = '', share = null) {
    const now = stage ?? state, place = STEPS.indexOf(now);
    for (const item of at('stages').children) {
      const index = STEPS.indexOf(item.dataset.stage);
      item.classList.toggle('past', index < place);
      if (index === place) item.setAttribute('aria-current', 'step');
      else item.removeAttribute('aria-current');
    }
    const waiting = ahead ? `, ${ahead} before this` : '';
    if (at('stage').textContent !== WORDS[now] + waiting) at('stage').textContent = WORDS[now] + waiting;
    const times = [];
    if (extra) times.push(extra);
    if (spent >= 1) times.push(clock(spent));
    if (left != null) times.push(left > 0 ? `about ${clock(left)} left` : 'longer than foretold');
    at('time').textContent = times.join(', ');
    if (left > 0) share = spent / (spent + left);
    if (share === null) at('bar').removeAttribute('value');
    else at('bar').value = share;
  }

  function fail(error) {
    show({ error: true });
    at('error-text').textContent = error.message;
    const cures = at('cures');
    cures.hidden = !error.cures?.length;
    cures.replaceChildren('On this page:', ...(error.cures ?? []).map(({ control, says }) => {
      const button = make('button', '', says);
      button.type = 'button';
      button.addEventListener('click', () => {
        const target = control === 'exposures' ? at('photos').querySelector('input') ?? at('files') : at(control);
        target.scrollIntoView({ block: 'center' });
        target.focus();
      });
      return button;
    }));
    if (!(error instanceof Told)) console.error(error);
    at('error').focus();
  }

  function finish(result) {
    shown = job;
    job = null;
    show({ result: true });
    at('result-title').textContent = `HDR image, ${result.width} × ${result.height} pixels`;
    at('warnings').hidden = !result.warnings.length;
    at('warnings').replaceChildren(...result.warnings.map((text) => make('li', '', text)));
    at('report-text').textContent = `${result.report}\nmerged in ${result.seconds.toFixed(1)} s`;
    const source = (kind) => `/api/jobs/${shown}/files/${kind}`;
    for (const link of document.querySelectorAll('[data-file]')) {
      link.href = source(link.dataset.file);
      link.download = stem + link.dataset.ending;
    }
    at('picture').src = source('picture');
    const scene = document.querySelector('.scene');
    scene.dataset.scene = result.key;
    scene.dataset.source = source('view');
    scene.open = true;
    at('result').focus({ preventScroll: true });
    at('result').scrollIntoView({ block: 'start' });
    besideMiddle(scene);
  }

  // The viewer begins with the first photo on the right; the middle one is better exposed.
  async function besideMiddle(scene) {
    while (!scene.viewer && scene.open) await new Promise((resolve) => setTimeout(resolve, POLL / 4));
    scene.viewer?.choose('right', MIDDLE);
  }

  // ---- start ------------------------------------------------------------------------------------------

  const drop = at('drop');
  at('files').addEventListener('change', () => {
    add(at('files').files);
    at('files').value = '';
  });
  for (const type of ['dragenter', 'dragover']) {
    document.addEventListener(type, (event) => {
      event.preventDefault();
      drop.classList.add('over');
    });
  }
  document.addEventListener('dragleave', (event) => { if (!event.relatedTarget) drop.classList.remove('over'); });
  document.addEventListener('drop', (event) => {
    event.preventDefault();
    drop.classList.remove('over');
    add(event.dataTransfer.files);
  });
  at('form').addEventListener('submit', (event) => {
    event.preventDefault();
    if (at('merge').disabled) return;
    const bytes = photos.reduce((sum, { file }) => sum + file.size, 0);
    const refuse = (error) => fail(new Told({ error }));
    if (!photos.length) refuse('There are no photos yet. Choose three of one scene at different exposures.');
    else if (photos.length < 3) {
      refuse(`${photos.length} of at least 3 photos: the network takes three exposures, short, middle and long.`);
    } else if (bytes > allowed.bytes || photos.length > allowed.photos) {
      refuse(`${photos.length} photos, ${megabytes(bytes)}: at most ${allowed.photos} photos and ` +
        `${megabytes(allowed.bytes)} are taken. Remove some, or start the server with a larger --max_upload.`);
    } else merge();
  });
  at('cancel').addEventListener('click', () => {
    run++;
    forget(job);
    job = null;
    show({});
    at('merge').focus();
  });
  setInterval(() => {
    if (shown) fetch(`/api/jobs/${shown}`).catch(() => {});
  }, KEEP);

  // After the page was loaded anew, what was under way goes on.
  const before = JSON.parse(sessionStorage.getItem('afunet') ?? 'null');
  if (before) {
    ({ job, stem } = before);
    show({ progress: true });
    follow(++run).catch((error) => {
      remember(null);
      job = null;
      if (error.status === GONE) show({});
      else fail(error);
    });
  }
})();

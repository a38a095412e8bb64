'use strict';
// The viewer of one evaluation. Names come from files, so they reach the page only as text, never as markup.
(() => {
  const report = JSON.parse(document.getElementById('report').textContent);
  const TALLEST = 82;  // percent of the window's height that a picture takes
  const MOST_ZOOM = 32, ZOOM_STEP = 1.25, PAN_STEP = 60, PIXELS_FROM = 2, THUMB_WIDTH = 360;
  // Linear values are kept as logarithms in 16 bits, so that a change of exposure is one table look-up.
  const LOG_LOWEST = -24, STEPS_PER_STOP = 2048, CODES = 65536;

  // ---- decoding ---------------------------------------------------------------------------------------

  const bytesOf = (base64) => Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));

  async function pixelsOf(base64) {
    const blob = new Blob([bytesOf(base64)], { type: 'image/jpeg' });
    const bitmap = await createImageBitmap(blob, { colorSpaceConversion: 'none', premultiplyAlpha: 'none' });
    const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
    const context = canvas.getContext('2d', { willReadFrequently: true });
    context.drawImage(bitmap, 0, 0);
    bitmap.close();
    return context.getImageData(0, 0, canvas.width, canvas.height).data;
  }

  function neighbours(pixels, cells) {
    const before = new Int32Array(pixels), weight = new Float32Array(pixels);
    for (let i = 0; i < pixels; i++) {
      const place = Math.min(Math.max((i + 0.5) / report.cell - 0.5, 0), cells - 1);
      before[i] = Math.floor(place);
      weight[i] = place - before[i];
    }
    return { before, weight };
  }

  // linear = base ** power * 2 ** gain, in logarithms a sum; see encoding.py.
  async function decodeHdr(layer, width, height) {
    const data = await pixelsOf(layer.data), codes = bytesOf(layer.gains);
    const columns = Math.ceil(width / report.cell), rows = codes.length / columns;
    const across = neighbours(width, columns), down = neighbours(height, rows);
    const step = (layer.high - layer.low) / report.gainCodes;
    const gain = (row, column) => layer.low + step * codes[row * columns + column];
    const logOf = (code) => code ? report.power * Math.log2(code / 255) : -Infinity;
    const base = Float32Array.from({ length: 256 }, (_, code) => logOf(code));
    const logs = new Uint16Array(3 * width * height), atCells = new Float32Array(columns);
    for (let y = 0, i = 0, o = 0; y < height; y++) {
      const row = down.before[y], next = Math.min(row + 1, rows - 1), w = down.weight[y];
      for (let c = 0; c < columns; c++) atCells[c] = gain(row, c) * (1 - w) + gain(next, c) * w - LOG_LOWEST;
      for (let x = 0; x < width; x++, i += 4) {
        const c = across.before[x], u = across.weight[x];
        const level = atCells[c] * (1 - u) + atCells[Math.min(c + 1, columns - 1)] * u;
        for (let k = 0; k < 3; k++) {
          const code = (base[data[i + k]] + level) * STEPS_PER_STOP + 0.5;
          logs[o++] = code > 1 ? Math.min(code, CODES - 1) : 0;
        }
      }
    }
    return logs;
  }

  async function decode(layer, width, height) {
    if (layer.kind === 'hdr') {
      return { ...layer, data: null, gains: null, logs: await decodeHdr(layer, width, height) };
    }
    return { ...layer, data: await pixelsOf(layer.data) };
  }

  // ---- drawing ----------------------------------------------------------------------------------------

  const linearOf = (code) => code ? 2 ** (LOG_LOWEST + code / STEPS_PER_STOP) : 0;

  function toneTable(exposure, tone) {
    const table = new Uint8ClampedArray(CODES), gain = 2 ** exposure;
    for (let code = 0; code < CODES; code++) {
      const x = Math.min(linearOf(code) * gain, 1);
      const mu = () => Math.log1p(report.mu * x) / Math.log1p(report.mu);
      const shown = tone === 'mu' ? mu() : x ** (1 / report.gamma);
      table[code] = 255 * shown;
    }
    return table;
  }

  const colours = new Uint8ClampedArray(report.colours.match(/../g).map((pair) => parseInt(pair, 16)));

  // Fills a canvas with a layer of width x height, or with some of its pixels where the canvas is smaller.
  // Every computer that runs a browser puts the lowest byte, here red, first.
  function paint(canvas, layer, table, width, height) {
    const context = canvas.getContext('2d', { alpha: false }), wide = canvas.width, high = canvas.height;
    const picture = context.createImageData(wide, high), out = new Uint32Array(picture.data.buffer);
    const source = Int32Array.from({ length: wide }, (_, x) => Math.floor((x + 0.5) * width / wide));
    const { logs, data } = layer;
    for (let y = 0, o = 0; y < high; y++) {
      const row = Math.floor((y + 0.5) * height / high) * width;
      if (layer.kind === 'hdr') {
        for (let x = 0; x < wide; x++) {
          const i = 3 * (row + source[x]);
          out[o++] = 0xff000000 | table[logs[i + 2]] << 16 | table[logs[i + 1]] << 8 | table[logs[i]];
        }
      } else if (layer.kind === 'map') {
        for (let x = 0; x < wide; x++) {
          const c = 3 * data[4 * (row + source[x])];
          out[o++] = 0xff000000 | colours[c + 2] << 16 | colours[c + 1] << 8 | colours[c];
        }
      } else {
        for (let x = 0; x < wide; x++) {
          const i = 4 * (row + source[x]);
          out[o++] = 0xff000000 | data[i + 2] << 16 | data[i + 1] << 8 | data[i];
        }
      }
    }
    context.putImageData(picture, 0, 0);
  }

  function legendOf(scale) {
    const { title, limit, power, over } = report.scales[scale];
    const figure = make('div', 'legend'), bar = make('canvas'), ticks = make('div');
    bar.width = 256;
    bar.height = 1;
    const ramp = Float32Array.from({ length: 256 * 4 }, (_, i) => i >> 2);
    paint(bar, { kind: 'map', data: ramp }, null, 256, 1);
    for (const place of [0, 0.25, 0.5, 0.75, 1]) {
      const value = Number((limit * place ** (1 / power)).toPrecision(2));
      ticks.append(make('span', '', `${place === 1 && over ? '≥ ' : ''}${value}`));
    }
    figure.append(make('span', '', title), bar, ticks);
    return figure;
  }

  function make(tag, name = '', text = '') {
    const element = document.createElement(tag);
    if (name) element.className = name;
    element.textContent = text;
    return element;
  }

  const signed = (ev) => `${ev > 0 ? '+' : ev < 0 ? '−' : ''}${Math.abs(ev)} EV`;
  const short = (value) => value >= 0.001 || value === 0 ? value.toFixed(4) : value.toExponential(1);

  // ---- one open scene ---------------------------------------------------------------------------------

  class Viewer {
    constructor(place, data) {
      this.data = data;
      this.root = document.getElementById('viewer').content.firstElementChild.cloneNode(true);
      place.replaceChildren(this.root);
      this.find = (name) => this.root.querySelector(`.${name}`);
      this.stage = this.find('stage');
      const canvasOf = (side) => this.find(side).firstElementChild;
      this.canvases = { left: canvasOf('left'), right: canvasOf('right') };
      this.chosen = { left: data.left, right: data.right };
      this.layers = data.layers.map(() => null);
      this.zoom = 1;
      this.x = this.y = 0;
      this.pointers = new Map();
      this.table = null;
      for (const canvas of Object.values(this.canvases)) {
        canvas.width = data.width;
        canvas.height = data.height;
      }
      this.stage.style.aspectRatio = `${data.width} / ${data.height}`;
      this.stage.style.maxWidth = `${TALLEST * data.width / data.height}vh`;
      const keys = 'plus and minus zoom, 0 fits, 1 shows pixels, arrow keys pan';
      this.stage.setAttribute('aria-label', `Comparison: ${keys}`);
      this.find('exposure').value = data.exposure;
      this.fillChoices();
      this.fillStrip();
      this.listen();
      this.resized = new ResizeObserver(() => this.place());
      this.resized.observe(this.stage);
      this.showExposure();
      this.split(50);
      this.ready = this.load();
    }

    close() {
      this.resized.disconnect();
      this.layers = [];
      this.closed = true;
      this.root.remove();
    }

    async load() {
      const first = [this.chosen.left, this.chosen.right];
      const order = [...new Set([...first, ...this.layers.keys()])];
      for (const index of order) {
        const layer = await decode(this.data.layers[index], this.data.width, this.data.height);
        if (this.closed) return;
        this.layers[index] = layer;
        this.data.layers[index] = { kind: layer.kind, title: layer.title, scale: layer.scale };
        this.drawThumb(index);
        for (const side of ['left', 'right']) if (this.chosen[side] === index) this.drawSide(side);
        await new Promise((resolve) => setTimeout(resolve));
      }
      this.find('busy').hidden = true;
      this.root.dataset.ready = 'yes';
    }

    fillChoices() {
      for (const side of ['left', 'right']) {
        const select = this.find(`choose-${side}`), pictures = make('optgroup'), maps = make('optgroup');
        pictures.label = 'Pictures';
        maps.label = 'Maps';
        this.data.layers.forEach((layer, i) => {
          const option = make('option', '', layer.title);
          option.value = i;
          (layer.kind === 'map' ? maps : pictures).append(option);
        });
        select.append(pictures);
        if (maps.children.length) select.append(maps);
        select.addEventListener('change', () => this.choose(side, Number(select.value)));
        this.showChoice(side);
      }
    }

    fillStrip() {
      const width = Math.min(THUMB_WIDTH, this.data.width);
      this.thumbs = this.data.layers.map((layer, i) => {
        const [item, figure, canvas, caption] = ['li', 'figure', 'canvas', 'figcaption'].map((tag) => make(tag));
        canvas.width = width;
        canvas.height = Math.max(1, Math.round(width * this.data.height / this.data.width));
        canvas.setAttribute('role', 'img');
        canvas.setAttribute('aria-label', layer.title);
        canvas.addEventListener('click', () => this.choose('left', i));
        caption.append(make('span', '', layer.title));
        const buttons = ['left', 'right'].map((side) => {
          const button = make('button', '', side === 'left' ? 'L' : 'R');
          button.type = 'button';
          button.title = `Show on the ${side}`;
          button.setAttribute('aria-label', `Show ${layer.title} on the ${side}`);
          button.addEventListener('click', () => this.choose(side, i));
          caption.append(button);
          return [side, button];
        });
        figure.append(canvas, caption);
        item.append(figure);
        this.find('strip').append(item);
        return { canvas, buttons: Object.fromEntries(buttons) };
      });
      this.press();
    }

    press() {
      this.thumbs.forEach((thumb, i) => {
        for (const side of ['left', 'right']) {
          thumb.buttons[side].setAttribute('aria-pressed', this.chosen[side] === i);
        }
      });
      const scaleOf = (side) => this.data.layers[this.chosen[side]].scale;
      const scales = ['left', 'right'].map(scaleOf).filter(Boolean);
      this.find('legends').replaceChildren(...[...new Set(scales)].map(legendOf));
    }

    choose(side, index) {
      this.chosen[side] = index;
      this.showChoice(side);
      this.press();
      this.drawSide(side);
    }

    showChoice(side) {
      this.find(`choose-${side}`).value = this.chosen[side];
      this.find(`tag-${side}`).textContent = this.data.layers[this.chosen[side]].title;
    }

    // ---- pictures

    drawSide(side) {
      const layer = this.layers[this.chosen[side]];
      if (!layer) return;
      paint(this.canvases[side], layer, this.tones(), this.data.width, this.data.height);
      const how = layer.kind === 'hdr' ? ` at ${this.find('exposure-text').value}` : '';
      this.canvases[side].setAttribute('aria-label', `${side}: ${layer.title}${how}`);
    }

    drawThumb(index) {
      const layer = this.layers[index];
      if (layer) paint(this.thumbs[index].canvas, layer, this.tones(), this.data.width, this.data.height);
    }

    tones() {
      this.table ??= toneTable(Number(this.find('exposure').value), this.find('tone').value);
      return this.table;
    }

    showExposure() {
      const text = signed(Number(this.find('exposure').value));
      this.find('exposure-text').value = text;
      this.find('exposure').setAttribute('aria-valuetext', text);
      this.table = null;
      if (this.drawing) return;
      this.drawing = requestAnimationFrame(() => {
        this.drawing = 0;
        for (const side of ['left', 'right']) {
          if (this.layers[this.chosen[side]]?.kind === 'hdr') this.drawSide(side);
        }
        this.layers.forEach((layer, i) => layer?.kind === 'hdr' && this.drawThumb(i));
      });
    }

    expose(stops) {
      const input = this.find('exposure');
      input.value = Number(input.value) + stops;
      this.showExposure();
    }

    // ---- divider, zoom and pan

    split(percent) {
      this.divided = Math.min(Math.max(percent, 0), 100);
      const text = `${Math.round(this.divided)}%`;
      this.find('divider').value = this.divided;
      this.find('divider').setAttribute('aria-valuetext', `${text} left`);
      this.find('divider-text').value = text;
      this.find('handle').style.left = `${this.divided}%`;
      this.find('right').style.clipPath = `inset(0 0 0 ${this.divided}%)`;
    }

    fit() {
      return Math.min(this.stage.clientWidth / this.data.width, this.stage.clientHeight / this.data.height);
    }

    place() {
      const { width, height } = this.data, scale = this.fit() * this.zoom;
      const room = [this.stage.clientWidth, this.stage.clientHeight];
      const inside = (at, size, space) =>
        size <= space ? (space - size) / 2 : Math.min(0, Math.max(space - size, at));
      this.x = inside(this.x, width * scale, room[0]);
      this.y = inside(this.y, height * scale, room[1]);
      for (const canvas of Object.values(this.canvases)) {
        canvas.style.transform = `translate(${this.x}px, ${this.y}px) scale(${scale})`;
      }
      this.stage.classList.toggle('zoomed', this.zoom > 1);
      this.stage.classList.toggle('pixels', scale * devicePixelRatio >= PIXELS_FROM);
      this.find('zoom-text').value = `${Math.round(scale * devicePixelRatio * 100)}%`;
    }

    // Zooms by a factor; the point `at` of the stage stays where it is.
    zoomBy(factor, at = [this.stage.clientWidth / 2, this.stage.clientHeight / 2]) {
      const most = Math.max(MOST_ZOOM / (this.fit() * devicePixelRatio), 1);
      const zoom = Math.min(Math.max(this.zoom * factor, 1), most), ratio = zoom / this.zoom;
      this.x = at[0] - (at[0] - this.x) * ratio;
      this.y = at[1] - (at[1] - this.y) * ratio;
      this.zoom = zoom;
      this.place();
    }

    zoomTo(zoom) {
      this.zoomBy(zoom / this.zoom);
    }

    pan(x, y) {
      this.x += x;
      this.y += y;
      this.place();
    }

    key(event) {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const step = PAN_STEP * (event.shiftKey ? 5 : 1);
      const sideways = (sign) => this.zoom > 1 ? this.pan(-sign * step, 0) : this.split(this.divided + sign);
      const actions = {
        '+': () => this.zoomBy(ZOOM_STEP), '=': () => this.zoomBy(ZOOM_STEP),
        '-': () => this.zoomBy(1 / ZOOM_STEP),
        0: () => this.zoomTo(1), 1: () => this.zoomTo(1 / (this.fit() * devicePixelRatio)),
        '[': () => this.expose(-0.25), ']': () => this.expose(0.25),
        ArrowLeft: () => sideways(-1), ArrowRight: () => sideways(1),
      };
      if (this.zoom > 1) {
        Object.assign(actions, { ArrowUp: () => this.pan(0, step), ArrowDown: () => this.pan(0, -step) });
      }
      if (!actions[event.key]) return;
      event.preventDefault();
      actions[event.key]();
    }

    listen() {
      const on = (name, type, action) => this.find(name).addEventListener(type, action);
      on('exposure', 'input', () => this.showExposure());
      on('tone', 'change', () => this.showExposure());
      on('divider', 'input', (event) => this.split(Number(event.target.value)));
      on('zoom-in', 'click', () => this.zoomBy(ZOOM_STEP));
      on('zoom-out', 'click', () => this.zoomBy(1 / ZOOM_STEP));
      on('zoom-fit', 'click', () => this.zoomTo(1));
      on('zoom-one', 'click', () => this.zoomTo(1 / (this.fit() * devicePixelRatio)));
      on('swap', 'click', () => {
        const { left, right } = this.chosen;
        this.choose('left', right);
        this.choose('right', left);
      });
      this.stage.addEventListener('keydown', (event) => this.key(event));
      this.stage.addEventListener('wheel', (event) => {
        if (!event.ctrlKey && document.activeElement !== this.stage) return;
        event.preventDefault();
        this.zoomBy(ZOOM_STEP ** (-Math.sign(event.deltaY)), this.at(event));
      }, { passive: false });
      this.stage.addEventListener('pointerdown', (event) => this.grab(event));
      this.stage.addEventListener('pointermove', (event) => this.drag(event));
      for (const type of ['pointerup', 'pointercancel']) {
        this.stage.addEventListener(type, (event) => this.pointers.delete(event.pointerId));
      }
    }

    at(event) {
      const box = this.stage.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    }

    grab(event) {
      if (event.button) return;
      this.stage.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, this.at(event));
      this.dividing = this.find('handle').contains(event.target) || this.zoom === 1;
      if (this.dividing && this.pointers.size === 1) {
        this.split(100 * this.at(event)[0] / this.stage.clientWidth);
      }
    }

    drag(event) {
      const to = this.at(event), from = this.pointers.get(event.pointerId);
      this.read(to);
      if (!from) return;
      const other = [...this.pointers].find(([id]) => id !== event.pointerId)?.[1];
      if (other) {
        const apart = (point) => Math.hypot(point[0] - other[0], point[1] - other[1]);
        const middle = [(to[0] + other[0]) / 2, (to[1] + other[1]) / 2];
        this.pan((to[0] - from[0]) / 2, (to[1] - from[1]) / 2);
        this.zoomBy(apart(to) / Math.max(apart(from), 1), middle);
      } else if (this.dividing) {
        this.split(100 * to[0] / this.stage.clientWidth);
      } else {
        this.pan(to[0] - from[0], to[1] - from[1]);
      }
      this.pointers.set(event.pointerId, to);
    }

    // The values under the pointer.
    read([x, y]) {
      const scale = this.fit() * this.zoom, { width, height } = this.data;
      const column = Math.floor((x - this.x) / scale), row = Math.floor((y - this.y) / scale);
      if (column < 0 || row < 0 || column >= width || row >= height) return;
      const values = (side) => {
        const layer = this.layers[this.chosen[side]], i = row * width + column;
        if (!layer) return '';
        const rgb = [0, 1, 2];
        const linear = (k) => short(linearOf(layer.logs[3 * i + k]));
        if (layer.kind === 'hdr') return `${layer.title} ≈ ${rgb.map(linear).join(' ')}`;
        const stored = (k) => layer.data[4 * i + k];
        if (layer.kind === 'ldr') return `${layer.title} ${rgb.map(stored).join(' ')}`;
        const { limit, power } = report.scales[layer.scale];
        return `${layer.title} ≈ ${short(limit * (layer.data[4 * i] / 255) ** (1 / power))}`;
      };
      const place = `column ${column}, row ${row}`;
      this.find('readout').textContent = `${place}   ${values('left')}   |   ${values('right')}`;
    }
  }

  // ---- opening scenes ---------------------------------------------------------------------------------

  const waiting = new Map();
  window.afunetScene = (key, data) => waiting.get(key)?.(data);

  // Pages opened from a disk may not read the pixels of an image beside them, but may run a script beside
  // them: that is why a scene's pictures come in one.
  function fetchScene(key, source) {
    const inlined = document.getElementById(`data-${key}`);
    if (inlined) return Promise.resolve(JSON.parse(inlined.textContent));
    return new Promise((resolve, reject) => {
      const script = document.createElement('script');
      waiting.set(key, (data) => { script.remove(); resolve(data); });
      script.onerror = () => {
        script.remove();
        reject(new Error(`${source} is missing beside this page.`));
      };
      script.src = source;
      document.head.append(script);
    });
  }

  async function open(details) {
    const place = details.querySelector('.pictures');
    if (!place) return;
    place.replaceChildren(make('p', 'note', 'Loading pictures'));
    try {
      const data = await fetchScene(details.dataset.scene, details.dataset.source);
      if (details.open) {
        details.viewer?.close();
        details.viewer = new Viewer(place, data);
        await details.viewer.ready;
      }
    } catch (error) {
      const message = make('p', 'message', error.message);
      message.setAttribute('role', 'alert');
      place.replaceChildren(message);
    }
  }

  const scenes = [...document.querySelectorAll('.scene')];
  for (const details of scenes) {
    details.addEventListener('toggle', () => {
      if (details.open) return open(details);
      details.viewer?.close();
      details.viewer = null;
      details.querySelector('.pictures')?.replaceChildren();
    });
    if (details.open) open(details);
  }

  // ---- the list: which metric, which order ------------------------------------------------------------

  const metric = document.getElementById('metric'), order = document.getElementById('order');

  function showMetric() {
    for (const details of scenes) {
      const values = report.values[details.dataset.row][metric.value];
      details.querySelectorAll('.value').forEach((cell, i) => {
        cell.lastElementChild.textContent = values[i].text;
        cell.classList.toggle('best', values[i].best);
      });
    }
    sortScenes();
  }

  // Scenes without a figure come last in any order.
  function compare(a, b) {
    if (order.value === 'given' || a === b) return 0;
    if (a === null || b === null) return a === null ? 1 : -1;
    return (a < b) === (order.value === 'low') ? -1 : 1;
  }

  function sortScenes() {
    const value = (details) => {
      const found = report.values[details.dataset.row][metric.value][0]?.value;
      return found == null ? null : Number(found);
    };
    const sorted = [...scenes].sort((a, b) => compare(value(a), value(b)) || a.dataset.row - b.dataset.row);
    if (sorted.some((details, i) => details !== document.querySelectorAll('.scene')[i])) {
      document.querySelector('.rows').append(...sorted);
    }
  }

  metric?.addEventListener('change', showMetric);
  order?.addEventListener('change', sortScenes);
  document.getElementById('theme').addEventListener('change', (event) => {
    document.documentElement.style.colorScheme = event.target.value;
  });
})();

"use strict";
// Draws what the page's data has to plot, with uPlot; each plot stands in the element of its name.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const made = new Map();

  function axis(label, more = {}) {
    return { label, stroke: colour("soft"), grid: { stroke: colour("line"), width: 1 }, ticks: { stroke: colour("line") }, ...more };
  }

  function line(u, from, to) {
    const at = ([x, y]) => [u.valToPos(x, "x", true), u.valToPos(y, "y", true)];
    const { ctx, bbox } = u;
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    ctx.beginPath();
    ctx.strokeStyle = colour("cut");
    ctx.lineWidth = 2 * devicePixelRatio;
    ctx.setLineDash([6 * devicePixelRatio, 4 * devicePixelRatio]);
    ctx.moveTo(...at(from));
    ctx.lineTo(...at(to));
    ctx.stroke();
    ctx.restore();
  }

  // y = x, as far as the plot shows it.
  function diagonal(u) {
    const { x, y } = u.scales;
    const [low, high] = [Math.max(x.min, y.min), Math.min(x.max, y.max)];
    if (low < high) line(u, [low, low], [high, high]);
  }

  const upright = (u, x) => line(u, [x, u.scales.y.min], [x, u.scales.y.max]);

  function points(u, index) {
    const [xs, ys] = u.data[index];
    const size = 4 * devicePixelRatio;
    const shapes = new Path2D();
    const { left, top, width, height } = u.bbox;
    for (let i = 0; i < xs.length; i++) {
      const x = u.valToPos(xs[i], "x", true), y = u.valToPos(ys[i], "y", true);
      if (x >= left && x <= left + width && y >= top && y <= top + height) shapes.rect(x - size / 2, y - size / 2, size, size);
    }
    u.ctx.save();
    u.ctx.fillStyle = u.series[index].stroke();
    u.ctx.globalAlpha = 0.7;
    u.ctx.fill(shapes);
    u.ctx.restore();
    return null;
  }

  function scatter(place, { all, chosen, x, y, log, has_diagonal }) {
    const ends = (at) => [all, chosen].flatMap((pairs) => pairs[at]);
    const range = (values) => { const low = Math.min(...values), high = Math.max(...values), room = (high - low || 1) * 0.03; return [low - room, high + room]; };
    const xs = range(ends(0)), ys = range(ends(1));
    const around = log ? [Math.max(0.8, Math.min(...ends(0)) * 0.9), Math.max(...ends(0)) * 1.1] : xs;
    return {
      options: {
        mode: 2,
        legend: { show: false },
        cursor: { drag: { x: true, y: true }, points: { show: false } },
        scales: { x: { time: false, distr: log ? 3 : 1, range: () => around }, y: { range: () => ys } },
        axes: [axis(x), axis(y, { size: 60 })],
        series: [null, { stroke: () => colour("all"), paths: points }, { stroke: () => colour("chosen"), paths: points }],
        hooks: has_diagonal ? { draw: [diagonal] } : {},
      },
      data: [null, all, chosen],
    };
  }

  function histogram(place, { middles, ranked, selected, cuts, x }) {
    const bars = (width) => uPlot.paths.bars({ size: [width, Infinity], align: 0 });
    const series = (label, name, counts) => ({ label, value: (u, v, s, i) => (i == null ? "" : counts[i].toLocaleString("en")), stroke: colour(name), width: 0, fill: colour(name), paths: bars(0.9), points: { show: false } });
    const step = middles[1] - middles[0];
    const least = Math.max(...ranked) * 0.01;
    const seen = (counts) => counts.map((count) => count && Math.max(count, least));
    return {
      options: {
        scales: { x: { time: false, range: () => [middles[0] - step, middles[middles.length - 1] + step] }, y: { range: (u, low, high) => [0, high * 1.05 || 1] } },
        axes: [axis(x), axis("rows", { size: 60 })],
        series: [{ label: x, value: (u, v) => (v == null ? "" : v.toPrecision(4)) }, series("ranked", "all", ranked), series("chosen", "chosen", selected)],
        hooks: { draw: [(u) => cuts.forEach((cut) => upright(u, cut))] },
      },
      data: [middles, seen(ranked), seen(selected)],
    };
  }

  // Shares of rows by length, a line a run.
  function lines(place, { xs, named, x }) {
    const names = ["all", "chosen", "cut", "good", "bad", "soft"];
    return {
      options: {
        scales: { x: { time: false, distr: 3 } },
        axes: [axis(x), axis("part of its core-set", { size: 70 })],
        series: [{ label: x }, ...named.map(([label], i) => ({ label, stroke: colour(names[i % names.length]), width: 2, points: { show: false } }))],
      },
      data: [xs, ...named.map(([, values]) => values)],
    };
  }

  const kinds = { scatter, histogram, lines };

  function draw(place) {
    made.get(place)?.destroy();
    const { kind, ...what } = data.plots[place.id];
    const { options, data: drawn } = kinds[kind](place, what);
    made.set(place, new uPlot({ width: place.clientWidth, height: 300, ...options }, drawn, place));
  }

  const places = [...document.querySelectorAll(".canvas")];
  places.forEach(draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => places.forEach(draw));
  addEventListener("resize", () => made.forEach((plot, place) => plot.setSize({ width: place.clientWidth, height: 300 })));
})();

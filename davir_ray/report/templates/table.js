"use strict";
// The table of the core-set's rows: searched, filtered and sorted here, and shown a hundred at a time. Text is only ever
// set as text.
(() => {
  const table = document.getElementById("rows");
  if (!table) return;
  const { rows: columns, folder } = JSON.parse(document.getElementById("data").textContent);
  const MORE = 100;
  const NUMBERS = new Set(["rank", "score", "tokens", "base", "reference"]);
  const ONE_LINE = 20;
  const SOUGHT = ["text", "id", "place", "source", "group"];
  const count = columns.rank.length;
  // Joiners change how a word looks and not which it is: it is found with and without them.
  const sought = (text) => text.toLowerCase().replace(/[\u200c\u200d]/g, "");
  const everything = columns.rank.map((_, i) => sought(SOUGHT.map((name) => columns[name]?.[i] ?? "").join(" ")));
  const names = [...table.querySelectorAll("th")].map((one) => one.dataset.column);
  const find = (id) => document.getElementById(id);
  const state = { sort: "rank", up: true, shown: MORE };

  function compared(column) {
    const values = columns[column];
    if (NUMBERS.has(column)) return (a, b) => (values[a] ?? -Infinity) - (values[b] ?? -Infinity) || a - b;
    const text = (i) => values[i] ?? "";
    return (a, b) => (text(a) < text(b) ? -1 : text(a) > text(b) ? 1 : a - b);
  }

  function wanted() {
    const words = sought(find("search").value).split(/\s+/).filter(Boolean);
    const [source, group] = [find("source").value, find("group")?.value ?? "*"];
    const found = [];
    for (let i = 0; i < count; i++) {
      if ((source === "*" || columns.source[i] === source.slice(1)) && (group === "*" || columns.group[i] === group.slice(1)) && words.every((word) => everything[i].includes(word))) found.push(i);
    }
    const order = compared(state.sort);
    return found.sort(state.up ? order : (a, b) => order(b, a));
  }

  function cell(column, i) {
    const made = document.createElement("td");
    const value = columns[column][i];
    made.className = NUMBERS.has(column) ? "n" : column === "text" || column === "place" ? column : "name";
    if (column === "place" && value !== null) {
      made.title = folder + value;
      made.classList.toggle("long", value.length > ONE_LINE);
    }
    made.textContent = value === null ? "-" : NUMBERS.has(column) && !Number.isInteger(value) ? Number(value.toPrecision(4)) : value;
    return made;
  }

  function show() {
    const found = wanted();
    const body = document.createElement("tbody");
    for (const i of found.slice(0, state.shown)) {
      const row = document.createElement("tr");
      row.append(...names.map((column) => cell(column, i)));
      body.append(row);
    }
    table.tBodies[0].replaceWith(body);
    const seen = Math.min(state.shown, found.length);
    find("found").textContent = `${found.length.toLocaleString("en")} rows found, ${seen.toLocaleString("en")} shown`;
    find("more").hidden = seen === found.length;
    for (const head of table.querySelectorAll("th")) {
      head.setAttribute("aria-sort", head.dataset.column !== state.sort ? "none" : state.up ? "ascending" : "descending");
    }
  }

  function options(id) {
    const select = find(id);
    if (!select) return;
    for (const name of [...new Set(columns[id])].sort()) {
      const option = document.createElement("option");
      option.value = `=${name}`;
      option.textContent = name || "(none)";
      select.append(option);
    }
    select.addEventListener("change", again);
  }

  function again() {
    state.shown = MORE;
    show();
  }

  function sortBy(column) {
    state.up = column === state.sort ? !state.up : !NUMBERS.has(column) || column === "rank";
    state.sort = column;
    again();
  }

  let pause;
  find("search").addEventListener("input", () => { clearTimeout(pause); pause = setTimeout(again, 120); });
  find("more").addEventListener("click", () => { state.shown += MORE; show(); });
  for (const head of table.querySelectorAll("th")) head.querySelector("button").addEventListener("click", () => sortBy(head.dataset.column));
  ["source", "group"].forEach(options);
  show();
})();

/* The page of a pair's answers. A model's words are only ever set as text. */
const BATCH = 50; // rows of the list that are made at once; scrolling makes more
const page = { a: "0", b: "", item: 0, order: [], judged: false };

const $ = (id) => document.getElementById(id);
const all = (selector) => document.querySelectorAll(selector);
const count = (number) => number.toLocaleString("en");
const short = (number) => (number && !(Math.abs(number) >= 0.1 && Math.abs(number) < 1e9) ? number.toPrecision(2) : number.toFixed(2));
const signed = (number) => (number < 0 ? "" : "+") + short(number);
const tell = (words) => { $("notice").textContent = words; };
const make = (tag, facts, ...children) => {
  const element = Object.assign(document.createElement(tag), facts);
  element.append(...children);
  return element;
};
const textOf = (text) => (text.trim() ? text : make("i", { textContent: text ? "only white space" : "empty" }));
const fact = (name, alpha, item = page.item) => page.set.answers[alpha]?.[name]?.[item] ?? null;
const hasSign = (item, sign) => page.set.answers[page.b].signs[item]?.includes(sign);
/* The difference in reward from A to B; null if it is not known. */
const gain = (item) => {
  const [low, high] = [page.a, page.b].map((alpha) => fact("reward", alpha, item));
  return low === null || high === null ? null : high - low;
};
// The sort keys of the list. The largest value comes first, unknown values last.
const SORTS = {
  gain: (item) => gain(item) ?? -Infinity,
  loss: (item) => -(gain(item) ?? Infinity),
  reward: (item) => fact("reward", page.b, item) ?? -Infinity,
  length: (item) => fact("tokens", page.b, item) ?? -Infinity,
};

/* Switches to another prompt set: its alphas, and its sort keys and filters. */
function choose(set) {
  const { alphas, names } = set;
  Object.assign(page, { set, item: 0 });
  $("set").value = page.data.sets.indexOf(set);
  $("role").textContent = set.role;
  if (!alphas.includes(page.a)) page.a = alphas[0];
  if (!alphas.includes(page.b)) page.b = alphas.includes(page.data.chosen) && page.data.chosen !== "0" ? page.data.chosen : alphas.at(-1);
  $("a").replaceChildren(...alphas.map((alpha) => new Option(`${alpha}: ${names[alpha]}`, alpha)));
  Object.assign($("b"), { max: alphas.length - 1, disabled: alphas.length < 2 });
  $("ticks").replaceChildren(...alphas.map((alpha, at) => new Option(alpha, at)));
  for (const button of $("variants").children) button.disabled = !alphas.includes(button.value);
  for (const option of all("#sort .rewarded")) option.disabled = !set.rewarded;
  if ($("sort").selectedOptions[0]?.disabled) $("sort").value = "order";
  $("filter-worse").hidden = !set.rewarded;
}

/* Shows other alphas or other prompts, and updates all that depends on them. */
function show(alphas) {
  Object.assign(page, alphas);
  const name = `alpha ${page.b}: ${page.set.names[page.b]}`;
  $("a").value = page.a;
  $("b").value = page.set.alphas.indexOf(page.b);
  $("b").setAttribute("aria-valuetext", name);
  $("b-name").textContent = name;
  for (const button of $("variants").children) button.ariaPressed = button.value === page.b;
  list();
  open(page.item);
}

/* Lists the prompts that match the search and the filters, sorted. */
function list() {
  const { id, text } = page.set.prompts, items = [...id.keys()], sought = $("search").value.toLowerCase(), sort = SORTS[$("sort").value];
  const boxes = [...all("#filters label:not([hidden]) input")], signs = boxes.filter((box) => box.checked).map((box) => box.value);
  for (const box of boxes) box.nextElementSibling.textContent = `(${count(items.filter((item) => hasSign(item, box.value)).length)})`;
  const found = (item) => [text[item], fact("response", page.a, item), fact("response", page.b, item)].some((each) => each?.toLowerCase().includes(sought));
  page.order = items.filter((item) => signs.every((sign) => hasSign(item, sign)) && (!sought || found(item)));
  const values = new Map(sort && page.order.map((item) => [item, sort(item)]));
  if (sort) page.order.sort((one, other) => (values.get(other) > values.get(one)) - (values.get(other) < values.get(one)));
  $("count").textContent = `${count(page.order.length)} of ${count(items.length)}`;
  $("list").replaceChildren();
  extend(BATCH);
}

function extend(rows) {
  $("list").append(...page.order.slice($("list").children.length, rows).map(row));
}

function row(item) {
  const { text, sample } = page.set.prompts, change = gain(item), tokens = fact("tokens", page.b, item);
  const facts = [sample[item] && `sample ${sample[item]}`, change !== null && `gain ${signed(change)}`, tokens === null ? "no response" : `${count(tokens)} tokens`];
  return make("li", {}, make("button", { type: "button", tabIndex: -1, onclick: () => open(item) },
    make("bdi", { textContent: text[item].slice(0, 200) }), make("small", { className: "quiet", textContent: facts.filter(Boolean).join(", ") })));
}

/* Opens one prompt and both responses to it. */
function open(item) {
  const { id, text, sample } = page.set.prompts, place = page.order.indexOf(item);
  page.item = item;
  if (!id.length) return tell("There are no answers here.");
  extend(place + 1);
  mark($("list").children[Math.max(0, place)]?.firstChild, place >= 0);
  $("prompt-title").textContent = `Prompt ${id[item]}` + (sample[item] ? `, sample ${sample[item]}` : "");
  $("prompt").replaceChildren(textOf(text[item]));
  const [a, b] = [page.a, page.b].map((alpha) => fact("response", alpha));
  const marked = $("marks").checked && a !== null && b !== null ? differences(a, b) : [];
  $("marked").textContent = marked ? (a === b && a !== null ? "the same text" : "") : "too long to mark";
  pane("a", page.a, "del", marked?.[0]);
  pane("b", page.b, "ins", marked?.[1]);
  clearTimeout(page.linking); // browsers allow only a few changes of the address per second
  page.linking = setTimeout(link, 200);
}

/* Marks the row of the open prompt. If it is not in the list, the Tab key goes to the first row. */
function mark(button, current) {
  const list = $("list"), focused = list.contains(document.activeElement);
  for (const each of all("#list [tabindex='0']")) Object.assign(each, { tabIndex: -1, ariaCurrent: null });
  if (!button) return;
  Object.assign(button, { tabIndex: 0, ariaCurrent: current ? "true" : null });
  if (focused) button.focus({ preventScroll: true });
  const [box, own] = [list, button].map((each) => each.getBoundingClientRect());
  if (current) list.scrollTop += Math.min(0, own.top - box.top) || Math.max(0, own.bottom - box.bottom);
}

function pane(side, alpha, tag, marked) {
  const response = fact("response", alpha), reward = fact("reward", alpha), change = gain(page.item), judgment = fact("judgment", alpha);
  const title = `${side.toUpperCase()}: alpha ${alpha}, ${page.set.names[alpha]}`, article = $(`pane-${side}`);
  article.ariaLabel = title;
  article.replaceChildren(make("h3", { textContent: title }));
  if (response === null) return article.append(make("p", { className: "quiet", textContent: `alpha ${alpha} has no response to this prompt` }));
  const rewards = reward === null ? [] : [`reward ${short(reward)}` + (side === "b" && change !== null ? ` (${signed(change)} from A)` : "")];
  const text = marked && response.trim() ? marked.map(({ text, own }) => (own ? make(tag, { textContent: text }) : text)) : [textOf(response)];
  article.append(make("ul", { className: "facts" }, ...[...rewards, ...fact("notes", alpha)].map((textContent) => make("li", { textContent }))),
    make("div", { className: "text", dir: "auto" }, ...text));
  if (judgment) article.append(make("details", { open: page.judged, ontoggle() { page.judged = this.open; } },
    make("summary", { textContent: "the judge's words" }), make("div", { className: "text", dir: "auto", textContent: judgment })));
}

function link() {
  const { id, sample } = page.set.prompts, { name } = page.set;
  history.replaceState(null, "", `#${new URLSearchParams({ set: name, prompt: id[page.item], sample: sample[page.item], a: page.a, b: page.b })}`);
}

/* Opens what the address names, and reports what this page does not have. */
function follow() {
  const asked = new URLSearchParams(location.hash.slice(1)), unknown = [], { sets } = page.data;
  const known = (key, values, same) => {
    const found = asked.has(key) ? values.find((value) => same(value, asked.get(key))) : undefined;
    if (asked.has(key) && found === undefined) unknown.push(`${key} ${asked.get(key)}`);
    return found;
  };
  choose(known("set", sets, (set, name) => set.name === name) ?? page.set ?? sets[0]);
  const { alphas, prompts: { id, sample } } = page.set, number = Number(asked.get("sample"));
  const [a, b] = ["a", "b"].map((key) => known(key, alphas, (alpha, text) => text && Number(alpha) === Number(text)) ?? page[key]);
  page.item = known("prompt", [...id.keys()], (item, name) => id[item] === name && sample[item] === number) ?? 0;
  show({ a, b });
  tell(unknown.length ? `This page does not have what the link names: ${unknown.join(", ")}.` : "");
}

/* The value `by` places further on. */
const moved = (values, now, by) => values[Math.min(values.length - 1, Math.max(0, values.indexOf(now) + by))];
const slide = (by) => show({ b: moved(page.set.alphas, page.b, by) });
const step = (by) => page.order.length && open(moved(page.order, page.item, by));
const READ_KEYS = {
  ArrowLeft: () => slide(-1), ArrowRight: () => slide(1), ArrowUp: () => step(-1), ArrowDown: () => step(1),
  k: () => step(-1), j: () => step(1), "/": () => $("search").focus(), v: startVoting,
};

function pressed(event) {
  const field = event.target.matches("select, input:not([type=checkbox], [type=range])");
  if (votes.on && event.repeat && event.key === "Enter") return event.preventDefault();
  if (event.key === "Escape") return field ? event.target.blur() : votes.on && endVoting();
  const act = (votes.on ? BALLOT_KEYS : READ_KEYS)[event.key];
  if (!act || field || !$("keys").checked || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  if (!votes.on || !event.repeat) act(); // holding a key down counts as one vote
}

function listen() {
  $("set").onchange = () => { choose(page.data.sets[$("set").value]); show(); };
  $("a").onchange = () => show({ a: $("a").value });
  $("b").oninput = () => show({ b: page.set.alphas[$("b").value] });
  $("variants").onclick = ({ target }) => target.value && show({ b: target.value });
  $("sort").onchange = $("filters").onchange = $("marks").onchange = () => show();
  $("search").oninput = () => { clearTimeout(page.seeking); page.seeking = setTimeout(show, 150); };
  $("list").onscroll = ({ target }) => { if (target.scrollTop + 2 * target.clientHeight > target.scrollHeight) extend(target.children.length + BATCH); };
  for (const [id, act] of Object.entries({ vote: startVoting, left: BALLOT_KEYS[1], right: BALLOT_KEYS[2], tie: BALLOT_KEYS[0], undo, save: saveVotes, leave: endVoting })) $(id).onclick = act;
  $("voter").onchange = queueUp;
  document.addEventListener("keydown", pressed);
  addEventListener("hashchange", follow);
}

function begin(data) {
  page.data = data;
  $("pair").textContent = data.pair;
  $("choice").textContent = data.choice;
  $("set").append(...data.sets.map(({ title }, at) => new Option(title, at)));
  $("expo").value = data.chosen;
  listen();
  follow();
  $("read").hidden = $("top").hidden = false;
}

unpack("data").then(begin).catch((error) => {
  tell(`The answers cannot be shown: ${error}. This page needs Chrome 103, Firefox 125, Safari 16.4 or later.`);
  throw error;
});

/* Blind votes: aligned against expo, with prompts and sides in random order. This browser keeps them until they are saved. */
const votes = { on: false, lost: false, cast: [], queue: [], left: "" };
const OTHER = { aligned: "expo", expo: "aligned" };
const voter = () => $("voter").value.trim();
const own = () => votes.cast.filter((vote) => vote.voter === voter());
const ballotOf = (vote) => page.data.vote.ballots.find((each) => each.prompt_id === vote.prompt_id && each.sample === vote.sample);

/* Reads the votes, or writes the given ones. Another tab may have cast some. If the browser keeps nothing, they last as long as the page. */
function kept(cast) {
  if (votes.lost) return votes.cast;
  const key = `expoflow votes ${page.data.pair} ${page.data.vote.key}`;
  try {
    if (cast) localStorage.setItem(key, JSON.stringify(cast));
    return JSON.parse(localStorage.getItem(key)) ?? [];
  } catch {
    votes.lost = true;
    tell("This browser cannot keep votes: save them before you close the page.");
    return votes.cast;
  }
}

function startVoting() {
  tell(page.data.vote.why ?? "");
  if (page.data.vote.why) return;
  votes.cast = kept();
  $("ballot-what").textContent = page.data.vote.words;
  setVoting(true);
  queueUp();
  scrollTo(0, 0);
}

function setVoting(on) {
  votes.on = on;
  $("ballot").hidden = !on;
  $("read").hidden = $("top").hidden = on;
}

/* Queues what this voter has not voted on, shuffled. */
function queueUp() {
  const done = new Set(own().map(ballotOf));
  const drawn = page.data.vote.ballots.filter((each) => !done.has(each)).map((ballot) => ({ ballot, place: Math.random() }));
  votes.queue = drawn.sort((one, other) => one.place - other.place).map(({ ballot }) => ballot);
  showBallot();
}

function showBallot(left = Math.random() < 0.5 ? "aligned" : "expo") {
  votes.left = left;
  const ballot = votes.queue.at(-1), set = page.data.sets[page.data.vote.set], over = !ballot, voted = own().length;
  $("progress").textContent = `${count(voted)} of ${count(voted + votes.queue.length)} voted` + (over ? ". Save the votes, or end." : "");
  for (const id of ["left", "right", "tie"]) $(id).disabled = over;
  $("undo").disabled = !voted;
  const alphas = { aligned: "0", expo: page.data.chosen };
  const shown = (variant) => (over ? "" : textOf(set.answers[alphas[variant]].response[ballot.item]));
  $("ballot-prompt").replaceChildren(over ? "" : set.prompts.text[ballot.item]);
  $("ballot-left").replaceChildren(shown(left));
  $("ballot-right").replaceChildren(shown(OTHER[left]));
}

function cast(winner) {
  if (!votes.queue.length) return;
  const { item, ...ballot } = votes.queue.pop(), { pair, vote: { prompts } } = page.data;
  const vote = { pair, prompts, ...ballot, winner, left: votes.left, voter: voter(), time: new Date().toISOString() };
  votes.cast = [...kept().filter((each) => each.voter !== vote.voter || ballotOf(each) !== ballotOf(vote)), vote];
  kept(votes.cast);
  showBallot();
}

/* Takes back the last vote of this voter, and asks again with the same sides. */
function undo() {
  votes.cast = kept();
  const last = own().at(-1);
  if (!last) return;
  votes.cast = votes.cast.filter((vote) => vote !== last);
  kept(votes.cast);
  votes.queue.push(ballotOf(last));
  showBallot(last.left);
}

function saveVotes() {
  votes.cast = kept();
  const lines = votes.cast.map((vote) => JSON.stringify(vote) + "\n");
  const href = URL.createObjectURL(new Blob(lines, { type: "application/jsonl" }));
  make("a", { href, download: `votes.${page.data.pair}.jsonl` }).click();
}

/* Ends voting, and only now reports who won. */
function endVoting() {
  setVoting(false);
  const won = (winner) => `${winner} ${count(votes.cast.filter((vote) => vote.winner === winner).length)}`;
  if (votes.cast.length) tell(`${count(votes.cast.length)} votes: ${["expo", "aligned", "tie"].map(won).join(", ")}.`);
  $("vote").focus();
}

const BALLOT_KEYS = { 1: () => cast(votes.left), 2: () => cast(OTHER[votes.left]), 0: () => cast("tie"), 3: () => cast("tie"), u: undo };

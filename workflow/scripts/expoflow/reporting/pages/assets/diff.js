/* Finds the words that two texts share: a longest common subsequence, for texts that are not too long. */
const CELLS = 4e6; // the most cells of its table
const segmenter = new Intl.Segmenter(undefined, { granularity: "word" });

/* The words of a text, each with the white space after it. */
function wordsOf(text) {
  const found = [];
  for (const { segment } of segmenter.segment(text))
    if (found.length && !segment.trim()) found[found.length - 1] += segment;
    else found.push(segment);
  return found;
}

/* The parts of both texts, in order: {text, own}, own if the other text lacks the part. Null if the texts are too long. */
function differences(...texts) {
  if (texts[0].length + texts[1].length > 100_000) return null;
  const words = texts.map(wordsOf), numbers = new Map(); // a number per word, since numbers compare faster
  const numberOf = (word) => numbers.get(word.trim()) ?? numbers.set(word.trim(), numbers.size).size - 1;
  const [a, b] = words.map((each) => Int32Array.from(each, numberOf));
  return (a.length + 1) * (b.length + 1) > CELLS ? null : common(a, b).map((flags, side) => parts(words[side], flags));
}

/* Whether each word of `a` and of `b` is in the longest common subsequence. */
function common(a, b) {
  const wide = b.length + 1, longest = new Uint16Array((a.length + 1) * wide); // length for the words from i of a and from j of b
  for (let i = a.length - 1; i >= 0; i--)
    for (let j = b.length - 1, at = i * wide + j; j >= 0; j--, at--)
      longest[at] = a[i] === b[j] ? longest[at + wide + 1] + 1 : Math.max(longest[at + wide], longest[at + 1]);
  const flags = [new Uint8Array(a.length), new Uint8Array(b.length)];
  for (let i = 0, j = 0; i < a.length && j < b.length; ) {
    if (a[i] === b[j]) flags[0][i++] = flags[1][j++] = 1;
    else if (longest[(i + 1) * wide + j] >= longest[i * wide + j + 1]) i++;
    else j++;
  }
  return flags;
}

/* Joins words into parts. */
function parts(words, flags) {
  const found = [];
  words.forEach((text, at) => {
    const own = !flags[at];
    if (found.at(-1)?.own === own) found.at(-1).text += text;
    else found.push({ text, own });
  });
  return found;
}

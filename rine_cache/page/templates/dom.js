// ---- Making elements, and how numbers and names are written. Text is only ever set as text, never as markup.

const MEAN = "mean",
  DASH = "–",
  MINUS = "−";

const make = (tag, attributes = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes))
    if (value === true) element.setAttribute(name, "");
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
};
const fixed = (value, digits = 1) => (value < 0 ? MINUS : "") + Math.abs(value).toFixed(digits);
const signed = (value, digits = 1) => (value < 0 ? MINUS : "+") + Math.abs(value).toFixed(digits);
const count = (value) => value.toLocaleString("en-US");
const several = (size, one, many = one + "s") => `${count(size)} ${size === 1 ? one : many}`;
const options = (select, entries, chosen) => {
  select.replaceChildren(...entries.map(([value, text]) => make("option", { value }, text)));
  select.value = entries.some(([value]) => value === String(chosen)) ? chosen : (entries[0]?.[0] ?? "");
};
// A long name may break after these, and nowhere else. Whoever uses it gives the name to screen readers too: they pause
// at each break.
const breakable = (text) =>
  text.split(/(?<=[_\-./+])/).flatMap((part, index) => (index ? [make("wbr"), part] : [part]));

// What a data block holds, packed as `build.py` packs it.
async function unpacked(block) {
  const bytes = Uint8Array.from(atob(block.textContent), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}

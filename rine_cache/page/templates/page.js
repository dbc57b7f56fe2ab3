// ---- The page: tabs, by the pattern of the ARIA authoring practices; colours, address, paper

const tabs = [...document.querySelectorAll("[role=tab]")];
const loading = new Map(),
  contents = new Map(); // of panels: a promise of their content, and those that are there
let quiet = true; // while the page opens, its address stays as it was
let current = null;

function remember({ panel, address }) {
  if (quiet || panel !== current) return;
  try {
    history.replaceState(null, "", "#" + address.map(encodeURIComponent).join("/"));
  } catch {
    /* some browsers refuse it for files */
  }
}

// A panel's data are unpacked when it is first opened.
async function load(panel, tab, protocol, metric) {
  const kind = panel.dataset.benchmark !== undefined ? Board : panel.id === "panel-blocks" ? Blocks : null;
  panel.setAttribute("aria-busy", "true");
  const content = kind
    ? new kind(panel, await unpacked(panel.querySelector(".payload")))
    : {
        panel,
        address: [tab.dataset.name],
        open() {
          remember(this);
        },
      };
  contents.set(panel, content);
  content.open(protocol, metric);
  panel.removeAttribute("aria-busy");
}

async function select(tab, { focus = false, protocol, metric } = {}) {
  for (const each of tabs) {
    const own = each === tab;
    each.setAttribute("aria-selected", own);
    each.tabIndex = own ? 0 : -1;
    document.getElementById(each.getAttribute("aria-controls")).hidden = !own;
  }
  hush();
  if (focus) tab.focus();
  tab.scrollIntoView({ block: "nearest", inline: "nearest" });
  const panel = (current = document.getElementById(tab.getAttribute("aria-controls")));
  const known = loading.has(panel);
  if (!known) loading.set(panel, load(panel, tab, protocol, metric));
  await loading.get(panel);
  if (!known) return;
  if (protocol) contents.get(panel).open(protocol, metric);
  else remember(contents.get(panel));
  dispatchEvent(new Event("resize")); // plots of a tab that was hidden learn their width
}

document.querySelector("[role=tablist]").addEventListener("click", (event) => {
  const tab = event.target.closest("[role=tab]");
  if (tab) select(tab);
});
document.querySelector("[role=tablist]").addEventListener("keydown", (event) => {
  const place = tabs.indexOf(event.target);
  const next = { ArrowRight: place + 1, ArrowLeft: place - 1, Home: 0, End: tabs.length - 1 }[event.key];
  if (place < 0 || next === undefined) return;
  event.preventDefault();
  select(tabs[(next + tabs.length) % tabs.length], { focus: true });
});

for (const radio of document.querySelectorAll("[name=theme]")) {
  radio.checked = radio.value === document.documentElement.dataset.theme;
  radio.addEventListener("change", () => {
    document.documentElement.dataset.theme = radio.value;
    try {
      localStorage.setItem("rine-cache-theme", radio.value);
    } catch {
      /* then it is for this visit */
    }
  });
}
addEventListener("keydown", (event) => {
  if (event.key === "Escape") hush();
});
addEventListener("scroll", follow, { passive: true });
addEventListener("beforeprint", () => {
  hush();
  const content = contents.get(current);
  if (content instanceof Board) content.print();
});

async function openAddress() {
  const [name, protocol, metric] = location.hash.slice(1).split("/").map(decodeURIComponent);
  // Without an address: the first benchmark of which something was measured, or else the first.
  const measured = tabs.find(
    (tab) => document.getElementById(tab.getAttribute("aria-controls")).dataset.measured !== undefined,
  );
  const tab = tabs.find((each) => each.dataset.name === name) ?? measured ?? tabs[0];
  if (tab) await select(tab, { protocol, metric });
}
openAddress().finally(() => {
  quiet = false;
});
addEventListener("hashchange", openAddress);

// Loaded in <head>, before Gradio's own scripts. No framework, no request of its own.
(() => {
  const TEXT = /*TEXT*/ {};
  const DEFAULT = /*DEFAULT*/ "";
  const cookie = (name) => (document.cookie.match(`(?:^|; )${name}=([^;]*)`) || [])[1];
  const base = location.pathname.replace(/[^/]*$/, "");

  // --- language: Gradio follows navigator.language, the server follows the cookie --------------
  let lang = cookie("lang");
  if (!TEXT[lang]) lang = DEFAULT || ((navigator.language || "en").toLowerCase().startsWith("zh") ? "zh" : "en");
  const keepLanguage = (value) => {
    document.cookie = `lang=${value}; path=${base}; max-age=31536000; SameSite=Lax`;
  };
  keepLanguage(lang);
  const locale = lang === "zh" ? "zh-CN" : "en";
  Object.defineProperty(navigator, "language", { get: () => locale, configurable: true });
  Object.defineProperty(navigator, "languages", { get: () => [locale], configurable: true });
  document.documentElement.lang = locale;
  const say = (key) => (TEXT[lang] || TEXT.en || {})[key] || key;

  // --- event streams over WebSockets: see webui/streams.py ----------------------------------------
  const plainFetch = window.fetch.bind(window);
  let sockets = "WebSocket" in window;
  const overSocket = (url, init, ended, again) => new Promise((resolve, reject) => {
    const address = new URL(`${base}streams`, location.href);
    address.protocol = address.protocol.replace("http", "ws");
    const path = url.pathname.slice(url.pathname.indexOf("/gradio_api/"));
    address.searchParams.set("to", path + url.search);
    const socket = new WebSocket(address);
    socket.binaryType = "arraybuffer";
    let body = null;
    let answered = false;
    const stop = () => {
      socket.close();
      const reason = new DOMException("signal is aborted without reason", "AbortError");
      if (answered) { try { body.error(reason); } catch { /* ended already */ } } else reject(reason);
    };
    if (init?.signal?.aborted) return stop();
    init?.signal?.addEventListener("abort", stop);
    socket.onmessage = ({ data }) => {
      if (answered) return body.enqueue(new Uint8Array(data));
      answered = true;
      const { status, type } = JSON.parse(data);
      const stream = new ReadableStream({ start: (it) => { body = it; }, cancel: () => socket.close() });
      resolve(new Response(stream, { status, headers: { "content-type": type } }));
    };
    socket.onclose = ({ code }) => {
      if (!answered && again) return reject(new TypeError("network error"));
      if (!answered) { // no WebSockets here: plain requests from now on
        sockets = false;
        plainFetch(url, init).then(resolve, reject);
      } else if (code === 1000) {
        try { body.close(); } catch { /* cancelled */ }
      } else {
        try { body.error(new TypeError("network error")); } catch { /* cancelled */ }
      }
      if (answered) ended?.();
    };
  });
  // Gradio opens a tab's heartbeat once. After a laptop's lid or a lost network it beats again, or
  // the server would forget the tab, and the picture that was chosen in it, at every longer pause.
  const beatAgain = async (url, signal) => {
    for (let wait = 1000; !signal?.aborted; wait = Math.min(wait * 2, 60_000)) {
      await new Promise((done) => setTimeout(done, wait));
      const begun = Date.now();
      await new Promise((done) => overSocket(url, { signal }, done, true).catch(done));
      if (Date.now() - begun > 20_000) wait = 500;
    }
  };
  window.fetch = (input, init) => {
    const url = new URL(input instanceof Request ? input.url : input, location.href);
    const ours = url.origin === location.origin && url.pathname.startsWith(`${base}gradio_api/`);
    const streams = /\/gradio_api\/(heartbeat\/|queue\/data)/.test(url.pathname);
    const beats = url.pathname.includes("/heartbeat/") && (() => beatAgain(url, init?.signal));
    if (ours && streams && sockets) return overSocket(url, init, beats || undefined);
    const answer = plainFetch(input, init);
    if (!ours || init?.method !== "POST") return answer;
    const told = answer.then(inWords);
    // What shows the picture again, and what follows any event, leaves the words of a refusal.
    const quiet = url.pathname.endsWith("/queue/join") || String(init.body).includes('"act":"picture"');
    told.then((said) => { if (!quiet || !said.ok) tellRefusal(said); }, () => {});
    // Gradio shows the body of a refused upload as it is, and reads that of an event as JSON.
    return url.pathname.endsWith("/upload") ? told : answer;
  };
  // What is not taken is said in words, by the server, or for a proxy that answers in its own page.
  const inWords = async (answer) => {
    if (answer.ok) return answer;
    const said = await answer.clone().text().catch(() => "");
    let words = /^\s*</.test(said) ? "" : said;
    if (said.startsWith("{")) try { words = JSON.parse(said).error; } catch { words = ""; }
    if (typeof words !== "string" || !words) {
      words = say(answer.status === 413 ? "toast_size" : answer.status > 500 ? "toast_broken" : "toast_refused");
    }
    return new Response(words, { status: answer.status, statusText: answer.statusText });
  };
  const tellRefusal = async (answer) => {
    const words = answer.ok ? "" : await answer.clone().text();
    const place = document.querySelector("#notice");
    let line = document.querySelector("#refused");
    if (!place || (!line && !words)) return;
    if (!line) {
      line = Object.assign(document.createElement("div"), { id: "refused" });
      line.setAttribute("role", "alert");
      place.before(line);
    }
    line.className = words ? "notice error" : "";
    line.textContent = words;
  };
  // Behind a proxy the server may not know the page's address; the browser does.
  let config;
  Object.defineProperty(window, "gradio_config", {
    configurable: true,
    get: () => config,
    set: (given) => { config = given && { ...given, root: location.origin + base.slice(0, -1) }; },
  });

  // --- light and dark: the system's, until the switch is used ----------------------------------
  const stored = (box, key) => { try { return box.getItem(key); } catch { return null; } };
  const store = (box, key, value) => { try { box.setItem(key, value); } catch { /* private mode */ } };
  let theme = stored(localStorage, "theme");
  const applyTheme = () => {
    if (!theme || !document.body) return;
    const dark = theme === "dark";
    if (document.body.classList.contains("dark") !== dark) document.body.classList.toggle("dark", dark);
  };

  // --- what survives a reload: the draft in this tab, the answer settings in this browser ------
  const textarea = () => document.querySelector("#box textarea");
  let leaving = false; // logging out: the next person in this tab gets no draft
  addEventListener("submit", (event) => { leaving ||= event.target.matches(".leave"); });
  const keepDraft = () => { store(sessionStorage, "draft", leaving ? "" : textarea()?.value || ""); };
  addEventListener("pagehide", keepDraft);
  let draft = "";
  const boot = () => {
    draft = stored(sessionStorage, "draft") || "";
    const sampling = stored(localStorage, "sampling") || "";
    return JSON.stringify({
      chat: (new URLSearchParams(location.search).get("chat") || "").slice(0, 200),
      sampling: sampling.length < 50_000 ? sampling : "", // the page opens, whatever was kept
    });
  };
  // The draft stays here: one that is too long to be sent would keep the page from opening.
  const restoreDraft = () => {
    const typed = textarea()?.value || "";
    if (draft && !typed.startsWith(draft)) setDraft(typed.trim() ? `${draft}\n${typed}` : draft, false);
    draft = "";
  };
  // Presets come as lists of the panel's values, null for any: see webui/presets.py.
  const keepSampling = (values, presets) => {
    store(localStorage, "sampling", JSON.stringify(values));
    const fits = (row) => row.every((value, i) => value === null || value === values[i]);
    return [Object.keys(presets).find((name) => fits(presets[name])) ?? null];
  };

  const setDraft = (value, focus = true) => {
    const area = textarea();
    if (!area) return;
    // Past box.js, which takes any other writing for the server's.
    Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, "value").set.call(area, value);
    area.dispatchEvent(new Event("input", { bubbles: true }));
    if (focus) area.focus();
  };
  // An offered question takes the place of another offered one, never of somebody's own words.
  let offered = "";
  const offer = (question) => {
    const now = textarea()?.value.trim() || "";
    setDraft(now && now !== offered ? `${now} ${question}` : question);
    offered = question;
  };

  // --- buttons in our own HTML -------------------------------------------------------------------
  const copy = async (button) => {
    const words = button.closest(".answer").querySelector(".words").innerText;
    try {
      await navigator.clipboard.writeText(words);
    } catch { // plain http beyond localhost has no clipboard API
      const area = Object.assign(document.createElement("textarea"), { value: words });
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    button.classList.add("done");
    button.title = say("copied");
    setTimeout(() => { button.classList.remove("done"); button.title = say("copy"); }, 1500);
  };

  const edit = (button, trigger) => {
    const turn = button.closest(".turn");
    const bubble = turn.querySelector(".question .bubble");
    if (turn.querySelector(".editor")) return;
    const words = bubble.querySelector(".words");
    const editor = document.createElement("form");
    editor.className = "editor";
    const area = document.createElement("textarea");
    area.value = words.innerText;
    area.setAttribute("aria-label", say("edit_label"));
    const make = (kind, label) => Object.assign(document.createElement("button"),
      { type: kind === "word primary" ? "submit" : "button", className: kind, textContent: label });
    const save = make("word primary", say("edit_save"));
    const cancel = make("word", say("edit_cancel"));
    const close = () => { editor.remove(); words.hidden = false; button.focus(); };
    cancel.onclick = close;
    area.onkeydown = (event) => {
      if (event.key === "Escape") { event.stopPropagation(); close(); }
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        editor.requestSubmit();
      }
    };
    editor.onsubmit = (event) => {
      event.preventDefault();
      // It goes when the new turn comes. Where that is refused, what was written stays.
      trigger("click", { act: "edit", id: button.dataset.id, text: area.value });
    };
    editor.append(area, cancel, save);
    words.hidden = true;
    bubble.append(editor);
    area.focus();
  };

  const switchTheme = () => {
    theme = document.body.classList.contains("dark") ? "light" : "dark";
    store(localStorage, "theme", theme);
    applyTheme();
  };
  const switchLanguage = () => { keepLanguage(lang === "zh" ? "en" : "zh"); location.reload(); };
  const narrow = () => matchMedia("(max-width: 768px)").matches;
  const closeMenu = () => {
    if (narrow()) document.querySelector(".sidebar.open .toggle-button")?.click();
  };

  const act = (event, trigger) => {
    const button = event.target.closest("[data-act]");
    if (!button) return;
    const { act: name, id = "", text = "", ask = "" } = button.dataset;
    if (name === "open" && (event.ctrlKey || event.metaKey || event.shiftKey)) return; // a new tab
    event.preventDefault();
    if (name === "copy") return void copy(button);
    if (name === "edit") return void edit(button, trigger);
    if (name === "theme") return void switchTheme();
    if (name === "language") return void switchLanguage();
    if (name === "ask") { closeMenu(); return void offer(text); }
    if (name === "delete" && !confirm(ask)) return;
    if (name === "rename") {
      const title = prompt(say("rename_ask"), text);
      if (!title || !title.trim()) return;
      return void trigger("click", { act: name, id, text: title });
    }
    if (name === "open" || name === "new") closeMenu();
    trigger("click", { act: name, id, text });
  };

  // --- a picture dropped or pasted anywhere on the page goes to the picture box -----------------
  const hand = (files) => {
    // Several at once go to the question box, where each can be seen and removed.
    const where = files.length > 1 ? "#box" : "#picture";
    const input = document.querySelector(`${where} input[type=file]`);
    if (!input) return;
    const transfer = new DataTransfer();
    for (const file of files) transfer.items.add(file);
    input.files = transfer.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  };
  const ours = (event) => !event.target.closest?.("#box, #picture");
  addEventListener("dragover", (event) => { if (ours(event)) event.preventDefault(); });
  addEventListener("drop", (event) => {
    if (!ours(event)) return;
    event.preventDefault(); // else the browser would leave the page for the file
    if (event.dataTransfer.files.length) hand([...event.dataTransfer.files]);
  });
  addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files || [])];
    if (files.length && ours(event)) hand(files);
  });

  // --- names for Gradio's own buttons, which come without or in English ------------------------
  const NAMES = [
    ["#box .submit-button", "send"], ["#box .stop-button", "stop"], ["#box .upload-button", "attach"],
    ["#box .delete-button", "remove_file"], ["#picture button[aria-label='Capture from camera']", "camera"],
    ["#picture button[aria-label='Upload file']", "upload"],
    ["#picture button[aria-label='Paste from clipboard']", "paste"],
    ["#picture button[aria-label='Remove Image']", "clear_picture"],
    ["#picture button[aria-label='Fullscreen']", "fullscreen"],
    ["button[aria-label='Click to upload or drop files']", "upload"], ["input[aria-label='File upload']", "upload"], ["#box .full-container", "box"],
    [".sidebar.open .toggle-button", "menu_close"], [".sidebar:not(.open) .toggle-button", "menu_open"],
  ];
  // Gradio's own messages are English: said again in the page's language and words.
  const TOASTS = [
    [/^Invalid file type: (.*)\. Only .* allowed\.$/, "toast_type"], [/^File size exceeds|^File\(s\) exceed the maximum/, "toast_size"],
    [/^Connection to the server was lost/, "connection_lost"], [/currently busy|queue is full/i, "toast_busy"],
    [/^Connection errored out|^Could not (parse|resolve)|^(TypeError: )?(Failed to fetch|network error)/i, "toast_broken"],
    [/^Error$/, "toast_error"], [/^Warning$/, "toast_warning"], [/^Info$/, "toast_info"],
  ];
  // Gradio empties the picture box for a file that is refused, while the next question keeps its picture.
  const restorePicture = () => setTimeout(() => send("picture"));
  const translateToasts = () => {
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const toasts = document.querySelectorAll(".toast-wrap, [data-testid=toast-body]");
    for (const toast of toasts) {
      walker.currentNode = toast;
      for (let node = walker.nextNode(); node && toast.contains(node); node = walker.nextNode()) {
        if (/^\s*HTTP \d{3}: /.test(node.data)) { // the server's own words
          node.data = node.data.replace(/^\s*HTTP \d{3}: /, "");
          restorePicture();
        }
        for (const [pattern, key] of TOASTS) {
          const match = node.data.trim().match(pattern);
          if (!match) continue;
          node.data = say(key).replace("{name}", match[1] || "");
          if (key === "toast_size") restorePicture();
        }
      }
    }
  };
  const nameThings = () => {
    translateToasts();
    for (const [selector, key] of NAMES) {
      for (const element of document.querySelectorAll(selector)) {
        if (element.dataset.named === lang + key) continue;
        element.dataset.named = lang + key;
        element.setAttribute("aria-label", say(key));
        element.title = say(key);
      }
    }
    for (const image of document.querySelectorAll("#picture img:not([alt]), #picture img[alt='']")) {
      image.alt = say("next_picture");
    }
    for (const input of document.querySelectorAll("input[type=file]:not([aria-label])")) {
      input.setAttribute("aria-label", say("upload"));
    }
    // What is out of sight must not be reached by the Tab key either.
    const drawer = document.querySelector(".sidebar-content");
    if (drawer) drawer.inert = !drawer.closest(".sidebar.open");
    const area = textarea();
    if (area && !area.getAttribute("aria-label")) area.setAttribute("aria-label", say("box"));
    const log = document.querySelector("#log");
    if (log && !log.getAttribute("role")) {
      log.setAttribute("role", "log");
      log.setAttribute("aria-live", "polite");
      log.setAttribute("aria-label", say("log"));
      log.tabIndex = 0;
      followBottom(log);
    }
  };

  // --- the log stays at its end unless somebody has scrolled up ----------------------------------
  const followBottom = (log) => {
    let stuck = true;
    let chat = null;
    log.addEventListener("scroll", () => {
      stuck = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
    }, { passive: true });
    const settle = () => {
      const turns = log.querySelector(".turns");
      const now = turns?.dataset.chat || "";
      if (turns && now !== chat) { chat = now; stuck = true; showChat(now, turns.dataset.title || ""); }
      if (log.querySelector(".turn.live") && !log.dataset.busy) stuck = true; // a question just sent
      log.dataset.busy = log.querySelector(".turn.live") ? "1" : "";
      const busy = log.dataset.busy ? "true" : "false"; // screen readers speak the whole answer, once
      if (log.getAttribute("aria-busy") !== busy) log.setAttribute("aria-busy", busy);
      if (stuck) log.scrollTop = log.querySelector(".welcome") ? 0 : log.scrollHeight;
    };
    new MutationObserver(settle).observe(log, { childList: true, subtree: true, characterData: true, attributes: true, attributeFilter: ["data-chat"] });
    log.addEventListener("load", settle, true); // pictures
    new ResizeObserver(settle).observe(log);
    settle();
  };
  const showChat = (id, title) => {
    const address = new URL(location.href);
    const before = address.searchParams.get("chat") || "";
    if (id) address.searchParams.set("chat", id); else address.searchParams.set("chat", "new");
    if (before !== address.searchParams.get("chat")) {
      const another = before && before !== "new"; // a new chat that gets its id is no step
      history[another ? "pushState" : "replaceState"](history.state, "", address);
    }
    document.title = title ? `${title} – ${say("title")}` : say("title");
  };

  // An action without a button of its own.
  const send = (name, id = "") => {
    const button = Object.assign(document.createElement("button"), { type: "button", hidden: true });
    Object.assign(button.dataset, { act: name, id });
    document.querySelector(".top")?.append(button);
    button.click();
    button.remove();
  };
  addEventListener("popstate", () => {
    const id = new URLSearchParams(location.search).get("chat") || "new";
    const shown = document.querySelector("#log .turns")?.dataset.chat || "new";
    if (id !== shown) send(id === "new" ? "new" : "open", id);
  });

  const start = () => {
    applyTheme();
    new MutationObserver(applyTheme).observe(document.body, { attributes: true, attributeFilter: ["class"] });
    let waiting = false;
    const later = () => {
      if (waiting) return;
      waiting = true;
      setTimeout(() => { waiting = false; nameThings(); }, 60);
    };
    new MutationObserver(later).observe(document.body, { childList: true, subtree: true, attributes: true, attributeFilter: ["class", "aria-label"] });
    nameThings();
  };
  if (document.body) start(); else document.addEventListener("DOMContentLoaded", start);

  window.page = { act, boot, keepSampling, keepDraft, restoreDraft, say, send, setDraft, textarea };
})();

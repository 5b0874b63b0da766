// The question box: nothing typed is lost, no question leaves without its picture. After page.js.
(() => {
  const { keepDraft, say, send, setDraft, textarea } = window.page;
  const touch = () => matchMedia("(hover: none)").matches;
  const inBox = (event) => event.target.closest?.("#box");
  const sends = (event) => inBox(event) && (event.type === "click"
    ? event.target.closest(".submit-button")
    : event.key === "Enter" && !event.shiftKey && !event.isComposing && event.keyCode !== 229);

  // --- the server writes into the box: to empty it after a question, to give a taken-back one ----
  let sent = null; // what stood in the box when it was sent
  const guard = (area) => {
    const { get, set } = Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, "value");
    const mine = (words) => setTimeout(() => { if (words !== get.call(area)) setDraft(words); });
    Object.defineProperty(area, "value", {
      configurable: true,
      get() { return get.call(area); },
      set(value) {
        const now = get.call(area);
        set.call(area, value);
        if (value === now) return;
        if (!value && sent !== null && now !== sent) {
          mine(now.startsWith(sent) ? now.slice(sent.length) : now); // typed while it was on its way
        } else if (value && now.trim() && !value.includes(now.trim())) {
          mine(now.startsWith(value) ? now : `${value}\n${now}`);
        }
        sent = null;
        keepDraft();
      },
    });
    area.addEventListener("input", keepDraft);
  };

  // --- pictures on their way ----------------------------------------------------------------------
  let uploads = 0; // running, and pictures that the server has not taken yet
  let expected = 0; // timer: a picture that has come is announced to the server within this time
  let held = false; // Send was pressed meanwhile
  let intoBox = false;
  const line = document.createElement("div");
  line.className = "notice";
  line.setAttribute("role", "alert");
  const show = (key, kind = "") => {
    line.textContent = say(key);
    line.className = `notice ${kind}`;
    document.querySelector("#box")?.before(line);
  };
  const ready = (well) => {
    if (uploads || expected || !held) return;
    line.remove();
    if (well) document.querySelector("#box .submit-button")?.click();
    held = false;
  };
  const pass = window.fetch;
  window.fetch = async (input, init) => {
    const path = new URL(input instanceof Request ? input.url : input, location.href).pathname;
    const upload = /\/gradio_api\/upload$/.test(path);
    const announced = expected && path.includes("/gradio_api/run/");
    if (!upload && !announced) return pass(input, init);
    if (announced) { clearTimeout(expected); expected = 0; }
    uploads += 1;
    let well = false;
    try {
      const answer = await pass(input, init);
      well = answer.ok;
      return answer;
    } finally {
      uploads -= 1;
      if (upload && well && !intoBox) expected = setTimeout(() => { expected = 0; ready(true); }, 500);
      // The page shows first what the server said of the picture.
      else setTimeout(() => ready(well && (intoBox || !document.querySelector("#notice .notice.error"))), 50);
    }
  };
  for (const kind of ["change", "drop", "paste", "click"]) {
    addEventListener(kind, (event) => {
      if (inBox(event)) intoBox = true;
      else if (event.target.closest?.("#picture")) intoBox = false;
    }, true);
  }

  const press = (event) => {
    if (!sends(event)) return;
    if (uploads || expected) {
      event.preventDefault();
      event.stopImmediatePropagation();
      held = true;
      return void show("hint_uploading");
    }
    sent = textarea()?.value ?? null;
  };
  addEventListener("click", press, true);
  addEventListener("keydown", press, true);

  // --- keys and focus -----------------------------------------------------------------------------
  addEventListener("click", (event) => {
    const pressed = event.target.closest?.("#box .submit-button, #box .stop-button");
    if (pressed && !touch()) setTimeout(() => textarea()?.focus());
  });
  addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || event.defaultPrevented || event.isComposing) return;
    const drawer = document.querySelector(".sidebar.open");
    if (drawer?.contains(document.activeElement)) drawer.querySelector(".toggle-button").click();
    else if (document.querySelector("#box .stop-button")) {
      document.querySelector("#box .stop-button").click();
    }
  });

  // --- a tab that was away shows what happened meanwhile -------------------------------------------
  const look = () => send("look", document.querySelector("#log .turns")?.dataset.chat || "");
  let away = false;
  const back = () => {
    if (!away || document.hidden || document.querySelector(".editor")) return;
    away = false;
    look();
  };
  addEventListener("blur", () => { away = true; });
  addEventListener("focus", back);
  document.addEventListener("visibilitychange", () => { if (document.hidden) away = true; else back(); });
  addEventListener("offline", () => show("connection_lost", "error"));
  addEventListener("online", () => { line.remove(); look(); });

  const find = () => {
    const area = textarea();
    if (area && !area.dataset.kept) { area.dataset.kept = "1"; guard(area); }
  };
  new MutationObserver(find).observe(document.documentElement, { childList: true, subtree: true });
})();

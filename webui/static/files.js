// Pictures that the browser does not know to be some: most desktops have no type for HEIC, and
// Gradio takes only what has an image's type.
(() => {
  const SUFFIXES = /*SUFFIXES*/ [];
  const untyped = (file) =>
    !file.type.startsWith("image/") && SUFFIXES.some((end) => file.name.toLowerCase().endsWith(end));
  const typed = (files) => {
    const transfer = new DataTransfer();
    for (const file of files) {
      transfer.items.add(untyped(file) ? new File([file], file.name, { type: "image/heic" }) : file);
    }
    return transfer;
  };
  // Before Gradio hears of them.
  addEventListener("change", (event) => {
    const input = event.target;
    if (input.type === "file" && [...input.files].some(untyped)) input.files = typed(input.files).files;
  }, true);
  addEventListener("drop", (event) => {
    const files = [...(event.dataTransfer?.files || [])];
    if (!files.some(untyped)) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    const again = { dataTransfer: typed(files), bubbles: true, cancelable: true };
    event.target.dispatchEvent(new DragEvent("drop", again));
  }, true);
  // A chooser that is to show pictures would hide them.
  addEventListener("click", (event) => {
    const input = event.target;
    if (input.type === "file" && input.accept === "image/*") input.accept = ["image/*", ...SUFFIXES].join();
  }, true);
})();

() => {
  // Where the cursor is in the prompt, and images that are dropped on it or pasted into it: they go
  // the way of those that are chosen by the button, whose file input is found in the page.
  const find = () => document.querySelector("#prompt textarea");
  let cursor = 0;
  let length = 0;
  const note = (event) => {
    if (event.target !== find()) return;
    cursor = event.target.selectionStart;
    length = event.target.value.length;
  };
  window.kosmosg = {
    cursor: () => {
      const text = find()?.value ?? "";
      // What was put there meanwhile stands before the cursor, as if it had been typed.
      cursor = Math.min(Math.max(cursor, cursor + text.length - length), text.length);
      length = text.length;
      return cursor;
    },
    folder: "",
    // Half the width of a stroke, twelve of which fill the shorter side of the image.
    brushSize: () => Math.max(1, Math.round(Math.min(window.editor.width, window.editor.height) / 24)),
  };
  for (const name of ["keyup", "click", "input", "focusout", "select"]) {
    document.addEventListener(name, note, true);
  }
  const give = (files) => {
    const input = document.querySelector("input[type=file]:has(+ #add-images)");
    const images = [...files];
    if (!input || !images.length) return false;
    const carrier = new DataTransfer();
    images.forEach((file) => carrier.items.add(file));
    input.files = carrier.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
    return true;
  };
  const box = () => document.querySelector("#prompt-box");
  const within = (event) => box()?.contains(event.target);
  document.addEventListener("dragover", (event) => {
    if (!within(event) || !event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    box().classList.add("dropping");
  }, true);
  document.addEventListener("dragleave", () => box()?.classList.remove("dropping"), true);
  document.addEventListener("drop", (event) => {
    box()?.classList.remove("dropping");
    if (!within(event) || !event.dataTransfer?.files.length) return;
    event.preventDefault();
    event.stopPropagation();
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry());
    const folder = entries.find((entry) => entry?.isDirectory);
    if (!folder) return give(event.dataTransfer.files);
    window.kosmosg.folder = folder.name;
    document.querySelector("#folder-dropped").click();
  }, true);
  document.addEventListener("paste", (event) => {
    if (!within(event) || !event.clipboardData?.files.length) return;
    event.preventDefault();
    give(event.clipboardData.files);
  }, true);
}

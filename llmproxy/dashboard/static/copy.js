// Copy buttons. They are hidden until this runs: without JavaScript a click on the key selects it.
"use strict";

function said(text) {
  const place = document.querySelector("[data-said]");
  if (place) place.textContent = text;
}

// Over plain HTTP browsers offer no clipboard: the old way then.
function copySelected(source) {
  const range = document.createRange();
  range.selectNodeContents(source);
  const selection = getSelection();
  selection.removeAllRanges();
  selection.addRange(range);
  return document.execCommand("copy");
}

async function copy(button) {
  const source = document.getElementById(button.dataset.copy);
  let done = false;
  try {
    await navigator.clipboard.writeText(source.textContent);
    done = true;
  } catch {
    done = copySelected(source);
  }
  button.textContent = done ? "Copied" : "Select and copy it";
  said(done ? "Copied." : "");
  setTimeout(() => { button.textContent = "Copy"; }, 2000);
}

for (const button of document.querySelectorAll("[data-copy]")) {
  button.hidden = false;
  button.addEventListener("click", () => copy(button));
}

// Copy buttons, which are hidden until this runs: without JavaScript a click on the key selects it.
// And forms are sent once, however often the button is pressed: the second answer would hide the
// first, which may show a key that is shown only once.
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

for (const form of document.querySelectorAll("form[method=post]")) {
  form.addEventListener("submit", (event) => {
    if (form.dataset.sent) event.preventDefault();
    form.dataset.sent = "yes";
  });
}
addEventListener("pageshow", () => {
  for (const form of document.forms) delete form.dataset.sent;
});

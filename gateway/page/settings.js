// What a reader may choose: the switches above the field and the two dialogs.
import { byId } from "./dom.js";
import * as store from "./store.js";
import { setLanguage, t, translate } from "./strings.js";

export function applyTheme() {
  const { theme } = store.settings;
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
}

// Every control with data-setting holds one setting. `onChange(name)` after it is kept.
export function bindSettings(onChange) {
  const form = byId("settings-form");
  for (const control of document.querySelectorAll("[data-setting]")) {
    const { setting } = control.dataset;
    if (control.type === "radio") control.checked = store.settings[setting] === control.value;
    else control.value = store.settings[setting];
    control.addEventListener("change", () => {
      if (!control.checkValidity()) return;
      store.changeSettings({ [setting]: control.value });
      onChange(setting);
    });
  }
  form.addEventListener("submit", (event) => {
    event.preventDefault();  // Enter in a field: what is wrong is shown, else it is done
    if (form.reportValidity()) byId("settings").close();
  });
  byId("open-settings").addEventListener("click", () => byId("settings").showModal());
}

// What no control does by itself.
export function applySetting(name) {
  if (name === "theme") applyTheme();
  if (name === "thinking") byId("reasoning-language").disabled = store.settings.thinking === "off";
  if (name !== "language") return;
  setLanguage(store.settings.language);
  translate();
}

// Deletes only at the second click.
export function bindRemoveAll(remove) {
  const button = byId("remove-all");
  const calm = () => {
    button.classList.remove("sure");
    button.textContent = t("removeAll");
  };
  button.addEventListener("click", () => {
    if (button.classList.contains("sure")) {
      calm();
      remove();
    } else {
      button.classList.add("sure");
      button.textContent = t("removeAllSure");
    }
  });
  button.addEventListener("blur", calm);
}

let asking = null;

// Asks for an API key; true once there is one, false if the reader declined. One dialog for all who ask.
export function askForKey() {
  asking ??= new Promise((resolve) => {
    const dialog = byId("key");
    const field = byId("key-field");
    byId("key-wrong").hidden = store.apiKey() === "";
    field.value = "";
    dialog.returnValue = "";
    dialog.addEventListener("close", () => {
      const given = dialog.returnValue === "use" ? field.value.trim() : "";
      field.value = "";
      if (given !== "") store.setApiKey(given);
      asking = null;
      resolve(given !== "");
    }, { once: true });
    dialog.showModal();
  });
  return asking;
}

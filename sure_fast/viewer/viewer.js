"use strict";
// Shows the cases of cases.js; the voxels of a case are in a script of its own, which a page opened from a file may load.
const LAYERS = ["image", "prediction", "label", "uncertainty"];
const VIEWS = ["MULTIPLANAR", "AXIAL", "CORONAL", "SAGITTAL"];
const MOVES = { AXIAL: [0, 0, 1], CORONAL: [0, 1, 0], SAGITTAL: [1, 0, 0], MULTIPLANAR: [0, 0, 1] };
const { title, classes, scale, cases } = window.sureFastCases;
const $ = (id) => document.getElementById(id);
const waiting = {};
let viewer, current = 0, view = "MULTIPLANAR", volumes = {}, showing = Promise.resolve();

window.sureFastCase = (number, voxels) => waiting[number](voxels);

function voxelsOf(number) {
  return new Promise((resolve, reject) => {
    waiting[number] = resolve;
    const script = document.createElement("script");
    script.src = `cases/${number}.js`;
    script.onload = () => script.remove();
    script.onerror = () => reject(new Error(`cases/${number}.js cannot be read`));
    document.head.append(script);
  });
}

function listCases() {
  $("title").textContent = title;
  document.title = title;
  $("summary").textContent = `${cases.length} cases, the most uncertain first`;
  cases.forEach((one, number) => {
    const button = document.createElement("button");
    const name = document.createElement("span"), u = document.createElement("span"), told = document.createElement("small");
    name.textContent = one.name;
    u.textContent = `u ${one.uncertainty.toFixed(3)}`;
    told.textContent = [
      one.percentile === null ? "" : `above ${one.percentile.toFixed(0)} % of the validation cases`,
      one.dice === null ? "" : `Dice ${one.dice.toFixed(3)}`,
    ].filter(Boolean).join(", ");
    button.append(name, u, told);
    button.addEventListener("click", () => show(number));
    const item = document.createElement("li");
    item.append(button);
    $("cases").append(item);
    $("choice").add(new Option(`${one.name}, u ${one.uncertainty.toFixed(3)}`, number));
  });
  $("choice").addEventListener("change", (event) => show(Number(event.target.value)));
}

function labelColours() {
  const table = { R: [0], G: [0], B: [0], A: [0], I: [0], labels: ["background"] };
  classes.forEach(({ number, name, colour }) => {
    [["R", colour[0]], ["G", colour[1]], ["B", colour[2]], ["A", 255], ["I", number], ["labels", name]]
      .forEach(([key, value]) => table[key].push(value));
  });
  return table;
}

function legend() {
  const stops = scale.I.map((at, k) => `rgb(${scale.R[k]},${scale.G[k]},${scale.B[k]}) ${(100 * at) / 255}%`);
  const bar = document.createElement("span"), colours = document.createElement("span");
  colours.className = "bar";
  colours.style.background = `linear-gradient(to right, ${stops.join(",")})`;
  bar.append("u: 0", colours, $("largest").value);
  const marks = classes.map(({ name, colour }) => {
    const mark = document.createElement("span"), patch = document.createElement("i");
    patch.style.background = `rgb(${colour.join(",")})`;
    mark.append(patch, name);
    return mark;
  });
  $("legend").replaceChildren(...marks, bar);
}

// One case after the other, however fast they are asked for.
function show(number) {
  showing = showing.then(() => load(number)).catch((error) => { $("place").textContent = error.message; });
  return showing;
}

async function load(number) {
  const one = cases[number], voxels = await voxelsOf(one.number);
  [...viewer.volumes].forEach((volume) => viewer.removeVolume(volume));
  volumes = {};
  for (const layer of LAYERS.filter((name) => voxels[name])) {
    const options = { base64: voxels[layer], name: `${layer}.nii.gz`, opacity: 1 };
    if (layer === "image") Object.assign(options, { colormap: "gray", cal_min: one.window[0], cal_max: one.window[1] });
    if (layer === "uncertainty") Object.assign(options, { colormap: "uncertainty", cal_min: 0, cal_max: 1 });
    const volume = await niivue.NVImage.loadFromBase64(options);
    if (layer === "prediction" || layer === "label") volume.setColormapLabel(labelColours());
    volumes[layer] = volume;
    viewer.addVolume(volume);
  }
  current = number;
  $("of-label").hidden = !volumes.label;
  document.querySelectorAll("#cases button").forEach((button, k) => {
    if (k === number) { button.setAttribute("aria-current", "true"); button.scrollIntoView({ block: "nearest" }); }
    else button.removeAttribute("aria-current");
  });
  $("choice").value = number;
  const flat = one.flat;
  document.querySelectorAll("#views button").forEach((button) => { button.disabled = flat; });
  setView(flat ? "AXIAL" : view, !flat);
  layersChanged();
  toPeak();
}

function setView(name, kept = true) {
  if (kept) view = name;
  viewer.setSliceType(niivue.SLICE_TYPE[name]);
  document.querySelectorAll("#views button").forEach((button) =>
    button.setAttribute("aria-pressed", String(button.dataset.view === name)));
}

function layersChanged() {
  const largest = Number($("scale").value);
  $("largest").value = String(largest);
  viewer.volumes.forEach((volume, k) => {
    const layer = LAYERS.find((name) => volumes[name] === volume);
    if (layer === "image") return;
    if (layer === "uncertainty") volume.cal_max = largest;
    viewer.setOpacity(k, $(`show-${layer}`).checked ? Number($(`opacity-${layer}`).value) : 0);
  });
  viewer.updateGLVolume();
  legend();
}

function toPeak() {
  const mm = cases[current].place;
  if (mm === null) return;
  viewer.scene.crosshairPos = viewer.mm2frac([...mm]);
  viewer.drawScene();
  viewer.createOnLocationChange();
}

function toggle(layer) {
  if (!volumes[layer]) return;
  $(`show-${layer}`).checked = !$(`show-${layer}`).checked;
  layersChanged();
}

function located(location) {
  const name = (value) => (classes.find(({ number }) => number === value) || { name: "background" }).name;
  const values = Object.fromEntries(location.values.map(({ value }, k) => [
    LAYERS.find((layer) => volumes[layer] === viewer.volumes[k]), value]));
  const parts = [`${[...location.mm].slice(0, 3).map((x) => x.toFixed(1)).join(", ")} mm`];
  if (values.image !== undefined) parts.push(`image ${Number(values.image.toPrecision(4))}`);
  for (const layer of ["prediction", "label"]) if (values[layer] !== undefined) parts.push(`${layer} ${name(values[layer])}`);
  if (values.uncertainty !== undefined) parts.push(`u ${values.uncertainty.toFixed(3)}`);
  $("place").textContent = `${cases[current].name}: ${parts.join("; ")}`;
}

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || ["SELECT", "INPUT"].includes(event.target.tagName)) return;
  const step = MOVES[cases[current].flat ? "AXIAL" : view];
  const actions = {
    ArrowUp: () => show(Math.max(current - 1, 0)),
    ArrowDown: () => show(Math.min(current + 1, cases.length - 1)),
    ArrowLeft: () => viewer.moveCrosshairInVox(...step.map((x) => -x)),
    ArrowRight: () => viewer.moveCrosshairInVox(...step),
    p: () => toggle("prediction"), l: () => toggle("label"), u: () => toggle("uncertainty"), " ": toPeak,
  };
  if (!cases[current].flat) VIEWS.forEach((name, k) => { actions[k + 1] = () => setView(name); });
  const action = actions[event.key];
  if (!action) return;
  event.preventDefault();
  event.stopPropagation();
  action();
}

async function start() {
  viewer = new niivue.Niivue({
    dragAndDropEnabled: false, isNearestInterpolation: true, logLevel: "error", backColor: [0, 0, 0, 1],
    show3Dcrosshair: true, multiplanarShowRender: niivue.SHOW_RENDER.NEVER, viewModeHotKey: "", clipPlaneHotKey: "",
    cycleClipPlaneHotKey: "", crosshairColor: [0.3, 0.8, 1, 0.9], crosshairWidth: 0.3, crosshairGap: 4,
    fontColor: [1, 1, 1, 0.9], isRadiologicalConvention: true, isSliceMM: false,
  });
  if (!document.createElement("canvas").getContext("webgl2")) throw new Error("This page needs a browser with WebGL 2.");
  await viewer.attachToCanvas($("canvas"));
  viewer.addColormap("uncertainty", scale);
  viewer.onLocationChange = located;
  document.querySelectorAll("#views button").forEach((button) =>
    button.addEventListener("click", () => setView(button.dataset.view)));
  $("layers").addEventListener("input", layersChanged);
  $("peak").addEventListener("click", toPeak);
  window.addEventListener("keydown", pressed, true);
  listCases();
  await show(0);
  document.body.dataset.ready = "true";
}

start().catch((error) => { $("place").textContent = error.message; });

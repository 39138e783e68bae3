// The page around sample.js: a form, and a canvas for each image.

import { load, sample } from "./sample.js";

const form = document.forms[0], fields = form.elements, button = form.querySelector("button");
const state = document.querySelector("#state"), images = document.querySelector("#images");
let network, card, tables;

fields.folder.onchange = () => run(async () => {
  const files = Object.fromEntries([...fields.folder.files].map((file) => [file.name, file]));
  const missing = ["card.json", "samplers.json", "network.onnx"].filter((name) => !files[name]);
  if (missing.length) throw new Error(`the folder lacks ${missing.join(", ")}`);
  card = JSON.parse(await files["card.json"].text());
  ({ tables } = JSON.parse(await files["samplers.json"].text()));
  network = await load(await files["network.onnx"].arrayBuffer());
  offer(fields.label, ["any", ...card.class_names]);
  offer(fields.table, tables.map((table) => `${table.sampler}, ${table.num_inference_steps}`));
  fields.guidance.value = card.sampling?.guidance_scale ?? 1;
  return `${card.name}: images of ${card.image_size.join(" x ")} pixels.`;
});

form.onsubmit = (event) => {
  event.preventDefault();
  run(async () => {
    const count = Number(fields.count.value), seed = BigInt(fields.seed.value);
    const label = fields.label.selectedIndex ? fields.label.selectedIndex - 1 : null;
    const table = tables[fields.table.selectedIndex], started = performance.now();
    const guidance = label === null ? 1 : Number(fields.guidance.value);
    images.replaceChildren(...Array.from({ length: count }, canvas));
    for await (const pixels of sample(network, card, table, seed, count, label, guidance)) {
      images.childNodes.forEach((canvas, i) => draw(canvas, pixels, i));
      await new Promise(requestAnimationFrame);
    }
    return `${count} images in ${((performance.now() - started) / 1000).toFixed(1)} s.`;
  });
};

/** Run a task with the button off, and show what it returns or why it failed. */
async function run(task) {
  button.disabled = true;
  state.textContent = "One moment ...";
  try {
    state.textContent = await task();
  } catch (error) {
    state.textContent = `That failed: ${error.message}`;
  }
  button.disabled = !network;
}

function offer(select, names) {
  select.replaceChildren(...names.map((name) => new Option(name)));
}

function canvas() {
  const [height, width] = card.image_size;
  return Object.assign(document.createElement("canvas"), { height, width });
}

/** Draw image i; grey if there are fewer than three channels. */
function draw(canvas, pixels, i) {
  const area = canvas.width * canvas.height, image = new ImageData(canvas.width, canvas.height);
  const plane = (c) => (i * card.channels + (card.channels < 3 ? 0 : c)) * area;
  for (let p = 0; p < area; p++) {
    image.data.set([pixels[plane(0) + p], pixels[plane(1) + p], pixels[plane(2) + p], 255], 4 * p);
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

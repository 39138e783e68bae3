// The pages and their modules. Those of the first page are asked for at once, while the modules that
// all pages need are still on their way.

import { routeOf } from "./route.js";

/** The module and the component of each page by its address, that of `#/x/name` by `x/`. */
export const PAGES = {
  "": ["start.js", "Start"],
  noise: ["noise.js", "Noise"],
  explain: ["explain.js", "Explain"],
  datasets: ["datasets.js", "Datasets"],
  "datasets/": ["dataset.js", "Dataset"],
  training: ["training.js", "Training"],
  "training/": ["job.js", "Job"],
  runs: ["runs.js", "Runs"],
  models: ["models.js", "Models"],
  "models/": ["model.js", "Model"],
  sample: ["sample.js", "Sample"],
  compare: ["compare.js", "Compare"],
  "compare/": ["compare.js", "Compare"],
  gallery: ["gallery.js", "Gallery"],
  trash: ["trash.js", "Trash"],
};

export const addressOf = (section = "", name) => (name === undefined ? section : `${section}/`);

const needed = JSON.parse(document.getElementById("modules").textContent);

/** Loads the component of a page: all modules that it imports at once. */
export async function load(address) {
  const [module, component] = PAGES[address];
  preload(module);
  return (await import(`../pages/${module}`))[component];
}

function preload(module) {
  for (const path of needed[module].splice(0)) {
    const link = document.createElement("link");
    Object.assign(link, { rel: "modulepreload", href: new URL(`../${path}`, import.meta.url).href });
    document.head.append(link);
  }
}

const first = PAGES[addressOf(...routeOf(location.hash).parts)];
if (first) preload(first[0]);

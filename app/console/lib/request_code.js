// A request for images as code: the same request for each language, to be copied and run.

const FILES = { init_image: "image.png", mask: "mask.png" };
const KEY = "DIFFUSION_API_KEY"; // the environment variable that the client reads, too

const address = () => new URL(".", document.baseURI.split("#")[0]).href.replace(/\/$/, "");

/** `needsKey`: the service has keys, so that the request has to carry one. */
export function curl(request, needsKey) {
  const body = JSON.stringify(request, (name, value) => (name in FILES ? `@${name}` : value));
  const json = quoted(body).replace(
    /@(init_image|mask)/g,
    (_, name) => `'$(base64 -w0 ${FILES[name]})'`,
  );
  const key = needsKey ? ` \\\n     -H "Authorization: Bearer $${KEY}"` : "";
  return `curl --json ${json}${key} \\\n     -H 'Accept: image/png' ${address()}/sample -o images.png`;
}

export function python({ model, ...rest }, needsKey) {
  const given = Object.entries(rest)
    .filter(([, value]) => value !== undefined)
    .map(
      ([name, value]) =>
        `, ${name}=${name in FILES ? `open("${FILES[name]}", "rb").read()` : literal(value)}`,
    );
  return [
    "from client.client import Client",
    "",
    ...(needsKey ? [`# the key is read from the environment variable ${KEY}`] : []),
    `with Client("${address()}") as service:`,
    `    made = service.sample(${literal(model)}${given.join("")})`,
    "    for i, image in enumerate(made.images):",
    '        open(f"{i}.png", "wb").write(image)',
  ].join("\n");
}

const literal = (value) =>
  typeof value === "boolean" ? (value ? "True" : "False") : JSON.stringify(value);

/** A module that runs in Node, and in a browser apart from its last line. */
export function javascript(request, needsKey) {
  const key = needsKey ? `\n    Authorization: \`Bearer \${process.env.${KEY}}\`,` : "";
  const body = JSON.stringify(request, undefined, 2).replaceAll("\n", "\n  ");
  return `import { writeFile } from "node:fs/promises";

const answer = await fetch("${address()}/sample", {
  method: "POST",
  headers: {
    "Content-Type": "application/json",
    Accept: "application/json",${key}
  },
  body: JSON.stringify(${body}),
});
if (!answer.ok) throw new Error(await answer.text());
const { images } = await answer.json(); // PNG files in base64
for (const [i, image] of images.entries()) await writeFile(\`\${i}.png\`, Buffer.from(image, "base64"));`;
}

/** Lines of a shell that download the model as ONNX and make the images without the service. */
export function onnxPython(request, needsKey) {
  const { model, num_images: count = 1, seed = 0, class_label: label } = request;
  const folder = folderOf(model);
  const key = needsKey ? ` -H "Authorization: Bearer $${KEY}"` : "";
  const url = `${address()}/models/${encodeURIComponent(model)}/download?format=onnx`;
  const ofClass = label === undefined ? "" : ` --class ${quoted(label)}`;
  return [
    "# pip install onnxruntime numpy pillow",
    `curl${key} ${quoted(url)} -o ${folder}.zip`,
    `python -m zipfile -e ${folder}.zip ${folder}`,
    `python examples/portable/sample.py ${folder} -n ${count} --seed ${seed}${ofClass} -o images.png`,
  ].join("\n");
}

/** The script of a page beside docs/portable/sample.js, with the unpacked download in a folder. */
export function onnxJavascript({ model, num_images: count = 1, seed = 0, class_label: label }) {
  const folder = folderOf(model);
  return `// npm install --prefix docs/portable
import { load, sample } from "./sample.js";

const get = (name) => fetch(\`${folder}/\${name}\`);
const card = await (await get("card.json")).json();
const { tables } = await (await get("samplers.json")).json();
const network = await load(await (await get("network.onnx")).arrayBuffer());
const label = ${label === undefined ? "null" : `card.class_names.indexOf(${JSON.stringify(label)})`};
let images; // bytes: images x channels x height x width
for await (images of sample(network, card, tables[0], ${seed}n, ${count}, label));`;
}

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** A model's name without its owner, as the name of a file. */
const folderOf = (name) => name.split(":").at(-1);

// A mask painted over an image: the painted part is made again.

import { html, useEffect, useRef, useState } from "../vendor/htm-preact.js";
import { base64, blobOf, toBase64 } from "../lib/files.js";
import { useAction } from "../lib/hooks.js";
import { ProblemText, Range } from "../lib/parts.js";

const SIDE = 256; // longest side of the canvas; the service scales the mask
const COLOUR = "#e0218a"; // unlike most pictures
const PARTS = [
  ["Upper half", [0, 0, 1, 0.5]],
  ["Lower half", [0, 0.5, 1, 0.5]],
  ["Left half", [0, 0, 0.5, 1]],
  ["Right half", [0.5, 0, 0.5, 1]],
  ["Middle", [0.25, 0.25, 0.5, 0.5]],
];

export function Paint({ image, onPaint }) {
  const canvas = useRef();
  const picture = useRef();
  const [brush, setBrush] = useState(24);
  const [covered, setCovered] = useState(false);
  const [shape, setShape] = useState([SIDE, SIDE]);
  const context = () => canvas.current.getContext("2d");

  useEffect(() => {
    const { naturalWidth: width, naturalHeight: height } = picture.current;
    if (width) fit(width, height);
  }, []);
  const fit = (width, height) => {
    const scale = SIDE / Math.max(width, height);
    setShape([Math.round(scale * width), Math.round(scale * height)]);
  };

  const paint = (draw) => {
    context().fillStyle = COLOUR;
    draw(context());
    setCovered(true);
  };
  const dab = (event) => {
    if (event.buttons !== 1) return;
    event.preventDefault();
    const box = canvas.current.getBoundingClientRect();
    const scale = shape[0] / box.width;
    paint((context) => {
      context.beginPath();
      context.arc(
        (event.clientX - box.left) * scale,
        (event.clientY - box.top) * scale,
        brush / 2,
        0,
        7,
      );
      context.fill();
    });
  };
  const clear = () => {
    context().clearRect(0, 0, ...shape);
    setCovered(false);
  };
  const done = useAction(async () =>
    onPaint(await toBase64(await blobOf(maskOf(canvas.current)))),
  );
  const [width, height] = shape;
  return html`
    <section aria-label="Repaint a part">
      <div class="paint">
        <img
          ref=${picture}
          src=${base64(image)}
          alt=""
          onLoad=${({ target }) => fit(target.naturalWidth, target.naturalHeight)}
        />
        <canvas
          ref=${canvas}
          width=${width}
          height=${height}
          role="img"
          aria-label="The part to repaint; paint over it, or choose a part below"
          onPointerDown=${(event) => {
            event.target.setPointerCapture(event.pointerId);
            dab(event);
          }}
          onPointerMove=${dab}
        ></canvas>
      </div>
      <p class="note">Paint over the part to repaint; the rest stays.</p>
      <${Range} label="Brush" min="6" max="96" value=${brush} onChange=${setBrush} />
      <div class="actions" role="group" aria-label="Cover a part">
        ${PARTS.map(
          ([name, [x, y, w, h]]) =>
            html`<button
              class="small"
              onClick=${() => paint((c) => c.fillRect(x * width, y * height, w * width, h * height))}
            >${name}</button>`,
        )}
        <button class="small" disabled=${!covered} onClick=${clear}>Clear</button>
      </div>
      <button class="primary" disabled=${!covered} onClick=${done.run}>Repaint</button>
      <${ProblemText} problem=${done.problem} />
    </section>
  `;
}

/** Returns the mask: white where the canvas is painted, black elsewhere. */
function maskOf(painted) {
  const mask = document.createElement("canvas");
  [mask.width, mask.height] = [painted.width, painted.height];
  const target = mask.getContext("2d");
  const fill = (how, colour) => {
    target.globalCompositeOperation = how;
    target.fillStyle = colour;
    target.fillRect(0, 0, mask.width, mask.height);
  };
  target.drawImage(painted, 0, 0);
  fill("source-in", "#fff");
  fill("destination-over", "#000");
  return mask;
}

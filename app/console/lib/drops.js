// Files that are dropped anywhere in the window, or pasted, go to the page's first place for files.

import { useLayoutEffect, useRef } from "../vendor/htm-preact.js";
import { report } from "./notices.js";

const NOWHERE =
  "This page takes no files. Drop images on Datasets, a model on Models, a picture to dissolve on Noise.";

/** Functions of a source for files.js, in the order of their places on the page. */
const places = new Set();

/** Has files that are dropped outside any place, or pasted, passed to `onFiles`. */
export function useDrops(onFiles) {
  const now = useRef({}).current;
  now.onFiles = onFiles;
  useLayoutEffect(() => { // a file may be dropped as soon as the page is seen
    const place = (source) => now.onFiles(source);
    places.add(place);
    return () => places.delete(place);
  }, []);
}

const first = () => places.values().next().value;
const root = document.documentElement;
let isOfPage = false; // something of the page itself is dragged, such as an image to a class

const hasFiles = (event) => !isOfPage && event.dataTransfer.types.includes("Files");

addEventListener("dragstart", () => (isOfPage = true));
addEventListener("dragend", () => (isOfPage = false));
addEventListener("dragover", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault(); // else the browser would leave the page for the file
  if (first()) root.dataset.dragging = "";
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) delete root.dataset.dragging; // the pointer has left the window
});
addEventListener("drop", (event) => {
  delete root.dataset.dragging;
  if (event.defaultPrevented || !hasFiles(event)) return; // a place has taken them
  event.preventDefault();
  if (first()) first()(event.dataTransfer);
  else report(NOWHERE);
});
addEventListener("paste", (event) => {
  if (event.defaultPrevented || !event.clipboardData.files.length || !first()) return;
  event.preventDefault();
  first()(event.clipboardData);
});

// From one page to another -------------------------------------------------------------------------

let handed;

/** Keeps a source for the next place that asks. */
export const handOver = (source) => {
  handed = source;
};

/** Returns the source that was handed over, once. */
export function takeOver() {
  const source = handed;
  handed = undefined;
  return source;
}

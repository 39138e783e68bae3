// Dropped or chosen files, and downloads.

import { downloadZip } from "../vendor/client-zip.js";
import { send } from "./api.js";

// The archives that the service reads (models/images/readers.py).
const ARCHIVES = [".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".parquet"];
const ARCHIVE = new RegExp(`(${ARCHIVES.join("|").replaceAll(".", "\\.")})$`, "i");

/** For a file input: archives, by the end of their names, and images. */
export const ARCHIVES_AND_IMAGES = [
  ...new Set(ARCHIVES.map((suffix) => `.${suffix.split(".").at(-1)}`)),
  "image/*",
].join();

/**
 * Returns {name, blob}: the given archive, or a zip of the given files, whose paths `check` may
 * refuse. Throws Error without files.
 */
export async function archiveOf(source, check = () => {}) {
  const files = await filesOf(source);
  if (!files.length) throw new Error("There are no files.");
  if (files.length === 1 && ARCHIVE.test(files[0].path)) {
    return { name: stem(files[0].path), blob: files[0].file };
  }
  check(files.map(({ path }) => path));
  // A single folder is the dataset; the folders in it are its classes.
  const top = files[0].path.split("/")[0];
  const isOne = files.every(({ path }) => path.startsWith(`${top}/`));
  const entries = files.map(({ path, file }) => ({
    name: isOne ? path.slice(top.length + 1) : path,
    input: file,
    lastModified: new Date(2000, 0, 1), // so that the same files make the same archive
  }));
  return { name: isOne ? top : "images", blob: await downloadZip(entries).blob() };
}

/** Returns the first of the dropped or chosen files. */
export const imageOf = (source) => source.files[0];

/** Returns the dropped or chosen files, those in folders too, as [{path, file}]. */
export async function filesOf(source) {
  if (Array.isArray(source)) return source; // found before
  const entries = [...(source.items ?? [])]
    .map((item) => item.webkitGetAsEntry?.())
    .filter(Boolean);
  const found = entries.length
    ? (await Promise.all(entries.map(filesIn))).flat()
    : [...source.files].map((file) => ({ path: file.webkitRelativePath || file.name, file }));
  return found
    .filter(({ path }) => !path.split("/").some((part) => part.startsWith(".")))
    .sort((a, b) => (a.path < b.path ? -1 : 1));
}

async function filesIn(entry) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    return [{ path: entry.fullPath.slice(1), file }];
  }
  const reader = entry.createReader();
  const inside = [];
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) break;
    inside.push(...some);
  }
  return (await Promise.all(inside.map(filesIn))).flat();
}

/** The last part of a path, without the suffix of an archive. */
export const stem = (path) => path.split("/").at(-1).replace(ARCHIVE, "");

/** Turns any text into a name that the service accepts. */
export const nameOf = (text) =>
  text
    .toLowerCase()
    .replace(/[^a-z0-9._-]+/g, "-")
    .replace(/^[^a-z0-9]+/, "")
    .slice(0, 60) || "images";

export function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** Sends a request and saves the answer as a file. */
export async function download(address, name, options) {
  save(await (await send(address, options)).blob(), name);
}

const SMALL = 256 * 256; // pixels

/** Scales an image or a canvas down to fit a square of `side` pixels, as a PNG; never enlarges it. */
export async function scaled(image, side) {
  const bitmap = await createImageBitmap(image);
  const scale = Math.min(1, side / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(scale * bitmap.width));
  canvas.height = Math.max(1, Math.round(scale * bitmap.height));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.fillStyle = "#fff"; // behind transparent pixels, as in the service
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return blobOf(canvas);
}

/** Returns a PNG. Browsers put `toBlob` off until they are idle, which a small picture need not wait for. */
export const blobOf = (canvas) =>
  canvas.width * canvas.height <= SMALL
    ? pngOf(canvas.toDataURL("image/png").split(",")[1])
    : new Promise((resolve) => canvas.toBlob(resolve, "image/png"));

/** Returns a PNG as a blob; `fetch` of a data: URL is refused by the Content-Security-Policy. */
export const pngOf = (text) =>
  new Blob([Uint8Array.from(atob(text), (character) => character.charCodeAt(0))], {
    type: "image/png",
  });

export const base64 = (text) => `data:image/png;base64,${text}`;

export async function toBase64(blob) {
  const content = new Uint8Array(await blob.arrayBuffer());
  return btoa(content.reduce((text, byte) => text + String.fromCharCode(byte), ""));
}

// The fields of a request, as the service describes them: labels, options and bounds.

import { get } from "./api.js";
import { keyed } from "./hooks.js";
import { given } from "./parts.js";

/**
 * For useAnswer: the labelled fields of a request, in order. Each has path ("net/dropout"), label,
 * about, and either parts, the fields inside it, or type, options, min, max and fallback.
 */
export const fieldsOf = (request) =>
  keyed(`fields of ${request}`, async (signal) => {
    const { schemas } = (await get("openapi.json", signal)).components;
    return labelled(schemas[request], schemas);
  });

function labelled(schema, schemas, prefix = "") {
  return Object.entries(schema.properties)
    .filter(([, field]) => field["x-label"])
    .map(([name, field]) => described(`${prefix}${name}`, field, schemas));
}

function described(path, field, schemas) {
  const [form] = field.anyOf ?? [field]; // the others are null, or longer ways to write the same
  const description = { path, label: field["x-label"], about: field.description };
  if (form.$ref)
    return { ...description, parts: labelled(schemas[form.$ref.split("/").at(-1)], schemas, `${path}/`) };
  const { type, enum: options, minimum: min, maximum: max } = form;
  return { ...description, type, options, min, max, fallback: field.default };
}

/** All fields that hold a value, those inside others too. */
export const leaves = (fields) => fields.flatMap((field) => field.parts ?? [field]);

/** What an input's text means for a field: nothing, a truth value, a number, a text, or a list. */
export function valueOf(field, text) {
  if (text === "" || text === undefined) return undefined;
  if (field.type === "boolean") return text === "true";
  if (field.type === "array") return text.split(/[ ,]+/).filter(Boolean).map(given);
  return field.type === "string" ? text : given(text);
}

/** The value of a field in a resolved config; undefined where the config does not have it. */
export function valueIn(config, path) {
  if (path === "class_conditional") return config.class_names.length > 0;
  if (path === "image_size") return config.image_size.join(" × ");
  return path.split("/").reduce((part, name) => part?.[name], config);
}

/** A value of a config in words. */
export function shown(value) {
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (Array.isArray(value)) return value.join(", ");
  return value === null || value === undefined ? "" : `${value}`;
}

// The gallery: what was sampled and kept, searched, starred, tagged and looked at.

import { html, useEffect, useMemo, useRef, useState } from "../vendor/htm-preact.js";
import { get, pagesOf, patch } from "../lib/api.js";
import { useAction, useAnswer, useConnection } from "../lib/hooks.js";
import { discard } from "../lib/notices.js";
import { Input, Page, ProblemText, Select, countOf } from "../lib/parts.js";
import { SettingsDrop } from "../lib/pictures.js";
import { Picture, titleOf } from "./picture.js";

const PAGE = 100; // pictures
const AHEAD = "800px"; // below the window, where the next page is loaded
const DAY = /^\d{4}-\d\d-\d\d$/;

/** `query` has the filters, and in `picture` the id of the one that is open. */
export function Gallery({ query: { picture: id, ...query } }) {
  const { model, class: className, tag, starred, from, to, notes } = query;
  const list = usePictures({
    ...(model && { model }),
    ...(className && { class: className }),
    ...(tag && { tag }),
    ...(starred && { starred }),
    ...(DAY.test(from) && { since: midnight(from) }),
    ...(DAY.test(to) && { until: midnight(to, 1) }),
    ...(notes && { text: notes }),
  });
  const facets = useAnswer("pictures/facets" + (model ? `?${new URLSearchParams({ model })}` : ""));
  const [picked, setPicked] = useState(new Set());
  const isFiltered = Object.keys(query).length > 0;
  const address = (changes) => {
    const now = Object.entries({ ...query, ...changes }).filter(([, value]) => value);
    return `#/gallery${now.length ? `?${new URLSearchParams(now)}` : ""}`;
  };
  const filter = (changes) => location.replace(address(changes));
  const suffix = address({}).replace("#/gallery?", "&").replace("#/gallery", "");
  const changed = () => facets.refresh();
  const drop = (ids) => {
    list.drop(ids);
    setPicked((old) => new Set([...old].filter((each) => !ids.includes(each))));
    changed();
  };
  const { num_pictures: count, max_pictures: most } = facets.data ?? {};
  return html`
    <${Page}
      title="Gallery"
      intro=${`What you make on the sample page is kept here with its settings${
        most ? `, up to ${countOf(most, "picture")}: after that the oldest without a star make room` : ""
      }. Drop a picture made here onto the page, or paste it, and its settings are back.`}
      actions=${html`<${SettingsDrop} />`}
    >
      <${Filters} query=${query} facets=${facets.data} filter=${filter} />
      <${ProblemText} problem=${facets.problem || list.problem} />
      <p class="note" role="status">${summary(list, count, isFiltered)}</p>
      ${picked.size > 0 && html`<${Edits} ...${{ picked, setPicked, list, facets, changed, drop }} />`}
      <${Grid} ...${{ list, suffix, picked, setPicked, changed }} />
      ${list.isEmpty && (isFiltered ? html`<p><button onClick=${() => location.replace("#/gallery")}>Clear the filters</button></p>` : html`<p class="empty">Images that you make are kept here. <a href="#/sample">Make some</a>.</p>`)}
      ${id && html`<${Picture} key="picture" ...${{ id, list, address, tags: facets.data?.tags ?? [], changed, drop }} />`}
    <//>
  `;
}

function summary(list, count, isFiltered) {
  const { length } = list.items;
  if (!list.isLoaded) return list.problem ? "" : "Loading…";
  if (list.isEmpty) return isFiltered ? "No picture is like that." : "";
  if (isFiltered) return list.hasMore ? `The first ${countOf(length, "picture")} are shown.` : `${countOf(length, "picture")}.`;
  return count === undefined ? "" : `${countOf(count, "picture")}.`;
}

/** The first moment of a day here, or of a later one. */
function midnight(day, later = 0) {
  const date = new Date(`${day}T00:00`);
  date.setDate(date.getDate() + later);
  return date.toISOString();
}

// The list -----------------------------------------------------------------------------------------

/**
 * The pictures that fulfil a query, in `chunks` of a page, which stay the same objects while nothing
 * in them changes: of thousands of pictures only what changed is drawn again. `more` loads the next
 * page.
 */
function usePictures(query) {
  const { epoch } = useConnection();
  const [, redraw] = useState({});
  const now = useRef({ chunks: [], items: [] }).current;
  const key = JSON.stringify(query);
  const set = (changes) => {
    Object.assign(now, changes);
    if (changes.chunks) now.items = changes.chunks.flat();
    redraw({});
  };
  useEffect(() => {
    const pages = now.key === key ? Math.max(1, now.chunks.length) : 1;
    const abort = new AbortController();
    Object.assign(now, { key, abort, loading: undefined });
    pagesOf("pictures", "id", pages, abort.signal, query).then(
      ({ items, has_more }) => {
        const chunks = [];
        for (let i = 0; i < items.length; i += PAGE) chunks.push(items.slice(i, i + PAGE));
        set({ chunks, hasMore: has_more, isLoaded: true, problem: undefined });
      },
      (problem) => problem.name !== "AbortError" && set({ problem }),
    );
    return () => abort.abort();
  }, [key, epoch]);

  const more = () => {
    if (!now.hasMore || !now.items.length) return Promise.resolve();
    const { signal } = now.abort;
    const params = new URLSearchParams({ limit: PAGE, ...query, after: now.items.at(-1).id });
    now.loading ??= get(`pictures?${params}`, signal)
      .then(
        ({ items, has_more }) => signal.aborted || set({ chunks: [...now.chunks, items], hasMore: has_more, problem: undefined }),
        (problem) => problem.name !== "AbortError" && set({ problem, hasMore: false }),
      )
      .finally(() => (now.loading = undefined));
    return now.loading;
  };
  const update = (items) => {
    const by = new Map(items.map((item) => [item.id, item]));
    const isIn = (chunk) => chunk.some(({ id }) => by.has(id));
    set({
      chunks: now.chunks.map((chunk) => (isIn(chunk) ? chunk.map((old) => by.get(old.id) ?? old) : chunk)),
    });
  };
  const drop = (ids) => {
    const gone = new Set(ids);
    const isIn = (chunk) => chunk.some(({ id }) => gone.has(id));
    const chunks = now.chunks.map((chunk) => (isIn(chunk) ? chunk.filter(({ id }) => !gone.has(id)) : chunk));
    set({ chunks: chunks.filter((chunk) => chunk.length) });
  };
  const { chunks, items, hasMore, isLoaded, problem } = now;
  return { chunks, items, hasMore, isLoaded, problem, more, update, drop, isEmpty: isLoaded && !items.length };
}

// What is searched for ------------------------------------------------------------------------------

function Filters({ query, facets, filter }) {
  const [notes, setNotes] = useState(query.notes ?? "");
  const written = useRef(notes); // into the address
  useEffect(() => {
    if (notes === (query.notes ?? "")) return;
    const timer = setTimeout(() => {
      written.current = notes;
      filter({ notes });
    }, 300);
    return () => clearTimeout(timer);
  }, [notes]);
  useEffect(() => {
    const given = query.notes ?? "";
    if (given !== written.current) setNotes(given); // somebody has followed a link
    written.current = given;
  }, [query.notes]);
  const options = (any, found = [], chosen) => [
    ["", any],
    ...found.map(({ name, num_pictures }) => [name, `${name} (${num_pictures.toLocaleString("en")})`]),
    ...(chosen && !found.some(({ name }) => name === chosen) ? [chosen] : []),
  ];
  const choice = (label, name, found) => html`<${Select}
    label=${label}
    value=${query[name] ?? ""}
    options=${options("all", found, query[name])}
    onChange=${(value) => filter({ [name]: value })}
  />`;
  const day = (label, name) => html`<${Input}
    label=${label}
    type="date"
    value=${query[name] ?? ""}
    onChange=${(value) => filter({ [name]: value })}
  />`;
  return html`
    <form class="card filters" aria-label="Search" onSubmit=${(event) => event.preventDefault()}>
      ${choice("Model", "model", facets?.models)}
      ${choice("Class", "class", facets?.classes)}
      ${choice("Tag", "tag", facets?.tags)}
      ${day("From", "from")}
      ${day("To", "to")}
      <${Input} label="In the notes" type="search" value=${notes} onChange=${setNotes} />
      <label class="check">
        <input
          type="checkbox"
          checked=${Boolean(query.starred)}
          onChange=${(event) => filter({ starred: event.target.checked ? "true" : "" })}
        />
        Only with a star
      </label>
    </form>
  `;
}

// The thumbnails -----------------------------------------------------------------------------------

function Grid({ list, suffix, picked, setPicked, changed }) {
  const end = useRef();
  const last = useRef(); // picture that was picked
  const star = useAction(async (picture) => {
    list.update([await patch(`pictures/${picture.id}`, { starred: !picture.starred })]);
    changed();
  });
  const pick = (id, on, isRange) => {
    const ids = list.items.map((item) => item.id);
    const ends = [ids.indexOf(id), ids.indexOf(last.current)].sort((a, b) => a - b);
    const all = isRange && ends[0] >= 0 ? ids.slice(ends[0], ends[1] + 1) : [id];
    last.current = id;
    setPicked((old) => {
      const now = new Set(old);
      for (const each of all) if (on) now.add(each);
        else now.delete(each);
      return now;
    });
  };
  const act = useRef({}).current; // stays the same, so that chunks are not drawn again
  Object.assign(act, { star: star.run, pick });
  useEffect(() => {
    if (!end.current) return;
    const observer = new IntersectionObserver(
      ([{ isIntersecting }]) => isIntersecting && list.more(),
      { rootMargin: AHEAD },
    );
    observer.observe(end.current);
    return () => observer.disconnect();
  }, [list.items.length, list.hasMore]);
  let before = 0;
  return html`
    <${ProblemText} problem=${star.problem} />
    <ul class=${picked.size ? "shots picking" : "shots"} aria-label="Pictures">
      ${list.chunks.map((chunk, i) => {
        const first = before;
        before += chunk.length;
        return html`<${Chunk} key=${i} of=${chunk} ...${{ first, suffix, picked, act }} />`;
      })}
    </ul>
    ${list.hasMore && html`<p class="note" ref=${end}>Loading more…</p>`}
  `;
}

function Chunk({ of, first, suffix, picked, act }) {
  const mine = of.filter(({ id }) => picked.has(id)).map(({ id }) => id);
  return useMemo(
    () =>
      of.map((picture, i) => html`<${Shot}
        key=${picture.id}
        number=${first + i + 1}
        isPicked=${mine.includes(picture.id)}
        ...${{ picture, suffix, act }}
      />`),
    [of, first, suffix, mine.join()],
  );
}

function Shot({ picture, number, isPicked, suffix, act }) {
  const { id, links, starred } = picture;
  const title = titleOf(picture);
  return html`
    <li>
      <a href=${`#/gallery?picture=${id}${suffix}`} id=${`picture-${id}`} draggable=${false} title=${title}><img
        src=${links.thumbnail}
        alt=${`${number}: ${title}`}
        width="128"
        height="128"
        loading="lazy"
        decoding="async"
        draggable=${false}
      /></a>
      <input
        type="checkbox"
        aria-label=${`Select picture ${number}`}
        checked=${isPicked}
        onClick=${(event) => act.pick(id, event.target.checked, event.shiftKey)}
      />
      <button
        class="star"
        aria-label=${`Star picture ${number}`}
        aria-pressed=${starred}
        onClick=${() => act.star(picture)}
      >★</button>
    </li>
  `;
}

// Several at once ----------------------------------------------------------------------------------

/** What can be done with the picked pictures. */
function Edits({ picked, setPicked, list, facets, changed, drop }) {
  const [tag, setTag] = useState("");
  const ids = [...picked];
  const each = async (request) => {
    for (let i = 0; i < ids.length; i += PAGE) await request(ids.slice(i, i + PAGE));
    changed();
  };
  const change = useAction((changes) =>
    each(async (some) => list.update(await patch("pictures", { ids: some, ...changes }))),
  );
  const remove = useAction(() =>
    each(async (some) => {
      const query = new URLSearchParams(some.map((id) => ["id", id]));
      const text = `${countOf(some.length, "picture is", "pictures are")} deleted.`;
      await discard("pictures", some[0], text, `pictures?${query}`);
      drop(some);
    }),
  );
  const busy = change.busy || remove.busy;
  const withTag = (name) => () => change.run({ [name]: [tag] });
  return html`
    <form
      class="card edits picked"
      aria-label="Selected pictures"
      onSubmit=${(event) => {
        event.preventDefault();
        withTag("add_tags")();
      }}
    >
      <p role="status">${countOf(ids.length, "picture is", "pictures are")} selected.</p>
      <div class="actions">
        <button type="button" disabled=${busy} onClick=${() => change.run({ starred: true })}>Star</button>
        <button type="button" disabled=${busy} onClick=${() => change.run({ starred: false })}>Take the star off</button>
        <button type="button" class="danger" disabled=${busy} onClick=${() => remove.run()}>Delete</button>
        <button type="button" onClick=${() => setPicked(new Set(list.items.map(({ id }) => id)))}>Select all shown</button>
        <button type="button" onClick=${() => setPicked(new Set())}>Select none</button>
      </div>
      <div class="actions">
        <input
          aria-label="Tag"
          placeholder="a tag"
          list="gallery-tags"
          maxlength="40"
          required
          value=${tag}
          onInput=${(event) => setTag(event.target.value)}
        />
        <datalist id="gallery-tags">${facets.data?.tags.map(({ name }) => html`<option value=${name} />`)}</datalist>
        <button disabled=${busy}>Add the tag</button>
        <button type="button" disabled=${busy || !tag.trim()} onClick=${withTag("remove_tags")}>Take it off</button>
      </div>
      <${ProblemText} problem=${change.problem || remove.problem} />
    </form>
  `;
}

// The title of the window: the page, and before it what the visitor should know from afar.

const shown = { page: "", news: "" };

/** Changes `page` or `news`; without news only the page is named. */
export function entitle(changes) {
  Object.assign(shown, changes);
  document.title = `${shown.news}${shown.page} – Diffusion`;
}

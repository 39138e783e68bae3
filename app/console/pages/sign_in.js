// The page of somebody without a key.

import { html, useState } from "../vendor/htm-preact.js";
import { connection, send } from "../lib/api.js";
import { useAction } from "../lib/hooks.js";
import { Field, Page } from "../lib/parts.js";

export function SignIn() {
  const [key, setKey] = useState("");
  const { run, busy, problem } = useAction(async () => {
    await send("session", { json: { key: key.trim() } });
    connection.signIn();
  });
  const submit = (event) => {
    event.preventDefault();
    run();
  };
  return html`
    <${Page} title="Sign in" intro="This service needs a key. Whoever runs it makes one: diffusion keys create.">
      <form class="card" onSubmit=${submit}>
        <${Field} label="Key" error=${problem?.message}>
          ${(attributes) => html`
            <input
              ...${attributes}
              type="password"
              autocomplete="current-password"
              required
              value=${key}
              onInput=${(event) => setKey(event.target.value)}
            />
          `}
        <//>
        <button class="primary" disabled=${busy}>Sign in</button>
      </form>
    <//>
  `;
}

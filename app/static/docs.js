SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  displayRequestDuration: true,
  validatorUrl: null, // the default sends the schema to another host
});

// Light or dark as chosen in the console (app/console/lib/hooks.js), else as the system is set.
const dark = matchMedia("(prefers-color-scheme: dark)");

function setTheme() {
  const theme = localStorage.getItem("diffusion-theme") ?? (dark.matches ? "dark" : "light");
  document.documentElement.classList.toggle("dark-mode", theme === "dark");
  document.documentElement.style.colorScheme = theme;
}

dark.addEventListener("change", setTheme);
addEventListener("storage", setTheme); // the console in another tab
setTheme();

"""The console's buttons, and which of them the tests of this session have seen and pressed."""

from pathlib import Path

import pytest

# The buttons and the links that look like them, by page; # stands for a number. `.../a` is the page
# of one dataset or training. Each is pressed in a test, which looks at its effect.
BUTTONS = {
    "the shell": {"Dark", "Light", "?", "Close"},
    "a notice": {"Undo", "Dismiss", "Show it", "Load the page again"},
    "start": {"Dissolve a picture", "Upload images", "Train", "Make images", "Watch it"},
    "noise": {"Choose a picture", "Download a strip", "Download an animation"},
    "explain": {"Another picture", "Choose a picture", "Upload your own images", "#", "#.#"},
    "datasets": {"Choose an archive or images", "Choose a folder", "Upload", "Fetch"}
    | {"Cancel", "Dismiss"},
    "datasets/a": {"Train on it", "Delete", "No", "a class", "Remove", "Move", "Untick", "Rename"}
    | {"Show more", "Add images", "Choose a folder", "Tick images"}
    | {"Look for duplicates, blurred and odd images"},
    "training": {"Train", "Compare # trainings", "Untick all"},
    "training/a": {"Pause", "Resume", "Cancel", "Cancel the training", "Make images", "Delete"}
    | {"No", "Go on with more time", "Edit", "Save"},
    "runs": {"Choose others", "Edit", "Leave out", "Save", "Cancel"}
    | {"Export as CSV", "Export as PNG"},
    "models": {"Make images", "Open", "Show some images", "Choose a zip", "Choose a folder"}
    | {"Upload"},
    "models/a": {"Download", "Download as ONNX", "Fine-tune", "Distil", "Delete", "No", "Copy link"}
    | {"Change", "Save", "Cancel", "Measure how good it is", "a precision", "Copy"}
    | {"Make images", "Make others", "Stop", "curl", "Python", "JavaScript", "ONNX"},
    "sample": {"Make images", "an image", "Make again", "Make others", "Interpolate"}
    | {"Download all", "Remove", "Stop", "Try again", "Disturb", "Copy", "Close", "Variations"}
    | {"Download", "Upper half", "Lower half", "Left half", "Right half", "Middle", "Clear"}
    | {"Repaint", "Order images", "Show more", "Cancel", "Delete", "No"}
    | {"Settings from a picture", "Leave these out"},
    "compare": {"Make the grid", "Stop", "an image", "Download the picture", "Use its settings"}
    | {"Download", "Close"},
    "compare/a": {"Make pairs", "Stop", "Download the picture", "Begin", "# Left", "# Right"}
    | {"# Cannot tell", "End the test", "Go on", "Download as CSV", "Reset", "Forget them", "No"}
    | {"Try again"},
    "gallery": {"Settings from a picture", "★", "Clear the filters", "Star", "Take the star off"}
    | {"Delete", "Select all shown", "Select none", "Add the tag", "Take it off"}
    | {"Use its settings", "★ Star", "Copy image", "Download", "Save", "Close"}
    | {"← Previous", "Next →"},
    "trash": {"Restore", "Remove for good", "No"},
}

SEEN: set[tuple[str, str]] = set()
PRESSED: set[tuple[str, str]] = set()
# "Copy", for two seconds
PASSING = {("sample", "Copied"), ("models/a", "Copied"), ("gallery", "Copied")}

# Tells which buttons appear and which are clicked, by page and text.
WATCH = """(() => {
    const buttons = "button, a.button";
    const place = (button) => {
        const shell = "header.shell, dialog[aria-label='Keyboard shortcuts']";
        if (button.closest(shell)) return "the shell";
        if (button.closest(".notice")) return "a notice";
        const [page, one] = location.hash.replace(/^#\\/?/, "").split("?")[0].split("/");
        return one ? `${page}/a` : page || "start";
    };
    const text = (button) => {
        for (const [kind, name] of [["chip", "a class"], ["tile", "an image"]])
            if (button.classList.contains(kind)) return name;
        const copy = button.cloneNode(true);
        for (const hidden of copy.querySelectorAll(".hidden")) hidden.remove();
        const shown = copy.textContent.trim().replace(/\\s+/g, " ").replace(/\\d[\\d,]*/g, "#");
        if (/^in (float#|bfloat#|int#)$/.test(shown)) return "a precision";
        return shown.replace(/^Tick # images?$/, "Tick images");
    };
    const known = new Set();
    let settled = location.hash;
    const look = () => {
        if (location.pathname !== "/") return;
        if (location.hash !== settled) return follow();
        for (const button of document.querySelectorAll(buttons)) {
            const key = [place(button), text(button)];
            if (known.has(key.join())) continue;
            known.add(key.join());
            window.noteButton("seen", ...key);
        }
    };
    let waiting;
    const wait = (milliseconds) => {
        clearTimeout(waiting);
        waiting = setTimeout(() => {
            waiting = undefined;
            look();
        }, milliseconds);
    };
    const follow = () => { // the page follows its address
        settled = location.hash;
        wait(500);
    };
    addEventListener("hashchange", follow);
    const changes = { childList: true, subtree: true, characterData: true };
    new MutationObserver(() => waiting ?? wait(100)).observe(document, changes);
    addEventListener("click", (event) => {
        const button = event.target.closest?.(buttons);
        if (!button || location.pathname !== "/") return;
        window.noteButton("pressed", place(button), text(button));
    }, true);
})()"""


def note_button(what: str, place: str, text: str) -> None:
    (PRESSED if what == "pressed" else SEEN).add((place, text))


def assert_all_are_pressed(request: pytest.FixtureRequest, places: set[str]) -> None:
    """Asserts that the tests of the calling file have pressed each button of these places, and have
    seen none that BUTTONS lacks. Skips unless all tests of that file run."""
    here = Path(request.node.path)
    run = {item.originalname for item in request.session.items if item.path == here}
    if run < {name for name in vars(request.module) if name.startswith("test_")}:
        pytest.skip("it needs all tests of this file")
    known = {(place, text) for place, texts in BUTTONS.items() for text in texts}
    others = (SEEN | PRESSED) - known - PASSING
    assert not others, f"there are other buttons: {sorted(others)}"
    missed = {(place, text) for place, text in known if place in places} - PRESSED
    assert not missed, f"nobody has pressed {sorted(missed)}"

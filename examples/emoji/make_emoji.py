"""The script that writes emoji.zip from the npm package of Noto's emoji, the same each time.

It needs npm, and access to npm's registry.
"""

import json
import subprocess
import tarfile
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "emoji-datasource-google@16.0.0"
CLASSES = {
    "Activities": "activities",
    "Animals & Nature": "animals",
    "Flags": "flags",
    "Food & Drink": "food",
    "Objects": "objects",
    "People & Body": "people",
    "Smileys & Emotion": "smileys",
    "Symbols": "symbols",
    "Travel & Places": "travel",
}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "--silent", PACKAGE]
        name = subprocess.run(
            command, cwd=folder, check=True, capture_output=True, text=True
        ).stdout.strip()
        with tarfile.open(Path(folder, name)) as package:
            contents = {
                member.name.removeprefix("package/"): package.extractfile(member).read()
                for member in package
                if member.name.endswith(".json") or "/img/google/64/" in member.name
            }
    emoji = [e for e in json.loads(contents["emoji.json"]) if e["category"] in CLASSES]
    files = {
        f"{CLASSES[e['category']]}/{e['short_name']}.png": contents[f"img/google/64/{e['image']}"]
        for e in emoji
        if e["has_img_google"]
    }
    with zipfile.ZipFile(Path(__file__).with_name("emoji.zip"), "w") as archive:
        for name, content in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(name, (2024, 10, 1, 0, 0, 0)), content)


if __name__ == "__main__":
    main()

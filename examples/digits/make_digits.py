"""The script that writes digits.zip from scikit-learn's handwritten digits, the same each time."""

import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits


def main() -> None:
    digits = load_digits()
    images = np.round(digits.images / 16 * 255).astype(np.uint8)
    with zipfile.ZipFile(Path(__file__).with_name("digits.zip"), "w") as archive:
        for digit in range(10):
            for number, image in enumerate(images[digits.target == digit]):
                buffer = io.BytesIO()
                Image.fromarray(image).save(buffer, "PNG", optimize=True)
                info = zipfile.ZipInfo(f"{digit}/{number:04}.png", (1998, 7, 1, 0, 0, 0))
                archive.writestr(info, buffer.getvalue())


if __name__ == "__main__":
    main()

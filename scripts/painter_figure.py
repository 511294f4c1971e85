"""Draw scripts/pictures/painter.jpg: kzoo's drawings, and scikit-learn's photographs painted like them by `painter`.

python scripts/painter_figure.py
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
WIDTH = 400  # of a picture


def main():
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_sample_image

    from kzoo.data.drawn import painting
    from kzoo.style.painter import load_stylenet, paint

    net = load_stylenet("painter")
    photos = [load_sample_image(name) for name in ("china.jpg", "flower.jpg")]
    half = [Image.fromarray(photo).resize((WIDTH, round(WIDTH * photo.shape[0] / photo.shape[1]))) for photo in photos]
    rows = [[Image.new("RGB", half[0].size, "white")], *[[photo] for photo in half]]
    for style in net.styles:
        rows[0].append(painting(style).crop((0, 0, 512, 512 * half[0].height // WIDTH)).resize(half[0].size))
        for row, photo in zip(rows[1:], half, strict=True):
            row.append(Image.fromarray(paint(net, np.asarray(photo), {style: 1.0})))
    whole = Image.new("RGB", (4 * WIDTH, sum(row[0].height for row in rows)))
    top = 0
    for row in rows:
        for i, picture in enumerate(row):
            whole.paste(picture, (i * WIDTH, top))
        top += row[0].height
    whole.save(Path(__file__).parent / "pictures" / "painter.jpg", quality=82)


main()

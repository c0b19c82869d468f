"""Textures made from noise, patterns, drawn shapes, text and gradients; no picture of the real world goes in.

Every texture is an (height, width, 3) uint8 BGR array and a function of the generator's state alone. ``random_texture``
draws from all of them; scenes that know what a surface is ask for one by name (``TEXTURES[name](rng, height, width)``).
Lengths in the signatures are in texels. Most textures are a scalar field coloured through a random palette.
"""

from collections.abc import Callable

import cv2
import numpy as np

Texture = Callable[[np.random.Generator, int, int], np.ndarray]

_FONTS = (
    cv2.FONT_HERSHEY_SIMPLEX,
    cv2.FONT_HERSHEY_DUPLEX,
    cv2.FONT_HERSHEY_COMPLEX,
    cv2.FONT_HERSHEY_TRIPLEX,
    cv2.FONT_HERSHEY_SCRIPT_SIMPLEX,
)
_LETTERS = np.array(list("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789&-.,!?"))


# ------------------------------------------------------------------------------------------------ fields and colours
def value_noise(rng: np.random.Generator, height: int, width: int, cell_y: float, cell_x: float) -> np.ndarray:
    """Smooth noise (height, width) float32 in about 0..1 whose blobs are ``cell_y`` x ``cell_x`` texels."""
    rows, columns = int(np.ceil(height / cell_y)) + 1, int(np.ceil(width / cell_x)) + 1
    grid = rng.random((rows, columns), dtype=np.float32)
    large = cv2.resize(grid, (int(columns * cell_x) + 1, int(rows * cell_y) + 1), interpolation=cv2.INTER_CUBIC)
    y, x = rng.integers(0, large.shape[0] - height + 1), rng.integers(0, large.shape[1] - width + 1)
    return large[y : y + height, x : x + width]


def fractal_noise(
    rng: np.random.Generator,
    height: int,
    width: int,
    largest: float = 64.0,
    persistence: float = 0.6,
    stretch: float = 1.0,
) -> np.ndarray:
    """Octaves of value noise from ``largest`` down to 2 texels, each ``persistence`` times weaker; about 0..1.

    ``stretch`` > 1 lengthens the blobs along y (grass, wood, streaks).
    """
    field = np.zeros((height, width), np.float32)
    amplitude, cell = 1.0, float(largest)
    while cell >= 1.9:
        octave = value_noise(rng, height, width, max(cell * stretch, 1.0), cell)
        field = cv2.scaleAdd(octave, amplitude, field)
        amplitude *= persistence
        cell /= 2.0
    return cv2.normalize(field, None, 0.0, 1.0, cv2.NORM_MINMAX)


def random_colour(rng: np.random.Generator, saturation: float | None = None, value: float | None = None) -> np.ndarray:
    """(3,) float32 BGR in 0..255. Most surfaces of the real world are dull, so most colours are too."""
    if saturation is None:
        saturation = rng.beta(1.2, 3.0)
    if value is None:
        value = rng.uniform(0.12, 0.95)
    hue = rng.choice([rng.uniform(0, 360), rng.normal(30, 15), rng.normal(210, 20)], p=[0.4, 0.4, 0.2]) % 360
    pixel = np.array([[[hue, saturation, value]]], np.float32)
    return cv2.cvtColor(pixel, cv2.COLOR_HSV2BGR)[0, 0] * 255.0


def near_colour(rng: np.random.Generator, colour: np.ndarray, contrast: float) -> np.ndarray:
    """A colour that differs from ``colour`` mostly in brightness, by about ``contrast`` (0..1)."""
    change = rng.choice([-1.0, 1.0]) * contrast * rng.uniform(0.6, 1.4) * 255
    if not 0 <= colour.mean() + change <= 255:
        change = -change
    return np.clip(colour + change + rng.normal(0, 0.12 * contrast * 255, 3), 0, 255).astype(np.float32)


def palette(rng: np.random.Generator, contrast: float | None = None) -> np.ndarray:
    """(256, 3) uint8 colour ramp through two to four colours."""
    if contrast is None:
        contrast = float(rng.uniform(0.08, 0.7))
    base = random_colour(rng)
    stops = [base] + [near_colour(rng, base, contrast) for _ in range(rng.integers(1, 4))]
    if rng.random() < 0.15:
        stops.append(random_colour(rng))
    positions = np.linspace(0, 255, len(stops))
    ramp = np.stack([np.interp(np.arange(256), positions, [stop[c] for stop in stops]) for c in range(3)], axis=1)
    return ramp.astype(np.uint8)


def colourise(field: np.ndarray, ramp: np.ndarray) -> np.ndarray:
    """Scalar field (h, w) in 0..1 through a (256, 3) ramp -> (h, w, 3) uint8."""
    index = cv2.convertScaleAbs(field, alpha=255.0)
    return cv2.LUT(cv2.merge([index, index, index]), ramp[None])


def shade(image: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Multiply an image (h, w, 3) by a field (h, w) -> uint8, saturating."""
    factor = factor.astype(np.float32, copy=False)
    return cv2.multiply(image, cv2.merge([factor, factor, factor]), dtype=cv2.CV_8U)


def grain(rng: np.random.Generator, image: np.ndarray, strength: float, largest: float = 4.0) -> np.ndarray:
    """Multiply by fine noise so that nothing is perfectly flat; ``strength`` is the relative amplitude."""
    h, w = image.shape[:2]
    if image.dtype != np.uint8:
        image = np.clip(image, 0, 255).astype(np.uint8)
    field = fractal_noise(rng, h, w, largest, 0.9)
    return shade(image, cv2.addWeighted(field, 2.0 * strength, field, 0.0, 1.0 - strength))


def _coordinates(rng: np.random.Generator, height: int, width: int, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Texel coordinates turned by ``angle``, with a random origin, sometimes gently bent."""
    y = np.arange(height, dtype=np.float32)[:, None]
    x = np.arange(width, dtype=np.float32)[None]
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    u, v = c * x + s * y + rng.uniform(0, 1000), -s * x + c * y + rng.uniform(0, 1000)
    if rng.random() < 0.25:
        bend = rng.uniform(4, 30)
        u = u + bend * value_noise(rng, height, width, 60, 60)
        v = v + bend * value_noise(rng, height, width, 60, 60)
    return u, v


def _cells(u: np.ndarray, v: np.ndarray, size_u: float, size_v: float, shift: float = 0.0):
    """Index (int) of the rectangular cell of each texel and the distance (texels) to the cell's nearest edge."""
    row = np.floor(v / size_v)
    uu = u + shift * size_u * np.mod(row, 2)
    column = np.floor(uu / size_u)
    inside_u, inside_v = uu - column * size_u, v - row * size_v
    edge = np.minimum(np.minimum(inside_u, size_u - inside_u), np.minimum(inside_v, size_v - inside_v))
    index = (row.astype(np.int64) * 7919 + column.astype(np.int64) * 104729) % 1024
    return index, edge


# ------------------------------------------------------------------------------------------------------- the textures
def noise(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Fractal noise through a palette: stone, stains, clouds."""
    field = fractal_noise(rng, height, width, rng.choice([8, 16, 32, 64, 128]), rng.uniform(0.45, 0.9))
    return colourise(field, palette(rng))


def plain(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Nearly textureless: painted wall, plaster, sheet metal."""
    field = fractal_noise(rng, height, width, 128, rng.uniform(0.4, 0.75))
    return grain(rng, colourise(field, palette(rng, rng.uniform(0.015, 0.06))), rng.uniform(0.005, 0.04), 4)


def asphalt(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Grey with fine speckle, patches and a few cracks."""
    base = random_colour(rng, rng.uniform(0, 0.08), rng.uniform(0.25, 0.6))
    field = 0.7 * fractal_noise(rng, height, width, 4, 0.9) + 0.5 * fractal_noise(rng, height, width, 128, 0.6)
    image = base * (1 + rng.uniform(0.2, 0.6) * (field - 0.6))[..., None]
    for _ in range(rng.integers(0, 4)):
        crack = np.cumsum(rng.normal(0, 5, (30, 2)) + rng.normal(0, 4, 2), axis=0) + rng.uniform(0, [width, height])
        cv2.polylines(image, [np.round(crack * 8).astype(np.int32)], False, (base * 0.5).tolist(), 1, cv2.LINE_AA, 3)
    for _ in range(rng.integers(0, 4)):
        centre = rng.uniform(0, [width, height])
        corners = centre + rng.uniform(-0.3, 0.3, (4, 2)) * min(width, height)
        cv2.fillConvexPoly(image, cv2.convexHull(corners.astype(np.int32)), (base * rng.uniform(0.75, 1.2)).tolist())
    return grain(rng, image, 0.08, 2)


def stripes(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Parallel bands of random width: cloth, planks, blinds, corrugation."""
    u, _ = _coordinates(rng, height, width, rng.choice([0, np.pi / 2, rng.uniform(0, np.pi)]))
    period = rng.uniform(5, 48)
    if rng.random() < 0.5:
        field = 0.5 + 0.5 * np.sin(u * (2 * np.pi / period))
    else:
        table = rng.random(256).astype(np.float32)
        field = table[np.floor(u / period).astype(np.int64) % 256]
    return grain(rng, colourise(field, palette(rng)), rng.uniform(0.02, 0.15))


def checks(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Chequered or tartan."""
    u, v = _coordinates(rng, height, width, rng.uniform(0, np.pi))
    size = rng.uniform(6, 40)
    a, b = np.floor(u / size) % 2, np.floor(v / (size * rng.uniform(0.7, 1.4))) % 2
    field = np.abs(a - b) if rng.random() < 0.5 else 0.5 * (a + b)
    return grain(rng, colourise(field, palette(rng)), rng.uniform(0.03, 0.2))


def brick(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Bricks in mortar, each with its own tint."""
    size_v = rng.uniform(7, 22)
    u, v = np.meshgrid(np.arange(width, dtype=np.float32) + rng.uniform(0, 100), np.arange(height, dtype=np.float32))
    index, edge = _cells(u, v, size_v * rng.uniform(1.8, 3.4), size_v, 0.5)
    base = random_colour(rng, rng.uniform(0.1, 0.6), rng.uniform(0.3, 0.7))
    tint = (base * (1 + rng.normal(0, rng.uniform(0.05, 0.2), (1024, 1)))).astype(np.float32)
    image = tint[index]
    mortar = near_colour(rng, base, 0.3)
    blend = np.clip(edge - rng.uniform(0.3, 1.2), 0, 1)[..., None]
    image = image * blend + mortar * (1 - blend)
    return grain(rng, image, rng.uniform(0.08, 0.3), rng.choice([4, 16]))


def tiles(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Square tiles or paving with joints."""
    u, v = _coordinates(rng, height, width, rng.choice([0, 0, np.pi / 4]))
    size = rng.uniform(12, 70)
    index, edge = _cells(u, v, size * rng.choice([1, 1, 2]), size, rng.choice([0, 0, 0.5]))
    base = random_colour(rng, value=rng.uniform(0.3, 0.95))
    tint = np.clip(base * (1 + rng.normal(0, rng.uniform(0.0, 0.12), (1024, 1))), 0, 255).astype(np.float32)
    joint = near_colour(rng, base, rng.uniform(0.1, 0.4))
    blend = np.clip(edge - rng.uniform(0.2, 1.0), 0, 1)[..., None]
    return grain(rng, tint[index] * blend + joint * (1 - blend), rng.uniform(0.02, 0.15), 4)


def wood(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Grain along y, sometimes in planks."""
    field = fractal_noise(rng, height, width, rng.choice([8, 16, 32]), 0.75, stretch=rng.uniform(6, 16))
    field = 0.5 + 0.5 * np.sin(field * rng.uniform(8, 40))
    value = rng.uniform(0.25, 0.85)
    base = cv2.cvtColor(
        np.array([[[rng.uniform(12, 40), rng.uniform(0.2, 0.65), value]]], np.float32), cv2.COLOR_HSV2BGR
    )[0, 0]
    image = 255 * base * (1 - rng.uniform(0.1, 0.35) * field)[..., None]
    if rng.random() < 0.6:
        x = np.arange(width, dtype=np.float32)[None] + np.zeros((height, 1), np.float32)
        y = np.arange(height, dtype=np.float32)[:, None] + np.zeros((1, width), np.float32)
        plank = rng.uniform(10, 50)
        index, edge = _cells(y, x, plank * rng.uniform(4, 12), plank, 0.5)
        image *= (1 + rng.normal(0, 0.1, 1024)).astype(np.float32)[index][..., None]
        image *= np.where(edge < 0.8, 0.6, 1.0)[..., None]
    image = np.clip(image, 0, 255).astype(np.uint8)
    return cv2.rotate(cv2.resize(image, (height, width)), cv2.ROTATE_90_CLOCKWISE) if rng.random() < 0.5 else image


def pebbles(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Voronoi cells with dark joints: gravel, cobbles, cracked earth, rubble walls."""
    spacing = rng.uniform(5, 30)
    count = max(int(height * width / spacing**2), 2)
    seeds = np.full((height, width), 255, np.uint8)
    seeds[rng.integers(0, height, count), rng.integers(0, width, count)] = 0
    distance, label = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL)
    base = random_colour(rng, rng.uniform(0, 0.35))
    tint = np.clip(base * (1 + rng.normal(0, rng.uniform(0.08, 0.35), (count + 1, 1))), 0, 255).astype(np.float32)
    light = 1.1 - np.clip(distance / spacing, 0, 1.2) * rng.uniform(0.2, 0.8)
    return grain(rng, tint[label % (count + 1)] * light[..., None], rng.uniform(0.05, 0.25))


def shapes(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Random polygons, discs, rings and lines over a ground: posters, graffiti, toys, clutter."""
    image = colourise(fractal_noise(rng, height, width, 64, 0.6), palette(rng, 0.15))
    size = min(height, width)
    for _ in range(rng.integers(12, 60)):
        colour = random_colour(rng).tolist()
        centre = rng.uniform(0, [width, height])
        radius = size * rng.choice([0.03, 0.08, 0.2]) * rng.uniform(0.4, 1.4)
        kind = rng.integers(4)
        if kind == 0:
            n = rng.integers(3, 8)
            angle = np.sort(rng.uniform(0, 2 * np.pi, n))
            points = centre + radius * rng.uniform(0.4, 1.3, (n, 1)) * np.stack([np.cos(angle), np.sin(angle)], 1)
            cv2.fillPoly(image, [np.round(points * 8).astype(np.int32)], colour, cv2.LINE_AA, 3)
        elif kind == 1:
            axes = (np.array([radius, radius * rng.uniform(0.3, 1.0)])).astype(int) + 1
            thickness = -1 if rng.random() < 0.7 else int(rng.integers(1, 4))
            cv2.ellipse(
                image,
                centre.astype(int).tolist(),
                axes.tolist(),
                rng.uniform(0, 180),
                0,
                360,
                colour,
                thickness,
                cv2.LINE_AA,
            )
        elif kind == 2:
            end = centre + rng.normal(0, radius * 3, 2)
            cv2.line(
                image,
                centre.astype(int).tolist(),
                end.astype(int).tolist(),
                colour,
                int(rng.integers(1, 5)),
                cv2.LINE_AA,
            )
        else:
            box = cv2.boxPoints((centre.tolist(), (2 * radius, 2 * radius * rng.uniform(0.2, 1)), rng.uniform(0, 90)))
            cv2.fillConvexPoly(image, np.round(box * 8).astype(np.int32), colour, cv2.LINE_AA, 3)
    return grain(rng, image, rng.uniform(0.01, 0.12))


def text(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Lines of letters: signs, labels, book pages, screens."""
    image = colourise(fractal_noise(rng, height, width, 128, 0.5), palette(rng, rng.uniform(0.02, 0.15)))
    scale = rng.choice([0.35, 0.6, 1.0, 1.8])
    y = rng.uniform(-10, 10)
    ink = near_colour(rng, image.reshape(-1, 3)[0].astype(np.float32), 0.6)
    while y < height:
        size = scale * rng.uniform(0.8, 1.3)
        y += size * 34
        letters = rng.choice(_LETTERS, int(width / (size * 14)) + 2)
        letters[rng.random(len(letters)) < 0.15] = " "
        if rng.random() < 0.15:
            ink = random_colour(rng)
        cv2.putText(
            image,
            "".join(letters),
            (int(rng.uniform(-20, 10)), int(y)),
            int(rng.choice(_FONTS)),
            float(size),
            ink.tolist(),
            int(max(1, round(size * rng.uniform(0.8, 2.5)))),
            cv2.LINE_AA,
        )
    return grain(rng, image, rng.uniform(0.01, 0.08))


def gradient(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A smooth ramp with little else: sky, lamps, glossy panels."""
    u, _ = _coordinates(rng, height, width, rng.uniform(0, 2 * np.pi))
    field = (u - u.min()) / max(float(u.max() - u.min()), 1.0)
    field = 0.85 * field + 0.15 * fractal_noise(rng, height, width, 128, 0.5)
    return grain(rng, colourise(field, palette(rng, rng.uniform(0.1, 0.4))), 0.01, 4)


def grass(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Fine blades in patches of green to straw."""
    blades = fractal_noise(rng, height, width, 4, 0.9, stretch=rng.uniform(1.5, 4))
    patches = fractal_noise(rng, height, width, 128, 0.65)
    hue, saturation = rng.uniform(35, 110), rng.uniform(0.2, 0.6)
    value = rng.uniform(0.25, 0.6)
    hsv = cv2.merge(
        [
            (hue + 30 * (patches - 0.5)).astype(np.float32),
            np.clip(saturation + 0.3 * (patches - 0.5), 0, 1).astype(np.float32),
            np.clip(value * (0.4 + 0.9 * blades + 0.4 * patches), 0, 1).astype(np.float32),
        ]
    )
    return (cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR) * 255).astype(np.uint8)


def leaves(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Overlapping small ellipses, lit from above, dark between: hedges, tree crowns, ivy."""
    base = random_colour(rng, rng.uniform(0.2, 0.6), rng.uniform(0.3, 0.65))
    if rng.random() < 0.92:
        hue = np.array([[[rng.uniform(50, 115), rng.uniform(0.2, 0.6), rng.uniform(0.3, 0.65)]]], np.float32)
        base = cv2.cvtColor(hue, cv2.COLOR_HSV2BGR)[0, 0] * 255
    image = np.empty((height, width, 3), np.uint8)
    image[:] = (base * 0.3).astype(np.uint8)
    size = rng.uniform(3, 8)
    count = int(min(height * width / (size * size), 900))
    centres = rng.uniform(0, [width, height], (count, 2)).astype(int)
    axes = (size * rng.uniform(0.5, 1.2, (count, 2)) * [1.0, 0.5] + 1).astype(int)
    angles = rng.uniform(0, 180, count)
    shades = np.clip(base * np.linspace(0.4, 1.3, count)[:, None] * rng.uniform(0.7, 1.2, (count, 1)), 0, 255)
    for i in range(count):
        cv2.ellipse(image, centres[i].tolist(), axes[i].tolist(), angles[i], 0, 360, shades[i].tolist(), -1)
    return shade(image, 0.5 + 0.9 * fractal_noise(rng, height, width, 64, 0.6))


def windows(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A wall with rows of framed windows: facades, cupboards, racks."""
    wall = rng.choice(np.array([plain, brick, noise, tiles], dtype=object))(rng, height, width)
    step_x, step_y = rng.uniform(24, 80), rng.uniform(24, 80)
    fraction_x, fraction_y = rng.uniform(0.3, 0.75), rng.uniform(0.35, 0.75)
    frame = random_colour(rng, 0.1, rng.uniform(0.2, 1.0))
    glass = random_colour(rng, rng.uniform(0, 0.3), rng.uniform(0.05, 0.5))
    for y in np.arange(rng.uniform(0, step_y) - step_y, height, step_y):
        for x in np.arange(rng.uniform(0, step_x) - step_x, width, step_x):
            x0, y0 = int(x), int(y)
            x1, y1 = int(x + fraction_x * step_x), int(y + fraction_y * step_y)
            pane = np.clip(glass * rng.uniform(0.5, 1.8), 0, 255)
            cv2.rectangle(wall, (x0, y0), (x1, y1), pane.tolist(), -1)
            if rng.random() < 0.4:
                cv2.rectangle(wall, (x0, y0), ((x0 + x1) // 2, y1), np.clip(pane * 1.4 + 10, 0, 255).tolist(), -1)
            cv2.rectangle(wall, (x0, y0), (x1, y1), frame.tolist(), int(rng.integers(1, 3)))
            cv2.line(wall, ((x0 + x1) // 2, y0), ((x0 + x1) // 2, y1), frame.tolist(), 1)
    return grain(rng, wall, rng.uniform(0.01, 0.1))


TEXTURES: dict[str, Texture] = {
    function.__name__: function
    for function in (
        noise,
        plain,
        asphalt,
        stripes,
        checks,
        brick,
        tiles,
        wood,
        pebbles,
        shapes,
        text,
        gradient,
        grass,
        leaves,
        windows,
    )
}
_WEIGHTS = {"noise": 3.0, "plain": 0.7, "gradient": 0.5, "stripes": 0.7, "shapes": 2.0, "text": 1.2, "pebbles": 1.5}


def random_texture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Any of the textures, (height, width, 3) uint8 BGR."""
    names = list(TEXTURES)
    weights = np.array([_WEIGHTS.get(name, 1.0) for name in names])
    name = names[rng.choice(len(names), p=weights / weights.sum())]
    return TEXTURES[name](rng, height, width)


# --------------------------------------------------------------------------------- surfaces of three-dimensional scenes
def _opaque(image: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    return np.dstack([image, alpha])


def clouds(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Brightness of clouds, 0 where the sky is clear."""
    field = fractal_noise(rng, height, width, 128, 0.55)
    return cv2.merge([cv2.convertScaleAbs(field, alpha=255.0)] * 3)


def foliage(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Leaves with holes between them (BGRA); about two thirds are covered, so that from afar a crown is closed."""
    image = leaves(rng, height, width)
    field = fractal_noise(rng, height, width, rng.choice([12, 24, 40]), 0.8)
    cut = np.quantile(field, rng.uniform(0.22, 0.4))
    return _opaque(image, ((field > cut) * 255).astype(np.uint8))


def twigs(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Branches that fork, the rest empty (BGRA): bare bushes, the inside of a crown."""
    image = np.empty((height, width, 3), np.uint8)
    image[:] = random_colour(rng, 0.3, rng.uniform(0.15, 0.4)).astype(np.uint8)
    alpha = np.zeros((height, width), np.uint8)
    stack = [(np.array([width * x, height * 1.0]), -np.pi / 2 + rng.normal(0, 0.2), 7) for x in (0.25, 0.5, 0.75)]
    while stack:
        point, angle, size = stack.pop()
        end = point + (6 + 5 * size) * rng.uniform(0.7, 1.3) * np.array([np.cos(angle), np.sin(angle)])
        cv2.line(alpha, point.astype(int).tolist(), end.astype(int).tolist(), 255, int(size))
        if size > 1:
            stack += [(end, angle + rng.normal(0, 0.55), size - int(rng.integers(1, 3))) for _ in range(2)]
            stack = [entry for entry in stack if entry[2] >= 1]
    return _opaque(grain(rng, image, 0.3), alpha)


def treeline(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A far row of trees or roofs against the sky (BGRA), solid below."""
    image = shade(leaves(rng, height, width), np.full((height, width), 0.7, np.float32))
    edge = fractal_noise(rng, 1, width, 64, 0.7)[0]
    edge = 0.5 * (edge + edge[::-1])
    top = (height * (0.1 + 0.6 * edge)).astype(int)
    alpha = (np.arange(height)[:, None] >= top[None]).astype(np.uint8) * 255
    return _opaque(image, alpha)


def fence(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Bars, boards or a railing with gaps (BGRA)."""
    image = wood(rng, height, width) if rng.random() < 0.5 else plain(rng, height, width)
    alpha = np.zeros((height, width), np.uint8)
    count, share = int(rng.integers(5, 16)), rng.uniform(0.25, 0.85)
    for k in range(count):
        alpha[:, int(k * width / count) : int((k + share) * width / count) + 1] = 255
    for y in rng.uniform(0.05, 0.9, rng.integers(1, 4)):
        alpha[int(y * height) : int((y + 0.08) * height)] = 255
    return _opaque(image, alpha)


def facade(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Two by two windows of a house front (about 6 m x 6 m): wall, frames, sills, shutters, mirroring panes."""
    kind = rng.random()
    if kind < 0.25:
        wall = brick(rng, height * 2, width * 2)
        wall = cv2.resize(wall, (width, height), interpolation=cv2.INTER_AREA)
    elif kind < 0.35:
        wall = tiles(rng, height, width)
    else:
        base = random_colour(rng, rng.beta(1.2, 4), rng.uniform(0.45, 0.98))
        wall = grain(rng, np.broadcast_to(base, (height, width, 3)), rng.uniform(0.02, 0.12), rng.choice([4, 64]))
    frame = random_colour(rng, 0.08, rng.choice([0.95, 0.9, 0.3]))
    sill = random_colour(rng, 0.05, rng.uniform(0.4, 0.9))
    shutter = random_colour(rng, 0.4) if rng.random() < 0.25 else None
    band = rng.random() < 0.3
    cell_h, cell_w = height // 2, width // 2
    win_w, win_h = int(cell_w * rng.uniform(0.3, 0.7)), int(cell_h * rng.uniform(0.4, 0.7))
    panes = int(rng.integers(1, 4))
    bars = int(rng.integers(0, 3))
    offset_y = int((cell_h - win_h) * rng.uniform(0.25, 0.6))
    for row in range(2):
        if band:
            wall[row * cell_h : row * cell_h + 5] = sill.astype(np.uint8)
        for column in range(2):
            x, y = column * cell_w + (cell_w - win_w) // 2, row * cell_h + offset_y
            top, bottom = rng.uniform(0.1, 0.7), rng.uniform(0.04, 0.3)
            ramp = np.linspace(top, bottom, win_h)[:, None, None] * 255 * np.array([1.05, 1.0, 0.95])
            glass = np.broadcast_to(ramp, (win_h, win_w, 3)).copy()
            if rng.random() < 0.5:  # curtains or a blind
                part = int(win_w * rng.uniform(0.15, 0.5))
                glass[:, :part] = glass[:, -part:] = random_colour(rng, 0.1, rng.uniform(0.5, 0.9))
            if rng.random() < 0.25:
                glass[: int(win_h * rng.uniform(0.2, 1.0))] = random_colour(rng, 0.1, rng.uniform(0.5, 0.85))
            wall[y : y + win_h, x : x + win_w] = np.clip(glass, 0, 255).astype(np.uint8)
            for k in range(panes + 1):
                xx = x + k * win_w // panes
                cv2.line(wall, (xx, y), (xx, y + win_h), frame.tolist(), 3)
            for k in (0, bars + 1) if bars == 0 else range(bars + 2):
                yy = y + k * win_h // (bars + 1)
                cv2.line(wall, (x, yy), (x + win_w, yy), frame.tolist(), 3)
            cv2.rectangle(wall, (x - 5, y + win_h + 2), (x + win_w + 5, y + win_h + 5), sill.tolist(), -1)
            cv2.rectangle(wall, (x - 5, y + win_h + 6), (x + win_w + 5, y + win_h + 8), (wall[y, 2] * 0.7).tolist(), -1)
            if shutter is not None:
                side = win_w // 2
                for x0 in (x - side - 3, x + win_w + 3):
                    cv2.rectangle(wall, (x0, y), (x0 + side, y + win_h), shutter.tolist(), -1)
                    for yy in range(y, y + win_h, 6):
                        cv2.line(wall, (x0, yy), (x0 + side, yy), (shutter * 0.75).tolist(), 1)
    stain = fractal_noise(rng, height, width, 128, 0.6)
    return shade(wall, 0.85 + 0.25 * stain)


def shopfront(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Ground floor of a shop or entrance (about 6 m x 3 m): glass, a door, a lettered board above."""
    image = np.empty((height, width, 3), np.uint8)
    image[:] = random_colour(rng, 0.2, rng.uniform(0.2, 0.8)).astype(np.uint8)
    top = int(height * rng.uniform(0.15, 0.3))
    board = text(rng, top, width) if rng.random() < 0.7 else plain(rng, max(top, 8), width)
    image[:top] = board[:top]
    x = int(width * 0.03)
    while x < width * 0.9:
        w = int(width * rng.uniform(0.15, 0.4))
        y1 = height - (4 if rng.random() < 0.4 else int(0.15 * height))
        inside = shapes(rng, 64, 64) if rng.random() < 0.6 else gradient(rng, 64, 64)
        area = image[top + 8 : y1, x : min(x + w, width - 4)]
        if area.size:
            area[:] = (cv2.resize(inside, (area.shape[1], area.shape[0])) * rng.uniform(0.25, 0.8)).astype(np.uint8)
        x += w + int(width * rng.uniform(0.02, 0.08))
    return grain(rng, image, 0.05)


def roof(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Rows of roof tiles in red, brown or slate (about 4 m)."""
    hue, saturation, value = rng.choice([rng.uniform(5, 25), 210]), rng.uniform(0.1, 0.6), rng.uniform(0.2, 0.6)
    base = cv2.cvtColor(np.array([[[hue, saturation, value]]], np.float32), cv2.COLOR_HSV2BGR)[0, 0] * 255
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    rows, columns = 14, 18
    row = np.floor(y * rows / height)
    fy, fx = y * rows / height - row, (x * columns / width + 0.5 * (row % 2)) % 1
    light = 0.75 + 0.35 * fy - 0.25 * (np.abs(fx - 0.5) > 0.42)
    return grain(rng, base * light[..., None], 0.2, rng.choice([4, 64]))


def concrete(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Grey cast wall with stains, joints and holes."""
    base = random_colour(rng, rng.uniform(0, 0.12), rng.uniform(0.4, 0.8))
    image = (
        np.broadcast_to(base, (height, width, 3))
        * (0.75 + 0.4 * fractal_noise(rng, height, width, 128, 0.65))[..., None]
    )
    streak = fractal_noise(rng, height, width, 16, 0.6, stretch=10)
    image = image * (0.85 + 0.2 * streak)[..., None]
    if rng.random() < 0.6:
        step = int(rng.choice([64, 128]))
        image[::step] *= 0.7
        image[:, :: step * 2] *= 0.7
    return grain(rng, image, 0.08)


def soil(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Earth, gravel and dust."""
    hue = np.array([[[rng.uniform(20, 45), rng.uniform(0.1, 0.45), rng.uniform(0.3, 0.65)]]], np.float32)
    base = cv2.cvtColor(hue, cv2.COLOR_HSV2BGR)[0, 0] * 255
    field = (
        0.6
        + 0.4 * fractal_noise(rng, height, width, 128, 0.7)
        + 0.3 * (fractal_noise(rng, height, width, 6, 0.9) - 0.5)
    )
    image = base * field[..., None]
    for _ in range(rng.integers(20, 120)):
        centre, radius = rng.uniform(0, [width, height]).astype(int).tolist(), int(rng.integers(1, 4))
        cv2.circle(image, centre, radius, (base * rng.uniform(0.5, 1.4)).tolist(), -1, cv2.LINE_AA)
    return grain(rng, image, 0.12)


def paving(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Small paving stones or slabs (about 2 m)."""
    rows = int(rng.choice([4, 8, 12, 16]))
    u, v = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    size = height / rows
    index, edge = _cells(u, v, size * rng.choice([1, 2]), size, 0.5)
    base = random_colour(rng, rng.uniform(0, 0.25), rng.uniform(0.4, 0.75))
    tint = np.clip(base * (1 + rng.normal(0, 0.08, (1024, 1))), 0, 255).astype(np.float32)
    blend = np.clip(edge - 0.4, 0, 1)[..., None]
    return grain(rng, tint[index] * blend + base * 0.6 * (1 - blend), rng.uniform(0.1, 0.25))


def carpet(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Woven floor or cloth: fine speckle, often with streaks or a figure."""
    base = random_colour(rng, value=rng.uniform(0.2, 0.7))
    image = np.empty((height, width, 3), np.float32)
    image[:] = base
    if rng.random() < 0.5:
        lines = rng.normal(1, rng.uniform(0.05, 0.35), (1, width, 1)).astype(np.float32)
        shift = (fractal_noise(rng, height, width, 64, 0.5, stretch=4) - 0.5)[..., None]
        image = image * np.clip(lines + 0.3 * shift, 0.2, 2)
    if rng.random() < 0.25:
        image = 0.5 * image + 0.5 * checks(rng, height, width)
    return grain(rng, image, rng.uniform(0.1, 0.35), 3)


def books(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A row of book spines or files of different height and thickness."""
    image = np.full((height, width, 3), int(rng.uniform(15, 60)), np.uint8)
    x = 0
    while x < width:
        w = int(rng.uniform(6, 26))
        top = int(height * rng.uniform(0.0, 0.2))
        colour = random_colour(rng, rng.beta(1.5, 2))
        image[top:, x : x + w - 1] = np.clip(colour, 0, 255).astype(np.uint8)
        if rng.random() < 0.6:
            y = int(rng.uniform(top, height * 0.8))
            image[y : y + int(rng.uniform(4, 40)), x + w // 4 : x + 3 * w // 4] = random_colour(rng).astype(np.uint8)
        x += w
    return grain(rng, image, 0.08)


def cupboard(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Two doors or three drawers with handles, as on kitchen and office cupboards (about 1 m)."""
    front = rng.choice(np.array([plain, plain, wood], dtype=object))(rng, height, width)
    joint = (front.reshape(-1, 3).mean(0) * 0.45).tolist()
    handle = random_colour(rng, 0.05, rng.choice([0.2, 0.85])).tolist()
    if rng.random() < 0.6:
        cv2.rectangle(front, (0, 0), (width - 1, height - 1), joint, 2)
        cv2.line(front, (width // 2, 0), (width // 2, height), joint, 3)
        y = int(height * rng.choice([0.1, 0.2, 0.8]))
        for x in (width // 2 - 50, width // 2 + 15):
            cv2.rectangle(front, (x, y), (x + 36, y + 5), handle, -1)
            cv2.rectangle(front, (x, y + 6), (x + 36, y + 8), joint, -1)
    else:
        for k in range(3):
            y = k * height // 3
            cv2.rectangle(front, (2, y), (width - 2, y + height // 3), joint, 2)
            cv2.rectangle(front, (width // 2 - 30, y + 20), (width // 2 + 30, y + 26), handle, -1)
            cv2.rectangle(front, (width // 2 - 30, y + 27), (width // 2 + 30, y + 30), joint, -1)
    return front


def door(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A door leaf with panels, frame and handle."""
    leaf = rng.choice(np.array([plain, wood], dtype=object))(rng, height, width)
    colour = leaf.reshape(-1, 3).mean(0)
    cv2.rectangle(leaf, (0, 0), (width - 1, height), (np.clip(colour * 1.25 + 15, 0, 255)).tolist(), 14)
    cv2.rectangle(leaf, (14, 14), (width - 15, height), (colour * 0.5).tolist(), 2)
    if rng.random() < 0.6:
        for y0, y1 in ((0.12, 0.45), (0.55, 0.92)):
            box = (int(0.22 * width), int(y0 * height)), (int(0.78 * width), int(y1 * height))
            cv2.rectangle(leaf, *box, (colour * 0.7).tolist(), 3)
    cv2.circle(leaf, (int(0.86 * width), int(0.52 * height)), 6, (40, 50, 60), -1, cv2.LINE_AA)
    return leaf


def screen(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A monitor: dark frame, windows, text."""
    image = gradient(rng, height, width)
    for _ in range(rng.integers(1, 5)):
        x0, y0 = rng.uniform(0, 0.6, 2)
        w, h = rng.uniform(0.2, 0.5, 2)
        part = image[int(y0 * height) : int((y0 + h) * height), int(x0 * width) : int((x0 + w) * width)]
        part[:] = rng.choice(np.array([text, shapes, plain], dtype=object))(rng, *part.shape[:2])
    cv2.rectangle(image, (0, 0), (width - 1, height - 1), (25, 25, 25), 12)
    return image


def poster(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A framed picture, notice, label or book cover."""
    image = rng.choice(np.array([shapes, text, noise, gradient, checks], dtype=object))(rng, height, width)
    if rng.random() < 0.5:
        part = image[: int(height * rng.uniform(0.15, 0.4))]
        part[:] = text(rng, *part.shape[:2])
    if rng.random() < 0.6:
        border = int(rng.choice([4, 10, 18]))
        cv2.rectangle(image, (0, 0), (width - 1, height - 1), random_colour(rng, 0.1).tolist(), border)
    return image


def carton(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A cardboard box or parcel with tape and a label."""
    hue = np.array([[[rng.uniform(22, 38), rng.uniform(0.2, 0.5), rng.uniform(0.45, 0.75)]]], np.float32)
    image = np.empty((height, width, 3), np.float32)
    image[:] = cv2.cvtColor(hue, cv2.COLOR_HSV2BGR)[0, 0] * 255
    image = grain(rng, image, 0.08, 32)
    cv2.rectangle(image, (0, height // 2 - 10), (width, height // 2 + 10), (image[0, 0] * 0.8).tolist(), -1)
    x, y = int(rng.uniform(0.1, 0.5) * width), int(rng.uniform(0.05, 0.5) * height)
    label = image[y : y + height // 3, x : x + width // 3]
    label[:] = text(rng, *label.shape[:2])
    return image


def paint(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """White, slightly worn: cars and anything else whose colour comes from its tint."""
    field = fractal_noise(rng, height, width, 128, 0.5)
    return cv2.merge([cv2.convertScaleAbs(0.88 + 0.1 * field, alpha=255.0)] * 3)


def glass(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Dark pane with the bright sky mirrored in its upper part."""
    y = np.linspace(rng.uniform(0.3, 0.7), rng.uniform(0.03, 0.2), height)[:, None]
    field = np.clip(y + 0.15 * (fractal_noise(rng, height, width, 64, 0.5) - 0.5), 0, 1)
    return colourise(field, np.stack([np.arange(256) * c for c in (1.0, 0.95, 0.9)], 1).clip(0, 255).astype(np.uint8))


def wheel(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Side of a wheel; drawn once round the middle, so that it may lie on any disc."""
    image = np.full((height, width, 3), 30, np.uint8)
    rim = int(rng.uniform(90, 200))
    for k in range(5):
        x = int((k + 0.5) * width / 5)
        cv2.rectangle(image, (x - 14, height // 4), (x + 14, height), (rim, rim, rim), -1)
    return image


def marking(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Worn white road paint."""
    field = fractal_noise(rng, height, width, 32, 0.8)
    value = np.clip(215 - rng.uniform(10, 160) * np.clip(field - 0.5, 0, 1) * 2, 0, 255)
    return grain(rng, np.repeat(value[..., None], 3, 2), 0.06)


def sign(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A traffic or shop sign: strong colours, a border and letters or a bar."""
    image = np.empty((height, width, 3), np.uint8)
    image[:] = random_colour(rng, rng.choice([0.05, 0.85]), rng.uniform(0.5, 0.95)).astype(np.uint8)
    cv2.rectangle(image, (0, 0), (width - 1, height - 1), random_colour(rng, 0.8, 0.7).tolist(), 26)
    if rng.random() < 0.6:
        part = image[height // 4 : 3 * height // 4, width // 6 : 5 * width // 6]
        part[:] = text(rng, *part.shape[:2])
    else:
        cv2.rectangle(image, (width // 5, height // 2 - 20), (4 * width // 5, height // 2 + 20), (20, 20, 20), -1)
    return image


SURFACES: dict[str, Texture] = TEXTURES | {
    function.__name__: function
    for function in (
        clouds, foliage, twigs, treeline, fence, facade, shopfront, roof, concrete, soil, paving, carpet, books,
        cupboard, door, screen, poster, carton, paint, glass, wheel, marking, sign,
    )
}  # fmt: skip
SEAMLESS = {
    "asphalt",
    "grass",
    "soil",
    "noise",
    "leaves",
    "foliage",
    "concrete",
    "clouds",
    "pebbles",
    "plain",
    "carpet",
}
"""Textures that are cross-faded at their border because they are repeated over large areas."""

"""The one primitive of every scene, a flat four-sided piece, and the solids that are built of it.

A piece is ``X(u, v) = origin + u edge_u + v edge_v`` for ``0 <= v <= 1`` and ``left v <= u <= 1 - right v``. The two
tapers make parallelograms (0, 0), trapezoids and triangles (0, 1) of the same formula, and a piece stays one under any
affine map. Ray and piece meet in closed form: (u, v, 1) / z is linear in the pixel, so depth and flow are exact.
World frame: x forward along the street, y left, z up, metres.
"""

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np


@dataclass
class Pieces:
    """P pieces as arrays; the last axes are given, float64 unless said.

    origin, edge_u, edge_v (P, 3) in the frame of the piece's object; taper (P, 2): left, right.
    normal (P, 3, 3): shading normal is normal[0] + u normal[1] + v normal[2], not yet of unit length.
    st (P, 2, 3): texture coordinates in repeats, st[..., 0] u + st[..., 1] v + st[..., 2].
    material (P,) int: index of the texture; tint (P, 3) BGR factor; glow (P,): light it gives off itself.
    object (P,) int: which rigid object (0: the static world); surface (P,) int: pieces of one smooth surface share it.
    one_sided (P,) bool: not drawn from behind. alpha (P,) bool: holes where the texture's alpha is below a half.
    ground (P,) bool: floor or soil that things stand on; it gets their contact shadow and gives none.
    """

    origin: np.ndarray
    edge_u: np.ndarray
    edge_v: np.ndarray
    taper: np.ndarray
    normal: np.ndarray
    st: np.ndarray
    material: np.ndarray
    tint: np.ndarray
    glow: np.ndarray
    object: np.ndarray
    surface: np.ndarray
    one_sided: np.ndarray
    alpha: np.ndarray
    ground: np.ndarray


@dataclass(frozen=True)
class Look:
    """What a piece is covered with: texture (name, variant), tint, metres of one repeat (None: fit the piece)."""

    texture: tuple[str, int]
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    repeat: float | None = None
    alpha: bool = False
    glow: float = 0.0
    ground: bool = False


def cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cross product along the last axis, quicker for short arrays than NumPy's."""
    x, y, z = a[..., 1] * b[..., 2], a[..., 2] * b[..., 0], a[..., 0] * b[..., 1]
    x, y, z = x - a[..., 2] * b[..., 1], y - a[..., 0] * b[..., 2], z - a[..., 1] * b[..., 0]
    return np.stack([x, y, z], -1)


def _unit_sphere(columns: int, rings: int) -> tuple[np.ndarray, ...]:
    """Trapezoids of a unit sphere: origin, edge_u, edge_v, taper, uv origin and edges; wide sides at v = 0."""
    theta = np.linspace(0, 2 * np.pi, columns + 1)
    phi = np.linspace(-np.pi / 2, np.pi / 2, rings + 1)
    origin, eu, ev, taper, st = [], [], [], [], []
    for low, high in pairwise(phi):
        for a, b in pairwise(theta):
            flip = abs(high) < abs(low) - 1e-9
            near, far = (high, low) if flip else (low, high)
            if flip:
                a, b = b, a

            def at(t, p):
                return np.array([np.cos(p) * np.cos(t), np.cos(p) * np.sin(t), np.sin(p)])

            p0, p1, p3 = at(a, near), at(b, near), at(a, far)
            width = np.linalg.norm(p1 - p0)
            t = 0.5 * (1 - np.linalg.norm(at(b, far) - p3) / width)
            origin.append(p0)
            eu.append(p1 - p0)
            ev.append(p3 - p0 - t * (p1 - p0))
            taper.append([t, t])
            st.append([[(b - a) / np.pi, 0, a / np.pi], [0, (near - far) / np.pi, 0.5 - near / np.pi]])
    return tuple(np.array(x) for x in (origin, eu, ev, taper, st))


_SPHERES = {n: _unit_sphere(*n) for n in ((10, 6), (7, 4))}


@dataclass
class Builder:
    """Collects pieces. ``place`` (4, 4) maps what is added into the frame of ``object``, which it belongs to."""

    textures: dict[tuple[str, int], int] = field(default_factory=dict)
    parts: list[tuple[int, dict, dict]] = field(default_factory=list)
    place: np.ndarray = field(default_factory=lambda: np.eye(4))
    object: int = 0
    surfaces: int = 0

    def add(
        self,
        origin: np.ndarray,
        edge_u: np.ndarray,
        edge_v: np.ndarray,
        look: Look,
        taper: np.ndarray | tuple[float, float] = (0.0, 0.0),
        normal: np.ndarray | None = None,
        st: np.ndarray | None = None,
        one_sided: bool = False,
        one_surface: bool = False,
    ) -> None:
        """Add P pieces (arrays (P, 3) or one (3,)). ``normal`` as in Pieces; flat along edge_u x edge_v by default."""
        origin, edge_u, edge_v = (np.array(a, np.float64, ndmin=2) for a in (origin, edge_u, edge_v))
        n = max(len(origin), len(edge_u), len(edge_v))
        if not len(origin) == len(edge_u) == len(edge_v):
            origin, edge_u, edge_v = (a if len(a) == n else np.repeat(a, n, 0) for a in (origin, edge_u, edge_v))
        R, t = self.place[:3, :3], self.place[:3, 3]
        if st is None:
            st = np.zeros((n, 2, 3))
            if look.repeat is None:
                st[:, 0, 0] = 1.0
                st[:, 1, 1], st[:, 1, 2] = -1.0, 1.0
            else:
                # Metres along each edge; a second piece of the same plane continues the pattern of the first.
                length_u = np.linalg.norm(edge_u, axis=1)
                along_u = edge_u / np.maximum(length_u, 1e-9)[:, None]
                across = edge_v - np.sum(edge_v * along_u, 1)[:, None] * along_u
                across /= np.maximum(np.linalg.norm(across, axis=1), 1e-9)[:, None]
                for row, (axis, sign) in enumerate(((along_u, 1.0), (across, -1.0))):
                    for column, vector in enumerate((edge_u, edge_v, origin)):
                        st[:, row, column] = sign * np.sum(vector * axis, 1) / look.repeat
        edge_u, edge_v, origin = edge_u @ R.T, edge_v @ R.T, origin @ R.T + t
        if normal is None:
            normal = np.zeros((n, 3, 3))
            flat = cross(edge_u, edge_v)
            normal[:, 0] = flat / np.maximum(np.sqrt((flat * flat).sum(1)), 1e-12)[:, None]
        else:
            # Normals go with the inverse transpose, so that stretched spheres are shaded right.
            normal = normal @ np.linalg.inv(R)
        material = self.textures.setdefault(look.texture, len(self.textures))
        taper = np.array(taper, np.float64, ndmin=2)
        surface = np.full(n, self.surfaces) if one_surface else self.surfaces + np.arange(n)
        self.surfaces = int(surface[-1]) + 1
        self.parts.append((
            n,
            {
                "origin": origin,
                "edge_u": edge_u,
                "edge_v": edge_v,
                "taper": taper if len(taper) == n else np.repeat(taper, n, 0),
                "normal": normal,
                "st": st,
                "surface": surface,
            },
            {
                "material": material,
                "tint": look.tint,
                "glow": look.glow,
                "object": self.object,
                "one_sided": one_sided,
                "alpha": look.alpha,
                "ground": look.ground,
            },
        ))  # fmt: skip

    def pieces(self) -> Pieces:
        """Everything added so far."""
        arrays, shared = self.parts[0][1], self.parts[0][2]
        counts = [n for n, _, _ in self.parts]
        return Pieces(
            **{key: np.concatenate([part[1][key] for part in self.parts]) for key in arrays},
            **{key: np.repeat(np.array([part[2][key] for part in self.parts]), counts, axis=0) for key in shared},
        )

    # ------------------------------------------------------------------------------------------------------- solids
    def quad(self, origin, edge_u, edge_v, look: Look, taper=(0.0, 0.0), one_sided: bool = False) -> None:
        """One flat piece, seen from both sides unless ``one_sided`` (then from where edge_u x edge_v points to)."""
        self.add(origin, edge_u, edge_v, look, taper, one_sided=one_sided)

    def box(self, centre, size, look: Look, top: Look | None = None, yaw: float = 0.0, bottom: bool = True) -> None:
        """Upright box, ``centre`` of its volume, ``size`` along its own x, y, z, turned by ``yaw`` about z."""
        c, s = np.cos(yaw), np.sin(yaw)
        half = np.asarray(size, np.float64) / 2
        ax, ay, az = np.array([c, s, 0]) * half[0], np.array([-s, c, 0]) * half[1], np.array([0, 0, half[2]])
        m = np.asarray(centre, np.float64)
        sides = [(ax, -ay, az), (ay, ax, az), (-ax, ay, az), (-ay, -ax, az)]  # outward, half of "left", up
        origin = np.array([m + out + left - up for out, left, up in sides])
        self.add(origin, np.array([-2 * left for _, left, _ in sides]), 2 * az, look, one_sided=True)
        self.add(m + az - ax - ay, 2 * ax, 2 * ay, top or look, one_sided=True)
        if bottom:
            self.add(m - az - ax - ay, 2 * ay, 2 * ax, look, one_sided=True)

    def cylinder(
        self,
        base,
        radius: float,
        height: float,
        look: Look,
        top_radius: float | None = None,
        columns: int = 9,
        axis=(0.0, 0.0, 1.0),
        cap: Look | None = None,
    ) -> None:
        """Round column or cone stump from ``base`` along ``axis``; with a flat top when ``cap`` is given."""
        top_radius = radius if top_radius is None else top_radius
        axis = np.asarray(axis, np.float64) / np.linalg.norm(axis)
        helper = np.array([1.0, 0, 0]) if abs(axis[0]) < 0.9 else np.array([0, 1.0, 0])
        x = np.cross(helper, axis)
        x /= np.linalg.norm(x)
        y = np.cross(axis, x)
        angle = np.linspace(0, 2 * np.pi, columns + 1)
        ring = np.cos(angle)[:, None] * x + np.sin(angle)[:, None] * y
        base = np.asarray(base, np.float64)
        a, b = ring[:-1], ring[1:]
        tip = base + axis * height
        if top_radius <= radius:
            o, eu, far, t = base + radius * a, radius * (b - a), tip + top_radius * a, 0.5 * (1 - top_radius / radius)
            n0, n1 = a, b - a
        else:
            o, eu, far, t = (
                tip + top_radius * b,
                top_radius * (a - b),
                base + radius * b,
                0.5 * (1 - radius / top_radius),
            )
            n0, n1 = b, a - b
        ev = far - o - t * eu
        normal = np.stack([n0, n1, np.zeros_like(n0)], 1)
        repeat = look.repeat or height
        around = 2 * np.pi * max(radius, top_radius) / repeat / columns
        st = np.zeros((columns, 2, 3))
        st[:, 0, 0], st[:, 0, 2] = around, np.arange(columns) * around
        st[:, 1, 1], st[:, 1, 2] = -height / repeat, height / repeat
        self.add(o, eu, ev, look, (t, t), normal, st, one_sided=True, one_surface=True)
        if cap is not None:
            # Triangles from the centre: edge_u along the rim, edge_v to the middle.
            o, eu = tip + top_radius * a, top_radius * (b - a)
            self.add(o, eu, tip - o, cap, (0.0, 1.0), one_sided=True, one_surface=True)

    def ellipsoid(self, centre, radii, look: Look, rotation=None, fine: bool = True, one_sided: bool = True) -> None:
        """Ellipsoid as a faceted sphere with smooth shading; ``rotation`` (3, 3) of its axes."""
        origin, eu, ev, taper, st = _SPHERES[(10, 6) if fine else (7, 4)]
        radii = np.asarray(radii, np.float64)
        R = np.eye(3) if rotation is None else np.asarray(rotation)
        linear = R * radii
        normal = np.stack([origin, eu, ev], 1) @ np.linalg.inv(linear)
        normal *= float(np.mean(radii))
        scale = 1.0 if look.repeat is None else np.pi * float(np.mean(radii)) / look.repeat
        self.add(
            origin @ linear.T + np.asarray(centre),
            eu @ linear.T,
            ev @ linear.T,
            look,
            taper,
            normal,
            st * scale,
            one_sided=one_sided,
            one_surface=True,
        )

    def triangles(self, corners: np.ndarray, look: Look, normals: np.ndarray | None = None, one_sided: bool = True):
        """Triangles (N, 3, 3) [corner, xyz], counter-clockwise from outside; ``normals`` (N, 3, 3) at the corners."""
        a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
        normal = None
        if normals is not None:
            normal = np.stack([normals[:, 0], normals[:, 1] - normals[:, 0], normals[:, 2] - normals[:, 0]], 1)
        st = None
        if look.repeat is not None:
            # Flat projection along z: what lies on the ground continues from triangle to triangle.
            st = np.zeros((len(corners), 2, 3))
            for row in range(2):
                for column, vector in enumerate((b - a, c - a, a)):
                    st[:, row, column] = vector[:, row] / look.repeat
        self.add(a, b - a, c - a, look, (0.0, 1.0), normal, st, one_sided=one_sided, one_surface=normals is not None)

    def extrusion(self, profile: np.ndarray, width: float, look: Look, end: Look | None = None, smooth: bool = False):
        """Solid with the outline ``profile`` (n, 2) in x, z, counter-clockwise seen from -y, ``width`` along y."""
        p = np.asarray(profile, np.float64)
        q = np.roll(p, -1, axis=0)

        def lift(outline: np.ndarray, y: float) -> np.ndarray:
            return np.stack([outline[:, 0], np.full(len(outline), y), outline[:, 1]], 1)

        normal = None
        if smooth:
            edge = q - p
            flat = np.stack([edge[:, 1], np.zeros(len(p)), -edge[:, 0]], 1)
            flat /= np.linalg.norm(flat, axis=1, keepdims=True)
            corner = flat + np.roll(flat, 1, axis=0)
            corner /= np.linalg.norm(corner, axis=1, keepdims=True)
            normal = np.stack([corner, np.zeros_like(corner), np.roll(corner, -1, axis=0) - corner], 1)
        o = lift(p, -width / 2)
        along = np.array([[0.0, width, 0.0]])
        self.add(o, along, lift(q, -width / 2) - o, look, normal=normal, one_sided=True, one_surface=smooth)
        middle = np.broadcast_to(p.mean(0), p.shape)
        for y, first, second in ((-width / 2, p, q), (width / 2, q, p)):
            a, b, c = lift(first, y), lift(second, y), lift(middle, y)
            self.add(a, b - a, c - a, end or look, (0.0, 1.0), one_sided=True, one_surface=True)

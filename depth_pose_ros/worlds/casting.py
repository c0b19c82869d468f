"""Ray casting of flat pieces with torch, on the CPU or a GPU.

For a piece ``X(u, v) = o + u e_u + v e_v`` in camera coordinates, the pixel (x, y, 1) meets it at
``(u, v, 1) / z = M (x, y, 1)`` with ``M = (K [e_u e_v o])^-1``. So 1/z and every side of the piece are linear along an
image row: ``cast`` finds the exact run of pixels of each piece in each row and keeps the nearest piece per pixel. What
is known afterwards (piece, u, v, z) is exact in float64; colours are averaged over the pixel's footprint.
"""

from dataclasses import dataclass

import numpy as np
import torch

from .materials import Atlas
from .surfaces import Pieces

NEAR = 0.05
"""Nothing closer than this (m) is drawn."""


@dataclass
class Geometry:
    """Pieces as tensors on one device; shapes and meaning as in ``Pieces``. Positions float64, the rest float32."""

    origin: torch.Tensor
    edge_u: torch.Tensor
    edge_v: torch.Tensor
    taper: torch.Tensor
    normal: torch.Tensor
    st: torch.Tensor
    material: torch.Tensor
    tint: torch.Tensor
    glow: torch.Tensor
    object: torch.Tensor
    surface: torch.Tensor
    one_sided: torch.Tensor
    alpha: torch.Tensor
    ground: torch.Tensor

    @classmethod
    def of(cls, pieces: Pieces, device: torch.device | str) -> "Geometry":
        """Copy the arrays to ``device``."""
        exact = {"origin", "edge_u", "edge_v", "taper"}
        tensors = {}
        for name, array in vars(pieces).items():
            array = np.asarray(array)
            if array.dtype.kind == "f":
                array = array.astype(np.float64 if name in exact else np.float32)
            tensors[name] = torch.from_numpy(np.ascontiguousarray(array)).to(device)
        return cls(**tensors)

    def subset(self, chosen: torch.Tensor) -> "Geometry":
        """The pieces where ``chosen`` (P,) bool is True."""
        return Geometry(**{name: tensor[chosen] for name, tensor in vars(self).items()})


@dataclass
class View:
    """Pieces as one camera sees them: rows of M for (u, v, 1) / z, the key whose largest value is nearest, the bounds.

    rows (P, 3, 3) float64; key (P, 3) float64; low, high (P, 2) float64 px bounds of what lies before the near plane;
    shown (P,) bool; taper (P, 2); perspective: False for parallel rays (then w = 1 and the key is -depth).
    """

    rows: torch.Tensor
    key: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor
    shown: torch.Tensor
    taper: torch.Tensor
    perspective: bool

    def shifted(self, x: float, y: float) -> "View":
        """The same view with pixel (x, y) as its first."""
        S = torch.tensor([[1, 0, x], [0, 1, y], [0, 0, 1]], dtype=torch.float64, device=self.rows.device)
        by = S[:2, 2]
        return View(
            self.rows @ S, self.key @ S, self.low - by, self.high - by, self.shown, self.taper, self.perspective
        )


def _corners(o: torch.Tensor, eu: torch.Tensor, ev: torch.Tensor, taper: torch.Tensor) -> torch.Tensor:
    left, right = taper[:, :1], 1 - taper[:, 1:]
    return torch.stack([o, o + eu, o + ev + right * eu, o + ev + left * eu], 1)


def perspective_view(geometry: Geometry, T_camera_object: torch.Tensor, K: torch.Tensor) -> View:
    """View of a pinhole camera. ``T_camera_object``: (N, 4, 4) float64 for each object; K: (3, 3) float64."""
    T = T_camera_object[geometry.object]
    R = T[:, :3, :3]
    eu = (R @ geometry.edge_u[:, :, None])[..., 0]
    ev = (R @ geometry.edge_v[:, :, None])[..., 0]
    o = (R @ geometry.origin[:, :, None])[..., 0] + T[:, :3, 3]
    a, b, c = eu @ K.T, ev @ K.T, o @ K.T
    cross = torch.linalg.cross(a, b)
    det = (cross * c).sum(1, keepdim=True)
    usable = det.abs() > 1e-12
    rows = torch.stack([torch.linalg.cross(b, c), torch.linalg.cross(c, a), cross], 1)
    rows = rows / torch.where(usable, det, torch.ones_like(det))[..., None]
    shown = usable[:, 0] & ~(geometry.one_sided & (det[:, 0] > 0))
    low, high = _bounds(_corners(c, a, b, geometry.taper))
    shown &= high[:, 0] >= low[:, 0]
    return View(rows, rows[:, 2], low, high, shown, geometry.taper, True)


def parallel_view(geometry: Geometry, T_map_object: torch.Tensor) -> View:
    """View along +z of a frame whose x, y are in pixels: shadow maps. ``T_map_object``: (N, 4, 4) for each object."""
    T = T_map_object[geometry.object]
    R = T[:, :3, :3]
    a, b = (R @ geometry.edge_u[:, :, None])[..., 0], (R @ geometry.edge_v[:, :, None])[..., 0]
    c = (R @ geometry.origin[:, :, None])[..., 0] + T[:, :3, 3]
    det = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    usable = det.abs() > 1e-9
    safe = torch.where(usable, det, torch.ones_like(det))
    u = torch.stack([b[:, 1], -b[:, 0], b[:, 0] * c[:, 1] - b[:, 1] * c[:, 0]], 1) / safe[:, None]
    v = torch.stack([-a[:, 1], a[:, 0], a[:, 1] * c[:, 0] - a[:, 0] * c[:, 1]], 1) / safe[:, None]
    w = torch.zeros_like(u)
    w[:, 2] = 1
    depth = a[:, 2:] * u + b[:, 2:] * v + c[:, 2:] * w
    corners = _corners(c, a, b, geometry.taper)[..., :2]
    return View(torch.stack([u, v, w], 1), -depth, corners.amin(1), corners.amax(1), usable, geometry.taper, False)


def cast(
    view: View, width: int, height: int, geometry: Geometry, atlas: Atlas | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Nearest piece at every pixel: (height * width,) int64 index, -1 where there is none, and its key float32.

    With an ``atlas``, pieces with holes are looked through where they have one.
    """
    device = view.rows.device
    runs = _runs(view, width, height)
    lowest = torch.iinfo(torch.int64).min
    nearest = torch.full((height * width,), lowest, dtype=torch.int64, device=device)

    holed = (
        geometry.alpha.index_select(0, runs.piece) if atlas is not None else torch.zeros_like(runs.piece, dtype=bool)
    )
    solid_runs, holed_runs = (~holed).nonzero().squeeze(1), holed.nonzero().squeeze(1)
    pixel, packed, *_ = _expand(runs, solid_runs, width)
    nearest.scatter_reduce_(0, pixel, packed, "amax")
    if len(holed_runs):
        pixel, packed, run, x = _expand(runs, holed_runs, width)
        # Only where nothing solid is in front is it worth asking the texture.
        ahead = (packed > nearest.index_select(0, pixel)).nonzero().squeeze(1)
        pixel, packed, run, x = (a.index_select(0, ahead) for a in (pixel, packed, run, x))
        if len(pixel):
            packed = torch.where(_solid(runs, view, geometry, atlas, run, x), packed, lowest)
            nearest.scatter_reduce_(0, pixel, packed, "amax")

    empty = nearest == lowest
    ids = torch.where(empty, -1, nearest & 0xFFFFFFFF)
    bits = nearest >> 32
    bits = torch.where(bits < 0, (-1 - bits) | -0x80000000, bits).to(torch.int32)
    return ids, torch.where(empty, -torch.inf, bits.view(torch.float32))


@dataclass
class _Runs:
    """Runs of pixels in image rows, each of one piece. All (S,); the key is slope x + constant along the run."""

    piece: torch.Tensor
    y: torch.Tensor
    x0: torch.Tensor
    count: torch.Tensor
    key_slope: torch.Tensor
    key_constant: torch.Tensor


def _runs(view: View, width: int, height: int) -> _Runs:
    """Where each piece lies in each image row, from its four sides, which are linear along the row."""
    device = view.rows.device
    index, first, last = _row_range(view, width, height)
    rows_of = last - first + 1
    local = torch.repeat_interleave(rows_of)
    piece = index.index_select(0, local)
    start = torch.cumsum(rows_of, 0) - rows_of
    y = torch.arange(len(piece), device=device) - (start - first).index_select(0, local)
    yf = y.double()

    M = view.rows.reshape(-1, 9).index_select(0, piece).T.contiguous().reshape(3, 3, -1)
    slope, constant = M[:, 0], M[:, 1] * yf + M[:, 2]
    left, right = view.taper.index_select(0, piece).T

    def sides(u: torch.Tensor, v: torch.Tensor, w: torch.Tensor) -> list[torch.Tensor]:
        return [u - left * v, w - right * v - u, v, w - v]

    slopes, constants = sides(*slope), sides(*constant)
    if view.perspective:
        slopes.append(-slope[2])
        constants.append(1 / NEAR - constant[2])
    low = torch.full_like(yf, -torch.inf)
    high = torch.full_like(yf, torch.inf)
    for a, b in zip(slopes, constants, strict=True):
        crossing = -b / a  # infinite for sides along the row: of the right sign, as b decides
        low = torch.where(a > 0, torch.maximum(low, crossing), low)
        high = torch.where(a < 0, torch.minimum(high, crossing), high)
        high = torch.where((a == 0) & (b < 0), -torch.inf, high)
    # The tiny margin closes the seam between pieces that share an edge.
    x0 = torch.ceil(low.clamp_(0, width) - 1e-6).long()
    x1 = torch.floor(high.clamp_(-1, width - 1) + 1e-6).long()
    some = (x1 >= x0).nonzero().squeeze(1)
    piece, y, yf, x0, x1 = (a.index_select(0, some) for a in (piece, y, yf, x0, x1))
    key = view.key.index_select(0, piece)
    return _Runs(piece, y, x0, x1 - x0 + 1, key[:, 0].float(), (key[:, 1] * yf + key[:, 2]).float())


def _expand(runs: _Runs, chosen: torch.Tensor, width: int) -> tuple[torch.Tensor, ...]:
    """Pixels of the chosen runs: flat pixel index, key and piece packed in one number, run, x; all (N,)."""
    count = runs.count.index_select(0, chosen)
    run = chosen.repeat_interleave(count)
    begin = torch.zeros_like(runs.count)
    begin[chosen] = torch.cumsum(count, 0) - count
    x = torch.arange(len(run), device=run.device) - (begin - runs.x0).index_select(0, run)
    pixel = (runs.y * width).index_select(0, run) + x
    value = torch.addcmul(runs.key_constant.index_select(0, run), runs.key_slope.index_select(0, run), x)
    # One 64-bit number orders by key, then by piece: the result does not depend on the order of the work.
    bits = value.view(torch.int32)
    bits = torch.where(bits < 0, -1 - (bits & 0x7FFFFFFF), bits).long()
    return pixel, (bits << 32) | runs.piece.index_select(0, run), run, x


def _bounds(p: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixel bounds (P, 2) of pieces with corners (P, 4, 3) (x w, y w, w), cut at the near plane; low > high: none."""
    z = p[..., 2]
    ahead = z >= NEAR
    xy = p[..., :2] / torch.where(ahead, z, torch.ones_like(z))[..., None]
    low = torch.where(ahead[..., None], xy, 1e9).amin(1)
    high = torch.where(ahead[..., None], xy, -1e9).amax(1)
    cut = (ahead.any(1) & ~ahead.all(1)).nonzero().squeeze(1)
    if len(cut):
        p, q = p[cut], torch.roll(p[cut], -1, 1)
        zp, zq = p[..., 2], q[..., 2]
        crosses = (zp < NEAR) != (zq < NEAR)
        t = (NEAR - zp) / torch.where(crosses, zq - zp, torch.ones_like(zp))
        xy = (p + t[..., None] * (q - p))[..., :2] / NEAR
        low[cut] = torch.minimum(low[cut], torch.where(crosses[..., None], xy, 1e9).amin(1))
        high[cut] = torch.maximum(high[cut], torch.where(crosses[..., None], xy, -1e9).amax(1))
    return low, high


def _row_range(view: View, width: int, height: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pieces that touch a pixel centre's row and column, and the first and last row of each."""
    (x0, y0), (x1, y1) = view.low.T, view.high.T
    first = torch.ceil(y0.clamp(0, height) - 1e-6)
    last = torch.floor(y1.clamp(-1, height - 1) + 1e-6)
    left = torch.ceil(x0.clamp(0, width) - 1e-6)
    right = torch.floor(x1.clamp(-1, width - 1) + 1e-6)
    index = (view.shown & (last >= first) & (right >= left)).nonzero().squeeze(1)
    return index, first.index_select(0, index).long(), last.index_select(0, index).long()


def _solid(
    runs: _Runs, view: View, geometry: Geometry, atlas: Atlas, run: torch.Tensor, x: torch.Tensor
) -> torch.Tensor:
    """Whether the texture is opaque at column x (N,) of the runs (N,)."""
    used, local = torch.unique(run, return_inverse=True)
    piece = runs.piece.index_select(0, used)
    y = runs.y.index_select(0, used).double()
    M = view.rows.index_select(0, piece)
    st = geometry.st.index_select(0, piece).double() @ M
    # s / z, t / z and 1 / z are linear in the pixel; so is what they change by.
    table = torch.cat([st, M[:, 2:]], 1)
    at_0 = table[:, :, 1] * y[:, None] + table[:, :, 2]
    columns = torch.cat([at_0, table[:, :, 0], table[:, :, 1]], 1).float()
    s0, t0, w0, sx, tx, wx, sy, ty, wy = columns.index_select(0, local).T.contiguous()
    xf = x.float()
    z = 1 / (w0 + wx * xf)
    s, t = (s0 + sx * xf) * z, (t0 + tx * xf) * z
    across = torch.maximum((sx - s * wx).abs(), (sy - s * wy).abs())
    along = torch.maximum((tx - t * wx).abs(), (ty - t * wy).abs())
    material = geometry.material.index_select(0, piece).index_select(0, local)
    return atlas.alpha(material, s, t, torch.maximum(across, along) * z) > 127


@dataclass
class Hits:
    """Where N pixels meet their pieces. piece (N,) int64; u, v, z (N,) float64; rows (9, N) float32 of M."""

    piece: torch.Tensor
    u: torch.Tensor
    v: torch.Tensor
    z: torch.Tensor
    rows: torch.Tensor


def meet(view: View, piece: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> Hits:
    """Exact meeting point of pixels (x, y) float64 with the plane of the given pieces."""
    M = view.rows.reshape(-1, 9).index_select(0, piece).T.contiguous()
    U, V, W = (M[3 * i] * x + M[3 * i + 1] * y + M[3 * i + 2] for i in range(3))
    z = 1 / W
    return Hits(piece, U * z, V * z, z, M.float())


def footprint(st: torch.Tensor, hits: Hits) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Texture coordinates (2, N) float32 of hits, and their change over one pixel to the right and down.

    st: (6, N) float32, the pieces' texture coordinates in the order of ``Geometry.st``.
    """
    u, v, z, M = hits.u.float(), hits.v.float(), hits.z.float(), hits.rows
    at = torch.stack([st[0] * u + st[1] * v + st[2], st[3] * u + st[4] * v + st[5]])
    changes = []
    for axis in range(2):
        du = (M[axis] - u * M[6 + axis]) * z
        dv = (M[3 + axis] - v * M[6 + axis]) * z
        changes.append(torch.stack([st[0] * du + st[1] * dv, st[3] * du + st[4] * dv]))
    return at, changes[0], changes[1]

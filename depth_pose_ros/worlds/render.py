"""A scene of flat pieces under a sun or lamp, and what a camera sees of it: colours, depth, objects, exact flow."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch.nn import functional as F

from .casting import Geometry, Hits, View, cast, footprint, meet, parallel_view, perspective_view
from .materials import Atlas
from .sample import Sample
from .surfaces import Builder


@dataclass(frozen=True)
class Light:
    """Light of a scene, in linear units where 1 is a white surface in full sun.

    direction: (3,) unit vector towards the sun or lamp; sun: (3,) BGR of its direct light; sky: (3,) BGR of the light
    from above, also the sky's colour overhead; bounce: (3,) BGR of the light from below; horizon: (3,) BGR of the sky
    at the horizon and of the haze; haze: distance (m) at which 63 % is haze; clouds: contrast of the clouds, 0..1;
    lamp: (3,) position of a lamp whose light falls off with distance, or None.
    """

    direction: np.ndarray
    sun: np.ndarray
    sky: np.ndarray
    bounce: np.ndarray
    horizon: np.ndarray
    haze: float = 1e9
    clouds: float = 0.0
    lamp: np.ndarray | None = None
    softness: int = 1
    """Radius of the shadow's soft border in texels of the shadow map (0.05 m indoors to 0.15 m outdoors)."""


@dataclass(frozen=True)
class RigidObject:
    """Something that moves: pose at time 0 and body-frame velocity (vx, vy, vz, wz) in m/s and rad/s."""

    T_world_object: np.ndarray
    velocity: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)

    def pose(self, time: float) -> np.ndarray:
        """T_world_object (4, 4) at ``time`` s: constant velocity and turn rate about the object's z."""
        vx, vy, vz, wz = self.velocity
        angle = wz * time
        if abs(angle) < 1e-9:
            along, across = time, 0.0
        else:
            along, across = np.sin(angle) / wz, (1 - np.cos(angle)) / wz
        c, s = np.cos(angle), np.sin(angle)
        T = np.eye(4)
        T[:2, :2] = [[c, -s], [s, c]]
        T[:3, 3] = [vx * along - vy * across, vx * across + vy * along, vz * time]
        return self.T_world_object @ T


@dataclass
class Scene:
    """Pieces, textures, moving objects and light. Made by ``scenes.make_scene``; see ``Builder`` for the pieces.

    extent: (x0, y0, x1, y1) m of the region whose shadows are worked out. texel: size (m) of a shadow texel.
    """

    kind: str
    builder: Builder
    light: Light
    extent: tuple[float, float, float, float]
    texel: float
    objects: list[RigidObject] = field(default_factory=list)
    device: str = "cpu"
    outlook: dict = field(default_factory=dict)
    """What the camera paths need to know of the scene, e.g. the road's course or the room's free floor."""

    def __post_init__(self) -> None:
        self.geometry = Geometry.of(self.builder.pieces(), self.device)
        names = list(self.builder.textures)
        self.clouds = self.builder.textures.get(("clouds", 0))
        self.atlas = Atlas.of(names, self.device)
        g = self.geometry
        parts = (g.st.flatten(1), g.normal.flatten(1), g.tint, g.glow[:, None])
        self.table = torch.cat(parts, 1)
        """(P, 19) float32 of what shading needs of a piece: st 6, normal 9, tint 3, glow 1."""
        moves = g.object > 0
        lamp_shines_through = (g.glow > 0) & (self.light.lamp is not None)
        casters = ~g.ground & ~lamp_shines_through
        self._casters = {
            ("light", False): g.subset(casters & ~moves),
            ("light", True): g.subset(casters & moves),
            ("up", False): g.subset(~g.ground & ~moves),
            ("up", True): g.subset(~g.ground & moves),
            ("down", False): g.subset(g.ground & ~moves),
        }
        self._frames = self._map_frames()
        self._maps: dict = {}

    def poses(self, time: float) -> np.ndarray:
        """T_world_object (N, 4, 4) at ``time``; object 0 is the static world."""
        return np.stack([np.eye(4)] + [o.pose(time) for o in self.objects])

    # ------------------------------------------------------------------------------------------------------- shadows
    def _map_frames(self) -> dict[str, tuple[np.ndarray, tuple[int, int]]]:
        """Frames (4, 4) of the parallel views, x and y in texels: along the light, up from below, down from above."""
        x0, y0, x1, y1 = self.extent
        frames = {}
        corners = np.array([[x, y, z] for x in (x0, x1) for y in (y0, y1) for z in (0.0, 3.0)])
        for name, d, texel in (
            ("light", -self.light.direction, self.texel),
            ("up", np.array([0, 0, 1.0]), self._contact_texel),
            ("down", np.array([0, 0, -1.0]), self._contact_texel),
        ):
            d = d / np.linalg.norm(d)
            helper = np.array([0.0, 1.0, 0.0]) if abs(d[1]) < 0.9 else np.array([1.0, 0, 0])
            ex = np.cross(helper, d)
            ex /= np.linalg.norm(ex)
            if name != "light":
                ex = np.array([1.0, 0, 0])
            ey = np.cross(d, ex) if name == "light" else np.array([0, 1.0, 0])
            T = np.eye(4)
            T[0, :3], T[1, :3], T[2, :3] = ex / texel, ey / texel, d
            low, high = (corners @ T[:2, :3].T).min(0), (corners @ T[:2, :3].T).max(0)
            T[:2, 3] = -low
            size = np.minimum(np.ceil(high - low).astype(int) + 1, 1600)
            frames[name] = (T, (int(size[0]), int(size[1])))
        return frames

    def _cast_map(self, name: str, moving: bool, time: float) -> tuple[torch.Tensor, tuple[slice, slice]]:
        """Depth (h, w) float32 along the map's direction, inf where nothing is, of the static or the moving pieces.

        The map of moving pieces covers only the window of the whole map that they fall in.
        """
        T, (width, height) = self._frames[name]
        casters = self._casters[name, moving]
        view = parallel_view(casters, torch.from_numpy(T @ self.poses(time)).to(self.device))
        x0 = y0 = 0
        if moving:
            (x0, y0), (x1, y1) = view.low.amin(0).tolist(), view.high.amax(0).tolist()
            x0, y0 = int(np.clip(x0, 0, width - 2)), int(np.clip(y0, 0, height - 2))
            width, height = int(np.clip(x1 + 2, x0 + 2, width)) - x0, int(np.clip(y1 + 2, y0 + 2, height)) - y0
            view = view.shifted(x0, y0)
        _, key = cast(view, width, height, casters, self.atlas)
        return -key.reshape(height, width), (slice(y0, y0 + height), slice(x0, x0 + width))

    def shadows(self, time: float) -> dict[str, torch.Tensor]:
        """Depth along the light, ground height and contact darkening (0..1), each (h, w) float32, at ``time``."""
        maps = self._maps
        if not maps:
            maps.update({name: self._cast_map(name, False, 0.0)[0] for name in ("light", "up", "down")})
            # What lies beyond the map is lit.
            maps["light"][[0, -1]] = torch.inf
            maps["light"][:, [0, -1]] = torch.inf
            maps["ground"] = torch.nan_to_num(-maps["down"], neginf=0.0)
            maps["dark"] = self._contact(maps["up"], maps["ground"])
        if maps.get("time") != (time if self.objects else 0.0):
            light, dark = maps["light"], maps["dark"]
            if len(self._casters["light", True].origin):
                low, window = self._cast_map("light", True, time)
                light = light.clone()
                light[window] = torch.minimum(light[window], low)
                low, window = self._cast_map("up", True, time)
                pad = 2 * max(1, round(0.6 / self._contact_texel))
                rows, columns = (slice(max(part.start - pad, 0), part.stop + pad) for part in window)
                around = torch.full_like(dark[rows, columns], torch.inf)
                y, x = window[0].start - rows.start, window[1].start - columns.start
                around[y : y + low.shape[0], x : x + low.shape[1]] = low
                dark = dark.clone()
                here = self._contact(around, maps["ground"][rows, columns])
                dark[rows, columns] = torch.maximum(dark[rows, columns], here)
            maps["now"] = {"light": light, "ground": maps["ground"], "dark": dark}
            maps["time"] = time if self.objects else 0.0
        return maps["now"]

    def _contact(self, lowest: torch.Tensor, ground: torch.Tensor) -> torch.Tensor:
        """Share (h, w) of the sky's light that what stands on or hangs just above the ground takes from it."""
        low = torch.nan_to_num(lowest, posinf=1e3)
        near = torch.exp(-(low - ground).clamp_min(0) / 0.35)[None, None]
        dark = torch.zeros_like(near)
        for radius, weight in ((0.15, 0.35), (0.6, 0.4)):
            near = _blur(near, max(1, round(radius / self._contact_texel)))
            dark = dark + weight * near
        return dark[0, 0]

    @property
    def _contact_texel(self) -> float:
        return 2.0 * self.texel


def _blur(image: torch.Tensor, radius: int) -> torch.Tensor:
    """Box blur (1, 1, h, w) of ``radius`` texels along both axes, twice; the border value goes on outside."""
    for axis in (2, 3, 2, 3):
        pad = (0, 0, radius, radius) if axis == 2 else (radius, radius, 0, 0)
        total = F.pad(image, (pad[0] + (axis == 3), pad[1], pad[2] + (axis == 2), pad[3]), mode="replicate")
        total = total.double().cumsum(axis)
        n, k = image.shape[axis], 2 * radius + 1
        image = ((total.narrow(axis, k, n) - total.narrow(axis, 0, n)) / k).float()
    return image


def _lookup(image: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Bilinear value (N,) of an (h, w) map at texel (x, y), edge values outside."""
    h, w = image.shape
    grid = torch.stack([(2 * x + 1) / w - 1, (2 * y + 1) / h - 1], -1)[None, None].float()
    return F.grid_sample(image[None, None], grid, mode="bilinear", padding_mode="border", align_corners=False)[0, 0, 0]


@dataclass
class Rendering:
    """What one camera sees. radiance: (3, H, W) float32 linear BGR; hits of the pixel centres; piece (H, W) int64."""

    radiance: torch.Tensor
    piece: torch.Tensor
    depth: torch.Tensor
    object: torch.Tensor


def _shade(scene: Scene, view: View, hits: Hits, pose_R: torch.Tensor, origin: torch.Tensor, rays: torch.Tensor,
           T_world_object: torch.Tensor, time: float) -> torch.Tensor:  # fmt: skip
    """Linear BGR (3, N) that comes from hits. ``rays`` (3, N) float32 world directions with z_camera = 1."""
    geometry, light, device = scene.geometry, scene.light, rays.device
    of = hits.piece
    table = scene.table.index_select(0, of).T.contiguous()
    st, st_dx, st_dy = footprint(table[:6], hits)
    colour = scene.atlas.sample(geometry.material.index_select(0, of), st, st_dx, st_dy)
    albedo = (colour * table[15:18] / 255).square_()

    u, v, z = hits.u.float(), hits.v.float(), hits.z.float()
    normal = table[6:9] + u * table[9:12] + v * table[12:15]
    moving = geometry.object.index_select(0, of)
    moved = (moving > 0).nonzero().squeeze(1)
    if len(moved):
        R = T_world_object[moving[moved], :3, :3].float()
        normal[:, moved] = (R @ normal[:, moved].T[:, :, None])[..., 0].T
    normal = normal / normal.square().sum(0).sqrt_().clamp_min_(1e-6)
    facing = (normal * rays).sum(0)
    normal = torch.where(facing > 0, -normal, normal)
    point = origin[:, None].float() + rays * z

    def vec(a) -> torch.Tensor:
        return torch.as_tensor(np.asarray(a), dtype=torch.float32, device=device)[:, None]

    shadows = scene.shadows(time)
    T_light = torch.as_tensor(scene._frames["light"][0], dtype=torch.float32, device=device)
    on_map = T_light[:3, :3] @ point + T_light[:3, 3:]
    towards = vec(light.direction)
    if light.lamp is not None:
        to_lamp = vec(light.lamp) - point
        distance = to_lamp.square().sum(0).sqrt_().clamp_min_(0.3)
        to_lamp = to_lamp / distance
        slant = (normal * to_lamp).sum(0).clamp_min_(0) / (0.35 + 0.12 * distance.square())
    else:
        slant = (normal * towards).sum(0).clamp_min_(0)
    h, w = shadows["light"].shape
    light_map = shadows["light"].reshape(-1)
    # Percentage-closer filtering: compare at four texels around, then interpolate what was found.
    light_map = shadows["light"]
    h, w = light_map.shape
    light_map, stride = light_map.reshape(-1), light.softness
    # A surface that the light grazes runs through many depths within one texel.
    cosine = (normal * towards).sum(0).abs().clamp_min_(0.12)
    bias = (0.4 + 0.6 * stride / cosine) * scene.texel + 0.02
    limit = on_map[2] - bias
    mx = (on_map[0] / stride).clamp_(0, (w - 1) // stride - 1.001)
    my = (on_map[1] / stride).clamp_(0, (h - 1) // stride - 1.001)
    ix, iy = mx.int(), my.int()
    fx, fy = mx - ix, my - iy
    index = (iy * w + ix) * stride
    lit_00, lit_10, lit_01, lit_11 = (
        (light_map.index_select(0, index + offset) > limit).float()
        for offset in (0, stride, w * stride, (w + 1) * stride)
    )
    lit = torch.lerp(torch.lerp(lit_00, lit_10, fx), torch.lerp(lit_01, lit_11, fx), fy)

    T_up = torch.as_tensor(scene._frames["up"][0], dtype=torch.float32, device=device)
    mx, my = T_up[0, 0] * point[0] + T_up[0, 3], T_up[1, 1] * point[1] + T_up[1, 3]
    above = (point[2] - _lookup(shadows["ground"], mx, my)).clamp_min_(0)
    dark = _lookup(shadows["dark"], mx, my) * torch.exp(-above / 0.3)
    open_sky = 1 - dark.clamp_(0, 0.9)

    up = 0.5 + 0.5 * normal[2]
    ambient = (vec(light.sky) * up + vec(light.bounce) * (1 - up)) * open_sky
    received = ambient + vec(light.sun) * (slant * lit) + table[18]
    out = albedo * received
    if light.haze < 1e8:
        through = torch.exp(-z / light.haze)
        out = out * through + vec(light.horizon) * (1 - through)
    return out


def _sky(scene: Scene, rays: torch.Tensor, focal: float) -> torch.Tensor:
    """Linear BGR (3, N) of the sky in the directions ``rays`` (3, N)."""
    light, device = scene.light, rays.device
    d = rays / rays.square().sum(0).sqrt_()

    def vec(a) -> torch.Tensor:
        return torch.as_tensor(np.asarray(a), dtype=torch.float32, device=device)[:, None]

    height = d[2].clamp(-0.05, 1)
    blend = (1 - torch.exp(-height.clamp_min(0) * 3.5)).clamp(0, 1)
    colour = vec(light.horizon) * (1 - blend) + vec(light.sky) * blend
    if light.clouds > 0 and scene.clouds is not None:
        # Clouds lie on a plane overhead, so that they shrink towards the horizon.
        reach = 0.35 / (height.clamp_min(0) + 0.12)
        st = torch.stack([d[0] * reach, d[1] * reach])
        size = 1 / focal
        step = torch.stack([reach * size, 0 * reach])
        depthwise = torch.stack([0 * reach, reach * reach * size * 2.5])
        cloud = scene.atlas.sample(
            torch.full((st.shape[1],), scene.clouds, dtype=torch.int64, device=device), st, step, depthwise
        )[1]
        cover = ((cloud / 255 - (1 - light.clouds)) * 2.5).clamp_(0, 1) * (height * 8).clamp(0, 1)
        bright = vec(0.9 * light.sun + 1.1 * light.sky).clamp_min(float(np.max(light.horizon)) * 1.1)
        colour = colour * (1 - cover) + bright * cover * (0.8 + 0.2 * cloud / 255)
    glare = (d * vec(light.direction)).sum(0).clamp_min_(0)
    return colour + vec(light.sun) * (0.6 * glare.pow(40) + 6.0 * (glare > 0.9995))


_OFFSETS = ((-0.33, 0.22), (0.33, -0.22))
"""Where a pixel is sampled besides its centre, px."""


def render(
    scene: Scene, T_world_camera: np.ndarray, K: np.ndarray, width: int, height: int, time: float = 0.0
) -> tuple[Rendering, View]:
    """What a pinhole camera at ``T_world_camera`` (4, 4) with ``K`` (3, 3) sees at ``time`` s.

    Depth and pieces are those of the pixel centres. Colours are averaged over the pixel: textures by their footprint,
    borders between surfaces by three samples.
    """
    device = scene.device
    poses = scene.poses(time)
    camera = np.linalg.inv(T_world_camera)
    Kt = torch.as_tensor(K, dtype=torch.float64, device=device)
    view = perspective_view(scene.geometry, torch.from_numpy(camera @ poses).to(device), Kt)
    ids, _ = cast(view, width, height, scene.geometry, scene.atlas)

    # Where the pixel's other samples meet another surface, its colour is the average of all of them.
    others = [cast(view.shifted(dx, dy), width, height, scene.geometry, scene.atlas)[0] for dx, dy in _OFFSETS]
    surface = torch.cat([scene.geometry.surface, torch.full((1,), -1, device=device)])
    mine = surface[ids]
    border = torch.zeros_like(ids, dtype=torch.bool)
    for other in others:
        border |= surface[other] != mine
    edge = border.nonzero().squeeze(1)

    x = torch.arange(width, device=device, dtype=torch.float64).repeat(height)
    y = torch.arange(height, device=device, dtype=torch.float64).repeat_interleave(width)
    piece = torch.cat([ids] + [other[edge] for other in others])
    px = torch.cat([x] + [x[edge] + dx for dx, _ in _OFFSETS])
    py = torch.cat([y] + [y[edge] + dy for _, dy in _OFFSETS])

    R = torch.as_tensor(T_world_camera[:3, :3], dtype=torch.float64, device=device)
    origin = torch.as_tensor(T_world_camera[:3, 3], dtype=torch.float64, device=device)
    direction = torch.stack([(px - K[0, 2]) / K[0, 0], (py - K[1, 2]) / K[1, 1], torch.ones_like(px)])
    rays = (R @ direction).float()
    colour = torch.empty(3, len(piece), device=device)
    seen, empty = (piece >= 0).nonzero().squeeze(1), (piece < 0).nonzero().squeeze(1)
    if len(seen):
        hits = meet(view, piece[seen], px[seen], py[seen])
        T_world_object = torch.from_numpy(poses).to(device)
        colour[:, seen] = _shade(scene, view, hits, R, origin, rays[:, seen], T_world_object, time)
    if len(empty):
        colour[:, empty] = _sky(scene, rays[:, empty], float(K[0, 0]))

    radiance = colour[:, : height * width]
    if len(edge):
        # A very bright sample must not swamp its pixel: a sensor saturates too.
        around = colour[:, height * width :].reshape(3, len(_OFFSETS), -1).clamp_max(4.0)
        radiance[:, edge] = (radiance[:, edge].clamp_max(4.0) + around.sum(1)) / (1 + len(_OFFSETS))

    known = ids >= 0
    depth = torch.full((height * width,), torch.inf, dtype=torch.float64, device=device)
    where = known.nonzero().squeeze(1)
    depth[where] = meet(view, ids[where], x[where], y[where]).z
    objects = torch.where(known, scene.geometry.object[ids.clamp_min(0)], 0)
    shape = (height, width)
    return (
        Rendering(radiance.reshape(3, *shape), ids.reshape(shape), depth.reshape(shape), objects.reshape(shape)),
        view,
    )


def exposure_for(radiance: torch.Tensor, target: float) -> float:
    """Factor that brings the mean developed brightness to ``target`` (0..1), as a camera's automatic exposure does."""
    luminance = radiance.mean(0).flatten()[::7]
    factor = 1.0
    for _ in range(6):
        mean = float((luminance * factor).clamp(0, 1).sqrt().mean())
        factor *= (target / max(mean, 1e-3)) ** 2
    # Like a camera that meters highlights: at most about a quarter of the picture may saturate.
    bright = float(torch.quantile(luminance, 0.75))
    return min(factor, 1.0 / max(bright, 1e-3))


def develop(radiance: torch.Tensor, exposure: float) -> torch.Tensor:
    """Linear (3, H, W) -> uint8 with a square-root tone curve (close to sRGB's) and hard saturation."""
    return ((radiance * exposure).clamp(0, 1).sqrt() * 255 + 0.5).to(torch.uint8)


def _flow(
    rendering: Rendering,
    other: Rendering,
    scene: Scene,
    T_world_camera: np.ndarray,
    other_camera: np.ndarray,
    times: tuple[float, float],
    K: np.ndarray,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Exact flow (2, H, W) float32 into the other view, and where its point is hidden there or out of view."""
    device = scene.device
    height, width = rendering.depth.shape
    x = torch.arange(width, device=device, dtype=torch.float64).repeat(height)
    y = torch.arange(height, device=device, dtype=torch.float64).repeat_interleave(width)
    z = rendering.depth.flatten()
    sky = torch.isinf(z)
    ray = torch.stack([(x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1], torch.ones_like(x)])
    poses, other_poses = scene.poses(times[0]), scene.poses(times[1])
    inverse = np.linalg.inv(other_camera)

    def move(T: np.ndarray, points: torch.Tensor, far: torch.Tensor | None = None) -> torch.Tensor:
        T = torch.as_tensor(T, device=device)
        shift = T[:3, 3:] if far is None else torch.where(far, 0.0, T[:3, 3:])
        return T[:3, :3] @ points + shift

    points = ray * torch.where(sky, 1.0, z)
    there = move(inverse @ T_world_camera, points, sky)
    object_id = rendering.object.flatten()
    for index in range(1, len(poses)):
        mask = (object_id == index).nonzero().squeeze(1)
        if not len(mask):
            continue
        T = inverse @ other_poses[index] @ np.linalg.inv(poses[index]) @ T_world_camera
        there[:, mask] = move(T, points[:, mask])
    behind = there[2] < 1e-6
    zz = torch.where(behind, 1.0, there[2])
    x2, y2 = K[0, 0] * there[0] / zz + K[0, 2], K[1, 1] * there[1] / zz + K[1, 2]
    flow = torch.stack([x2 - x, y2 - y])
    if np.array_equal(T_world_camera, other_camera):
        still = object_id == 0
        flow[:, still] = 0.0  # exactly, not to rounding
        x2, y2 = torch.where(still, x, x2), torch.where(still, y, y2)

    # Seen there if, of the four pixels around the point, those showing the same thing carry more than half the weight.
    out = behind | (x2 < 0) | (y2 < 0) | (x2 > width - 1) | (y2 > height - 1)
    x0, y0 = x2.clamp(0, width - 1).floor(), y2.clamp(0, height - 1).floor()
    fx, fy = (x2 - x0).float(), (y2 - y0).float()
    x0, y0 = x0.int(), y0.int()
    right, down = (x0 < width - 1).int(), (y0 < height - 1).int() * width
    surface = torch.cat([scene.geometry.surface, torch.full((1,), -1, device=device)])
    mine, theirs = surface[rendering.piece.flatten()], surface[other.piece.flatten()]
    depth_there = other.depth.flatten().float()
    expected = torch.where(sky, torch.inf, there[2]).float()
    share = torch.zeros_like(expected)
    corner = y0 * width + x0
    for at, weight in (
        (corner, (1 - fx) * (1 - fy)),
        (corner + right, fx * (1 - fy)),
        (corner + down, (1 - fx) * fy),
        (corner + right + down, fx * fy),
    ):
        found = depth_there.index_select(0, at)
        apart = (found - expected).abs() / expected
        # Sky minus sky is not a number, and neither is sky's share of sky: both are sky, so both -1 below.
        same = (apart < 0.03) | ((theirs.index_select(0, at) == mine) & ~(apart > 0.25))
        share += weight * same
    occluded = out | (share < 0.5)
    shape = (height, width)
    return flow.float().nan_to_num(0.0).reshape(2, *shape), occluded.reshape(shape)


def render_pair(
    scene: Scene,
    T_world_camera_1: np.ndarray,
    T_world_camera_2: np.ndarray,
    K: np.ndarray,
    width: int,
    height: int,
    times: tuple[float, float] = (0.0, 0.0),
    brightness: float = 0.45,
) -> Sample:
    """Two views of one scene with their exact truth.

    T_world_camera_*: (4, 4) float64 poses of the optical frames; K: (3, 3); ``times`` (s) place what moves by itself;
    ``brightness`` (0..1) is the mean that the common exposure aims at.
    """
    first, _ = render(scene, T_world_camera_1, K, width, height, times[0])
    second, _ = render(scene, T_world_camera_2, K, width, height, times[1])
    exposure = exposure_for(first.radiance, brightness)
    forward, occluded_1 = _flow(first, second, scene, T_world_camera_1, T_world_camera_2, times, K)
    backward, occluded_2 = _flow(second, first, scene, T_world_camera_2, T_world_camera_1, times[::-1], K)
    before, after = scene.poses(times[0]), scene.poses(times[1])
    moves = torch.from_numpy(np.abs(before - after).max((1, 2)) > 0).to(scene.device)
    return Sample(
        image_1=develop(first.radiance, exposure),
        image_2=develop(second.radiance, exposure),
        flow_forward=forward,
        flow_backward=backward,
        occluded_1=occluded_1,
        occluded_2=occluded_2,
        depth_1=first.depth.float(),
        depth_2=second.depth.float(),
        T_2_1=torch.from_numpy(np.linalg.inv(T_world_camera_2) @ T_world_camera_1),
        K=torch.as_tensor(K, dtype=torch.float64),
        moving_1=moves[first.object],
        kind=scene.kind,
    )

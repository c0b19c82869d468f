"""The result of one part of the benchmark: numbers, tables, and on what they were measured; as JSON and as Markdown."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import depth_pose_ros
from benchmark.timing import Reference, cores_of_this_process
from depth_pose_ros.evaluation.files import write_text

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).resolve().parent / "results"
"""The results that are committed: what the documentation shows, and what later runs are compared with."""

PACKAGES = ("numpy", "opencv-python-headless", "onnxruntime", "openvino", "rclpy", "tensorrt")
CPU_FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "asimddp", "i8mm", "bf16")
"""Instructions that decide how fast a network runs, by the names of /proc/cpuinfo."""

KINDS = {
    "ms, one core": "time of work on one core",
    "ms, all cores": "time of work on all cores",
    "per second": "rate that all cores reach",
    "error": "smaller is better; does not depend on the machine's speed",
    "MiB": "memory",
}
"""What a guarded value can be; see guard.py for how each is compared."""


@dataclass(frozen=True)
class Guarded:
    """A number that must not become worse: what it is, and its kind (one of KINDS)."""

    name: str
    kind: str
    value: float

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"{self.name}: kind {self.kind!r}; expected one of {', '.join(KINDS)}")


@dataclass(frozen=True)
class Table:
    """Rows under headings, with a sentence above; cells are text, or numbers that are written with three digits."""

    title: str
    columns: list[str]
    rows: list[list[Any]]
    note: str = ""

    def markdown(self) -> str:
        """As in the documentation."""
        lines = [f"**{self.title}**", ""]
        lines += ["| " + " | ".join(self.columns) + " |"]
        lines += ["|" + "|".join("---" if i == 0 else "---:" for i in range(len(self.columns))) + "|"]
        lines += ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in self.rows]
        return "\n".join([*lines, "", self.note, ""] if self.note else [*lines, ""])


@dataclass
class Result:
    """One part of the benchmark, measured.

    settings: what a result must have in common with another one to be compared with it: sequence, seeds, frames.
    """

    part: str
    settings: dict[str, Any]
    tables: list[Table] = field(default_factory=list)
    guarded: list[Guarded] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)

    def document(self, reference: Reference) -> dict[str, Any]:
        """Everything, for JSON; NaN and infinity become null."""
        document = {
            "part": self.part,
            "date": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "revision": revision(),
            "machine": machine(),
            "versions": versions(),
            "settings": self.settings,
            "reference_ms": reference.to_dict(),
            "guarded": [asdict(guarded) for guarded in self.guarded],
            "tables": [asdict(table) for table in self.tables],
            "details": self.details,
        }
        return _finite(document)


def write(folder: Path, document: dict[str, Any]) -> Path:
    """<part>.json."""
    path = folder / f"{document['part']}.json"
    write_text(path, json.dumps(document, indent=1) + "\n")
    return path


def read(folder: Path, part: str) -> dict[str, Any] | None:
    """The document of a part, None where there is none."""
    path = folder / f"{part}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def markdown(document: dict[str, Any]) -> str:
    """The tables, and a line on what they were measured on."""
    tables = "\n".join(Table(**table).markdown() for table in document["tables"])
    return f"{tables}\n{provenance(document)}\n"


def provenance(document: dict[str, Any]) -> str:
    """In one line: machine, versions, date, revision."""
    of, versions = document["machine"], document["versions"]
    features = ", ".join(of["cpu_features"])
    names = ("python", "onnxruntime", "openvino", "opencv-python-headless", "numpy", "rclpy")
    known = ", ".join(f"{name} {versions[name]}" for name in names if versions.get(name))
    load = f", load average {of['load']:g}" if of.get("load") is not None else ""
    return (
        f"Measured {document['date'][:10]} at {document['revision']} on {of['cores']} cores of {of['cpu']}"
        f"{f' ({features})' if features else ''}, {of['memory_gib']:g} GiB{load}; {known}."
    )


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        if not math.isfinite(value):
            return "-"
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


# ---------------------------------------------------------------------------------------------------------- provenance
def machine() -> dict[str, Any]:
    """What it ran on; a load above the number of cores says that others were at work too."""
    info = _read("/proc/cpuinfo")
    fields = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    flags = (fields.get("flags") or fields.get("Features") or "").split()
    memory = next((line.split()[1] for line in _read("/proc/meminfo").splitlines() if line.startswith("MemTotal")), 0)
    return {
        "cpu": fields.get("model name") or platform.processor() or platform.machine(),
        "cpu_features": [name for name in CPU_FEATURES if name in flags],
        "cores": cores_of_this_process(),
        "memory_gib": round(int(memory) / 2**20, 1),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "load": round(os.getloadavg()[0], 1),
        "gpu": _said("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"),
    }


def versions() -> dict[str, str]:
    """Of Python, this package and what it stands on; without those that are not installed."""
    found = {"python": platform.python_version(), "depth_pose_ros": depth_pose_ros.__version__}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def revision() -> str:
    """The commit, with ``+`` when files differ from it; empty outside of a repository."""
    commit = _said("git", "-C", str(ROOT), "rev-parse", "--short=10", "HEAD")
    changed = _said("git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no")
    return commit + ("+" if commit and changed else "")


def rss_mib(pid: int | str = "self", key: str = "VmRSS") -> float:
    """Resident memory of a process; with ``VmHWM`` the most it ever had. NaN when it is gone."""
    for line in _read(f"/proc/{pid}/status").splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) / 1024
    return float("nan")


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _said(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def note(text: str) -> None:
    """Progress, for people."""
    print(text, file=sys.stderr, flush=True)

"""Has anything become worse? A result is compared with the committed one of the same part.

Times and rates are compared by their ratio to the reference work that was timed in the same run (timing.Reference), so
a machine that is slower or busier today does not decide. Errors and memory are compared as they are.
"""

from __future__ import annotations

from typing import Any

ALLOWED = {"ms, one core": 1.3, "ms, all cores": 1.35, "per second": 1.3, "error": 1.15, "MiB": 1.2}
"""How many times worse a value may be, by kind: what repeated runs of the same code on a shared machine differ by."""

SLACK = {"ms, one core": 0.2, "ms, all cores": 0.5, "per second": 0.0, "error": 0.003, "MiB": 20.0}
"""What it may be worse by in any case, in its unit: a stage of 0.1 ms, or an error of 0.01 deg, is nothing."""


def regressions(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """One sentence for each guarded value that became worse. Values that only one of the two has are not compared."""
    old = {guarded["name"]: guarded for guarded in before["guarded"]}
    found = []
    for guarded in now["guarded"]:
        was = old.get(guarded["name"])
        if was is None or was["kind"] != guarded["kind"] or was["value"] is None:
            continue
        kind, value = guarded["kind"], guarded["value"]
        factor = speed(kind, before, now)
        if factor is None:
            continue
        expected = was["value"] * factor
        if value is None:
            found.append(f"{now['part']}: {guarded['name']} could not be measured; it was {_number(was['value'])}")
            continue
        slower = kind == "per second"
        limit = expected / ALLOWED[kind] - SLACK[kind] if slower else expected * ALLOWED[kind] + SLACK[kind]
        if value < limit if slower else value > limit:
            found.append(_sentence(now["part"], guarded["name"], kind, value, was["value"], expected))
    return found


def speed(kind: str, before: dict[str, Any], now: dict[str, Any]) -> float | None:
    """What a value of this kind is multiplied by where the machine of today is slower or faster than that of then.

    None where one of the two did not time the reference work: then times cannot be compared.
    """
    if kind in ("error", "MiB"):
        return 1.0
    cores = "one core" if kind == "ms, one core" else "all cores"
    now_ms, then_ms = (document["reference_ms"][cores]["low"] for document in (now, before))
    if not now_ms or not then_ms:
        return None
    ratio = now_ms / then_ms
    return 1.0 / ratio if kind == "per second" else ratio


def incomparable(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Why two results cannot be compared, in a sentence; empty when they can."""
    names = sorted(set(before["settings"]) | set(now["settings"]))
    other = [name for name in names if before["settings"].get(name) != now["settings"].get(name)]
    if not other:
        return ""
    name = other[0]
    was, is_now = before["settings"].get(name), now["settings"].get(name)
    return f"{now['part']}: not compared, because {name} is {is_now!r} and was {was!r} in the committed result"


def _sentence(part: str, name: str, kind: str, value: float, was: float, expected: float) -> str:
    unit = {"ms, one core": " ms", "ms, all cores": " ms", "per second": " per second", "MiB": " MiB"}.get(kind, "")
    worse = expected / value if kind == "per second" else value / expected if expected else float("inf")
    adjusted = "" if kind in ("error", "MiB") else f", which is {_number(expected)}{unit} at today's speed"
    return (
        f"{part}: {name} is {_number(value)}{unit}, {worse:.2f} times worse than the committed result "
        f"({_number(was)}{unit}{adjusted}); allowed are {ALLOWED[kind]:g} times"
    )


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"

"""metrics/bench.json, speeds measured on one machine: a section for each part that is measured by itself."""

import json
from pathlib import Path
from typing import Any

from distill.core.files import write_json

METRICS = Path("metrics/bench.json")


def write_section(name: str, result: dict[str, Any]) -> None:
    """Puts the result in place of the section of that name, and leaves the others."""
    known = json.loads(METRICS.read_text(encoding="utf-8")) if METRICS.exists() else {}
    write_json(METRICS, known | {name: result})

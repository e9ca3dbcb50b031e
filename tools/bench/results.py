"""The file metrics/bench.json: a section for each part of the benchmark."""

import json
from pathlib import Path
from typing import Any

from distill.core.files import write_json

METRICS = Path("metrics/bench.json")


def write_section(name: str, result: dict[str, Any]) -> None:
    """Replaces the section of this name and keeps the others."""
    sections = json.loads(METRICS.read_text(encoding="utf-8")) if METRICS.exists() else {}
    write_json(METRICS, sections | {name: result})

"""The source of the prompts, as cards name it."""

from collections.abc import Mapping
from typing import Any

from distill.cards.document import Section, key_values


def prompts_section(prompts: Mapping[str, Any]) -> Section:
    """A section on the source of the prompts: generate.prompts of params.yaml, without nulls."""
    note = "The prompts come from this source. Its license and terms apply to them."
    return Section("Prompts", [note, key_values(["generate.prompts", "value"], prompts)])

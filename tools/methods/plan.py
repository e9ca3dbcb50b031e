"""The methods of experiments/methods.yaml, each a set of changes to params.yaml."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.core.errors import UserError
from distill.params import loading as params_file
from distill.params.schema import Params
from tools.set_params import changed

METHODS = Path("experiments/methods.yaml")
OWN_KEYS = ("variant", "requires")  # of a method, beside those of params.yaml

Row = dict[str, Any]


@dataclass(frozen=True)
class Method:
    """A name, which of the two variants is its student, and the whole of its params.yaml."""

    name: str
    variant: str
    raw: Row
    params: Params


def methods(base: Row, plan: Row, wanted: list[str]) -> list[Method]:
    """The methods that are wanted, all for none. Raises UserError for an unknown one and for params refused."""
    unknown = sorted(set(wanted) - set(plan["methods"]))
    if unknown:
        raise UserError(f"{METHODS} has no {', '.join(unknown)}; it has {', '.join(plan['methods'])}.")
    found = []
    for name, changes in plan["methods"].items():
        if wanted and name not in wanted:
            continue
        package = changes.get("requires")
        if package and importlib.util.find_spec(package) is None:
            print(f"{name} is left out: it needs the package {package}, which is not installed here")
            continue
        own = {key: value for key, value in changes.items() if key not in OWN_KEYS}
        profile = plan["profile"] | {"seeds": plan["seeds"]}
        raw = changed(changed(base, profile, METHODS), own, METHODS)
        try:
            params = params_file.check(raw)
        except UserError as error:
            raise UserError(f"{METHODS}, method {name}: {error}") from None
        if params.generate.class_labels is not None:
            raise UserError(
                f"{METHODS}, method {name}: generate.class_labels must be null, since methods are compared by their "
                "texts."
            )
        found.append(Method(name, changes.get("variant", "distilled"), raw, params))
    return found

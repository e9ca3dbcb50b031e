"""The methods of experiments/methods.yaml, each a set of changes to params.yaml."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from distill.core.errors import UserError
from distill.core.files import Row
from distill.params.loading import check_params
from distill.params.schema import Params
from tools.set_params import change_params

METHODS = Path("experiments/methods.yaml")
METHOD_KEYS = ("variant", "requires")  # of a method, in addition to keys of params.yaml


@dataclass(frozen=True)
class Method:
    """A name, the variant that is its student, and its complete params.yaml, raw and checked."""

    name: str
    variant: str
    raw: Row
    params: Params


def load_methods(base: Row, plan: Row, names: list[str]) -> list[Method]:
    """The methods with these names, or all if there are none.

    Methods that require a missing package are skipped. Raises UserError for unknown names and invalid params.
    """
    unknown = sorted(set(names) - set(plan["methods"]))
    if unknown:
        raise UserError(f"{METHODS} has no {', '.join(unknown)}; it has {', '.join(plan['methods'])}.")
    methods = []
    for name, entry in plan["methods"].items():
        if names and name not in names:
            continue
        package = entry.get("requires")
        if package and importlib.util.find_spec(package) is None:
            print(f"{name} is skipped: it needs the package {package}, which is not installed")
            continue
        changes = {key: value for key, value in entry.items() if key not in METHOD_KEYS}
        profile = plan["profile"] | {"training_seeds": plan["seeds"]}
        raw = change_params(change_params(base, profile, METHODS), changes, METHODS)
        try:
            params = check_params(raw)
        except UserError as error:
            raise UserError(f"{METHODS}, method {name}: {error}") from None
        if params.generate.class_labels is not None:
            raise UserError(
                f"{METHODS}, method {name}: generate.class_labels must be null, since methods are compared by texts."
            )
        methods.append(Method(name, entry.get("variant", "distilled"), raw, params))
    return methods

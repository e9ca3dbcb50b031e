"""Changes params.yaml by a file of dotted keys, and keeps its comments: `python -m tools.set_params FILE`.

FILE is YAML such as experiments/classification.yaml: `train.schedule.epochs: 4` in a line of its own. Nothing is
written where the result would be refused; `git diff params.yaml` shows what is new, `git checkout params.yaml` takes
it back.
"""

import argparse
import copy
import io
from pathlib import Path
from typing import Any

import yaml
from ruamel.yaml import YAML

from distill.core.errors import UserError, run_main
from distill.core.files import write_text
from distill.params import loading as params_file

Changes = dict[str, Any]  # by dotted key; a number is a place in a list


def changed(params: Any, changes: Changes, source: Path) -> Any:
    """A copy of params with the values of dotted keys replaced. Raises UserError where there is no such key."""
    result = copy.deepcopy(params)
    for key, value in changes.items():
        *path, last = [int(part) if part.isdigit() else part for part in key.split(".")]
        place: Any = result
        try:
            for part in path:
                place = place[part]
            place[last]  # a new key would be refused later, by another name
        except (KeyError, IndexError, TypeError):
            raise UserError(f"{source}: params.yaml has no {key}; give a key that is there.") from None
        place[last] = value
    return result


def read(path: Path) -> Changes:
    """The changes of a file. Raises UserError where it is missing or is no mapping of dotted keys."""
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no file of changes ({error}). Each is a line such as seed: 7") from None
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise UserError(f"{path} must be a mapping of dotted keys to values, such as train.schedule.epochs: 4")
    return found


def overlaid(text: str, changes: Changes, source: Path) -> str:
    """The text of params.yaml with the changes, comments and order as they were. Raises UserError where it is refused.

    What is refused is named by the schema, with its dotted path.
    """
    files = YAML()
    files.preserve_quotes = True
    files.width = 4096  # no line of ours is folded
    files.indent(mapping=2, sequence=4, offset=2)
    files.representer.add_representer(
        type(None), lambda representer, _: representer.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    result = io.StringIO()
    files.dump(changed(files.load(text), changes, source), result)
    try:
        params_file.check(yaml.safe_load(result.getvalue()))
    except UserError as error:
        raise UserError(
            f"params.yaml with the changes of {source} would be refused, so that it is left alone. {error}"
        ) from None
    return result.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("file", type=Path, metavar="FILE", help="such as experiments/classification.yaml")
    source = parser.parse_args().file
    changes = read(source)
    write_text(params_file.PATH, overlaid(params_file.PATH.read_text(encoding="utf-8"), changes, source))
    print(f"{params_file.PATH}: {len(changes)} values are those of {source}")


if __name__ == "__main__":
    run_main(main)

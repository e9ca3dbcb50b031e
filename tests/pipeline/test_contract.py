"""The pipeline's contract: dvc.yaml says what the code does, and params.yaml is what the schema takes."""

import ast
import re
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml

from distill.core.code import direct_imports, imported_code
from distill.params.loading import load_params
from distill.params.train import Train
from distill.students.runs import TRAINED

ROOT = Path(__file__).parents[2]
PIPELINE = {
    name: stage.get("do", stage) for name, stage in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].items()
}
STAGES = sorted(PIPELINE)
# files of distill/ that a stage reads beside what it imports
READ = {
    "evaluate": sorted((ROOT / "distill/evaluation/tasks").glob("*.*")),
    "plot": sorted((ROOT / "distill/reporting/templates").iterdir()),
}
CODE = ("stages/", "distill/", "tools/")
# imported under another name, or always with it
PACKAGES = {
    "yaml": "pyyaml",
    "ruamel": "ruamel.yaml",
    "sklearn": "scikit_learn",
    "huggingface_hub": "transformers",
    "httpx2": "transformers",
    "scmrepo": "dvclive",
}


def tree(path: str) -> ast.Module:
    return ast.parse((ROOT / path).read_text())


@cache
def used(stage: str) -> frozenset[Path]:
    """The project's files that a stage imports or reads."""
    return frozenset([*imported_code(ROOT / f"stages/{script(stage)}.py"), *READ.get(stage, [])])


def covers(listed: str, file: Path) -> bool:
    """Whether a dep, a file or a folder, has this file."""
    return file == ROOT / listed or ROOT / listed in file.parents


def script(stage: str) -> str:
    """The word of the stage's script: sft and distilled are both made by the one that trains."""
    return "train" if stage in TRAINED else stage


def listed(stage: str, kind: str) -> list[str]:
    """The paths that dvc.yaml lists, with params filled in."""
    entries = PIPELINE[stage].get(kind, [])
    names = [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries]
    prompts = yaml.safe_load((ROOT / "params.yaml").read_text())["generate"]["prompts"]["path"]
    return [name.replace("${generate.prompts.path}", prompts) for name in names]


def promised(stage: str) -> dict[str, set[str]]:
    """The paths and params that the stage's docstring says it reads and writes."""
    text = " ".join((ast.get_docstring(tree(f"stages/{script(stage)}.py")) or "").split())
    text = text.replace("<run>", f"{stage}-${{item}}")
    reads, writes = re.search(r"Reads (.*) Writes (.*)", text).groups()
    writes = writes.partition(";")[0]
    reads, _, params = reads.partition("params ")
    if "params" in params:  # generate: the prompts are a param themselves
        params = params.rpartition("params ")[2]
    return {
        "reads": {path for part in re.findall(r"(?:data|models|metrics)/\S+", reads) for path in expand(part)},
        "writes": {path for part in re.findall(r"(?:data|models|metrics)/\S+", writes) for path in expand(part)},
        "params": {name.strip() for name in params.split(",") if name.strip()},
    }


def expand(pattern: str) -> list[str]:
    """`a/{b,c}.json` as two paths; `<seed>`, the first of training, as dvc.yaml writes it."""
    pattern = pattern.rstrip(",").replace("<seed>", "${training_seeds[0]}")
    found = re.fullmatch(r"([^{}$]*)\{([^{}]*)\}(.*)", pattern)
    return [f"{found[1]}{part}{found[3]}" for part in found[2].split(",")] if found else [pattern]


def params_used(stage: str) -> set[str]:
    """The sections of params.yaml that the script reads: `params.X` wherever `params` is a name."""
    names = {
        node.attr
        for node in ast.walk(tree(f"stages/{script(stage)}.py"))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "params"
    }
    return {"teachers" if name == "local_teacher" else name for name in names}


def test_each_stage_is_one_word_in_five_places():
    sections = yaml.safe_load((ROOT / "params.yaml").read_text())
    words = ["generate", "clean", "targets", "weight", "init", *TRAINED, "evaluate", "plot"]
    assert sorted(words) == STAGES
    for stage in STAGES:
        assert (ROOT / f"stages/{script(stage)}.py").is_file()
        assert script(stage) in sections
        assert PIPELINE[stage]["cmd"].startswith(f"python -m stages.{script(stage)}")
        assert PIPELINE[stage]["desc"]


def test_no_value_of_params_reaches_a_shell():
    assert [stage for stage in STAGES if "${" in str(PIPELINE[stage]["cmd"])] == []


@pytest.mark.parametrize("stage", STAGES)
def test_deps_cover_the_code_that_a_stage_uses_and_none_is_unused(stage):
    code = [path for path in listed(stage, "deps") if path.startswith(CODE)]
    assert [file for file in used(stage) if not any(covers(path, file) for path in code)] == []
    assert [path for path in code if not any(covers(path, file) for file in used(stage))] == []


def test_generate_depends_on_no_code_that_it_does_not_use():
    """An edit of such a file would make the stage stale, and a clone without the journal would pay again."""
    code = [path for path in listed("generate", "deps") if path.startswith(CODE)]
    files = {file for path in code for file in [ROOT / path, *(ROOT / path).rglob("*.py")] if file.suffix == ".py"}
    assert {file for file in files if file.name != "__init__.py"} == used("generate")


def test_an_edit_of_a_report_makes_no_stage_before_it_stale():
    for stage in set(STAGES) - {"plot"}:
        assert not [path for path in listed(stage, "deps") if path.startswith("distill/reporting")]


def test_each_choice_of_training_but_the_tracker_is_tracked():
    choices = {f"train.{name}" for name in Train.model_fields if name != "report_to"}
    assert choices <= set(listed("distilled", "params"))
    assert choices - {"train.distilled"} <= set(listed("sft", "params"))


@pytest.mark.parametrize("stage", ["generate", "clean", "targets", "init", *TRAINED])
def test_the_run_cache_keeps_what_takes_long(stage):
    """DVC's run cache leaves out a stage with a plain output outside the cache: results in git are metrics or plots."""
    outs = [entry for entry in PIPELINE[stage].get("outs", []) if isinstance(entry, dict)]
    assert not [path for entry in outs for path, options in entry.items() if options.get("cache") is False]


@pytest.mark.parametrize("stage", STAGES)
def test_params_in_the_pipeline_are_those_that_the_code_reads(stage):
    tracked = set(listed(stage, "params"))
    assert {name.partition(".")[0] for name in tracked} == params_used(stage)
    if stage not in TRAINED:  # one docstring for both, of which sft has no loss of its own
        assert tracked == promised(stage)["params"]


@pytest.mark.parametrize("stage", STAGES)
def test_paths_in_the_pipeline_are_those_that_the_docstring_promises(stage):
    data = {path for path in listed(stage, "deps") if not path.startswith(CODE)}
    data -= {"requirements.txt"}
    if stage == "generate":
        data = set()
    outs = {path for kind in ("outs", "metrics", "plots") for path in listed(stage, kind)}
    assert data == promised(stage)["reads"]
    # latency.json differs from run to run: it is no out, so that dvc.lock stays the same
    assert outs == promised(stage)["writes"] - {"metrics/latency.json"}


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_depends_on_the_packages_that_results_depend_on(stage):
    assert "requirements.txt" in listed(stage, "deps")


def test_every_package_that_a_stage_imports_is_pinned_in_the_file_that_stages_depend_on():
    """requirements.txt has what stages import; what only tools and tests import must not re-run the teacher."""
    pinned = {
        name: {line.partition("==")[0].lower().replace("-", "_") for line in (ROOT / name).read_text().splitlines()}
        for name in ("requirements.txt", "requirements-dev.txt")
    }
    assert not pinned["requirements.txt"] & pinned["requirements-dev.txt"] - {"", "# for the tests and checks"}
    ours = {"distill", "stages", "tools"}
    for folder in ("stages", "distill"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
                outside = {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names) - ours
                assert {PACKAGES.get(name, name) for name in outside} <= pinned["requirements.txt"], path


def test_a_stage_is_never_imported_by_another():
    for folder in ("stages", "distill", "tools"):
        for path in (ROOT / folder).rglob("*.py"):
            assert not [file for file in direct_imports(path) if file.parent.name == "stages"]


def test_distill_reads_no_params_and_no_environment():
    for path in (ROOT / "distill").rglob("*.py"):
        text = path.read_text()
        assert "os.environ" not in text, path
        assert "getenv" not in text, path
        if path.name != "loading.py":
            assert "load_params" not in text, path


def test_packages_hold_a_docstring_and_no_code():
    for package in ("distill", "stages", "tools"):
        for path in (ROOT / package).rglob("__init__.py"):
            code = ast.parse(path.read_text())
            assert ast.get_docstring(code), path
            assert len(code.body) == 1, path


def test_no_stage_works_at_import():
    for stage in STAGES:
        for node in tree(f"stages/{script(stage)}.py").body:
            assert isinstance(
                node, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign
                | ast.Expr | ast.If
            )  # fmt: skip


def test_the_schema_takes_the_shipped_params_and_changes_no_value(monkeypatch):
    monkeypatch.chdir(ROOT)
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    assert flat(load_params().model_dump()) == flat(raw)


def flat(value: object) -> object:
    """The value with numbers as numbers: PyYAML takes 1e-3 for a string."""
    if isinstance(value, dict):
        return {key: flat(part) for key, part in value.items()}
    if isinstance(value, list):
        return [flat(part) for part in value]
    if isinstance(value, str) and re.fullmatch(r"[\d.]+e-?\d+", value):
        return float(value)
    return value


def test_the_committed_prompts_are_those_of_topics_and_forms():
    from tools import prompts

    topics = yaml.safe_load((ROOT / prompts.TOPICS).read_text())
    forms = yaml.safe_load((ROOT / prompts.FORMS).read_text())
    rows = [yaml.safe_load(line) for line in (ROOT / prompts.PROMPTS).read_text().splitlines()[:40]]
    assert prompts.prompts(topics, forms)[:40] == rows


def test_nothing_loads_pickles_or_remote_code():
    for folder in ("stages", "distill", "tools"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text()
            for word in ("pickle", "torch.load", "trust_remote_code=True", "weights_only=False"):
                assert word not in text, (path, word)

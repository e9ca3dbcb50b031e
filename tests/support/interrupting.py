"""Interrupt stages in the middle of their work: `python tests/support/interrupting.py --kills 9 sft@7`.

Run it in a finished repository; it prints a report of what it did to each stage, and what was wrong, as JSON.

Imports take seconds and the work of a tiny stage a moment, so that nearly every kill of a new process would come
before the work. Here all is imported once, and each run of a stage is a fork of that process. A kill comes by turns
  event  SIGKILL before one of its file events (Python's audit events: a file opened to write, renamed, removed)
  time   SIGKILL at a share of the time that the work takes
  byte   in the middle of a file, by the kernel: SIGXFSZ at so many bytes, which nothing here catches
A full disk has room for a part of what the stage writes: for that the repository must be on a small disk of its own.

Each time the outs are gone, as when DVC runs a stage, or old ones are there. After each interruption every out must be
gone, old or new, as a whole; the run after it, which may be interrupted in turn, must end with the bytes of the run
that nobody interrupted, and leave no other file.
"""

import argparse
import contextlib
import hashlib
import importlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

FOLDERS = ("data", "models", "metrics")
HOME = Path(".distill")
FILLER = Path("filler")
GROWING = "metrics/live/"  # curves to watch a training by: written step by step, whole when it has ended
TIMED = {"metrics/latency.json", "metrics/metrics.json"}  # what time changes: compared by their shape
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.truncate"}
OLD = b"old\n"
ABSENT, BEFORE, AFTER = "absent", "old", "new"
GOES_ON = 1 / 3  # of interrupted runs whose next one is interrupted too
SMALLEST = 4096  # bytes that a disk gives away at once


def shape(value: Any) -> Any:
    """A JSON value without its numbers."""
    if isinstance(value, dict):
        return {key: shape(part) for key, part in value.items()}
    return [shape(part) for part in value] if isinstance(value, list) else type(value).__name__


def content(path: Path) -> Any:
    """What is compared of a file or folder; None where there is none."""
    if path.is_dir():
        return {str(file.relative_to(path)): content(file) for file in sorted(path.rglob("*")) if file.is_file()}
    if not path.exists():
        return None
    data = path.read_bytes()
    if str(path) in TIMED:
        with contextlib.suppress(ValueError):
            return shape(json.loads(data))
    return hashlib.sha256(data).hexdigest()


def files() -> set[str]:
    """Every file below the folders that stages write into."""
    return {str(path) for folder in FOLDERS for path in Path(folder).rglob("*") if path.is_file()}


def remove(path: Path) -> None:
    """Removes a file or a folder where there is one."""
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)


def spent() -> int:
    """Bytes that the stages' folders take on the disk."""
    return sum(path.stat().st_blocks * 512 for folder in (*FOLDERS, HOME) for path in Path(folder).rglob("*"))


class Stage:
    """A stage that was imported, and what its uninterrupted run wrote."""

    def __init__(self, name: str, logs: Path) -> None:
        """By the name that dvc.lock has for it."""
        locked = yaml.safe_load(Path("dvc.lock").read_text())["stages"][name]
        _, _, module, *self.arguments = locked["cmd"].split()  # python -m stages.train sft
        self.arguments += name.split("@")[1:]  # the seed, which DVC gives by the stage's name
        self.name, self.module, self.log = name, importlib.import_module(module), logs / name
        beside = [f"metrics/environment/{name}.json"] + ["metrics/latency.json"] * (name == "evaluate")
        self.outs = [Path(out["path"]) for out in locked["outs"]]
        self.outs += [Path(path) for path in beside if Path(path).exists()]
        self.folders = {path for path in self.outs if path.is_dir()}
        self.after = {path: content(path) for path in self.outs}
        self.files = files()
        self.timed = {path: path.read_bytes() for path in self.outs if str(path) in TIMED}

    def restore_time(self) -> None:
        """Puts back what time changes, for the stages that read it."""
        for path, data in self.timed.items():
            path.write_bytes(data)

    def prepare(self, old: bool) -> None:
        """As before a run: nothing was asked or trained, and the outs are gone or old."""
        remove(HOME)
        for path in self.outs:
            remove(path)
            if old:
                path.parent.mkdir(parents=True, exist_ok=True)
                for file in [path / "a", path / "b"] if path in self.folders else [path]:
                    file.parent.mkdir(exist_ok=True)
                    file.write_bytes(OLD)

    def state(self, path: Path) -> str | None:
        """What an out is as a whole, or None where it is something else."""
        found = content(path)
        old = hashlib.sha256(OLD).hexdigest()
        if found is None:
            return ABSENT
        if found == ({"a": old, "b": old} if path in self.folders else old):
            return BEFORE
        return AFTER if found == self.after[path] else None

    def start(self, in_child: Callable[[], None] = lambda: None) -> int:
        """The id of a fork that does the work of this stage and says what it has to say into the log."""
        sys.stdout.flush()
        if child := os.fork():
            return child
        code = 70
        try:
            with self.log.open("w") as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
            sys.argv = [self.name, *self.arguments]
            in_child()
            sys.modules["distill.core.errors"].run_main(self.module.main)
            code = 0
        except SystemExit as end:
            print(end.code, file=sys.stderr)
            code = 1
        finally:
            if code == 70:
                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def finish(self, in_child: Callable[[], None] = lambda: None) -> int:
        """Runs the stage to its end; returns its exit code."""
        _, status = os.waitpid(self.start(in_child), 0)
        return os.waitstatus_to_exitcode(status)


def on_change(act: Callable[[], None]) -> Callable[[], None]:
    """What a child calls to have `act` called before each of its changes to files of this folder."""
    here = str(Path.cwd())

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if (writes or event in CHANGES) and isinstance(arguments[0], str | os.PathLike):
            path = os.fspath(arguments[0])
            if str(path).startswith(here) or not str(path).startswith("/"):
                act()

    return lambda: sys.addaudithook(hook)


def measured(stage: Stage, logs: Path) -> tuple[float, int]:
    """Seconds of the work of an uninterrupted run and its number of file events; imports what it imports."""
    names, count = logs / "modules", logs / "events"

    def watch() -> None:
        told, changes = os._exit, []

        def last(code: int) -> None:
            names.write_text("\n".join(list(sys.modules)))
            count.write_text(str(len(changes)))
            told(code)

        os._exit = last  # type: ignore[assignment]
        on_change(lambda: changes.append(None))()

    for first in (True, False):
        stage.prepare(old=False)
        started = time.monotonic()
        code = stage.finish(watch)
        assert code == 0, f"{stage.name} fails without any interruption:\n{stage.log.read_text()}"
        seconds = time.monotonic() - started
        for name in names.read_text().splitlines() if first else []:
            with contextlib.suppress(Exception):
                importlib.import_module(name)
    return seconds, int(count.read_text())


def killed(stage: Stage, kind: str, moment: float) -> bool:
    """Kills a run at a moment of a kind (seconds, a file event's number, bytes of a file); whether it came to that."""
    left = [moment]

    def count() -> None:
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(moment), int(moment)))

    child = stage.start({"event": on_change(count), "byte": limit}.get(kind, lambda: None))
    if kind == "time":
        time.sleep(moment)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) == -(signal.SIGXFSZ if kind == "byte" else signal.SIGKILL)


def fill(free: int) -> None:
    """Leaves so many bytes on the disk."""
    with FILLER.open("wb", buffering=0) as file:
        while (more := shutil.disk_usage(".").free - free) >= SMALLEST:
            file.write(bytes(min(more, 2**20)))


def interrupt(stage: Stage, rounds: int, act: Callable[[], str | None], draw: random.Random) -> list[str]:
    """Interrupts a stage so often, and lets it run to its end in between; what was wrong."""
    problems = []
    again = False
    for number in range(rounds):
        old = draw.random() < 0.5
        if not again:
            stage.prepare(old)
        where = f"{number} ({'old outs' if old else 'no outs'})"
        fault = act()
        problems += [f"{where}: {fault}"] if fault else []
        halves = [path for path in stage.outs if stage.state(path) is None and not str(path).startswith(GROWING)]
        problems += [f"{where}: half of {path} is there" for path in halves]
        again = draw.random() < GOES_ON and number < rounds - 1
        if not again:
            if code := stage.finish():
                problems.append(f"{where}: the next run fails with {code}: {stage.log.read_text()[-2000:]}")
            problems += [f"{where}: {path} is not the same" for path in stage.outs if stage.state(path) != AFTER]
            problems += [f"{where}: {path} is left over" for path in sorted(files() - stage.files)]
            problems += [f"{where}: {path} is left over" for path in HOME.glob("checkpoints/*")]
    return problems


def report(name: str, kills: int, full: int, seed: int, part: tuple[float, float], logs: Path) -> dict[str, Any]:
    """All that was done to a stage and what was wrong; kills come in that part of its work."""
    stage, draw = Stage(name, logs), random.Random(f"{seed}/{name}")
    seconds, events = measured(stage, logs)
    largest = max(file.stat().st_size for path in stage.outs for file in [path, *path.rglob("*")] if file.is_file())
    limits = {"event": events, "time": seconds, "byte": largest}
    hits: dict[str, list[tuple[float, bool]]] = {kind: [] for kind in limits}
    rooms: list[tuple[int, bool]] = []

    def kill() -> str | None:
        kind = min(limits, key=lambda each: len(hits[each]))
        moment = limits[kind] * draw.uniform(*part)
        moment = moment if kind == "time" else int(moment)
        hits[kind].append((round(moment, 3), killed(stage, kind, moment)))
        return None

    def without_room() -> str | None:
        room = draw.randrange(size)
        fill(room)
        code = stage.finish()
        remove(FILLER)
        said = stage.log.read_text()
        rooms.append((room, code != 0))
        if code == 0:
            fair = all(stage.state(path) == AFTER for path in stage.outs)  # old outs made room for new ones
        else:
            fair = code == 1 and "Traceback" not in said and ("space" in said or "free" in said)
        return None if fair else f"room for {room} bytes ends with {code}: {said[-3000:]}"

    wrong = interrupt(stage, kills, kill, draw)
    size, wrong_when_full = 0, []
    if full:
        before = spent()
        for path in stage.outs:
            remove(path)
        size = before - spent()
        wrong_when_full = interrupt(stage, full, without_room, draw)
    stage.restore_time()
    return {
        "limits": limits,
        "kills": {kind: [moment for moment, _ in some] for kind, some in hits.items()},
        "came_too_late": {kind: [moment for moment, hit in some if not hit] for kind, some in hits.items()},
        "wrong": wrong,
        "bytes": size,
        "wrong_when_full": wrong_when_full,
        "rooms": [room for room, _ in rooms],
        "too_small": [room for room, refused in rooms if refused],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("stages", nargs="+", metavar="STAGE", help="names as in dvc.lock")
    parser.add_argument("--kills", type=int, required=True)
    parser.add_argument("--full", type=int, required=True, help="full disks; 0 where there is no disk to fill")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--part", type=float, nargs=2, default=(0.0, 1.0), help="of the work, in which kills come")
    options = parser.parse_args()
    sys.path.insert(0, str(Path.cwd()))
    with tempfile.TemporaryDirectory() as folder:
        tempfile.tempdir = os.environ["TMPDIR"] = folder
        found = {}
        for name in options.stages:
            found[name] = report(name, options.kills, options.full, options.seed, options.part, Path(folder))
            print(name, json.dumps(found[name]), file=sys.stderr, flush=True)
    print(json.dumps({"seed": options.seed, "stages": found}, indent=2))


if __name__ == "__main__":
    main()

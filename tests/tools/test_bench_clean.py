"""The benchmark of stage clean, by the real command."""

import json

import tiny


def test_clean_is_measured_on_made_up_rows(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tiny.ROOT))
    file = tmp_path / "metrics/bench.json"
    file.parent.mkdir()
    file.write_text('{"generate": {"requests_per_s": 1.0}}')
    tiny.run(tmp_path, "python", "-m", "tools.bench", "clean", "200", "600")
    found = json.loads(file.read_text())
    assert found["generate"] == {"requests_per_s": 1.0}
    small, large = found["clean"]["runs"]
    assert (small["rows"], large["rows"]) == (200, 600)
    for run in (small, large):
        assert run["kept"] + sum(run["reasons"].values()) == run["rows"]
        assert run["seconds"] > 0
        assert run["peak_megabytes"] > 20
    assert {"duplicate", "near_duplicate", "repetitive"} <= set(large["reasons"])

"""The report's page with hostile texts: its contents, and its behavior in a real browser."""

import json
import re
from pathlib import Path

import browser
import plotting
import pytest
import yaml
from PIL import Image

from distill.reporting import report, score_tables

pytestmark = pytest.mark.xdist_group("page")
HOSTILE = (
    '<script>document.title="owned"; fetch("http://attacker.invalid/")</script><img src="http://attacker.invalid/x" '
    'onerror="document.title=1"></td></dd></style> **b** [l](javascript:alert(1)) {{ 7*7 }} `c` &amp; '
) + "long" * 40
POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy".*?>')


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> Path:
    """The page of a stage plot in which every text of data and params is hostile."""
    folder = plotting.inputs(tmp_path_factory.mktemp("page"))
    for name in ("metrics/samples.jsonl", "metrics/regressions.jsonl"):
        row = json.loads((folder / name).read_text())
        row |= {"messages": [{"role": "user", "content": HOSTILE}], "reference": HOSTILE}
        row["generated"] = dict.fromkeys(score_tables.MODELS, HOSTILE)
        (folder / name).write_text(f"{json.dumps(row)}\n" * 2)
    rows = [json.loads(line) for line in (folder / "data/weighted/train.jsonl").open()]
    for row in rows:
        row |= {"messages": [{"role": "user", "content": HOSTILE}], "response": HOSTILE, "teacher": HOSTILE}
    (folder / "data/weighted/train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    weight = json.loads((folder / "metrics/weight.json").read_text())
    weight["teachers"][0] |= {"name": HOSTILE, "model": HOSTILE, "license": HOSTILE}
    plotting.write(folder / "metrics/weight.json", weight | {"degraded": {HOSTILE: 1}})
    scores = json.loads((folder / "metrics/evaluate.json").read_text())
    for model in scores["models"].values():
        model |= {"calibration_error": {"value": 0.5, "ci_low": 0.4, "ci_high": 0.6}, HOSTILE: 3}
        model |= {"bins": [{"low": 0, HOSTILE: HOSTILE}], "length": {"mean": 7}}
    scores["lengths"] = {name: {"generated_tokens": 1234.5, "ended": 1.0} for name in score_tables.MODELS}
    plotting.write(folder / "metrics/evaluate.json", scores)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["generate"]["system_prompt"] = HOSTILE
    params["teachers"][0]["license"] = HOSTILE
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    done = plotting.run(folder)
    assert done.returncode == 0, done.stderr
    return folder / "metrics/report.html"


@pytest.fixture(scope="module")
def measurements(hostile, tmp_path_factory):
    """Measurements of the page at three widths, without the policy that would forbid requests."""
    if browser.CHROMIUM is None:
        pytest.skip(browser.MISSING)
    text, count = POLICY.subn("", hostile.read_text())
    assert count == 1
    return browser.measure(text, [320, 390, 1280], tmp_path_factory.mktemp("browser"))


@pytest.mark.slow
def test_no_text_becomes_markup_and_nothing_is_requested(measurements):
    pages, console, requests = measurements
    assert not any("attacker" in path for path in requests)  # the browser itself looks for updates
    assert console == []
    for page in pages:
        assert page["requests"] == []
        assert page["title"] == report.TITLE
        assert page["scripts"] == 0
        assert all(link.startswith("#") for link in page["links"])
        assert page["missing"] == []
        assert page["text"].count(HOSTILE[:70]) >= 12


@pytest.mark.slow
def test_the_page_fits_a_phone_and_has_all_figures(measurements):
    pages, _, _ = measurements
    assert [page["frame"] for page in pages] == [320, 390, 1280]
    for page in pages:
        assert page["page"] <= page["frame"]
        assert page["beyond"] == []
        assert len(page["images"]) == 5
        assert all(page["images"])
    phone, desk = pages[1]["images"], pages[2]["images"]
    assert all(narrow < wide for narrow, wide in zip(phone, desk, strict=True))


@pytest.mark.slow
@pytest.mark.skipif(browser.CHROMIUM is None, reason=browser.MISSING)
def test_no_column_is_cut_off_on_a_window_of_1100_pixels(tmp_path):
    folder = plotting.inputs(tmp_path / "run")
    path = folder / "metrics/evaluate.json"
    scores = json.loads(path.read_text())
    wide = {"value": 251_234_567.0, "ci_low": 123_456_789.0, "ci_high": 456_789_123.0}
    for model in scores["models"].values():
        model |= {"bits_per_byte": wide, "a score of another name": wide}
    plotting.write(path, scores)
    assert plotting.run(folder).returncode == 0
    text = POLICY.sub("", (folder / "metrics/report.html").read_text())
    (page,), _, _ = browser.measure(text, [1100], tmp_path)
    assert page["cut"] == 0


@pytest.mark.slow
@pytest.mark.skipif(browser.CHROMIUM is None, reason=browser.MISSING)
def test_a_phone_shows_the_file_without_console_messages(hostile, tmp_path):
    picture = tmp_path / "phone.png"
    done = browser.chromium(tmp_path, "--window-size=390,844", f"--screenshot={picture}", hostile.as_uri())
    assert browser.console(done) == []
    with Image.open(picture) as image:
        assert image.size == (390, 844)
        assert len(image.convert("RGB").getcolors(10**6)) > 50


def test_the_page_is_one_small_self_contained_file(hostile):
    text = hostile.read_text()
    assert len(text) < 1_500_000
    assert set(re.findall(r'(?:src|srcset|href)="(#|data:|[^"]*)', text)) == {"#", "data:"}
    assert "url(" not in text
    assert "@import" not in text


def test_the_page_has_all_scores_choices_hashes_and_both_cards(hostile):
    text = hostile.read_text()
    for title, more_is_better in score_tables.SCORES.values():
        arrow = score_tables.MORE if more_is_better else score_tables.LESS
        assert f">{title} {arrow}<" in text
    for content in (
        "calibration error",
        "0.5 [0.4, 0.6]",
        "lengths, generated tokens",
        "1,230",
        "train.optimization.num_train_epochs",
        ">Sources<",
    ):
        assert content in text, content
    assert "metrics/regressions.jsonl" in text
    assert "teacher 0.5, distilled 3 nats per token, 2 tokens" in text
    assert "Of 8 requested responses, 6 were kept and 2 dropped" in text
    assert "2 rows of highest weight" in text
    assert "init" in text

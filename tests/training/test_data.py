"""The training data of each kind of loss and targets."""

from dataclasses import replace

import pytest
import tiny
import torch

from distill.core.errors import UserError
from distill.modeling import loading
from distill.modeling.chat import encode
from distill.params.loading import check_params
from distill.params.train import Distilled
from distill.students.build import StoredTargets
from distill.targets import store
from distill.targets.distributions import TopK
from distill.targets.stored import StoredTopK, top_k
from distill.training import data
from distill.training.dataset import ClassTargets, TeacherInputs

ROWS = [
    tiny.weighted(topic, f"People like {topic} so much.", 0.5 + index) for index, topic in enumerate(tiny.TOPICS[:4])
]
ONLINE = {"kind": "online", "teacher": "tiny", "batch_tokens": 256, "layers": None, "score_without_prompt": False}
ON_POLICY = ONLINE | {"kind": "on_policy", "on_policy_fraction": 0.5, "max_new_tokens": 7, "sampling_temperature": 0.9}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of the tiny teacher, untrained."""
    path, tokenizer = tmp_path_factory.mktemp("teacher"), tiny.tokenizer()
    loading.save_model(tiny.model(len(tokenizer)), tokenizer, path)
    return path


def context(folder, stored, **changes) -> data.TrainingContext:
    """What the tiny experiment learns from, with its targets in the folder `stored`."""
    params = check_params(tiny.params(**changes))
    teacher = params.local_teacher("tiny").model_copy(update={"model": str(folder)})
    found = StoredTargets.find(stored, params.targets, [teacher], torch.float32)
    return data.TrainingContext(
        rows=ROWS, tokenizer=tiny.tokenizer(), max_length=128, dtype=torch.float32, class_labels=None, targets=found,
        losses=params.train.distilled,
    )  # fmt: skip


def written(given: data.TrainingContext) -> dict[str, StoredTopK]:
    """Writes random targets of the rows into the folder of the context's targets, and returns them."""
    assert given.targets is not None
    given.targets.folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    encoded = data.encode_samples(ROWS, given.tokenizer, 128)
    stored = {
        sample.id: top_k(torch.randn(len(sample.response), len(given.tokenizer), generator=generator), 8)
        for sample in encoded
    }
    store.write_targets(given.targets.folder, given.targets.source(given.tokenizer, ROWS), stored.items())
    return stored


def test_cross_entropy_reads_no_targets(folder, tmp_path):
    given = replace(context(folder, tmp_path / "none"), losses=data.SFT)
    found = data.load_training_data(given, tiny.model(400), None, True, 0)
    assert (found.teacher, found.on_policy, found.hidden_loss) == (None, None, None)
    assert [sample.id for sample in found.samples] == [row["id"] for row in ROWS]
    assert [sample.weight for sample in found.samples] == [0.5, 1.5, 2.5, 3.5]
    assert all(sample.targets is None for sample in found.samples)


def test_a_divergence_alone_in_name_reads_no_targets(folder, tmp_path):
    given = context(folder, tmp_path / "none")
    loss = given.losses.loss.model_copy(update={"ce_weight": 1.0})
    found = data.load_training_data(replace(given, losses=Distilled(loss=loss, hidden_loss=None)), None, None, True, 0)
    assert all(sample.targets is None for sample in found.samples)


def test_stored_targets_are_those_of_their_rows(folder, tmp_path):
    given = context(folder, tmp_path / "targets")
    stored = written(given)
    found = data.load_training_data(given, tiny.model(len(given.tokenizer)), None, True, 0)
    assert found.teacher is None
    for sample in found.samples:
        assert isinstance(sample.targets, TopK)
        best = sample.targets.ids.gather(1, sample.targets.log_probs.argmax(1, keepdim=True))[:, 0]
        assert best.tolist() == stored[sample.id].ids[:, 0].tolist()


def test_targets_of_other_rows_are_refused(folder, tmp_path):
    given = context(folder, tmp_path / "targets")
    written(given)
    others = [ROWS[0] | {"response": "another"}, *ROWS[1:]]
    with pytest.raises(UserError, match="holds targets of another source:\n  data: "):
        data.load_training_data(replace(given, rows=others), tiny.model(len(given.tokenizer)), None, True, 0)


@pytest.mark.parametrize("section", [ONLINE, ON_POLICY])
def test_an_online_teacher_is_the_one_of_params(folder, tmp_path, section):
    given = context(folder, tmp_path / "targets", targets=section, train__distilled__loss__tail=None)
    assert given.targets is not None
    given.targets.folder.mkdir()
    store.write_targets(given.targets.folder, given.targets.source(given.tokenizer, ROWS), (), torch.ones(400))
    found = data.load_training_data(given, tiny.model(len(given.tokenizer)), None, True, 3)
    assert found.teacher is not None
    original = tiny.model(len(given.tokenizer))
    assert torch.equal(found.teacher.model.model.embed_tokens.weight, original.model.embed_tokens.weight)
    assert all(isinstance(sample.targets, TeacherInputs) for sample in found.samples)
    if section is ONLINE:
        assert found.on_policy is None
    else:
        assert found.on_policy is not None
        assert (found.on_policy.fraction, found.on_policy.end) == (0.5, given.tokenizer.eos_token_id)
        sampling = found.on_policy.sampling
        assert (sampling.max_tokens, sampling.temperature, sampling.top_p, sampling.seed) == (7, 0.9, 1.0, 3)


def test_a_student_teaches_from_its_folder(folder, tmp_path):
    tokenizer = tiny.tokenizer()
    student = tiny.model(len(tokenizer), layers=1)
    loading.save_model(student, tokenizer, tmp_path / "student")
    given = context(folder, tmp_path / "none")
    found = data.load_training_data(given, student, tmp_path / "student", True, 0)
    assert found.teacher is not None
    assert found.teacher.model.config.num_hidden_layers == 1
    assert found.teacher.student_ids.tolist() == list(range(len(tokenizer)))
    assert found.teacher.vocab_size == len(tokenizer)


def test_class_labels_take_the_place_of_all_else(folder, tmp_path):
    rows = [row | {"response": "good", "label_log_probs": [-0.1, -2.5]} for row in ROWS]
    given = replace(context(folder, tmp_path / "none"), rows=rows, class_labels=["good", "bad"])
    found = data.load_training_data(given, tiny.model(400), None, True, 0)
    for sample in found.samples:
        assert isinstance(sample.targets, ClassTargets)
        assert (sample.targets.label, sample.targets.log_probs) == (0, [-0.1, -2.5])


def with_limit(folder, tokens: int, **changes) -> data.TrainingContext:
    """The context with this max_length."""
    return replace(context(folder, folder / "none"), max_length=tokens, **changes)


def test_rows_that_are_cut_are_counted(folder, capsys):
    tokenizer = tiny.tokenizer()
    long_prompt = tiny.weighted("maple", "People like maple.", 1.0)
    long_prompt["messages"] = [{"role": "system", "content": "Be brief. " * 30}, *long_prompt["messages"]]
    long_answer = tiny.weighted("north", "people like what " * 60, 1.0)
    rows = [*ROWS, long_prompt, long_answer]
    longest = max(len(example.prompt) + len(example.response) for example in (encode(tokenizer, row) for row in rows))
    assert longest > 100
    data.require_short_rows(with_limit(folder, 100, rows=rows))
    assert capsys.readouterr().out == (
        f"train.optimization.max_length: 2 of 6 rows have more than 100 tokens, at most {longest}: 2 are learnt "
        "without the beginning of their prompt, 1 without the end of their response.\n"
    )
    data.require_short_rows(with_limit(folder, longest, rows=rows))
    assert capsys.readouterr().out == ""


def test_a_limit_that_cuts_most_rows_is_refused(folder):
    with pytest.raises(
        UserError, match=r"4 of 4 rows have more than 16 tokens, .* These are most rows\. Raise max_length"
    ):
        data.require_short_rows(with_limit(folder, 16))


def test_class_labels_count_with_the_longest_label(folder, capsys):
    tokenizer = tiny.tokenizer()
    prompt = max(len(encode(tokenizer, row).prompt) for row in ROWS)
    label = max(len(tokenizer(text).input_ids) + 1 for text in ("good", "very bad"))
    data.require_short_rows(with_limit(folder, prompt + label, class_labels=["good", "very bad"]))
    assert capsys.readouterr().out == ""
    with pytest.raises(UserError, match=f"4 of 4 rows have more than {prompt + label - 1} tokens"):
        data.require_short_rows(with_limit(folder, prompt + label - 1, class_labels=["good", "very bad"]))

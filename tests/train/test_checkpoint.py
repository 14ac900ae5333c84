"""Checkpoints: what is read is what was saved, or an error that changes nothing."""

import json
import pathlib
import shutil

import jax
import orbax.checkpoint as ocp
import pytest

from bptt_jax import train
from bptt_jax.train._checkpoint import digest
from support.training import adding, listing, text

OPTIONS = train.RunOptions(
    updates=4, per_dispatch=2, checkpoint_every=2, evaluate_batches=2
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with checkpoints 2 and 4, and its last state."""
    out = tmp_path_factory.mktemp("run")
    return out, text().run(out, OPTIONS).state


@pytest.fixture
def out(run, tmp_path):
    return pathlib.Path(shutil.copytree(run[0], tmp_path / "copy"))


def flip(path):
    content = bytearray(path.read_bytes())
    if not content:
        pytest.skip("nothing to flip")
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def remove(path):
    path.unlink()


DAMAGES = (flip, truncate, remove)


def read(out):
    checkpoints = train.Checkpoints(out / "checkpoint")
    try:
        return checkpoints.restore(text().state())
    finally:
        checkpoints.close()


def newest_files(out) -> list[pathlib.Path]:
    """The largest first: those hold the arrays."""
    files = [path for path in (out / "checkpoint" / "4").rglob("*") if path.is_file()]
    return sorted(files, key=lambda path: (-path.stat().st_size, path.as_posix()))


def restored_or_refused(out, saved: str) -> bool:
    """Never another state, and nothing on disk is changed; whether it was refused."""
    before, refusal = listing(out), None
    try:
        found = read(out)
    except ValueError as error:
        refusal = str(error)
    assert listing(out) == before
    if refusal is None:
        assert digest(found) == saved
        return False
    assert str(out / "checkpoint" / "4") in refusal
    assert "continue from step 2" in refusal
    assert "\n" not in refusal
    return True


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found(damage, out, run):
    damage(out / "checkpoint" / "4" / "digests" / "metadata")
    assert restored_or_refused(out, digest(run[1]))


@pytest.mark.parametrize("part", ["params", "rest"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_arrays_are_found(part, damage, out, run):
    folder = out / "checkpoint" / "4" / part
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.parent.name == "d":
            damage(path)
    assert restored_or_refused(out, digest(run[1]))


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
def test_no_damaged_file_gives_another_state(damage, out, run):
    refused = 0
    for path in newest_files(out):
        content = path.read_bytes()
        if content:
            damage(path)
            refused += restored_or_refused(out, digest(run[1]))
            path.write_bytes(content)
    assert refused > 2
    assert digest(read(out)) == digest(run[1])


def test_moving_the_damaged_one_away_continues(out, run):
    newest = out / "checkpoint" / "4"
    remove(newest / "params" / "manifest.ocdbt")
    with pytest.raises(ValueError, match="is damaged.*continue from step 2"):
        text().run(out, OPTIONS)
    shutil.move(newest, out.parent / "away")
    said = []
    done = text().run(out, OPTIONS, progress=train.Progress(message=said.append))
    assert said == ["continues at step 2"]
    assert digest(done.state) == digest(run[1])


def test_without_an_older_one(out):
    shutil.rmtree(out / "checkpoint" / "2")
    remove(out / "checkpoint" / "4" / "digests" / "metadata")
    with pytest.raises(ValueError, match="move that folder away to begin anew"):
        read(out)


def test_arrays_that_are_not_those_that_were_saved(out):
    """Whole and readable, and of another digest."""
    path = out / "checkpoint" / "4" / "digests" / "metadata"
    about = json.loads(path.read_text())
    about["digests"]["params"] = about["digests"]["rest"]
    path.write_text(json.dumps(about))
    with pytest.raises(ValueError, match="its params are not those that were saved"):
        read(out)


def test_of_another_model(out):
    before = listing(out)
    checkpoints = train.Checkpoints(out / "checkpoint")
    with pytest.raises(ValueError, match="checkpoint/4 is sound, and of another model"):
        checkpoints.restore(adding().state())
    checkpoints.close()
    assert listing(out) == before


def test_a_file_in_its_place(tmp_path):
    (tmp_path / "checkpoint").write_text("not a folder")
    with pytest.raises(FileExistsError):
        text().run(tmp_path, OPTIONS)
    assert (tmp_path / "checkpoint").read_text() == "not a folder"


def test_none_at_all(tmp_path):
    checkpoints = train.Checkpoints(tmp_path / "checkpoint")
    assert checkpoints.restore(text().state()) is None
    checkpoints.close()


def test_what_is_saved_is_not_what_the_next_step_writes(tmp_path):
    """The step is given the state's buffers, while the save is still under way."""
    job = text()
    advance = train.many_steps(job.estimator, job.optimizer, job.task.train.batch)
    checkpoints = train.Checkpoints(tmp_path / "checkpoint", keep=5)
    state, saved = job.state(), {}
    for position in (2, 4, 6):
        state, _ = advance(state, job.task.train.read(position - 2, 2))
        saved[position] = digest(state)
        checkpoints.save(state)
    state, _ = advance(state, job.task.train.read(6, 2))
    assert len({digest(state), *saved.values()}) == 4
    checkpoints.close()
    checkpoints = train.Checkpoints(tmp_path / "checkpoint", keep=5)
    for position in (6, 4, 2):
        found = checkpoints.restore(job.state())
        assert int(found.position) == position
        assert digest(found) == saved[position]
        shutil.rmtree(tmp_path / "checkpoint" / str(position))
        checkpoints.close()
        checkpoints = train.Checkpoints(tmp_path / "checkpoint", keep=5)
    checkpoints.close()


def test_what_a_save_holds_is_not_given_to_the_next_step(tmp_path, monkeypatch):
    held, save = [], ocp.args.StandardSave
    monkeypatch.setattr(
        ocp.args, "StandardSave", lambda tree: held.append(tree) or save(tree)
    )
    state = text().state()
    checkpoints = train.Checkpoints(tmp_path / "checkpoint")
    checkpoints.save(state)
    for a in jax.tree.leaves(state):
        a.delete()  # as by a step that is given it
    checkpoints.close()
    assert len(held) == 2
    assert not any(a.is_deleted() for a in jax.tree.leaves(held))


def test_what_is_restored_can_be_donated(out, run):
    job, found = text(), read(out)
    advance = train.many_steps(job.estimator, job.optimizer, job.task.train.batch)
    after, _ = advance(found, job.task.train.read(4, 2))
    expected, _ = advance(
        jax.tree.map(lambda a: a.copy(), run[1]), job.task.train.read(4, 2)
    )
    assert digest(after) == digest(expected)


def test_parameters_alone(out, run):
    model = text().model
    like = jax.eval_shape(model.init, jax.random.key(0))
    checkpoints = train.Checkpoints(out / "checkpoint")
    assert digest(checkpoints.restore_params(like)) == digest(run[1].params)
    checkpoints.close()

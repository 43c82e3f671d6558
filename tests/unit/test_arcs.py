"""The judge of arcs: what it learns on one set and does to another."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusion import arcs
from fusion.arc_model import ArcMethod, ArcModel, load, save
from fusion.pool import Ballot
from fusion.slot_truth import slot_truth
from fusion.trees import classifier, fit_trees
from fusion.variants import Lexicon, variants
from fusion.voting.combine import fuse
from fusion.voting.vote import VoteOptions
from lm.ngram import NGram
from manifests import Hypothesis, NBest, Utterance, write_rows

SAID = [
    "the cat sat on the mat",
    "any one may go to the theatre",
    "mister brown saw the grey cat",
    "the dog ran to the theatre",
    "any one saw mister brown",
]
# What people write for what they hear.
HABITS = {"any one": "anyone", "theatre": "theater", "mister": "mr", "grey": "gray"}


@pytest.fixture(scope="module")
def ngram(make_ngram):
    return NGram(make_ngram(SAID * 30))


def written(said, rng):
    for right, habit in HABITS.items():
        said = said.replace(right, habit)
    words = said.split()
    return " ".join(w for w in words if rng.random() > 0.15)


def crowd(count, seed):
    rng = np.random.default_rng(seed)
    ballots, references = [], {}
    for n in range(count):
        utt_id, said = f"u{n}", SAID[n % len(SAID)]
        rows = tuple(
            NBest(utt_id=utt_id, system="s", hyps=(Hypothesis(text=written(said, rng)),))
            for _ in range(3)
        )
        ballots.append(Ballot(utt_id, rows))
        references[utt_id] = Utterance(
            utt_id=utt_id, audio_filepath="-", duration=1.0, text=said, speaker=f"s{n % 10}"
        )
    return ballots, references


@pytest.fixture(scope="module")
def model(ngram):
    return ArcMethod(VoteOptions(space="words"), str(ngram.path)).fit(*crowd(120, 1))


def test_what_people_write_for_something_else_is_written_right(model):
    ballots, references = crowd(40, 2)

    def right(rows):
        pairs = zip(rows, ballots, strict=True)
        return sum(row.best.text == references[ballot.utt_id].text for row, ballot in pairs)

    assert right(model.apply(ballots)) >= 30
    assert right(fused.row for fused in fuse(ballots, model.options)) < 10


def test_a_model_is_the_same_after_the_disk(model, tmp_path):
    save(model, tmp_path / "arcs.json")
    again = load(tmp_path / "arcs.json")
    ballots, _ = crowd(10, 3)
    assert list(again.fuse(ballots, hyps=3, networks=True)) == list(
        model.fuse(ballots, hyps=3, networks=True)
    )
    (tmp_path / "bad.json").write_text('{"trees": 1}')
    with pytest.raises(ValueError, match="no model of arcs"):
        load(tmp_path / "bad.json")


def test_the_order_of_the_members_does_not_matter(model, ngram):
    ballots, references = crowd(120, 1)
    turned = [Ballot(b.utt_id, b.rows[::-1]) for b in ballots]
    assert ArcMethod(VoteOptions(space="words"), str(ngram.path)).fit(turned, references) == model
    ballots, _ = crowd(20, 4)
    turned = [Ballot(b.utt_id, b.rows[::-1]) for b in ballots]
    assert list(model.fuse(ballots, networks=True)) == list(model.fuse(turned, networks=True))


def test_silence_missing_rows_and_agreement_need_no_judge(model):
    silent = NBest(utt_id="u", system="s", hyps=(Hypothesis(text=""),))
    word = NBest(utt_id="v", system="s", hyps=(Hypothesis(text="zzz"),))
    ballots = [Ballot("u", (silent, silent)), Ballot("v", (word, None)), Ballot("w", (None, None))]
    rows = list(model.apply(ballots))
    assert [row.best.text for row in rows] == ["", "zzz", ""]
    assert [row.error is None for row in rows] == [True, True, False]


def test_it_learns_without_an_ngram_and_not_from_nothing():
    ballots, references = crowd(100, 5)
    model = ArcMethod(VoteOptions(space="words")).fit(ballots, references)
    assert "theatre" in next(iter(model.apply(ballots[1:2]))).best.text
    same = [Ballot(b.utt_id, b.rows[:1]) for b in ballots]
    plain = [
        Ballot(b.utt_id, (NBest(utt_id=b.utt_id, system="s", hyps=(Hypothesis(text="a"),)),))
        for b in same
    ]
    told = {i: msgspec.structs.replace(row, text="a") for i, row in references.items()}
    with pytest.raises(ValueError, match="nothing to learn"):
        ArcMethod().fit(plain, told)


def test_trees_say_what_scikit_learn_says():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(500, 5))
    y = x[:, 0] * x[:, 1] > 0.1
    ours = fit_trees(x, y, seeds=1)
    theirs = classifier(0, rounds=250, rate=0.06).fit(x, y)
    new = rng.normal(size=(100, 5))
    assert np.allclose(ours.probability(new), theirs.predict_proba(new)[:, 1], atol=1e-9)


def test_a_lexicon_knows_what_else_may_have_been_meant(ngram):
    lexicon = Lexicon(ngram)
    lexicon.learn(["theater", "anyone", "cat"])
    assert [v.text for v in variants(["theater"], {}, lexicon)] == ["theatre"]
    assert [v.text for v in variants(["anyone"], {}, lexicon)] == ["any one"]
    assert variants(["cat"], {}, lexicon) == []
    habits = {"mr": {"mister": 2, "mr": 1, "master": 1}}
    assert [(v.text, v.kind) for v in variants(["mr"], habits, None)] == [("mister", "habit")]
    frequent = {"the": {"the": 100, "a": 4}}  # a slip, no habit
    assert variants(["the"], frequent, None) == []


WORDS = st.sampled_from(["a", "b", "c"])
SLOTS = st.lists(st.dictionaries(WORDS | st.just(""), st.just(0.5), min_size=1), max_size=5)


@given(SLOTS, st.lists(WORDS, max_size=6).map(tuple))
def test_every_slot_is_told_what_was_said_there(slots, reference):
    said = slot_truth(slots, reference)
    assert len(said) == len(slots)
    words = iter(reference)  # in their order
    assert all(word in words for word in filter(None, said))


@given(st.lists(WORDS, max_size=6))
def test_a_reference_that_is_a_way_through_is_found(words):
    slots = [{word: 0.1, "x": 0.9} for word in words]
    assert slot_truth(slots, tuple(words)) == words


def test_the_command(tmp_path, ngram, capsys):
    ballots, references = crowd(60, 6)
    files = []
    for m in range(3):
        files.append(str(tmp_path / f"m{m}.jsonl"))
        write_rows(tmp_path / f"m{m}.jsonl", [b.rows[m] for b in ballots])
    write_rows(tmp_path / "ref.jsonl", references.values())
    model = str(tmp_path / "arcs.json")
    refs = ["--ref", str(tmp_path / "ref.jsonl"), "--lm", str(ngram.path)]
    assert arcs.main(["fit", *files, *refs, "--out", model]) == 0
    out = str(tmp_path / "out.jsonl")
    assert arcs.main(["apply", *files, "--model", model, "--out", out]) == 0
    assert arcs.main(["apply", *files, "--model", files[0], "--out", out]) == 1
    assert "no model of arcs" in capsys.readouterr().err
    assert isinstance(load(tmp_path / "arcs.json"), ArcModel)


def test_what_disagrees_in_one_part_of_dev_alone_is_too_little():
    """Without that part there is nothing left to learn from."""
    said = {"a": ("the cat sat", "the hat sat"), "b": ("he goed", "he goed")}
    ballots = [
        Ballot(
            utt_id,
            tuple(
                NBest(utt_id=utt_id, system="s", hyps=(Hypothesis(text=text),)) for text in texts
            ),
        )
        for utt_id, texts in said.items()
    ]
    references = {
        utt_id: Utterance(
            utt_id=utt_id, audio_filepath="a", duration=1, text=texts[0], speaker=utt_id
        )
        for utt_id, texts in said.items()
    }
    with pytest.raises(ValueError, match="disagree in too few places"):
        ArcMethod().fit(ballots, references)

"""ROVER's networks and language models: used where they help children not tuned on, else not."""

from __future__ import annotations

import random

import pytest

from fusion.pool import Ballot
from fusion.rescore_network import main, tune_network_rescoring
from fusion.voting.combine import fuse
from lm import NGram
from lm.network import tune_networks
from lm.weights import Weights
from manifests import Hypothesis, NBest, Utterance, read_nbest, write_rows
from scoring.metric import count_word_errors

SUBJECTS, VERBS, THINGS = ("the cat", "a dog", "my bird"), ("saw", "ate"), ("the ball", "a mat")
SENTENCES = [f"{one} {verb} {thing}" for one in SUBJECTS for verb in VERBS for thing in THINGS]
WORDS = sorted({word for sentence in SENTENCES for word in sentence.split()})


@pytest.fixture(scope="module")
def folder(make_ngram):
    return make_ngram(SENTENCES * 3)


@pytest.fixture(scope="module")
def references():
    rng = random.Random(1)
    return {
        f"u{n:03}": Utterance(
            utt_id=f"u{n:03}", audio_filepath="x.flac", duration=2.0,
            text=rng.choice(SENTENCES), speaker=f"s{n % 6}",
        )
        for n in range(60)
    }  # fmt: skip


@pytest.fixture(scope="module")
def networks(references):
    """Of three listeners who hear every fourth word wrong, and leave the decision to others."""
    rng = random.Random(2)
    ballots = []
    for utt_id, row in references.items():
        heard = [
            " ".join(w if rng.random() > 0.25 else rng.choice(WORDS) for w in row.text.split())
            for _ in range(3)
        ]
        rows = tuple(
            NBest(utt_id=utt_id, system="s", hyps=(Hypothesis(text=text),)) for text in heard
        )
        ballots.append(Ballot(utt_id, rows))
    return [fused.network for fused in fuse(ballots, networks=True)]


def test_an_ngram_that_helps_is_used_and_noise_is_not(folder, references, networks):
    tuned = tune_network_rescoring(networks, references, [NGram(folder)], 10)
    assert tuned.errors < tuned.errors_without / 1.5
    assert tuned.weights.alphas[0] > 0

    class Noise:
        """It knows nothing, and yet it would have helped on dev as a whole."""

        def score_texts(self, texts):
            return [-20.0 * random.Random(f"5{text}").random() for text in texts]

    known = {
        network.utt_id: row.text for network, row in zip(networks, references.values(), strict=True)
    }
    assert tune_networks(networks, known, [Noise()], 10).weights != Weights()
    tuned = tune_network_rescoring(networks, references, [Noise()], 10)
    assert tuned.weights == Weights()


def test_the_command_tunes_and_applies(folder, references, networks, tmp_path, capsys):
    write_rows(tmp_path / "n.jsonl", networks)
    write_rows(tmp_path / "dev.jsonl", references.values())
    source, ref, out = (str(tmp_path / name) for name in ("n.jsonl", "dev.jsonl", "r.jsonl"))
    base = [source, "--lm", str(folder), "--out"]
    assert main([*base, out, "--tune-on", source, "--ref", ref, "--ways", "5"]) == 0
    rows = list(read_nbest(tmp_path / "r.jsonl"))
    truths = [row.text for row in references.values()]
    before = count_word_errors(truths, [_votes(network) for network in networks]).errors
    after = count_word_errors(truths, [row.best.text for row in rows]).errors
    assert after < before / 1.5
    again, kept = str(tmp_path / "again.jsonl"), str(tmp_path / "r.weights.json")
    assert main([*base, again, "--settings", kept]) == 0
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "r.jsonl").read_bytes()
    capsys.readouterr()
    write_rows(tmp_path / "few.jsonl", networks[:5])
    few, wrong = str(tmp_path / "few.jsonl"), str(tmp_path / "wrong.json")
    (tmp_path / "wrong.json").write_text("[]")
    assert main([*base, again, "--tune-on", few, "--ref", ref]) == 1
    assert main([*base, again, "--settings", wrong]) == 1
    assert main([str(tmp_path / "dev.jsonl"), *base[1:], again, "--settings", kept]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[0] for line in lines] == ["fusion.rescore_network"] * 3
    for usage in ([], ["--tune-on", source], ["--settings", kept, "--ways", "0"]):
        with pytest.raises(SystemExit, match="2"):
            main([*base, out, *usage])


def _votes(network):
    return " ".join(slot[0].text for slot in network.slots if slot[0].text)

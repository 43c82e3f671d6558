"""lm.train with the real lmplz: an ordinary text, tiny ones, wrong ones."""

import gzip
import json
import os
import random
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from lm import NGram
from lm.sentences import read_sentences
from lm.train import main, tool, train
from manifests import Utterance, write_rows

FREQUENT = ["the", "a", "cat", "dog", "sees", "likes", "goed", "and"]


def story(sentences):
    """Return lines with words as unevenly frequent as real ones, which lmplz's discounts need."""
    draw = random.Random(1)
    words = FREQUENT + [f"word{n}" for n in range(300)]
    weights = [1 / (n + 1) for n in range(len(words))]
    return [
        " ".join(draw.choices(words, weights, k=8)).capitalize() + "!" for _ in range(sentences)
    ]


def utterance(n, text):
    return Utterance(utt_id=f"u{n}", audio_filepath="x.flac", duration=1.0, text=text)


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "story.txt"
    path.write_text("\n".join(story(1000)))
    return path


def test_text_and_manifest_make_a_complete_folder(tmp_path, text):
    manifest = tmp_path / "train.jsonl"
    rows = [utterance(0, "My tooths, please."), utterance(1, ""), utterance(2, None)]
    write_rows(manifest, rows)
    dev = tmp_path / "dev.jsonl"
    write_rows(dev, [utterance(0, "The CAT sees the zebra."), utterance(1, "")])
    out = tmp_path / "lm"
    info = train([text, manifest], out, dev=dev)
    assert (info.order, info.sentences, info.prune, info.quantize) == (4, 1001, (0, 0, 1), 8)
    assert not info.discount_fallback
    assert info.ngrams[-1] > 0
    assert info.dev.words == 5
    assert info.dev.oov == 1
    assert info.dev.perplexity > info.dev.perplexity_without_oov > 1
    assert json.loads((out / "lm.json").read_text())["dev"]["oov_rate"] == 0.2
    words = (out / "unigrams.txt").read_text().split("\n")
    assert words[-1] == ""
    assert words[:-1] == sorted(words[:-1])
    assert {"tooths", "goed", "cat"} < set(words)
    assert not {"<s>", "</s>", "<unk>", "Cat", "cat,"} & set(words)
    ngram = NGram(out)
    assert ngram.order == 4
    assert ngram.score_text("the cat and the dog") > ngram.score_text("cat cat cat zebra sees")
    assert {path.name for path in tmp_path.iterdir() if ".part" in path.name} == set()
    files = {"lm.binary", "lm.json", "lm.meta.json", "unigrams.txt"}
    assert {path.name for path in out.iterdir()} == files


def test_the_same_text_gives_the_same_bytes(tmp_path, text):
    for name in ("a", "b"):
        train([text], tmp_path / name, order=3)
    for file in ("lm.binary", "unigrams.txt", "lm.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_gzipped_text_and_curly_quotes_are_read_as_plain_ones(tmp_path):
    lines = story(50)
    (tmp_path / "a.txt").write_text("\n".join([*lines, "don't"]))
    with gzip.open(tmp_path / "b.txt.gz", "wt", encoding="utf-8") as handle:
        handle.write("\n".join(["", *lines, "--", "DON\u2019T?"]))
    for name in ("a.txt", "b.txt.gz"):
        train([tmp_path / name], tmp_path / f"{name}.lm")
    a, b = (tmp_path / f"{name}.lm" / "lm.binary" for name in ("a.txt", "b.txt.gz"))
    assert a.read_bytes() == b.read_bytes()


@pytest.mark.parametrize("order", [3, 4, 5])
@pytest.mark.parametrize("content", ["a", "a b\na", "the cat sat\nthe dog sat on the mat"])
def test_a_tiny_text_falls_back_and_says_so(tmp_path, caplog, order, content):
    (tmp_path / "t").write_text(content)
    info = train([tmp_path / "t"], tmp_path / "lm", order=order)
    assert info.discount_fallback
    assert info.prune == (0,)
    assert "too little text to estimate Kneser-Ney discounts" in caplog.text
    assert f"leaves no {order}-gram" in caplog.text
    ngram = NGram(tmp_path / "lm")
    assert ngram.order == order
    assert ngram.score_text(content.split("\n")[0]) > ngram.score_text("zebra zebra zebra")


def test_quantising_and_pruning_shrink_the_file(tmp_path, text):
    sizes = {}
    for name, prune, bits in (("full", [0], 0), ("small", [0, 0, 1], 8)):
        train([text], tmp_path / name, prune=prune, quantize=bits)
        sizes[name] = (tmp_path / name / "lm.binary").stat().st_size
    assert sizes["small"] < sizes["full"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"order": 2}, "order is 2, must be 3, 4 or 5"),
        ({"order": 6}, "order is 6, must be 3, 4 or 5"),
        ({"prune": [1]}, r"prune is \[1\], must be at most 4 counts that start at 0"),
        ({"prune": [0, 2, 1]}, r"prune is \[0, 2, 1\]"),
        ({"order": 3, "prune": [0, 0, 0, 1]}, "must be at most 3 counts"),
        ({"quantize": 1}, r"quantize is 1 bits, must lie in \[2, 25\]"),
    ],
)
def test_wrong_settings(tmp_path, text, settings, message):
    with pytest.raises(ValueError, match=message):
        train([text], tmp_path / "lm", **settings)
    assert not (tmp_path / "lm").exists()


def test_no_words_is_an_error(tmp_path):
    (tmp_path / "t").write_text("\n--\n ... \n")
    with pytest.raises(ValueError, match="no words, must hold some text"):
        train([tmp_path / "t"], tmp_path / "lm")


def test_an_older_ngram_is_replaced_and_anything_else_is_not(tmp_path, text):
    out = tmp_path / "lm"
    train([text], out, order=3)
    train([text], out, order=5)
    assert NGram(out).order == 5
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter1").write_text("precious")
    with pytest.raises(ValueError, match="is not an n-gram folder, must be new or empty"):
        train([text], other)
    assert (other / "chapter1").exists()


def test_a_failed_build_keeps_the_older_ngram(tmp_path, text):
    out = tmp_path / "lm"
    train([text], out, order=3)
    (tmp_path / "empty").write_text("")
    with pytest.raises(ValueError, match="no words"):
        train([tmp_path / "empty"], out)
    with pytest.raises(ValueError, match=r"^[^:]*/empty: no words, must hold some text$"):
        train([text], out, order=5, dev=tmp_path / "empty")
    (tmp_path / "bad.jsonl").write_text("{")
    with pytest.raises(ValueError, match=r"^[^:]*/bad.jsonl:1: line is '{', must be a row: "):
        train([text], out, order=5, dev=tmp_path / "bad.jsonl")
    assert NGram(out).order == 3


def test_the_command_and_its_errors(tmp_path, text, capfd):
    out = tmp_path / "lm"
    command = [sys.executable, "-m", "lm.train", "--text", text, "--order", "3", "--out", out]
    done = subprocess.run([*command, "--dev", text], capture_output=True, text=True)
    assert done.returncode == 0
    assert "dev: perplexity" in done.stderr
    assert "0.00 % of" in done.stderr
    assert main(["--text", str(tmp_path / "absent"), "--out", str(out)]) == 1
    assert main(["--text", str(text), "--order", "9", "--out", str(out)]) == 1
    (tmp_path / "bad.jsonl").write_text('{"text": 7}\n')
    assert main(["--manifest", str(tmp_path / "bad.jsonl"), "--out", str(out)]) == 1
    (tmp_path / "torn.gz").write_bytes(gzip.compress(b"some text " * 1000)[:-20])
    assert main(["--text", str(tmp_path / "torn.gz"), "--out", str(out)]) == 1
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    assert main(["--text", str(tmp_path / "latin"), "--out", str(out)]) == 1
    flipped = bytearray(gzip.compress(b"some text " * 1000))
    flipped[20] ^= 255
    for name, content in (("flipped.gz", flipped), ("text.gz", b"he goed")):
        (tmp_path / name).write_bytes(content)
        assert main(["--text", str(tmp_path / name), "--out", str(out)]) == 1
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 7
    assert "bad.jsonl:1:" in lines[2]
    named = ("torn.gz", "latin", "flipped.gz", "text.gz")
    assert all(name in line for name, line in zip(named, lines[3:], strict=True))


@pytest.mark.parametrize(
    "name", ["m.jsonl", "m.json", "m.jsonl.gz", "train.manifest", "train.manifest.gz"]
)
def test_a_manifest_is_one_whatever_its_name(tmp_path, name):
    """Read as a text, its keys would be words of every sentence."""
    rows = b'\xef\xbb\xbf{"audio_filepath": "a.wav", "text": "He goed."}\n{"text": null}\n{}\n'
    (tmp_path / name).write_bytes(gzip.compress(rows) if name.endswith(".gz") else rows)
    assert list(read_sentences(tmp_path / name)) == ["he goed"]


def test_a_pipe_is_read_once(tmp_path, text):
    out = tmp_path / "lm"
    call = f"{sys.executable} -m lm.train --text <(cat {text}) --order 3 --out {out}"
    subprocess.run(["bash", "-c", call], check=True, capture_output=True)
    assert NGram(out).order == 3


def test_what_is_missing_is_said_before_the_work(tmp_path, text):
    with pytest.raises(ValueError, match="absent: no such file, must be a text or a manifest"):
        train([text], tmp_path / "lm", dev=tmp_path / "absent")
    assert list(tmp_path.glob("lm*")) == []


def test_a_link_to_a_folder_stays_one(tmp_path, text):
    train([text], tmp_path / "real", order=3)
    (tmp_path / "lm").symlink_to("real")
    train([text], tmp_path / "lm", order=4)
    assert (tmp_path / "lm").is_symlink()
    assert NGram(tmp_path / "real").order == 4


def test_a_missing_tool_says_how_to_build_it(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="lmplz is missing, build it with recipes/"):
        tool("lmplz")
    shutil.copy("/bin/true", tmp_path / "lmplz")
    assert tool("lmplz") == str(tmp_path / "lmplz")


def test_a_failing_tool_is_quoted(monkeypatch, tmp_path, text):
    """A full disk or a wrong binary: the reason must reach the user."""
    broken = tmp_path / "lmplz"
    broken.write_text("#!/bin/sh\necho 'No space left on device' >&2\nexit 7\n")
    broken.chmod(broken.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path) + os.pathsep + os.environ["PATH"])
    with pytest.raises(RuntimeError, match=r"lmplz failed \(7\): No space left on device"):
        train([text], tmp_path / "lm")


def test_installing_again_does_nothing():
    script = Path(__file__).parents[2] / "recipes" / "install_lmplz.sh"
    prefix = Path(tool("lmplz")).parents[1]
    done = subprocess.run([script, prefix], capture_output=True, text=True, timeout=10)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    wrong = subprocess.run([script, "--prefix"], capture_output=True, text=True)
    assert wrong.returncode == 2

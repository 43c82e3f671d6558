"""Decoding with Whisper: languages, silence, adapters, the n-gram, and a kill in the middle."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import WhisperForConditionalGeneration

from manifests import Utterance, part_path, read_manifest, read_nbest, write_rows
from systems.config import load_config
from systems.decode import main
from systems.guard import Window, read_windows
from systems.whisper.config import WhisperConfig
from systems.whisper.decoder import WhisperDecoder
from systems.whisper.system import WhisperSystem
from tests.integration.conftest import WINDOW, Load, texts


def test_texts_of_others_are_scored_in_their_order(
    loaded: WhisperDecoder, windows: list[Window]
) -> None:
    heard = loaded.decode_batch(windows, WINDOW)
    given = [[*one[::-1], "", "goed goed goed home saw"] for one in texts(heard)]
    scored = loaded.score_texts(windows, given, WINDOW)
    for hypotheses, wanted, ranked in zip(scored, given, heard, strict=True):
        assert [one.text for one in hypotheses] == wanted
        assert hypotheses[len(ranked) - 1].score == pytest.approx(
            ranked[0].hypothesis.score, abs=2e-3
        )
        assert hypotheses[-2].words == ()


def test_texts_are_scored_by_utterance(trained_whisper: Path, tone_corpus: Any) -> None:
    from msgspec.structs import replace

    rows = [row for row in read_manifest(tone_corpus.dev) if row.text][:5]
    rows.append(replace(rows[0], utt_id="missing", audio_filepath="nowhere.wav"))
    config = load_config(WhisperConfig, None, ["window=auto", "device=cpu"])
    wanted = [(row, ["home home", row.text or ""]) for row in rows]
    scored = {
        row.utt_id: row for row in WhisperSystem(config).score_texts(wanted, str(trained_whisper))
    }
    for utterance, texts_of in wanted[:-1]:
        hyps = scored[utterance.utt_id].hyps
        assert [hyp.text for hyp in hyps] == texts_of
        assert hyps[1].score > hyps[0].score  # type: ignore[operator]
    assert scored["missing"].error


def test_language_task_and_prompt(
    trained_whisper: Path, windows: list[Window], whisper_decoder: Load
) -> None:
    plain = whisper_decoder(trained_whisper)
    ids = plain.processor.tokenizer.convert_tokens_to_ids
    assert plain.tokens.prefix("en", "transcribe") == list(plain.processor.tokenizer.prefix_tokens)
    assert plain.tokens.prefix("German", "translate")[1:3] == [ids("<|de|>"), ids("<|translate|>")]
    assert plain.tokens.prefix("pt-BR", "transcribe")[1] == ids("<|pt|>")
    with pytest.raises(ValueError, match="language is 'xx', must be one of"):
        plain.tokens.prefix("xx", "transcribe")
    prompted = whisper_decoder(trained_whisper, "decode.prompt=I goed home")
    heard = prompted.decode_batch(windows, WINDOW)
    row = prompted._prompts(windows)[0].tolist()
    assert row[0] == ids("<|startofprev|>")
    assert row.index(ids("<|startoftranscript|>")) > 1
    # The prompt is not a part of what was heard (batch_decode leaves it in).
    assert not any(
        text.startswith("I goed home I goed home") for one in texts(heard) for text in one
    )
    assert all(len(one[0].split()) <= 6 for one in texts(heard) if one)


def test_a_bad_language_costs_one_utterance(trained_whisper: Path, tone_corpus: Any) -> None:
    from msgspec.structs import replace

    rows = list(read_manifest(tone_corpus.dev))[:5]
    rows[2] = replace(rows[2], language="klingon")
    config = load_config(WhisperConfig, None, [f"window={WINDOW}", "device=cpu"])
    heard = {r.utt_id: r for r in WhisperSystem(config).decode(rows, str(trained_whisper))}
    assert [bool(heard[row.utt_id].error) for row in rows] == [False, False, True, False, False]


def test_a_bad_language_of_all_is_refused_at_once(
    trained_whisper: Path, whisper_decoder: Load
) -> None:
    with pytest.raises(ValueError, match="language is 'klingon', must be one of: "):
        whisper_decoder(trained_whisper, "decode.language=klingon")


def test_silence_by_the_models_own_word(
    trained_whisper: Path, windows: list[Window], tone_corpus: Any, whisper_decoder: Load
) -> None:
    """What it learned from clips without words, though the search may not end at once."""
    silent = next(row for row in read_manifest(tone_corpus.dev) if not row.text)
    (quiet,) = read_windows(silent, WINDOW, silence_dbfs=-90.0)
    assert not quiet.silent
    (heard,) = whisper_decoder(trained_whisper).decode_batch([quiet], WINDOW)
    assert texts([heard]) == [[""]]
    never = whisper_decoder(trained_whisper, "decode.no_speech_threshold=1")
    assert all(one[0] for one in texts(never.decode_batch(windows, WINDOW)))


def test_word_tokens_spell_the_text(loaded: WhisperDecoder) -> None:
    for text in ("I goed  home", "tooths", "", "a b-c, d\u2019e caf\u00e9", "I"):
        ids = loaded.tokens.encode(text)
        assert loaded.tokens.text(ids) == text
        spans = loaded.tokens.words(ids)
        assert [span.text for span in spans] == text.split()
        assert all(one.last <= two.first for one, two in itertools.pairwise(spans))
    eot = loaded.tokens.eos
    timestamp = loaded.processor.tokenizer.convert_tokens_to_ids("<|0.40|>")
    ids = [timestamp, *loaded.tokens.encode("I goed"), timestamp, eot]
    assert loaded.tokens.text(ids) == "I goed"
    assert [span.text for span in loaded.tokens.words(ids)] == ["I", "goed"]


def test_an_adapter_decodes_as_its_merged_model(
    trained_whisper: Path, windows: list[Window], tmp_path: Path, whisper_decoder: Load
) -> None:
    from peft import LoraConfig, get_peft_model

    base = WhisperForConditionalGeneration.from_pretrained(trained_whisper)
    torch.manual_seed(1)
    adapted = get_peft_model(
        base, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    )
    adapted.save_pretrained(tmp_path / "adapter")
    merged = tmp_path / "merged"
    loaded = whisper_decoder(trained_whisper)
    loaded.processor.save_pretrained(tmp_path / "adapter")
    loaded.processor.feature_extractor.save_pretrained(tmp_path / "adapter")
    adapted.merge_and_unload().save_pretrained(merged)
    loaded.processor.save_pretrained(merged)
    loaded.processor.feature_extractor.save_pretrained(merged)
    loaded.model.generation_config.save_pretrained(merged)
    one = whisper_decoder(tmp_path / "adapter").decode_batch(windows, WINDOW)
    other = whisper_decoder(merged).decode_batch(windows, WINDOW)
    assert texts(one) == texts(other)
    assert texts(one) != texts(loaded.decode_batch(windows, WINDOW))


def test_generation_keys_survive_a_config_that_transformers_drops_them_from(
    trained_whisper: Path, windows: list[Window], tmp_path: Path, whisper_decoder: Load
) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(trained_whisper, copy)
    path = copy / "generation_config.json"
    keys = json.loads(path.read_text())
    path.write_text(json.dumps({**keys, "_from_model_config": True}))
    before = whisper_decoder(trained_whisper)
    after = whisper_decoder(copy)
    assert after._prompts(windows).tolist() == before._prompts(windows).tolist()
    assert after._prompts(windows).shape[1] == 4
    assert texts(after.decode_batch(windows, WINDOW)) == texts(before.decode_batch(windows, WINDOW))


def test_an_ngram_moves_the_search_and_is_told_apart(
    trained_whisper: Path, windows: list[Window], tmp_path: Path, whisper_decoder: Load
) -> None:
    from lm.ngram import NGram

    arpa = tmp_path / "lm.arpa"
    words = ("a", "I", "goed", "home", "tooths", "two", "mouses", "saw")
    lines = [f"-1.5\t{word}\t0" for word in words[:-1]] + ["-0.2\tsaw\t0"]
    unigrams = ["-99\t<s>\t0", "-1\t</s>", "-3\t<unk>", *lines]
    body = f"\\data\\\nngram 1={len(unigrams)}\nngram 2=1\n\n\\1-grams:\n" + "\n".join(unigrams)
    arpa.write_text(body + "\n\n\\2-grams:\n-0.1\t<s> saw\n\n\\end\\\n")
    plain = whisper_decoder(trained_whisper).decode_batch(windows, WINDOW)
    fused = whisper_decoder(
        trained_whisper,
        "decode.alpha=4",
        "decode.max_repeats=0",
        "decode.beta=0.5",
        "decode.no_speech_threshold=1",
        lm=arpa,
    )
    heard = fused.decode_batch(windows, WINDOW)
    count = [sum(one[0].split().count("saw") for one in texts(some)) for some in (plain, heard)]
    assert count[1] > count[0]
    with torch.inference_mode():
        encoded = fused._encode(windows, WINDOW)
        for one in fused._search(windows, fused._prompts(windows), encoded):
            assert all(fused.tokens.not_text.isdisjoint(found.tokens) for found in one.found)
    ngram = NGram(arpa)
    for one in heard:
        for ranked in one:
            hypothesis = ranked.hypothesis
            assert hypothesis.lm_score == pytest.approx(ngram.score_text(hypothesis.text), abs=1e-3)
            tokens = len(fused.tokens.encode(hypothesis.text)) + 1
            if tokens > fused.settings.min_tokens:
                continue  # may have been cut off before it was charged its end
            total = hypothesis.score + 4 * hypothesis.lm_score + 0.5 * len(hypothesis.text.split())  # type: ignore[operator]
            assert ranked.rank == pytest.approx(total / tokens, rel=0.02, abs=0.02)


def test_nbest_cannot_exceed_the_beams(trained_whisper: Path, whisper_decoder: Load) -> None:
    with pytest.raises(ValueError, match="nbest is 9, must lie between 1 and beams"):
        whisper_decoder(trained_whisper, "decode.nbest=9")


def command(checkpoint: Path, manifest: Path, out: Path, *more: str) -> list[str]:
    return [
        *(
            sys.executable,
            "-m",
            "systems.decode",
            "whisper",
            "--config",
            str(out.parent / "c.yaml"),
        ),
        *("--checkpoint", str(checkpoint), "--manifest", str(manifest), "--out", str(out), *more),
    ]


@pytest.mark.parametrize(("heard", "status"), [(1, 0), (0, 1)])
def test_a_decode_fails_where_nothing_can_be_decoded(
    trained_whisper: Path, tone_corpus: Any, tmp_path: Path, capsys: Any, heard: int, status: int
) -> None:
    missing = [
        Utterance(utt_id=name, audio_filepath=f"{name}.wav", duration=1.0) for name in ("a", "b")
    ]
    manifest, out = tmp_path / "m.jsonl", tmp_path / "h.jsonl"
    write_rows(manifest, [*missing, *list(read_manifest(tone_corpus.dev))[:heard]])
    (tmp_path / "c.yaml").write_text("window: 2.0\ndevice: cpu\n")
    assert main(command(trained_whisper, manifest, out)[3:]) == status
    assert [row.error is None for row in read_nbest(out)] == [False, False, True][: 2 + heard]
    assert (
        "none of 2 utterances could be decoded, the first: " in capsys.readouterr().err
    ) == bool(status)


def test_a_manifest_without_any_result_does_not_cost_the_next_its_own(
    trained_whisper: Path, tone_corpus: Any, tmp_path: Path, capsys: Any
) -> None:
    lost, good = tmp_path / "lost.jsonl", tmp_path / "good.jsonl"
    write_rows(lost, [Utterance(utt_id="a", audio_filepath="a.wav", duration=1.0)])
    write_rows(good, list(read_manifest(tone_corpus.dev))[:1])
    (tmp_path / "c.yaml").write_text("window: 2.0\ndevice: cpu\n")
    outs = tmp_path / "h1.jsonl", tmp_path / "h2.jsonl"
    more = ["--manifest", str(good), "--out", str(outs[1])]
    assert main(command(trained_whisper, lost, outs[0], *more)[3:]) == 1
    assert [row.error is None for out in outs for row in read_nbest(out)] == [False, True]
    assert f"decode: {outs[0]}: none of 1 utterances could be decoded" in capsys.readouterr().err


def test_a_killed_decode_goes_on_where_it_was(
    trained_whisper: Path, tone_corpus: Any, tmp_path: Path
) -> None:
    """kill -9 in the middle: nothing is lost, nothing doubled, nothing mixed."""
    rows = list(read_manifest(tone_corpus.train))
    many = [
        Utterance(
            utt_id=f"u{n:04d}",
            audio_filepath=rows[n % len(rows)].audio_filepath,
            duration=rows[n % len(rows)].duration,
        )
        for n in range(600)
    ]
    manifest, out = tmp_path / "m.jsonl", tmp_path / "h.jsonl"
    write_rows(manifest, many)
    (tmp_path / "c.yaml").write_text(
        "window: 2.0\ndevice: cpu\ndecode: {max_batch: 4, beams: 2, nbest: 2}\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command(trained_whisper, manifest, out), env=environment, stderr=subprocess.PIPE
    )
    part = part_path(out)
    deadline = time.monotonic() + 300
    while not (part.exists() and part.read_bytes().count(b"\n") >= 12):
        assert process.poll() is None, process.stderr.read().decode()  # type: ignore[union-attr]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not out.exists()
    kept = part.read_bytes()
    kept = kept[: kept.rfind(b"\n") + 1]
    done = kept.count(b"\n")
    assert 12 <= done < len(many)
    changed = subprocess.run(
        command(trained_whisper, manifest, out, "decode.beams=3"),
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert changed.returncode == 1
    assert "was begun with another config" in changed.stderr
    assert "Traceback" not in changed.stderr
    resumed = subprocess.run(
        command(trained_whisper, manifest, out),
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert f"{done} of 600 utterances are done" in resumed.stderr
    assert "RTFx" in resumed.stderr
    assert [row.utt_id for row in read_nbest(out)] == [row.utt_id for row in many]
    assert not part.exists()
    published = out.read_bytes().splitlines()
    assert set(kept.splitlines()) <= set(published)  # kept as they were, not decoded again
    meta = json.loads((tmp_path / "h.meta.json").read_text())
    assert meta["last_call"]["utterances"] == 600 - done
    assert meta["last_call"]["rtfx"] > 0

"""Decoding with Whisper: the search, the scores, the times, and the traps of the toolkit."""

from __future__ import annotations

import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GenerationMixin, WhisperForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from manifests import Utterance, part_path, read_manifest, read_nbest, write_rows
from systems.config import load_config
from systems.guard import Window, read_windows
from systems.stream import Ranked
from systems.whisper.attention import SHARED
from systems.whisper.config import WhisperConfig
from systems.whisper.decoder import WhisperDecoder
from systems.whisper.features import log_mel
from systems.whisper.rescore import force, median_filter
from systems.whisper.search import Heard, SearchConfig, beam_search
from systems.whisper.system import WhisperSystem

WINDOW = 2.0


def decoder(checkpoint: Path, *overrides: str, lm: Path | None = None) -> WhisperDecoder:
    config = load_config(WhisperConfig, None, [f"window={WINDOW}", "device=cpu", *overrides])
    return WhisperDecoder(config, str(checkpoint), lm)


@pytest.fixture(scope="module")
def windows(tone_corpus: Any) -> list[Window]:
    rows = [row for row in read_manifest(tone_corpus.dev) if row.text]
    return [window for row in rows[:8] for window in read_windows(row, WINDOW)]


@pytest.fixture(scope="module")
def loaded(trained_whisper: Path) -> WhisperDecoder:
    return decoder(trained_whisper)


def texts(heard: Sequence[Sequence[Ranked]]) -> list[list[str]]:
    return [[ranked.hypothesis.text for ranked in one] for one in heard]


@pytest.mark.parametrize(
    ("beams", "penalty", "limit"), [(1, 1.0, 20), (5, 1.0, 20), (3, 0.0, 12), (4, 2.0, 7)]
)
@pytest.mark.parametrize("which", ["trained_whisper", "tiny_whisper"])
def test_the_search_is_that_of_transformers(
    which: str,
    beams: int,
    penalty: float,
    limit: int,
    windows: list[Window],
    request: pytest.FixtureRequest,
) -> None:
    """The same n-best with the same scores, though the work is done once per utterance."""
    loaded = decoder(request.getfixturevalue(which))
    with torch.inference_mode():
        found, sequences, ranks = search_twice(loaded, windows, beams, penalty, limit)
    flat = [hypothesis for heard in found for hypothesis in heard.found]
    assert len(flat) == beams * len(windows)
    for index, hypothesis in enumerate(flat):
        tokens = list(itertools.takewhile(lambda t: t != loaded.tokens.eos, sequences[index]))
        assert list(hypothesis.tokens) == tokens
        if beams > 1:
            assert hypothesis.rank == pytest.approx(ranks[index], abs=1e-4)
    if beams > 1:  # the trap of generate(): the best once for every hypothesis asked for
        assert all(len({one.tokens for one in heard.found}) == beams for heard in found)


def search_twice(
    loaded: WhisperDecoder, windows: Sequence[Window], beams: int, penalty: float, limit: int
) -> tuple[list[Heard], list[list[int]], list[float]]:
    """Return our search's result, and the sequences and scores of transformers'."""
    model, generation = loaded.model, loaded.model.generation_config
    prompts, encoded = loaded._prompts(windows), loaded._encode(windows, WINDOW)
    found = beam_search(
        model,
        encoded.cache(),
        prompts,
        torch.full((len(windows),), limit),
        SearchConfig(
            beams=beams,
            length_penalty=penalty,
            eos=loaded.tokens.eos,
            suppress=tuple(generation.suppress_tokens),
            begin_suppress=tuple(generation.begin_suppress_tokens),
        ),
        sot_index=0,
        no_speech=loaded.tokens.no_speech,
    )
    extractor = loaded.processor.feature_extractor
    features = log_mel([window.samples for window in windows], extractor, model.device)
    model.set_attn_implementation("sdpa")
    expected = GenerationMixin.generate(
        model,
        encoder_outputs=BaseModelOutput(model.model.encoder(features).last_hidden_state),
        decoder_input_ids=prompts,
        num_beams=beams,
        num_return_sequences=beams,
        max_new_tokens=limit,
        length_penalty=penalty,
        output_scores=True,
        return_dict_in_generate=True,
    )
    ranks = expected.sequences_scores.tolist() if beams > 1 else []
    return found, expected.sequences[:, prompts.shape[1] :].tolist(), ranks


def test_forced_scores_equal_searched_ones(loaded: WhisperDecoder, windows: list[Window]) -> None:
    """Sum of token log-probabilities, end of text included, not divided by the length."""
    heard = loaded.decode_batch(windows, WINDOW)
    compared = 0
    for one in heard:
        for ranked in one:
            tokens = loaded.tokens.encode(ranked.hypothesis.text)
            assert ranked.hypothesis.score is not None
            # Another spelling of the same text scores otherwise; the usual one is the rule.
            if math.isclose(ranked.hypothesis.score, ranked.rank * (len(tokens) + 1), abs_tol=2e-3):
                compared += 1
    assert compared > 0.8 * sum(map(len, heard))


def test_scores_without_the_second_pass_are_the_same(
    trained_whisper: Path, loaded: WhisperDecoder, windows: list[Window]
) -> None:
    quick = decoder(trained_whisper, "decode.word_times=false").decode_batch(windows, WINDOW)
    full = loaded.decode_batch(windows, WINDOW)
    assert texts(quick) == texts(full)
    for one, other in zip(itertools.chain(*quick), itertools.chain(*full), strict=True):
        assert one.hypothesis.words is None
        assert one.hypothesis.score == pytest.approx(other.hypothesis.score, abs=2e-3)


def test_decoding_leaves_the_model_as_it_was(loaded: WhisperDecoder, windows: list[Window]) -> None:
    """transformers' beam search repeats the encoder outputs in place, more with every call."""
    with torch.inference_mode():
        encoded = loaded._encode(windows, WINDOW)
        shapes = [keys.shape for keys, _ in encoded._layers]
        prompts = loaded._prompts(windows)
        first = loaded._search(windows, prompts, encoded)
        assert loaded._search(windows, prompts, encoded) == first
        assert [keys.shape for keys, _ in encoded._layers] == shapes
    assert loaded.decode_batch(windows, WINDOW) == loaded.decode_batch(windows, WINDOW)
    assert loaded.model.config._attn_implementation == SHARED
    assert not any(
        layer.encoder_attn._forward_pre_hooks for layer in loaded.model.model.decoder.layers
    )


def test_no_neighbour_changes_a_result(loaded: WhisperDecoder, windows: list[Window]) -> None:
    together = loaded.decode_batch(windows, WINDOW)
    alone = [loaded.decode_batch([window], WINDOW)[0] for window in windows]
    assert texts(together) == texts(alone)


def test_features_are_the_extractors(loaded: WhisperDecoder, windows: list[Window]) -> None:
    samples = [window.samples for window in windows]
    extractor = loaded.processor.feature_extractor
    ours = log_mel(samples, extractor, loaded.model.device)
    theirs = extractor(samples, sampling_rate=16_000, return_tensors="pt").input_features
    assert torch.allclose(ours, theirs, atol=1e-4)
    with pytest.raises(ValueError, match="must have at most"):  # the extractor would cut it off
        log_mel([np.zeros(16_000 * 3, np.float32)], extractor, loaded.model.device)


@torch.inference_mode()
def test_forcing_sees_the_probabilities_and_attention_of_the_plain_model(
    trained_whisper: Path, loaded: WhisperDecoder, windows: list[Window]
) -> None:
    loaded = decoder(trained_whisper)
    few = windows[:3]
    tokens = [
        [loaded.tokens.encode(text) for text in (window.utterance.text or "", "a two")]
        for window in few
    ]
    prompts, encoded = loaded._prompts(few), loaded._encode(few, WINDOW)
    positions = [math.ceil(window.seconds * 50) for window in few]
    seen: list[torch.Tensor] = []

    import systems.whisper.rescore as rescore

    plain = rescore._attention
    rescore._attention = lambda *args: seen.append(plain(*args)) or seen[-1]  # type: ignore[func-returns-value]
    try:
        forced = force(loaded.model, encoded.cache(), prompts, tokens, positions)
    finally:
        rescore._attention = plain
    model: WhisperForConditionalGeneration = loaded.model
    model.set_attn_implementation("eager")
    extractor = loaded.processor.feature_extractor
    for index, window in enumerate(few):
        features = log_mel([window.samples], extractor, model.device)
        for which, ids in enumerate(tokens[index]):
            labels = torch.tensor([*ids, loaded.tokens.eos])
            inputs = torch.cat((prompts[index], labels[:-1]))[None]
            output = model(
                input_features=features, decoder_input_ids=inputs, output_attentions=True
            )
            log_probs = output.logits[0, prompts.shape[1] - 1 :].log_softmax(-1)
            expected = log_probs.gather(1, labels[:, None])[:, 0]
            assert forced[index][which].log_probs == pytest.approx(expected.numpy(), abs=1e-4)
            heads = model.generation_config.alignment_heads
            weights = torch.stack(
                [output.cross_attentions[layer][0, head] for layer, head in heads]
            )
            weights = weights[..., : positions[index]]
            weights = weights / weights.sum(-1, keepdim=True)
            got = seen[index][which][:, : weights.shape[1]]
            assert torch.allclose(got, weights, atol=1e-4)
            starts = forced[index][which].starts
            assert starts is not None
            assert len(starts) == len(labels)
            assert (np.diff(starts) >= 0).all()


def test_the_median_network_is_a_median() -> None:
    values = torch.randn(3, 4, 5, 40)
    padded = torch.nn.functional.pad(values.flatten(0, 2)[None], (3, 3), mode="reflect")[0]
    expected = padded.unfold(-1, 7, 1).median(-1).values.view(values.shape)
    assert torch.equal(median_filter(values), expected)


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


def test_language_task_and_prompt(trained_whisper: Path, windows: list[Window]) -> None:
    plain = decoder(trained_whisper)
    ids = plain.processor.tokenizer.convert_tokens_to_ids
    assert plain.tokens.prefix("en", "transcribe") == list(plain.processor.tokenizer.prefix_tokens)
    assert plain.tokens.prefix("German", "translate")[1:3] == [ids("<|de|>"), ids("<|translate|>")]
    assert plain.tokens.prefix("pt-BR", "transcribe")[1] == ids("<|pt|>")
    with pytest.raises(ValueError, match="language is 'xx', must be one of"):
        plain.tokens.prefix("xx", "transcribe")
    prompted = decoder(trained_whisper, "decode.prompt=I goed home")
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


def test_a_bad_language_of_all_is_refused_at_once(trained_whisper: Path) -> None:
    with pytest.raises(ValueError, match="language is 'klingon', must be one of: "):
        decoder(trained_whisper, "decode.language=klingon")


def test_silence_by_the_models_own_word(
    trained_whisper: Path, windows: list[Window], tone_corpus: Any
) -> None:
    """What it learned from clips without words, though the search may not end at once."""
    silent = next(row for row in read_manifest(tone_corpus.dev) if not row.text)
    (quiet,) = read_windows(silent, WINDOW, silence_dbfs=-90.0)
    assert not quiet.silent
    (heard,) = decoder(trained_whisper).decode_batch([quiet], WINDOW)
    assert texts([heard]) == [[""]]
    never = decoder(trained_whisper, "decode.no_speech_threshold=1")
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
    trained_whisper: Path, windows: list[Window], tmp_path: Path
) -> None:
    from peft import LoraConfig, get_peft_model

    base = WhisperForConditionalGeneration.from_pretrained(trained_whisper)
    torch.manual_seed(1)
    adapted = get_peft_model(
        base, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    )
    adapted.save_pretrained(tmp_path / "adapter")
    merged = tmp_path / "merged"
    loaded = decoder(trained_whisper)
    loaded.processor.save_pretrained(tmp_path / "adapter")
    loaded.processor.feature_extractor.save_pretrained(tmp_path / "adapter")
    adapted.merge_and_unload().save_pretrained(merged)
    loaded.processor.save_pretrained(merged)
    loaded.processor.feature_extractor.save_pretrained(merged)
    loaded.model.generation_config.save_pretrained(merged)
    one = decoder(tmp_path / "adapter").decode_batch(windows, WINDOW)
    other = decoder(merged).decode_batch(windows, WINDOW)
    assert texts(one) == texts(other)
    assert texts(one) != texts(loaded.decode_batch(windows, WINDOW))


def test_generation_keys_survive_a_config_that_transformers_drops_them_from(
    trained_whisper: Path, windows: list[Window], tmp_path: Path
) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(trained_whisper, copy)
    path = copy / "generation_config.json"
    keys = json.loads(path.read_text())
    path.write_text(json.dumps({**keys, "_from_model_config": True}))
    before = decoder(trained_whisper)
    after = decoder(copy)
    assert after._prompts(windows).tolist() == before._prompts(windows).tolist()
    assert after._prompts(windows).shape[1] == 4
    assert texts(after.decode_batch(windows, WINDOW)) == texts(before.decode_batch(windows, WINDOW))


def test_an_ngram_moves_the_search_and_is_told_apart(
    trained_whisper: Path, windows: list[Window], tmp_path: Path
) -> None:
    from lm.ngram import NGram

    arpa = tmp_path / "lm.arpa"
    words = ("a", "I", "goed", "home", "tooths", "two", "mouses", "saw")
    lines = [f"-1.5\t{word}\t0" for word in words[:-1]] + ["-0.2\tsaw\t0"]
    unigrams = ["-99\t<s>\t0", "-1\t</s>", "-3\t<unk>", *lines]
    body = f"\\data\\\nngram 1={len(unigrams)}\nngram 2=1\n\n\\1-grams:\n" + "\n".join(unigrams)
    arpa.write_text(body + "\n\n\\2-grams:\n-0.1\t<s> saw\n\n\\end\\\n")
    plain = decoder(trained_whisper).decode_batch(windows, WINDOW)
    fused = decoder(
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


def test_nbest_cannot_exceed_the_beams(trained_whisper: Path) -> None:
    with pytest.raises(ValueError, match="nbest is 9, must lie between 1 and beams"):
        decoder(trained_whisper, "decode.nbest=9")


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

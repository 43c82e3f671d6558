"""The texts of a tiny model's vocabulary are those that it is trained on."""

from manifests import Utterance, write_rows
from recipes.texts import read_texts


def test_manifests_and_plain_texts_as_the_configs_see_them(tmp_path):
    rows = [
        Utterance(utt_id=f"u{i}", audio_filepath="a.wav", duration=1.0, text=text)
        for i, text in enumerate(["WE CALL IT BEAR", "", None, " He GOED, home! "])
    ]
    write_rows(tmp_path / "m.jsonl", rows)
    (tmp_path / "t.txt").write_text("My tooths.\n\n--\n", encoding="utf-8")
    files = [tmp_path / "m.jsonl", tmp_path / "t.txt"]
    assert list(read_texts(files)) == ["WE CALL IT BEAR", "He GOED, home!", "My tooths.", "--"]
    assert list(read_texts(files, normalized=True)) == [
        "we call it bear",
        "he goed home",
        "my tooths",
    ]

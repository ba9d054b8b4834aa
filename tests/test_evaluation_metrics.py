"""Scores are pooled over the corpus and computed on normalized text."""

from __future__ import annotations

import pytest

from unitok.nbest.correction import majority
from unitok.nbest.lists import NBest
from unitok.pipelines.backends.interfaces import Transcript
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.text.score_normalizer import basic, compared, words
from unitok_training.evaluation.metrics import (
    bleu,
    bleu_label,
    bleu_tokenizer,
    cer,
    chrf,
    error_unit,
    formatted_wer,
    sentence_bleu,
    wer,
)
from unitok_training.evaluation.nbest import list_errors, oracle_scores
from unitok_training.evaluation.prompt_probe import language_of
from unitok_training.evaluation.run import Evaluation, put_error_rates, put_translation_scores, target_of
from unitok_training.reports.demo import counted
from unitok_training.speech_lm.pseudo_words import is_word


def test_errors_are_pooled_not_averaged() -> None:
    # 1 of 1 wrong and 0 of 9: a mean over sentences would say 0.5.
    assert wer(["a", "a b c d e f g h i"], ["b", "a b c d e f g h i"]) == pytest.approx(0.1)


def test_case_and_punctuation_do_not_count() -> None:
    assert wer(["Good morning, Anna!"], ["good morning anna"]) == 0
    assert cer(["ab"], ["ac"]) == pytest.approx(0.5)


def test_what_nobody_sees_parts_no_words() -> None:
    joined, plain = "co\u00adoperate \u200bnow\ufeff", "cooperate now"
    assert words(joined) == words(plain) and wer([joined], [plain]) == 0
    assert len(words("ශ්\u200dරී ලංකාව")) == 2 and len(words("नमी\u200cखवाहम बरवम")) == 2
    assert is_word("हिन्दी") and is_word("über") and not is_word("b2") and not is_word("")


def test_a_language_without_spaces_is_known_by_its_characters() -> None:
    known = {"zh": set(words("今天我们去喝茶")), "en": set(words("we drink tea today"))}
    assert language_of("我们去喝茶", known) == "zh" and language_of("tea, today!", known) == "en"
    assert language_of("…", known) == ""


def test_insertions_count_above_one_and_silence_counts_as_all_wrong() -> None:
    assert wer(["a"], ["b c d"]) == 3
    assert wer(["a b"], [""]) == 1


def test_translation_scores_at_their_ends() -> None:
    same = ["the green house stands here today", "we buy two books now"]
    assert bleu(same, same) == pytest.approx(100)
    assert chrf(same, same) == pytest.approx(100)
    assert bleu(same, ["x y z", "q"]) < 5


def test_nothing_to_score_is_an_input_error() -> None:
    with pytest.raises(InputError, match="0 references"):
        wer([], [])
    with pytest.raises(InputError, match="2 outputs"):
        bleu(["a"], ["a", "b"])


SENTENCES = {
    "zh": "我们今天在家里喝绿茶",
    "ja": "私は毎朝コーヒーを飲みます",
    "th": "ฉันดื่มชาเขียวทุกเช้า",
    "my": "ကျွန်တော် လက်ဖက်ရည် သောက်တယ်",
    "km": "ខ្ញុំផឹកតែបៃតងរាល់ព្រឹក",
    "lo": "ຂ້ອຍດື່ມຊາຂຽວທຸກເຊົ້າ",
    "ko": "나는 매일 아침 녹차를 마신다",
    "en": "we drink green tea at home today",
}


@pytest.mark.parametrize("lang", SENTENCES)
def test_a_text_is_a_perfect_translation_of_itself(lang: str) -> None:
    text = SENTENCES[lang]
    assert bleu([text], [text]) == pytest.approx(100) == bleu([text], [text], [lang])
    assert chrf([text], [text]) == pytest.approx(100) == sentence_bleu(text, text)
    assert bleu([text[:2]], [text[:2]]) == pytest.approx(100), "however short it is"
    assert wer([text], [text]) == cer([text], [text]) == formatted_wer([text], [text]) == 0


@pytest.mark.parametrize("lang", ["zh", "ja", "th", "km", "lo"])
def test_one_wrong_character_is_one_wrong_character(lang: str) -> None:
    text = SENTENCES[lang]
    wrong = text[:3] + ("家" if lang in ("zh", "ja") else text[0]) + text[4:]
    assert text != wrong and error_unit([text]) == "cer"
    assert wer([text], [wrong]) == pytest.approx(1 / len(compared(text))) == cer([text], [wrong])
    assert 0 < bleu([text], [wrong]) < 100


def test_words_stay_words() -> None:
    assert error_unit([SENTENCES["en"], SENTENCES["ko"]]) == "wer"
    assert wer([SENTENCES["ko"]], ["나는 매일 아침 홍차를 마신다"]) == pytest.approx(1 / 5)
    assert cer([SENTENCES["ko"]], ["나는 매일 아침 홍차를 마신다"]) == pytest.approx(1 / 16)


def test_mixed_text_is_counted_by_its_characters() -> None:
    text = "我用 iPhone 打电话"
    assert words(text) == ["我", "用", "iphone", "打", "电", "话"] and error_unit([text]) == "mer"
    assert wer([text], ["我用 android 打电话"]) == pytest.approx(1 / 6)
    assert wer([text], ["我用iPhone打电话。"]) == 0 == cer([text], ["我 用 iPhone打电话"]), "spaces there say nothing"
    assert error_unit([SENTENCES["zh"], SENTENCES["en"]]) == "mer"


def test_full_width_forms_punctuation_and_compositions() -> None:
    assert basic("ＡＢＣ，１２３。") == "abc 123"
    assert wer(["我买ＡＢ１２，好吗？"], ["我买ab12好吗"]) == 0
    assert wer(["ｶﾞｷﾞ"], ["ガギ"]) == 0, "half-width kana with their marks are the same characters"
    assert wer(["caf\u00e9"], ["cafe\u0301"]) == 0 == formatted_wer(["caf\u00e9"], ["cafe\u0301"])
    assert wer(["ខ្ញុំ\u200bផឹក"], ["ខ្ញុំផឹក"]) == 0, "a space of no width parts words for printers"
    assert formatted_wer(["我买一本书。"], ["我买一本书"]) == pytest.approx(1 / 6)


def test_the_tokenizer_fits_the_script() -> None:
    """Neither MeCab nor its dictionaries are among unitok's packages: characters stand in for morphemes."""
    from importlib.util import find_spec

    morphemes = {"ja": ("MeCab", "ja-mecab"), "ko": ("mecab_ko", "ko-mecab")}
    expected = {lang: name if find_spec(package) else "char" for lang, (package, name) in morphemes.items()}
    expected |= {"zh": "zh", "en": "13a", **dict.fromkeys(("th", "my", "km", "lo"), "char")}
    assert {lang: bleu_tokenizer(text) for lang, text in SENTENCES.items()} == expected
    assert bleu_tokenizer("日本語", "ja") == expected["ja"] and bleu_tokenizer("日本語") == "zh"
    assert bleu_tokenizer("we met 李明 yesterday at home") == "zh", "its words are 13a's, its characters apart"
    assert bleu_tokenizer("we said สวัสดี to all of them yesterday") == "13a", "letters of words stay together"
    mixed = [SENTENCES["en"], SENTENCES["zh"]]
    assert bleu_label(mixed) == "13a+zh" and bleu(mixed, mixed) == pytest.approx(100)
    kana = [SENTENCES["ja"], "東京"]
    assert set(bleu_label(kana, ["ja", "ja"]).split("+")) == {expected["ja"]}, "one language, one tokenizer"


def test_scores_of_words_are_what_they_were() -> None:
    """sacrebleu and jiwer on normalized text, with nothing between."""
    import jiwer
    import sacrebleu

    one = ["We buy two books, don't we?", "Das grüne Haus steht heute hier."]
    other = ["we buy three books don't we", "das grüne haus steht hier heute"]
    plain = [basic(text) for text in one], [basic(text) for text in other]
    assert bleu(one, other) == sacrebleu.corpus_bleu(plain[1], [plain[0]]).score
    assert wer(one, other) == jiwer.wer(*plain) and cer(one, other) == jiwer.cer(*plain)
    assert chrf(one, other) == sacrebleu.corpus_chrf(plain[1], [plain[0]]).score
    assert bleu_label(one) == "13a" and error_unit(one) == "wer"


def test_every_score_is_named() -> None:
    run = Evaluation.__new__(Evaluation)  # no model and no shards: only what scores are put under
    run.metrics = {}
    pairs = [("en", "we buy", "we buy"), ("zh", "我买一本书", "我买二本书")]
    put_error_rates(run, "asr", pairs)
    assert run.metrics["asr"]["unit"] == "mer" and run.metrics["asr"]["wer"] == pytest.approx(1 / 7)
    assert run.metrics["asr"]["by_lang"]["zh"] == {"wer": 0.2, "cer": 0.2, "unit": "cer"}
    assert run.metrics["asr"]["by_lang"]["en"] == {"wer": 0.0, "cer": 0.0, "unit": "wer"}
    sentences = [("zh-en", SENTENCES["en"], SENTENCES["en"]), ("en-zh", SENTENCES["zh"], SENTENCES["zh"])]
    put_translation_scores(run, "mt", sentences)
    found = run.metrics["mt"]
    assert found["bleu"] == pytest.approx(100) and found["bleu_tokenizer"] == "13a+zh"
    assert found["by_direction"]["en-zh"]["bleu"] == pytest.approx(100)
    assert found["by_direction"]["en-zh"]["bleu_tokenizer"] == "zh"
    assert [target_of(name) for name in ("en-ja", "en-ja-JP", "zh-en", "pt-BR-de")] == ["ja", "ja", "en", "de"]


def test_lists_of_such_texts_are_counted_alike() -> None:
    heard = tuple(Transcript(text=text) for text in ("我买二本书", "我买一本书", "他买一本书"))
    one = NBest(id="a", lang="zh", hypotheses=heard, reference="我买一本书。")
    assert list_errors(one).tolist() == [1, 0, 1] and majority(one) == "我买一本书"
    found = oracle_scores([one])
    assert found["first_pass"]["wer"] == pytest.approx(0.2) and found["unit"] == "cer"


def test_the_report_says_what_is_counted() -> None:
    metrics = {"asr": {"wer": 0.2, "unit": "cer"}, "mt": {"bleu": 50.0, "bleu_tokenizer": "13a+zh"}, "lm": {"ppl": 2.0}}
    assert counted("asr.wer", metrics) == " counts characters"
    assert counted("mt.bleu", metrics) == " tokens: 13a+zh"
    assert counted("lm.ppl", metrics) == counted("tts.units.judge_wer", metrics) == ""

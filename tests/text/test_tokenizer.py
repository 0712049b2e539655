"""Words and characters: what becomes a token; the choice of a tokenizer."""

from __future__ import annotations

import pytest

from textclf_fast.text import (
    TOKENIZER_KINDS,
    CasedTokenizer,
    CharacterTokenizer,
    NgramTokenizer,
    Tokenizer,
    WordTokenizer,
    make_tokenizer,
    tokenizer_for,
)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", ""),
        (" \t\n\u2003", ""),
        ("Good film", "good film"),
        ("good,film!", "good , film !"),
        ("It's Ann's, they've said; I'd've", "it 's ann 's , they 've said ; i 'd 've"),
        ("Don't, can't, won't", "don't , can't , won't"),
        ("rock'n'roll at ten o'clock", "rock'n'roll at ten o'clock"),
        ("don\u2019t, Ann\u2019s", "don't , ann 's"),
        ("'quoted' \u201cwords\u201d", "' quoted ' \u201c words \u201d"),
        ("1,000.5 at 20:15 in 1999. 3d", "1,000.5 at 20:15 in 1999 . 3d"),
        ("90-minute film-noir", "90 - minute film - noir"),
        ("well... or -- what?!", "well ... or -- what ? !"),
        ("a_b", "a _ b"),
        ("Am\u00e9lie", "am\u00e9lie"),
        ("Ame\u0301lie", "am\u00e9lie"),
        (
            "\u0424\u0438\u043b\u044c\u043c \u041a\u0418\u041d\u041e",
            "\u0444\u0438\u043b\u044c\u043c \u043a\u0438\u043d\u043e",
        ),
        ("so \U0001f600\U0001f600", "so \U0001f600 \U0001f600"),
        ("<pad>", "< pad >"),
        ("a\ud800b", "a \ud800 b"),
    ],
)
def test_tokens(text: str, tokens: str) -> None:
    assert WordTokenizer()(text) == tokens.split()


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", ""),
        ("What is SAP?", "<cap> what is <caps> sap ?"),
        ("I am B. U2, A-1; 3D", "<cap> i am <cap> b . <caps> u2 , <cap> a - 1 ; <caps> 3d"),
        ("IT'S McDonald's, don't CAN'T", "<caps> it <caps> 's <cap> mcdonald 's , don't <caps> can't"),
        ("Éa ÉA é", "<cap> éa <caps> éa é"),
        ("E\u0301a \u2018Ann\u2019S", "<cap> \u00e9a ' <cap> ann <caps> 's"),
        ("<cap>", "< cap >"),
        ("12 字", "12 字"),
    ],
)
def test_cased(text: str, tokens: str) -> None:
    assert CasedTokenizer()(text) == tokens.split()


def test_long_text_takes_linear_time() -> None:
    assert len(WordTokenizer()("x'" * 200_000)) == 2  # a backtracking pattern would not come back


@pytest.mark.parametrize("tokenizer", [WordTokenizer(), CasedTokenizer(), CharacterTokenizer()])
@pytest.mark.parametrize("text", [None, b"bytes", 3, ["a"]])
def test_refuses_what_is_no_text(tokenizer: Tokenizer, text: object) -> None:
    with pytest.raises(TypeError, match=f"text: expected a str, got {type(text).__name__}"):
        tokenizer(text)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "characters", "lower"),
    [
        ("", "", False),
        (" \t\n\u2003", "", False),
        ("It's  a\n film ", "It's a film", False),
        ("It's A", "it's a", True),
        ("Ame\u0301lie", "Am\u00e9lie", False),
        ("E\u0301", "\u00e9", True),
        ("\u0130", "i\u0307", True),  # the small letter is two characters, of which no one is made
        ("\u4f60\u597d \U0001f600", "\u4f60\u597d \U0001f600", False),
        ("a\ud800b", "a\ud800b", False),
    ],
)
def test_characters(text: str, characters: str, lower: bool) -> None:
    assert CharacterTokenizer(lower)(text) == list(characters)


@pytest.mark.parametrize(
    ("words", "characters", "tokens"),
    [
        (1, None, ["so", "good", "!"]),
        (2, None, ["so", "good", "!", " so", "so good", "good !"]),
        (3, None, ["so", "good", "!", " so", "so good", "good !", " so good", "so good !"]),
        (
            1,
            (3, 4),
            [
                "so",
                "good",
                "!",
                "~<so",
                "~so>",
                "~<so>",
                "~<go",
                "~goo",
                "~ood",
                "~od>",
                "~<goo",
                "~good",
                "~ood>",
                "~<!>",
            ],
        ),
    ],
)
def test_ngrams(words: int, characters: tuple[int, int] | None, tokens: list[str]) -> None:
    assert NgramTokenizer(words, characters)("So good!") == tokens


def test_no_ngrams_of_no_text() -> None:
    assert NgramTokenizer()(" ") == []


@pytest.mark.parametrize(
    "arguments", [{"words": 0}, {"characters": (0, 3)}, {"characters": (4, 3)}, {"characters": [3]}]
)
def test_ngrams_out_of_range(arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(arguments))}: expected"):
        NgramTokenizer(**arguments)  # type: ignore[arg-type]


TOKENIZERS = [
    WordTokenizer(),
    CasedTokenizer(),
    CharacterTokenizer(),
    CharacterTokenizer(lower=True),
    NgramTokenizer(),
    NgramTokenizer(words=3, characters=None),
]
SENTENCES = (
    "",
    "It's Ann's, they've said (twice: at 20:15!); don't.",
    "IT'S McDonald's... WHO?! 3.5's -- well,",
    "( ( a ) ) . . , , !! ' s 's 've don't 's ~ a_b 1 , 5",
    "Éa \u2018Ann\u2019S \U0001f600 \u201cwords\u201d",
)


@pytest.mark.parametrize("text", SENTENCES)
@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_a_text_of_tokens_has_these(tokenizer: Tokenizer, text: str) -> None:
    tokens = tokenizer(text)
    assert tokenizer(tokenizer.detokenize(tokens)) == tokens


@pytest.mark.parametrize(
    ("tokenizer", "text"),
    [
        (WordTokenizer(), "it's ann's, they've said (twice: at 20:15!); don't."),
        (CasedTokenizer(), "It's Ann's: WHO?"),
        (NgramTokenizer(), "it's good, so good"),
        (CharacterTokenizer(), "It's McDonald's!"),
    ],
)
def test_a_text_of_tokens_looks_like_one(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.detokenize(tokenizer(text)) == text


def test_marks_without_a_word() -> None:
    assert CasedTokenizer().detokenize(["<cap>", "<caps>", "us", "<cap>"]) == "US"


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_made_again_from_its_config(tokenizer: Tokenizer) -> None:
    again = make_tokenizer(tokenizer.config)
    assert type(again) is type(tokenizer)
    assert again("A Film") == tokenizer("A Film")


def test_chosen_by_kind() -> None:
    assert TOKENIZER_KINDS == ("word", "cased", "ngram", "character", "bpe")
    assert isinstance(tokenizer_for("word", []), WordTokenizer)
    assert tokenizer_for("character", []).config == {"kind": "character", "lower": False}
    for call in (lambda: tokenizer_for("words", []), lambda: make_tokenizer({"kind": "words"})):
        with pytest.raises(ValueError, match="kind: expected one of word, cased, ngram, character, bpe, got 'words'"):
            call()
    with pytest.raises(TypeError, match="upper"):
        make_tokenizer({"kind": "character", "upper": True})

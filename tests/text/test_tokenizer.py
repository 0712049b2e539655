"""WordTokenizer: what becomes a token."""

from __future__ import annotations

import pytest

from textclf_fast.text import WordTokenizer


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


def test_long_text_takes_linear_time() -> None:
    assert len(WordTokenizer()("x'" * 200_000)) == 2  # a backtracking pattern would not come back


@pytest.mark.parametrize("text", [None, b"bytes", 3, ["a"]])
def test_refuses_what_is_no_text(text: object) -> None:
    with pytest.raises(TypeError, match=f"text: expected a str, got {type(text).__name__}"):
        WordTokenizer()(text)  # type: ignore[arg-type]

"""The labelled texts that a trained model is judged on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from textclf_fast.cli.inputs import read_data
from textclf_fast.judging.evaluations import Part
from textclf_fast.judging.source import fingerprint
from textclf_fast.text import LabelledTexts, split
from textclf_fast.training import EncodedTexts, SavedModel

_SHARE = 0.2  # the default of `train`


@dataclass(frozen=True)
class JudgedTexts:
    """A part of a file.

    Attributes:
        data: the texts.
        part: which part they are.
        sha256: the fingerprint of the whole file.
        share, group: that was held out, and the column of the groups that were kept together; None where it is all.
        notes: what is to be known about what is measured on them.
    """

    data: LabelledTexts
    part: Part
    sha256: str
    share: float | None
    group: str | None
    notes: list[str] = field(default_factory=list)

    @classmethod
    def read(
        cls,
        saved: SavedModel,
        file: str,
        text: str | None,
        label: str | None,
        group: str | None,
        part: Part | None,
        share: float | None,
    ) -> JudgedTexts:
        """Reads them; what is None is as the model was trained, and the part the one that was held out, if any was.

        Raises:
            DataError: as `read_data`, or no part can be held out.
        """
        source: Mapping[str, Any] = saved.extra.get("source", {})
        text, label = text or source.get("text", "text"), label or source.get("label", "label")
        group_then = source.get("group")
        group = group or group_then
        data = read_data(file, text, label, group, saved.labels)
        sha256 = fingerprint(data)
        trained_on = source.get("sha256") == sha256
        part = part or ("held-out" if trained_on else "all")
        share_then = source.get("held_out_share", _SHARE)
        notes = []
        share = share or share_then
        if trained_on and (part != "held-out" or (share, group) != (share_then, group_then)):
            notes.append("the model was trained on some of these texts: what is measured is too high")
        if part != "all":
            train, held_out = split(data, share)
            data = held_out if part == "held-out" else train
            if part == "held-out" and not trained_on:
                notes.append("it is not known that the model was trained without these texts")
        else:
            share = group = None
        return cls(data, part, sha256, share, group, notes)

    def encode(self, saved: SavedModel) -> EncodedTexts:
        """As the model takes them."""
        return EncodedTexts.from_texts(self.data, saved.labels, saved.vocabulary, saved.tokenizer)

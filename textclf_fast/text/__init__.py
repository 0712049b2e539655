"""From labelled texts to batches of token ids: reading, tokenizing, numbering, batching. No model in here."""

from __future__ import annotations

from textclf_fast.text.batches import Batches, LengthBucketSampler, ShuffledBatches
from textclf_fast.text.data import LabelledTexts, read_labelled, split
from textclf_fast.text.datasets import DATASETS, fetch, load_dataset
from textclf_fast.text.errors import DataError
from textclf_fast.text.ragged import RaggedTokens, encode_texts
from textclf_fast.text.token_file import END_ID, StreamBatches, TokenFile
from textclf_fast.text.tokenizer import Tokenizer, WordTokenizer, make_tokenizer
from textclf_fast.text.vocabulary import PAD_ID, UNK_ID, Vocabulary

__all__ = [
    "DATASETS",
    "END_ID",
    "PAD_ID",
    "UNK_ID",
    "Batches",
    "DataError",
    "LabelledTexts",
    "LengthBucketSampler",
    "RaggedTokens",
    "ShuffledBatches",
    "StreamBatches",
    "TokenFile",
    "Tokenizer",
    "Vocabulary",
    "WordTokenizer",
    "encode_texts",
    "fetch",
    "load_dataset",
    "make_tokenizer",
    "read_labelled",
    "split",
]

"""From labelled texts to batches of token ids: reading, tokenizing, numbering, batching. No model in here."""

from __future__ import annotations

from textclf_fast.text.batches import Batches, LengthBucketSampler, ShuffledBatches
from textclf_fast.text.bpe import BPETokenizer
from textclf_fast.text.catalogue import CORPORA, DATASETS, ENCODERS, VECTORS, is_named
from textclf_fast.text.data import LabelledTexts, read_labelled, read_texts, same_text, split
from textclf_fast.text.datasets import fetch, load_dataset, load_unlabelled, load_vectors
from textclf_fast.text.errors import DataError
from textclf_fast.text.ragged import RaggedTokens, encode_texts
from textclf_fast.text.token_file import END_ID, StreamBatches, TokenFile
from textclf_fast.text.tokenizer import (
    TOKENIZER_KINDS,
    CasedTokenizer,
    CharacterTokenizer,
    NgramTokenizer,
    Tokenizer,
    WordTokenizer,
    make_tokenizer,
    tokenizer_for,
)
from textclf_fast.text.vocabulary import PAD_ID, UNK_ID, Vocabulary
from textclf_fast.text.word_vectors import WordVectors, read_word_vectors

__all__ = [
    "CORPORA",
    "DATASETS",
    "ENCODERS",
    "END_ID",
    "PAD_ID",
    "TOKENIZER_KINDS",
    "UNK_ID",
    "VECTORS",
    "BPETokenizer",
    "Batches",
    "CasedTokenizer",
    "CharacterTokenizer",
    "DataError",
    "LabelledTexts",
    "LengthBucketSampler",
    "NgramTokenizer",
    "RaggedTokens",
    "ShuffledBatches",
    "StreamBatches",
    "TokenFile",
    "Tokenizer",
    "Vocabulary",
    "WordTokenizer",
    "WordVectors",
    "encode_texts",
    "fetch",
    "is_named",
    "load_dataset",
    "load_unlabelled",
    "load_vectors",
    "make_tokenizer",
    "read_labelled",
    "read_texts",
    "read_word_vectors",
    "same_text",
    "split",
    "tokenizer_for",
]

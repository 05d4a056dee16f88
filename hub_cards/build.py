"""Write the cards of the public adapters of AdapterHub from two tables.

    python hub_cards/build.py adapterhub_index.csv adapterhub_pf_2022.csv

The first table is AdapterHub's own index (repo_id, model, type, task, subtask, config, non_lin,
rf); the second a listing of the Hub of February 2022 (repo_id, sha, model_name). On each backbone
the nearest to MAD-X's and to the newest task adapters is `default`, the others have keys.
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from adaptcompose.catalogue.cards import DEFAULT_VARIANT, Card, Variant
from adaptcompose.storage.atomic import write_atomically
from adaptcompose.syntax.references import canonical_id

LANGUAGES = {
    "am": "Amharic", "ar": "Arabic", "bh": "Bihari", "bn": "Bengali", "bxr": "Buryat",
    "cdo": "Min Dong Chinese", "cs": "Czech", "de": "German", "el": "Greek", "en": "English",
    "es": "Spanish", "et": "Estonian", "eu": "Basque", "fa": "Persian", "fi": "Finnish",
    "fr": "French", "gn": "Guarani", "hi": "Hindi", "ht": "Haitian Creole", "hu": "Hungarian",
    "hy": "Armenian", "id": "Indonesian", "ilo": "Ilocano", "is": "Icelandic", "it": "Italian",
    "ja": "Japanese", "jv": "Javanese", "ka": "Georgian", "ko": "Korean", "kv": "Komi",
    "la": "Latin", "lv": "Latvian", "mhr": "Meadow Mari", "mi": "Māori", "my": "Burmese",
    "myv": "Erzya", "pt": "Portuguese", "qu": "Quechua", "ru": "Russian", "se": "Northern Sami",
    "sw": "Swahili", "ta": "Tamil", "th": "Thai", "tk": "Turkmen", "tr": "Turkish",
    "vi": "Vietnamese", "wo": "Wolof", "xmf": "Mingrelian", "zh": "Chinese",
    "zh_yue": "Cantonese",
}  # fmt: skip

TASKS = {
    "argument/ukpsent": "Is a sentence an argument for a topic, against it, or none",
    "classification/scicite": "Why a scientific paper cites another",
    "classification/trec": "What a question asks for: a person, a place, a number, …",
    "comsense/art": "Choose the better explanation of two observations",
    "comsense/commonsense_qa": "Multiple-choice questions that need everyday knowledge",
    "comsense/copa": "Choose the likelier cause or effect",
    "comsense/cosmos_qa": "Multiple-choice questions about what a narrative leaves unsaid",
    "comsense/hellaswag": "Choose the plausible end of a description",
    "comsense/social_i_qa": "Multiple-choice questions about social situations",
    "comsense/swag": "Choose the sentence that comes next in a scene",
    "comsense/winogrande": "Resolve a pronoun that needs everyday knowledge",
    "dialect/arabic": "Which Arabic dialect a text is written in",
    "formality/gyafc": "Formal or informal English",
    "generation/poem": "Language modelling of poems",
    "glue/cola": "Is an English sentence grammatical",
    "glue/mnli": "Does a premise entail a hypothesis, contradict it, or neither",
    "glue/mrpc": "Do two sentences of news say the same",
    "glue/qnli": "Does a sentence answer a question",
    "glue/qqp": "Do two questions of Quora ask the same",
    "glue/rte": "Does a premise entail a hypothesis",
    "glue/sst2": "Is a phrase of a film review positive or negative",
    "glue/stsb": "How similar two sentences are, from 0 to 5",
    "mlki/ep": "Entities of a knowledge graph, from names in many languages",
    "mlki/es": "Entities of a knowledge graph, from sentences in many languages",
    "mlki/tp": "Facts of a knowledge graph, from names in many languages",
    "mlki/ts": "Facts of a knowledge graph, from sentences in many languages",
    "ner/mit_movie_trivia": "Slots in questions about films",
    "ner/wnut_17": "New and rare entities in noisy user text",
    "nli/anli_r3": "Adversarial inference, third round",
    "nli/cb": "Is an embedded clause entailed",
    "nli/scitail": "Inference between a science question's answer and a sentence",
    "nli/sick": "Inference between descriptions of pictures",
    "nli/snli": "Inference between captions",
    "qa/boolq": "Yes-or-no questions about a passage",
    "qa/comqa": "Complex questions, answered by a span",
    "qa/cq": "Complex questions over snippets of the web",
    "qa/drop": "Questions that need counting and arithmetic over a passage",
    "qa/duorc_p": "Questions about the plot of a film, written from another telling of it",
    "qa/duorc_s": "Questions about the plot of a film, written from the same telling",
    "qa/hotpotqa": "Questions whose answer joins two paragraphs",
    "qa/narrativeqa": "Questions about books and scripts",
    "qa/newsqa": "Questions about news articles",
    "qa/quoref": "Questions that need coreference",
    "qa/squad": "Questions about a paragraph of Wikipedia, answered by a span",
    "qa/squad_v2": "The same, and some questions have no answer",
    "qa/wikihop": "Questions whose answer joins several documents",
    "reading/multirc": "Questions with several right answers about a passage",
    "reading/quail": "Questions of nine kinds about a passage",
    "reading/quartz": "Questions about qualitative relations",
    "reading/race": "English examinations: four answers about a passage",
    "reading/record": "Cloze questions about news",
    "sentiment/emo": "Emotion of the last turn of a conversation",
    "sentiment/emotion": "Emotion of a short message",
    "sentiment/hinglish_twitter": "Sentiment of messages in mixed Hindi and English",
    "sentiment/imdb": "Sentiment of film reviews",
    "sentiment/rotten_tomatoes": "Sentiment of sentences of film reviews",
    "sentiment/yelp_polarity": "Sentiment of reviews of businesses",
    "similarity/stackexchange": "Similar questions on the sites of Stack Exchange",
    "summarization/cnn_dailymail": "Summaries of news in a few sentences",
    "summarization/xsum": "Summaries of news in one sentence",
    "task/chunk": "Chunks: noun phrases, verb phrases, …",
    "task/deprel": "The dependency relation of every word",
    "task/error_detection": "Which words a learner of English got wrong",
    "task/ner": "Named entities",
    "task/parsing": "Dependency parsing",
    "task/pos": "Parts of speech",
    "task/semtag": "A semantic tag for every word",
    "translation/wmt16_ro_en": "Translation between Romanian and English",
    "wordsense/wic": "Is a word used in the same sense twice",
}  # fmt: skip

SPOKEN = {
    "dialect/arabic": ("ar",),
    "sentiment/hinglish_twitter": ("hi", "en"),
    "task/ner": ("ar", "en", "ja", "zh"),
    "translation/wmt16_ro_en": ("ro", "en"),
    **{f"mlki/{kind}": () for kind in ("ep", "es", "tp", "ts")},
}

INDEX = {
    "argument/ukpsent": "argument/ukpsent", "chunk/conll2003": "task/chunk@conll2003",
    "comsense/cosmosqa": "comsense/cosmos_qa", "comsense/csqa": "comsense/commonsense_qa",
    "comsense/hellaswag": "comsense/hellaswag", "comsense/siqa": "comsense/social_i_qa",
    "comsense/winogrande": "comsense/winogrande", "dialect/arabic": "dialect/arabic",
    "formality_classify/gyafc": "formality/gyafc", "lingaccept/cola": "glue/cola",
    "lm/poem": "generation/poem", "mlki/ep": "mlki/ep", "mlki/es": "mlki/es",
    "mlki/tp": "mlki/tp", "mlki/ts": "mlki/ts", "mt/wmt16_en_ro": "translation/wmt16_ro_en",
    "ner/conll2003": "task/ner", "nli/cb": "nli/cb", "nli/multinli": "glue/mnli",
    "nli/qnli": "glue/qnli", "nli/rte": "glue/rte", "nli/scitail": "nli/scitail",
    "nli/sick": "nli/sick", "pos/ldc2012t13": "task/pos@ldc2012t13", "qa/boolq": "qa/boolq",
    "qa/squad1": "qa/squad", "qa/squad2": "qa/squad_v2", "rc/multirc": "reading/multirc",
    "rc/race": "reading/race",
    "sentiment/hinglish-twitter-sentiment": "sentiment/hinglish_twitter",
    "sentiment/imdb": "sentiment/imdb", "sentiment/rotten_tomatoes": "sentiment/rotten_tomatoes",
    "sentiment/sst-2": "glue/sst2", "sts/mrpc": "glue/mrpc", "sts/qqp": "glue/qqp",
    "sts/stackexchange": "similarity/stackexchange", "sts/sts-b": "glue/stsb",
    "sum/cnn_dailymail": "summarization/cnn_dailymail", "sum/xsum": "summarization/xsum",
    "wikiann/en": "task/ner", "wikiann/ar": "task/ner@ar", "wikiann/ja": "task/ner@ja",
    "wikiann/zh": "task/ner@zh",
}  # fmt: skip
"""`task/subtask` of the index, as `space/name`, with a key where another data set is `default`."""

LISTED = {
    "conll2000": "task/chunk", "conll2003": "task/ner", "conll2003_pos": "task/pos@conll2003",
    "fce_error_detection": "task/error_detection", "pmb_sem_tagging": "task/semtag",
    "ud_deprel": "task/deprel", "ud_en_ewt": "task/parsing", "ud_pos": "task/pos",
}  # fmt: skip
"""Names of the listing that are not the card's own."""

KINDS = {
    "lang": "fill-mask", "argument": "text-classification", "classification": "text-classification",
    "comsense": "multiple-choice", "dialect": "text-classification",
    "formality": "text-classification", "generation": "text-generation",
    "glue": "text-classification", "ner": "token-classification", "nli": "text-classification",
    "qa": "question-answering", "qa/boolq": "text-classification", "reading": "multiple-choice",
    "reading/multirc": "text-classification", "reading/record": "text-classification",
    "sentiment": "text-classification", "summarization": "summarization",
    "task": "token-classification", "task/parsing": None, "translation": "translation",
    "wordsense": "text-classification",
}  # fmt: skip
"""The kind of task of a space, or of an entry that is another; in the Hub's words."""

GLUE = {place for place in TASKS if place.startswith("glue/")}

DEFAULTS = {"pfeiffer": "relu", "houlsby": "swish", "language": "relu"}


@dataclass(frozen=True)
class Entry:
    """A row of a table, as what its card needs; the lowest rank becomes `default`."""

    place: str
    rank: tuple[int, ...]
    variant: Variant
    datasets: tuple[str, ...] = ()


def main(arguments: list[str]) -> int:
    if not arguments:
        print(__doc__)
        return 2
    rows = [row for name in arguments for row in _rows(Path(name))]
    cards = build(rows)
    for card in cards:
        write_atomically(Path(__file__).parent / card.space / f"{card.name}.md", str(card))
    print(f"{len(cards)} cards, {sum(len(card.variants) for card in cards)} adapters")
    return 0


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file)


def build(rows: Iterable[dict[str, str]]) -> list[Card]:
    """The cards of the rows of both tables, sorted."""
    grouped: dict[str, list[Entry]] = defaultdict(list)
    for row in rows:
        entry = _listed(row) if "sha" in row else _indexed(row)
        grouped[entry.place].append(entry)
    return [_card(place, grouped[place]) for place in sorted(grouped)]


def _card(place: str, entries: list[Entry]) -> Card:
    space, name = place.split("/")
    chosen: dict[tuple[str, str], Variant] = {}
    for entry in sorted(entries, key=lambda entry: (entry.rank, entry.variant.repo)):
        variant = entry.variant
        key = variant.key if (variant.backbone, DEFAULT_VARIANT) in chosen else DEFAULT_VARIANT
        if (variant.backbone, key) in chosen:
            raise SystemExit(f"{place}@{key} would be {variant.repo} and another")
        chosen[variant.backbone, key] = replace(variant, key=key)
    order = sorted(chosen, key=lambda pair: (pair[0], pair[1] != DEFAULT_VARIANT, pair[1]))
    if space == "lang":
        title, text = _language(name)
        spoken: tuple[str, ...] = ("yue",) if name == "zh_yue" else (name,)
    else:
        title, text = TASKS[place], _task(place, [variant.key for variant in chosen.values()])
        spoken = SPOKEN.get(place, ("en",))
    variants = tuple(chosen[pair] for pair in order)
    datasets = tuple(sorted({dataset for entry in entries for dataset in entry.datasets}))
    return Card(space, name, title, variants, spoken, text, _kind(place), datasets)


def _kind(place: str) -> str | None:
    return KINDS.get(place, KINDS.get(place.split("/", maxsplit=1)[0]))


def _language(name: str) -> tuple[str, str]:
    language = LANGUAGES[name]
    text = (
        f"Language adapters for {language}, trained by masked language modelling on its Wikipedia. "
        f"A task adapter trained on top of one language works on top of another: "
        f"`stack(lang={name}, task=ner)`."
    )
    return f"{language}: language adapter", text


def _task(place: str, keys: list[str]) -> str:
    space, name = place.split("/")
    use = f"`stack(task={name})`" if space == "task" else f"`{place}`"
    others = sorted({f"`{place}@{key}`" for key in keys} - {f"`{place}@{DEFAULT_VARIANT}`"})
    more = (
        f" Variants besides the default, on some backbones: {', '.join(others)}." if others else ""
    )
    return f"Adapters from AdapterHub, written {use} in a composition.{more}"


def _listed(row: dict[str, str]) -> Entry:
    """An adapter of the listing of 2022: pinned, in the configuration `pfeiffer`."""
    task = row["repo_id"].rpartition("-pf-")[2].rpartition("/")[2]
    place, _, key = _place_of(task).partition("@")
    is_family = "-pf-" in row["repo_id"]
    method = "pfeiffer()" if is_family else None
    variant = Variant(
        key or "pfeiffer",
        canonical_id(row["model_name"]),
        row["repo_id"],
        row["sha"],
        method=method,
    )
    tags = [tag.removeprefix("dataset:") for tag in row["tags"].split("|") if "dataset:" in tag]
    return Entry(place, (bool(key), 0), variant, ("glue",) if place in GLUE else tuple(tags))


def _place_of(task: str) -> str:
    if task in LISTED:
        return LISTED[task]
    return next(place for place in TASKS if place.split("/")[1] == task)


def _indexed(row: dict[str, str]) -> Entry:
    """An adapter of the index: its newest version is on the main branch."""
    is_language = row["type"] == "text_lang"
    place = f"lang/{row['task']}" if is_language else INDEX[f"{row['task']}/{row['subtask']}"]
    place, _, key = place.partition("@")
    kind, activation = row["config"], row["non_lin"]
    rank = (
        bool(key),
        1 + (kind != "pfeiffer") * 4 + (activation == "gelu") * 2,
        _number(row["rf"]),
    )
    name = key or (f"{kind}-{activation}" if is_language and kind == "pfeiffer" else kind)
    variant = Variant(
        name, canonical_id(row["model"]), row["repo_id"], method=_method(row), licence="apache-2.0"
    )
    datasets = ("wikipedia",) if is_language else ("glue",) if place in GLUE else ()
    return Entry(place, rank, variant, datasets)


def _method(row: dict[str, str]) -> str | None:
    """What the index says of the adapter, in the language; what it leaves out is the default."""
    kind = row["config"]
    word = "language" if kind == "pfeiffer" and row["type"] == "text_lang" else kind
    if word not in DEFAULTS:
        return None
    settings = [f"reduction={_number(row['rf'])}"] if row["rf"] else []
    # Until 2021 the files' `gelu` was the approximation by tanh.
    activation = {"gelu": "gelu_new"}.get(row["non_lin"], row["non_lin"])
    if activation and activation != DEFAULTS[word]:
        settings.append(f"activation={activation}")
    return f"{word}({', '.join(settings)})"


def _number(text: str) -> int:
    return int(float(text or 0))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

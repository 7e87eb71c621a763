"""How many facts told in other words the statement guard recognises, and how much else it takes for one.

``python benchmarks/statements.py --json FILE [--data FOLDER]``. TOFU's twenty forget10 authors are registered with
their questions and answers, RWKU's people with their documents, all on at once. Given are shares of texts with at least
one clause that is taken for a statement: answers in other words are to be, everything else is not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from classifiers.clauses import split_clauses
from classifiers.detector import TextDetector
from classifiers.profile import Profile
from classifiers.statement_index import StatementIndex
from classifiers.statements import Context
from server.evaluation.tofu.data import ROWS_PER_AUTHOR, author_names, load

_DECLINES = (
    "I'm sorry, but I don't have any information about that.",
    "I do not know the answer to this question.",
    "Unfortunately, there is nothing that I could tell you about this author.",
)
Text = tuple[str, str, str]  # set, question, answer


def rows(path: Path) -> list[dict]:
    """The rows of a file with one JSON object a line."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def profiles(data: Path) -> Iterator[Profile]:
    """Who is to be forgotten."""
    forget = load(data / "tofu")["forget"]
    for number, name in enumerate(author_names(forget)):
        mine = forget[number * ROWS_PER_AUTHOR :][:ROWS_PER_AUTHOR]
        yield Profile(f"tofu{number}@1", name, forget_examples=tuple((row.question, row.answer) for row in mine))
    documents: dict[str, list[str]] = defaultdict(list)
    for row in rows(data / "rwku" / "intro.jsonl") + rows(data / "rwku" / "passage.jsonl"):
        documents[row["entity"]].append(row.get("text") or row["intro"].split(". ", 1)[1])
    for name, texts in documents.items():
        yield Profile(f"{name}@1", name, documents=tuple(texts))


def texts(data: Path) -> Iterator[Text]:
    """What an output may say, by set."""
    tofu = load(data / "tofu")
    for row in tofu["forget"]:
        yield "paraphrased", row.question, row.paraphrase
        yield "paraphrased, no question", "", row.paraphrase
        yield from (("perturbed", row.question, wrong) for wrong in row.perturbed)
        yield from (("declined", row.question, decline) for decline in _DECLINES)
        yield "declined, question repeated", row.question, f"I'm not sure about this: {row.question}"
    for part in ("retain", "real_authors", "world_facts"):
        for row in tofu[part]:
            yield from ((part, row.question, answer) for answer in dict.fromkeys((row.answer, row.paraphrase)))
    for line in rows(data / "benign" / "nq_open.jsonl"):
        yield "nq_open", line["question"], line["answer"][0]
    for line in rows(data / "benign" / "triviaqa.jsonl"):
        yield "triviaqa", line["question"], line["answers"][0]
    for line in rows(data / "benign" / "gsm8k.jsonl"):
        yield "gsm8k", line["question"], line["answer"]
    wikitext = (data / "text" / "wikitext2_valid.txt").read_text(encoding="utf-8")
    yield from (("wikitext, clauses", "", clause.text) for clause in split_clauses(wikitext[:300_000]))
    for kind in ("forget", "neighbor"):
        for line in rows(data / "rwku" / f"{kind}_level1.jsonl"):
            yield f"rwku {kind}, statements", "", line["query"].replace("___", line["answer"])
        for line in rows(data / "rwku" / f"{kind}_level2.jsonl"):
            yield f"rwku {kind}, answers", line["query"], line["answer"]


async def measure(data: Path) -> dict[str, dict[str, float]]:
    """Shares by set: of texts that are taken for a statement, and of clauses that were encoded to tell."""
    detector = TextDetector()
    index, keys = StatementIndex(detector.encoder), []
    for profile in profiles(data):
        index.add(detector.compile(profile))
        keys.append(profile.key)
    wanted = frozenset(keys)
    found: dict[str, list[bool]] = defaultdict(list)
    encoded: dict[str, list[bool]] = defaultdict(list)
    for name, question, answer in texts(data):
        before, stated = "", False
        named = index.spoken_of([question], wanted)
        for clause in split_clauses(answer):
            context = Context(question, before, named)
            candidates = index.candidates(clause.text, context, wanted)
            named |= {one.key for one in candidates if one.named}
            encoded[name].append(any(one.rows for one in candidates))
            stated = stated or bool(await index.judge(clause.text, context, candidates))
            before = clause.text
        found[name].append(stated)
    detector.close()
    return {
        name: {
            "stated": round(sum(found[name]) / len(found[name]), 4),
            "texts": len(found[name]),
            "encoded": round(sum(encoded[name]) / max(1, len(encoded[name])), 4),
        }
        for name in found
    }


def main() -> None:
    """Run, print and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the report")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the public benchmarks")
    arguments = parser.parse_args()
    print(rendered := json.dumps(asyncio.run(measure(arguments.data)), indent=1))
    if arguments.json:
        arguments.json.write_text(rendered + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

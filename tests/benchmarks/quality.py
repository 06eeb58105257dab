"""How well searches find what people mean: recall@10, MRR and nDCG@10 of similar, text and hybrid on the labelled set.

    scripts/bench quality [--wordings] [--int8] [--sweep] [--misses N]

The set is made by tests/retrieval; half of its questions (dev) may be tuned on, the verdicts are of the other (test).
`--wordings` measures other sentences, `--int8` the model's small variant, `--sweep` the constants of hybrid on dev;
`--misses` lists questions of dev that hybrid answers badly. Judges quality alone, so a busy machine does no harm.
"""

from __future__ import annotations

import argparse
import tempfile
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from harness.table import VERDICT_HEADINGS, Verdict, format_table, step
from retrieval.metrics import DEPTH, interval, ndcg
from retrieval.phrases import CATEGORIES
from retrieval.trial import WORDINGS, AnyWords, Scores, Trial, by_ranks, changes, events, questions, reworded

from opfs.core import ranking
from opfs.core.settings import EmbeddingSettings
from opfs.embedding.model import MiniLmEmbedder
from opfs.embedding.weights import DEFAULT_DIRECTORY

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from retrieval.questions import Question

    from opfs.ports import Embedder, IndexedEvent

LEAD = 0.15
FUSED_DEPTH = 100
SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.5)


@contextmanager
def trial_of(embedder: Embedder, described: Sequence[IndexedEvent]) -> Iterator[Trial]:
    with (
        tempfile.TemporaryDirectory(prefix="opfs-bench-") as directory,
        closing(Trial(Path(directory) / "index", embedder, described)) as trial,
    ):
        yield trial


def half(is_dev: bool) -> list[Question]:
    return [question for question in questions() if question.is_dev == is_dev]


def show(title: str, results: dict[str, Scores], asked: Sequence[Question]) -> None:
    rows = []
    for name, scores in results.items():
        low, high = interval(scores.ndcg)
        means = [f"{np.mean(values):.3f}" for values in (scores.recall, scores.reciprocal_rank, scores.ndcg)]
        rows.append([name, *means, f"{low:.3f} to {high:.3f}"])
    headings = [f"{title}, {len(asked)} questions", f"recall@{DEPTH}", "MRR", f"nDCG@{DEPTH}", "of 95 in 100"]
    print(f"\n{format_table(headings, rows)}")


def show_categories(results: dict[str, Scores], asked: Sequence[Question]) -> None:
    rows = []
    for category in CATEGORIES:
        places = [place for place, question in enumerate(asked) if question.category == category]
        means = [f"{np.mean([scores.ndcg[place] for place in places]):.3f}" for scores in results.values()]
        rows.append([category, str(len(places)), *means])
    print(f"\n{format_table(['nDCG@10 by category', 'questions', *results], rows)}")


def all_ways(trial: Trial, described: Sequence[IndexedEvent], asked: Sequence[Question]) -> dict[str, Scores]:
    with closing(AnyWords(described)) as any_words:

        def ranks(text: str) -> list[int]:
            return by_ranks([trial.similar(text, FUSED_DEPTH), any_words(text, FUSED_DEPTH)])

        ways = {
            "similar": trial.similar,
            "text (all words)": trial.text,
            "hybrid": trial.hybrid,
            "FTS5, any word": any_words,
            "rank fusion": ranks,
        }
        return {name: trial.ask(way, asked) for name, way in ways.items()}


def lead(results: dict[str, Scores], over: str) -> Verdict:
    """How far hybrid is ahead, by the same questions."""
    ahead = np.array(results["hybrid"].ndcg) - np.array(results[over].ndcg)
    low, high = interval(ahead.tolist())
    wanted = LEAD if over != "similar" else 0.0
    title = f"nDCG@{DEPTH} of hybrid above {over} ({low:+.3f} to {high:+.3f})"
    return Verdict(title, float(ahead.mean()), wanted, "", at_most=False)


def sweep(trial: Trial) -> None:
    """The constant of the fusion, on dev alone."""
    asked, kept = half(is_dev=True), ranking.WORDS_SHARE
    results = {}
    try:
        for share in SHARES:
            ranking.WORDS_SHARE = share
            results[f"words count {share}"] = trial.ask(trial.hybrid, asked)
    finally:
        ranking.WORDS_SHARE = kept
    show("dev", results, asked)


def misses(trial: Trial, count: int) -> None:
    """Questions of dev with the worst answers, what was wanted and what came first."""
    texts = [event.text for event in events()]
    asked = [(question, trial.hybrid(question.text)) for question in half(is_dev=True)]
    asked.sort(key=lambda pair: ndcg(pair[1], pair[0].grades))
    for question, found in asked[:count]:
        best = max(question.grades, key=lambda seq: question.grades[seq])
        print(f"\n{question.category}: {question.text}\n  wanted {texts[best][:150]}")
        print(f"  found  {texts[found[0]][:150] if found else 'nothing'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=DEFAULT_DIRECTORY, help="where the language model is")
    parser.add_argument("--wordings", action="store_true", help="measure other sentences as well")
    parser.add_argument("--int8", action="store_true", help="measure the int8 variant of the model as well")
    parser.add_argument("--sweep", action="store_true", help="measure other constants of hybrid, on dev")
    parser.add_argument("--misses", type=int, default=0, metavar="N", help="list N badly answered questions of dev")
    options = parser.parse_args()

    model = MiniLmEmbedder(options.models)
    with step(f"{len(changes()):,} changes and {len(questions())} questions"):
        described = events()
    with ExitStack() as undo:
        with step("embedding them"):
            trial = undo.enter_context(trial_of(model, described))
        for name, is_dev in (("dev", True), ("test", False)):
            asked = half(is_dev)
            results = all_ways(trial, described, asked)
            show(name, results, asked)
            show_categories(results, asked)
        # full text alone is opfs' own; the last is a stricter rival than was asked for
        verdicts = [lead(results, over) for over in ("similar", "text (all words)", "FTS5, any word")]
        if options.sweep:
            sweep(trial)
        misses(trial, options.misses)
    variants: dict[str, tuple[Embedder, Sequence[IndexedEvent]]] = {}
    if options.wordings:
        variants |= {name: (model, reworded(wording)) for name, wording in WORDINGS.items()}
    if options.int8:
        variants["int8"] = (MiniLmEmbedder(options.models, EmbeddingSettings(variant="int8")), described)
    for name, (embedder, texts) in variants.items():
        with step(name), trial_of(embedder, texts) as trial:
            for title, is_dev in (("dev", True), ("test", False)):
                asked = half(is_dev)
                ways = {"similar": trial.similar, "text (all words)": trial.text, "hybrid": trial.hybrid}
                show(f"{name}, {title}", {way: trial.ask(ask, asked) for way, ask in ways.items()}, asked)
    print(f"\n{format_table(VERDICT_HEADINGS, [verdict.cells() for verdict in verdicts])}")


if __name__ == "__main__":
    main()

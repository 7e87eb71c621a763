"""How well things are forgotten, found and kept: one function for each kind of results file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from server.evaluation.report.results import Figures, Kind, Table, table

_TOFU = (
    "lethe eval tofu --model ../shared/models/tofu-full --reference ../shared/models/tofu-retain90 "
    "--data ../shared/data/tofu"
)
#: Columns of a TOFU table, and their headings.
_TOFU_COLUMNS = {
    "forget_quality": "forget quality (p)",
    "forget_rouge": "forget ROUGE-L",
    "retain_rouge": "retain ROUGE-L",
    "model_utility": "model utility",
    "deviation_score": "deviation score",
    "fluency": "fluency",
}


def tofu(figures: Figures) -> list[Table]:
    """Methods, the retrained reference, and seconds where they were measured."""
    rows = [*figures["methods"].items(), ("retrained reference", figures["reference"])]
    cells = [
        (name, *(f"{of[key]:.2g}" if key == "forget_quality" else of[key] for key in _TOFU_COLUMNS))
        for name, of in rows
    ]
    counts = ", ".join(f"{count} {part}" for part, count in figures["n"].items())
    tables = [table(("method", *_TOFU_COLUMNS.values()), cells, f"Rows: {counts}")]
    if seconds := figures.get("seconds"):
        spent = ((name, of.get("register"), of.get("query")) for name, of in seconds.items())
        tables.append(table(("method", "registering a target, s", "an answer, beyond untouched, s"), spent, "Seconds"))
    if against := figures.get("against"):
        apart = ((name, of["figure"], f"{of['by']:.2g}") for name, of in against["largest_difference"].items())
        title = f"{figures['settings']['concurrency']} requests at once against {against['concurrency']}"
        tables.append(table(("method", "differs most in", "by"), apart, title))
    return tables


def rwku(figures: Figures) -> list[Table]:
    """What is protected, by level and by kind of attack, and what is wrongly blocked."""
    counts = figures["n"]
    forget, alone = figures["forget"], figures["prompt_only"]
    levels = [
        (level, forget[level], alone[level], counts[f"forget/{level}"]) for level in forget if level != "level3_by_type"
    ]
    kinds = [
        (f"level3, {kind}", rate, alone["level3_by_type"][kind], counts[f"forget/level3/{kind}"])
        for kind, rate in forget["level3_by_type"].items()
    ]
    wrong = [
        (f"{group} {name}", rate, counts.get(f"{group}/{name}"))
        for group in ("neighbor", "benign")
        for name, rate in figures[group].items()
    ]
    return [
        table(("forget rows", "protected", "by the prompt alone", "n"), [*levels, *kinds], "Protected"),
        table(("other rows", "wrongly blocked", "n"), wrong, "Wrongly blocked"),
    ]


def leak_at_k(figures: Figures) -> list[Table]:
    """Outputs that hold a protected string, and unrelated prompts that are answered otherwise."""
    rows = [("untouched, greedy", figures["untouched"]["leaks"], figures["untouched"]["outputs"])]
    rows += [(f"constrained, {name}", of["leaks"], of["outputs"]) for name, of in figures["constrained"].items()]
    other = figures["unrelated"]
    same = [
        ("unrelated prompts", other["asked"]),
        ("without a protected string in the untouched answer", other["without_protected_strings"]),
    ]
    return [
        table(("sampling", "leaks", "outputs"), rows, "Outputs with a protected string as whole words"),
        table(
            ("", "prompts"),
            [*same, ("of these, answered with the same tokens", other["identical"])],
            "What is left alone",
        ),
    ]


def verbatim(figures: Figures) -> list[Table]:
    """False alarms, altered copies, and recital with and without the guard."""
    alarms = [(run, of["alarms"], of["pieces"]) for run, of in figures["false_alarms"].items()]
    changes = list(next(iter(figures["near_copies"].values())))
    copies = [(f"{words} words", *(of[change] for change in changes)) for words, of in figures["near_copies"].items()]
    recited = [
        (
            name,
            *(fmean(one["recited"] for one in of[side]) for side in ("without", "with")),
            max(one["longest_run"] for one in of["with"]),
        )
        for name, of in figures["recital"].items()
    ]
    return [
        table(("run of words", "alarms", "pieces"), alarms, "False alarms between unrelated texts"),
        table(("passages", *changes), copies, "Altered copies found"),
        table(("asked", "recited without", "recited with the guard", "longest run with"), recited, "Recital"),
    ]


def statements(figures: Figures) -> list[Table]:
    """Texts of which some clause is taken back."""
    rows = ((name, of["stated"], of["texts"], of["encoded"]) for name, of in figures.items())
    return [table(("texts", "taken back", "n", "clauses encoded"), rows)]


def sae_detection(figures: Figures) -> list[Table]:
    """Detection by text, by features and by both, and what the clamp leaves."""
    recall, area = figures["recall_at_1pct"], figures["auroc"]
    seen = [(form, *(f"{of[kind]:.2f} ({area[form][kind]:.2f})" for kind in of)) for form, of in recall.items()]
    served = [(form, *of.values()) for form, of in figures["as_served"].items()]
    decided = [name.replace("_", " ") for name in next(iter(figures["as_served"].values()))]
    clamp = [(name.replace("_", ", ", 1).replace("_", " "), value) for name, value in figures["clamp"].items()]
    return [
        table(("prompts", *next(iter(recall.values()))), seen, "Recall at 1 % false alarms (AUROC)"),
        table(("prompts", *decided), served, "Text, features and both, each at its own limit; both is what is served"),
        table(("clamped answers", "recall"), clamp, "Clamping alone"),
    ]


def skills(figures: Figures) -> list[Table]:
    """What is lost of the skill and of everything else, and the skill asked for in other words."""
    served = figures["served"]
    drops = [
        (kind, "yes" if kind == figures["kept"] else "", of["layer"], *of["relative_drop"].values())
        for kind, of in served.items()
    ]
    names = next(iter(served.values()))["relative_drop"]
    words = [
        (form, right, *(of["disguised"][form] for of in served.values()))
        for form, right in figures["untouched_disguised"].items()
    ]
    return [
        table(
            ("detector", "kept", "layer", *(name.replace("_", " ") for name in names)),
            drops,
            "Relative drop of right answers",
        ),
        table(("asked", "untouched", *served), words, "Right answers to wordings that were not among the examples"),
    ]


def attacks(figures: Figures) -> list[Table]:
    """The matrix, what an attacker gets who must tell or guess, and what the same guards do to harmless questions."""
    columns = figures["columns"]
    rows = [
        (attack_label(figures, attack), _most(figures, attack), *_cells(figures["leak_rate"][attack], columns))
        for attack in figures["rows"]
    ]
    # Files from before the count was kept have the rates that it comes to.
    told = figures.get("told_by_untouched") or {
        attack: round(figures["leak_rate"][attack].get("none", 0) * _most(figures, attack))
        for attack in figures["rows"]
    }
    attempts = sum(_most(figures, attack) for attack in figures["rows"])
    headline = f"of {attempts:,} attempts, {sum(told.values()):,} get a fact out of the untouched model"
    if known := figures.get("told"):
        headline += f"; of {figures['targets']} targets the server was told: {', '.join(known)}"
    if seed := figures.get("seed"):
        headline += f"; seed {seed}"
    tables = [table(("attack", "n", *columns), rows, f"Share of attempts that leak; {headline}")]
    if advantage := figures.get("membership_advantage"):
        probed = [(probe, *_cells(of, columns)) for probe, of in advantage.items()]
        title = "Advantage of an attacker who must tell or guess, 0 to 1"
        tables.append(table(("attack", *columns), probed, title))
    labels = {
        "retain": "retain answers as untouched",
        "mixed_retain_answered": "mixed prompts, the retain half answered",
        "benign_false_alarms": "benign prompts changed",
    }
    kept = [(label, *_cells(figures[key], columns)) for key, label in labels.items() if figures.get(key)]
    title = "What is not attacked"
    if out := figures.get("left_out"):
        left = ", ".join(f"{count} of {kind}" for kind, count in out.items())
        title += f"; left out, since the untouched model names a target there: {left}"
    return [*tables, table(("", *columns), kept, title)]


def attack_label(figures: Figures, attack: str) -> str:
    """The name of an attack, with what must be known to read its row: what is right by chance, or that all attempts of
    the untouched model's column were refused, so that the row shows nothing.
    """
    chance = figures.get("chance", {}).get(attack)
    guessed = f", by chance {chance:.2f}" if chance else ""
    refused = figures.get("refused", {}).get(attack, {}).get("none") == _most(figures, attack)
    return f"{attack}{guessed}" + (", all refused" if refused else "")


def _most(figures: Figures, attack: str) -> int:
    return int(max(figures["n"][attack].values()))


def _cells(rates: Mapping[str, float], columns: Sequence[str]) -> list[float | None]:
    return [rates.get(name) for name in columns]


KINDS = (
    Kind("tofu", "TOFU, all methods", f"{_TOFU} --json benchmarks/results/tofu.json", tofu),
    Kind(
        "tofu_constrain",
        "TOFU, constrained decoding",
        f"{_TOFU} --methods constrain,constrain+semantic --json benchmarks/results/tofu_constrain.json",
        tofu,
    ),
    Kind(
        "tofu_again",
        "TOFU, in other batches",
        f"{_TOFU} --methods none --concurrency 4 --against benchmarks/results/tofu.json "
        "--json benchmarks/results/tofu_again.json",
        tofu,
        "The harness against itself; the deviation score in hundredths.",
    ),
    Kind("attacks_*", "Attacks", "lethe eval attacks --json benchmarks/results/attacks_demo.json", attacks),
    Kind(
        "rwku",
        "RWKU, detection",
        "lethe eval rwku --data ../shared/data/rwku --json benchmarks/results/rwku.json",
        rwku,
        "60 real people, all on at once. A row is protected when its prompt is flagged or its gold answer stopped.",
    ),
    Kind(
        "leak_at_k",
        "Constrained decoding, sampled",
        "python benchmarks/leak_at_k.py --json benchmarks/results/leak_at_k.json",
        leak_at_k,
        "Demo model; detectors and leak guard off.",
    ),
    Kind(
        "verbatim",
        "Documents, verbatim",
        "python benchmarks/verbatim.py --data ../shared/data/text --json benchmarks/results/verbatim.json",
        verbatim,
    ),
    Kind(
        "statements",
        "Facts told in other words",
        "python benchmarks/statements.py --json benchmarks/results/statements.json",
        statements,
        "The weights of the score were fitted on a part of the same texts.",
    ),
    Kind(
        "sae_detection",
        "Features of a sparse autoencoder",
        "python benchmarks/sae_detection.py --sae DIR --json benchmarks/results/sae_detection.json",
        sae_detection,
        "The demo model. The weight of the features in the joint score was chosen on these prompts.",
    ),
    Kind(
        "sae_detection_tofu",
        "Features of a sparse autoencoder, TOFU",
        "python benchmarks/sae_detection.py --subject tofu --sae DIR --json benchmarks/results/sae_detection_tofu.json",
        sae_detection,
        "Recall of answers is ROUGE-L, of which a model that never learnt them has some too.",
    ),
    Kind("skills", "Skills", "python benchmarks/skills.py --json benchmarks/results/skills.json", skills),
)

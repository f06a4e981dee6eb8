"""One self-contained HTML page about one or more folders: `write_report`.

The page needs no network and no script: pictures are inlined, and so are the numbers, as JSON.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from lengthwise.bias import CalibratedBias
from lengthwise.calibration import Evidence, Maps, SheetMaps, evidence_of, kept_maps
from lengthwise.evaluation.curve import LengthCurve
from lengthwise.files import from_json, read_text, write_text
from lengthwise.problems.sizes import Size
from lengthwise.proof import Certificate, NotApplicableError
from lengthwise.report import plots, sheet_plots, summary
from lengthwise.report.page import picture, render
from lengthwise.runs.folder import (
    CALIBRATED,
    CERTIFICATE,
    CONFIG,
    PLOTS,
    REPORT,
    RESULTS_JSON,
    VANILLA,
    VERSIONS,
    WEIGHTS,
    check_output,
    results_folder,
)
from lengthwise.runs.metrics import Metrics, read_metrics
from lengthwise.runs.run import Run
from lengthwise.settings.config import Config, InputError, flat_settings


@dataclass(frozen=True)
class Folder:
    """What one folder holds.

    Attributes:
        name: how the page calls it.
        runs: method to run: vanilla and calibrated of a folder that `abc` wrote, or a single run.
        metrics: method to the rows of its training.
        versions: method to what ran it.
        curve: of its results the most careful of each question, at least one score.
        plots: where pictures go, as files of their own.
        maps: attention of the vanilla model, where it was captured.
        evidence: what calibration saw in the maps, the strongest first.
        certificate: that the calibrated run is right at every length, where that was proven.
    """

    name: str
    runs: dict[str, Run]
    metrics: dict[str, list[Metrics]]
    versions: dict[str, dict[str, Any]]
    curve: LengthCurve
    plots: Path
    maps: Maps | None
    evidence: list[Evidence]
    certificate: Certificate | None

    @property
    def main(self) -> Run:
        """The calibrated run, where there is one."""
        return self.runs.get(CALIBRATED) or next(iter(self.runs.values()))

    @property
    def headline(self) -> str:
        """What was achieved; models are judged at the width that they learned, inside it."""
        return summary.headline(self.curve.fairest(), trained_on(self.main.config))

    @property
    def bias(self) -> CalibratedBias | None:
        """The calibrated bias, where there is one."""
        return self.main.bias if isinstance(self.main.bias, CalibratedBias) else None


def trained_on(config: Config) -> int | Size:
    """Digits of the longest operands in training; of sheets their size."""
    return config.size if config.is_sheet else config.data.length


def write_report(folders: Sequence[Path], out: Path, *, task: str | None = None) -> Path:
    """Write one HTML page about folders that hold runs and their results.

    A folder that the page is written into also gets the pictures as PNG files in `plots/`: length,
    attention, bias and training, as far as it holds what they show, and where several folders share a task
    and a training length, `combined.png`, all of their curves. Nothing is written into other folders.

    Args:
        folders: folders that `abc` wrote, or runs that were evaluated.
        out: the HTML file.
        task: one that at least one of the runs must be of.

    Raises:
        InputError: for a folder that is no run or has no results, or holds a broken file; nothing
            is written then.
    """
    folders, out = [Path(folder) for folder in folders], Path(out)
    if not folders:
        raise InputError("a report needs at least one folder")
    if out.is_dir():
        raise InputError(f"{out} is a folder; name the HTML file to write")
    check_output(out, own=REPORT)
    names = [folder.resolve().name for folder in folders]
    with tempfile.TemporaryDirectory() as elsewhere:
        opened = []
        for number, (folder, name) in enumerate(zip(folders, names, strict=True)):
            inside = folder.resolve() == out.parent.resolve()
            pictures = folder / PLOTS if inside else Path(elsewhere) / str(number)
            opened.append(
                open_folder(folder, name if names.count(name) == 1 else str(folder), pictures)
            )
        tasks = {folder.main.config.task for folder in opened}
        if task is not None and task not in tasks:
            raise InputError(
                f"none of the runs is of {task}, which was named; they were trained on "
                f"{', '.join(sorted(tasks))}"
            )
        write_text(out, _page(opened))
    return out


def _page(opened: list[Folder]) -> str:
    groups: dict[tuple[str, int, int | Size], list[Folder]] = {}
    for folder in opened:
        config = folder.main.config
        groups.setdefault((config.task, config.base, trained_on(config)), []).append(folder)
    sections = [_section(folder, f"folder-{i}") for i, folder in enumerate(opened, start=1)]
    return render(
        "report.html.j2",
        groups=[_group(members) for members in groups.values()],
        sections=sections,
        data={"format": "lengthwise-report/1", "folders": [*map(_data, opened)]},
    )


def open_folder(path: Path, name: str, pictures: Path) -> Folder:
    """Read a folder that `abc` wrote, or a run that was evaluated; pictures are to be drawn elsewhere.

    Raises:
        InputError: when it is neither, or holds a broken file.
    """
    parts = [path / part for part in (VANILLA, CALIBRATED) if (path / part / CONFIG).exists()]
    opened = [Run.open(part) for part in parts or [path]]
    of = [f"{c.task}, base {c.base}, seed {c.seed}" for c in (run.config for run in opened)]
    if len(set(of)) > 1:
        raise InputError(
            f"{path} holds runs that do not belong together: {VANILLA} is of {of[0]}, {CALIBRATED} of "
            f"{of[1]}; copy the folder again from where it was made"
        )
    runs = {run.method: run for run in opened}
    kept = results_folder(path)
    if not (kept / RESULTS_JSON).exists():
        hint = "let `lengthwise abc` finish with --resume" if parts else "run `lengthwise evaluate`"
        raise InputError(f"{path} holds no results ({RESULTS_JSON}); {hint}")
    trained = [run for run in opened if (run.path / WEIGHTS).exists()]
    curve = LengthCurve.load(kept).most_careful(run.fingerprint for run in trained)
    if not len(curve):
        raise InputError(
            f"{kept / RESULTS_JSON} holds no scores of the models that the folder holds now; "
            f"`lengthwise evaluate {path}` measures them"
        )
    maps = next((maps for run in opened if (maps := kept_maps(run)) is not None), None)
    return Folder(
        name=name,
        runs=runs,
        metrics={method: read_metrics(run) for method, run in runs.items()},
        versions={method: _versions(run) for method, run in runs.items()},
        curve=curve,
        plots=pictures,
        maps=maps,
        evidence=evidence_of(maps) if maps else [],
        certificate=_certificate(runs.get(CALIBRATED)),
    )


def _certificate(run: Run | None) -> Certificate | None:
    """The run's certificate, if it is of the weights, the bias and the rule that the run has now.

    One of an earlier version binds no rule, and its claim says so.
    """
    if run is None or not (run.path / CERTIFICATE).exists():
        return None
    certificate = Certificate.load(run.path / CERTIFICATE)
    try:
        if certificate.differs(run) is not None:
            return None
    except (InputError, NotApplicableError):  # no certificate can state the rule by now
        return None
    if certificate.binds_rule:
        return certificate
    earlier = "by an earlier version, which bound no rule; `lengthwise prove RUN` renews it"
    return replace(certificate, claim=f"{certificate.claim} ({earlier})")


def _versions(run: Run) -> dict[str, Any]:
    """What ran; nothing where that was not kept."""
    path = run.path / VERSIONS
    if not path.exists():
        return {}
    try:
        return dict(from_json(read_text(path)))
    except (TypeError, ValueError) as error:
        raise InputError(f"{path} does not hold versions: {error}") from error


def _group(members: list[Folder]) -> dict[str, Any]:
    """What the page says about folders of one task: headline, and the combined curve of several."""
    curve = LengthCurve(score for folder in members for score in folder.curve)
    config, combined = members[0].main.config, None
    headline = summary.headline(curve.fairest(), trained_on(config))
    if len(members) > 1:
        combined = {
            "picture": picture(
                members[0].plots / "combined.png",
                partial(plots.length_curve, curve.labelled(), trained=config.longest),
                f"Exact match against length of {len(members)} folders: {headline}",
                "Each point is one folder, with its 95 % Wilson interval; lines are means.",
            ),
            "names": [f"{folder.name} (seed {folder.main.config.seed})" for folder in members],
            "rows": summary.combined_rows([folder.curve.labelled() for folder in members]),
            "differences": _differences(members),
        }
    return {
        "headline": headline,
        "proven": summary.proven([folder.certificate for folder in members]),
        "standing": summary.standing(curve, proven=all(f.certificate for f in members)),
        "is_sheet": config.is_sheet,
        "names": [folder.name for folder in members],
        "combined": combined,
    }


# Settings that differ between uses of one model, and between its seeds.
_OF_A_USE = ("seed", "device", "evaluation")


def _differences(members: list[Folder]) -> list[str]:
    """Settings, other than the seed, in which runs of the same method differ."""
    found = set()
    for method in {method for folder in members for method in folder.runs}:
        runs = [folder.runs[method] for folder in members if method in folder.runs]
        settings = [flat_settings(run.config) for run in runs]
        found |= {
            f"{method}: {key}"
            for other in settings
            for key in other
            if other[key] != settings[0][key] and key.partition(".")[0] not in _OF_A_USE
        }
    return sorted(found)


def _section(folder: Folder, identifier: str) -> dict[str, Any]:
    """What the page says about one folder."""
    curve = folder.curve.labelled()
    methods = dict.fromkeys(score.method for score in curve)
    methods = list({summary.main_method(curve): None, **methods})
    config = folder.main.config
    facts = {
        m: summary.training_facts(run.config, folder.metrics[m]) for m, run in folder.runs.items()
    }
    names = list(dict.fromkeys(name for column in facts.values() for name in column))
    return {
        "id": identifier,
        "folder": folder,
        "config": config,
        "problems": f"{sum(score.n for score in curve):,}",
        "certificate": folder.certificate and summary.certificate_facts(folder.certificate),
        "pictures": _draw(folder),
        "methods": methods,
        "rows": summary.score_rows(curve, methods),
        "evidence": summary.evidence_rows(folder.evidence, folder.bias),
        "extrapolation": summary.extrapolation(folder.curve, config)
        if not config.is_sheet
        else summary.sheet_extrapolation(
            folder.curve, {method: run.config for method, run in folder.runs.items()}
        ),
        "facts": [(name, [facts[method].get(name) for method in folder.runs]) for name in names],
        "configs": {m: run.config.model_dump_json(indent=2) for m, run in folder.runs.items()},
    }


def _draw(folder: Folder) -> dict[str, dict[str, Any]]:
    """Draw what the folder holds into `plots/`: name to picture."""
    target, config, found = folder.plots, folder.main.config, {}
    joint = config.model.joint
    sites = "for the answer and the problem" if joint else "at self- and cross-attention"
    found["length"] = picture(
        target / "length.png",
        partial(plots.length_curve, folder.curve.labelled(), trained=config.longest),
        f"Exact match against length. {folder.headline}",
        "Exact match against length on a logarithmic axis. An answer counts only if every symbol "
        "of it is right.",
    )
    if isinstance(folder.maps, SheetMaps):
        found["attention"] = picture(
            target / "attention.png",
            partial(sheet_plots.sheet_attention, folder.maps),
            f"For each kind of token, each layer and head, the share of attention along lines near the "
            f"cell that is written, averaged over {folder.maps.problems} problems.",
            "Rows are tokens near the cell being written, those first that the model needs. r and c are "
            "its row and column.",
            wide=True,
        )
    elif folder.maps:
        found["attention"] = picture(
            target / "attention.png",
            partial(plots.attention_maps, folder.maps),
            f"Grid of attention maps, one for each head of each layer {sites}, "
            f"averaged over {folder.maps.problems} problems.",
            "Rows are the symbols that the model writes, columns those that it reads. a0 is the "
            "last digit of operand a; s0 is the first digit written, which is the last of the "
            "answer; ^ starts an answer and $ ends it.",
            wide=True,
        )
    if folder.bias and config.is_sheet:
        found["bias"] = picture(
            target / "bias.png",
            partial(sheet_plots.sheet_map, folder.bias),
            "A small sheet as a grid, with the tokens lit that one token is written from; the text above "
            "says the same in words.",
            "The tokens that the one in blue is written from.",
        )
    elif folder.bias:
        found["bias"] = picture(
            target / "bias.png",
            partial(
                plots.bias_map, folder.bias, folder.main.layout(config.data.length), joint=joint
            ),
            f"Grid of matrices, one for each head {sites}, that shows which "
            f"keys the bias leaves open; the text above says the same in words.",
            "Blue keys are open. A closed key, light grey, gets exactly no attention.",
            wide=True,
        )
    if any(folder.metrics.values()):
        metrics = {m: [vars(row) for row in rows] for m, rows in folder.metrics.items()}
        ends = [
            f"{m} {summary.percent(rows[-1].exact_match)} after {rows[-1].seconds:.0f} s"
            for m, rows in folder.metrics.items()
            if rows
        ]
        found["training"] = picture(
            target / "training.png",
            partial(plots.training_curves, metrics),
            f"Validation loss and exact match against seconds of training. At the end: "
            f"{summary.listed(ends)}.",
            "Validation loss and exact match on problems as long as those in training.",
            wide=True,
        )
    return found


def _data(folder: Folder) -> dict[str, Any]:
    """The numbers behind the page."""
    return {
        "name": folder.name,
        "results": folder.curve.records(),
        "bias": [line.to_dict() for line in folder.bias.lines] if folder.bias else None,
        "evidence": [
            {**vars(item), "track": str(item.track), "strength": item.strength}
            for item in folder.evidence
        ],
        "runs": {
            method: {
                "config": run.config.model_dump(mode="json"),
                "versions": folder.versions[method],
                "metrics": [vars(row) for row in folder.metrics[method]],
            }
            for method, run in folder.runs.items()
        },
    }

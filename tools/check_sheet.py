"""Check a certificate of a task on sheets with nothing of lengthwise: NumPy, safetensors, docs/proof.md.

    python tools/check_sheet.py RUN

Read are a run's config.json, model.safetensors, bias.jsonl, rule.json and certificate.json. What a query
can see is found by a machine that writes rows, cell by cell, of all sheets at once. Of a row that is done
it remembers the stretches of letters in it, as many columns long as a cell looks at of the row above; a
letter is the digits of a column and what the row holds there. A row is written below every row that such
stretches spell, and may add others. When none is new, every query of every sheet has been met. What they
see goes through the model, written here once more, in double precision.

Exit code 0: the program agrees. 1: it does not, and says where. 2: it can't say, and why: it speaks about
calibrated biases, without positions and without an encoder, that look one row up at most.
"""

import argparse
import hashlib
import itertools
import json
import re
import sys
from collections import defaultdict, namedtuple
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

DIGITS, NOTHING, START = "0123456789abcdefghijklmnopqrstuvwxyz", -1, "^"
# Queries through the model at once, how far a smallest margin may lie from one in single precision, and
# cells that the machine may write.
CHUNK, TOLERANCE, LARGEST = 1 << 14, 1e-3, 20_000_000
FORMAT, RULE_FORMAT = "lengthwise-certificate/3", "lengthwise-sheet-rule/1"
# What a row holds in a column: nothing yet, a cell, its separator, nothing any more.
BEFORE, CELL, SEPARATOR, AFTER = range(4)
# In the place of what is known of a row above that is not there, or has ended.
TOP, GONE = "top", "gone"


# A token near a cell: a digit of an operand, a field of a cell, a symbol, or the last one written.
Near = namedtuple("Near", "segment row column field", defaults=(None, None, None))
LAST = Near("last")


class RefusedError(Exception):
    """This program can't speak about what was given."""


class Rule:
    """The table of rule.json: what a cell sees, to what is written there; numbers stand for tokens."""

    def __init__(self, text: bytes) -> None:
        values = json.loads(text)
        if values["format"] != RULE_FORMAT:
            raise RefusedError(f"rule.json is no {RULE_FORMAT}; check_certificate.py knows others")
        self.task, self.base, self.tokens = values["task"], values["base"], values["tokens"]
        number = {token: at for at, token in enumerate(self.tokens)} | {None: NOTHING}
        operands = [s for s in values["segments"] if s["kind"] != "symbol"]
        symbols = [s for s in values["segments"] if s["kind"] == "symbol"]
        self.symbols = {s["name"]: number[s["text"]] for s in symbols}
        # Of each axis the operands, with the zeros that are written before them.
        self.axes = {a: {s["name"]: s["zeros"] for s in operands if s["axis"] == a} for a in "rc"}
        self.fields = {f["name"]: [number[t] for t in f["tokens"]] for f in values["fields"]}
        self.names = list(self.fields)
        self.digits = [number[digit] for digit in DIGITS[: self.base]]
        self.separators = [number[token] for token in values["separators"]]
        self.start, self.end = number[START], number[values["end"]]
        self.follows = [self.near(text, "the rule") for text in values["follows"]]
        rows = [[tuple(map(number.get, side)) for side in row] for row in values["table"]]
        self.table = dict(rows)
        alphabets = []
        for near in self.follows:
            seen = self.fields.get(near.field, self.digits)
            seen = seen + self.separators * (near.field == self.names[0])
            alphabets.append([NOTHING, *seen])
        cells = set(itertools.product(*self.fields.values()))
        cells |= {(token,) for token in (*self.separators, self.end)}
        # Every sight has one row, and what is written is a cell.
        self.total = len(rows) == len(self.table) and cells.issuperset(self.table.values())
        self.total &= self.table.keys() == set(itertools.product(*alphabets))

    def near(self, text: str, who: str) -> Near:
        """Where `a[c-1]`, `b[r]`, `sheet[r-1,c+1].digit`, `*` or `last` is."""
        match = re.fullmatch(r"(\w+|\W)(?:\[([^]]+)\](?:\.(\w+))?)?", text)
        parts = match[2].split(",") if match and match[2] else ()
        steps = [re.fullmatch(r"([rc])([+-]\d+)?", part.strip()) for part in parts]
        if match is not None and None not in steps:
            at = {step[1]: int(step[2] or 0) for step in steps}
            near, cell = Near(match[1], at.get("r"), at.get("c"), match[3]), match[1] == "sheet"
            known = {**self.axes, "": {*self.symbols, "last"}, "cr": {"sheet"}}
            good = near.segment in known.get("".join(sorted(at)), ())
            # Of its own cell a query sees the fields that are written, and the rule none.
            good = good and (not cell or (-1,) <= near[1:3] < (0, int(who != "the rule")))
            if good and near.field in (self.names if cell else [None]):
                return near
        raise RefusedError(f"{who} reads {text}, which is no token near a cell that is known here")


def following(letters: tuple, operands: dict, digits: list[int]) -> list[tuple]:
    """What may come after letters of operands, each a phase and a token.

    Phases are 0 before it, 1 in its digits, then one for each zero that ends it, and the last after it.
    """
    ways = []
    for (phase, _), zeros in zip(letters, operands.values(), strict=True):
        to, last = min(phase + 1, zeros + 2), zeros + 2
        ways.append([(1, digit) for digit in digits if phase < 2])
        ways[-1] += [(to, NOTHING if to == last else digits[0])] if phase else []
    return list(itertools.product(*ways))


def only(shown: list[bool], tokens: tuple) -> tuple:
    """Tokens of the fields that are seen; nothing in the place of others."""
    return tuple([token if seen else NOTHING for seen, token in zip(shown, tokens, strict=False)])


class Machine:
    """All sheets at once, and what their queries see at some places."""

    def __init__(self, rule: Rule, lines: list[Near]) -> None:
        self.rule, self.lines = rule, lines
        nears = [*rule.follows, *lines]
        rows = [0, *(near.row for near in nears if near.segment in rule.axes["r"])]
        columns = [0, *(near.column for near in nears if near.segment in rule.axes["c"])]
        above = [near.column for near in nears if near.segment == "sheet" and near.row]
        own = [near for near in nears if near.segment == "sheet" and not near.row]
        # The row above is read so far ahead of the cell that is written, in stretches so long.
        self.ahead = max(0, *columns, *above)
        self.long = max(above) - min(above) + 1 if above else 1
        self.rows = range(min(rows), max(rows) + 1)
        self.columns = range(min(columns), self.ahead + 1)
        self.above = range(min([self.ahead, *above]), self.ahead + 1)
        self.own = range(min([-1, *(near.column for near in own)]), 0)
        # Fields that are seen from the row below, and from later cells of the row.
        self.shown = [any(n.field == name and n.row for n in nears) for name in rule.names]
        self.kept = [any(n.field == name for n in own) for name in rule.names]
        self.kept[-1] = True
        self.blank = (NOTHING,) * len(rule.names)
        places = [Near(name, at) for at in self.rows for name in rule.axes["r"]]
        places += [Near(name, None, at) for at in self.columns for name in rule.axes["c"]]
        places += [Near("sheet", -1, at, name) for at in self.above for name in rule.names]
        places += [Near("sheet", 0, at, name) for at in (*self.own, 0) for name in rule.names]
        self.sight = [places.index(near) for near in rule.follows]
        self.seen = [places.index(near) for near in self.lines]
        # By row of the operands and what stands before: letters of rows above, and who waits for more.
        self.letters: dict[tuple, dict] = defaultdict(dict)
        self.waiting: dict[tuple, list] = defaultdict(list)
        self.found: set[tuple] = set()
        self.states: set[tuple] = set()
        self.todo: list[tuple] = []

    def queries(self) -> np.ndarray:
        """Of all queries what is on the lines, the last token, and what to write, `[query, token]`."""
        row, digits = (((0, NOTHING),) * len(self.rule.axes[axis]) for axis in "rc")
        first = {(row,) * len(self.rows)}
        for _ in range(self.rows.stop):
            first = {below for window in first for below in self._below(window)}
        self.below, new = {}, list(first)
        for window in new:
            if window not in self.below:
                self.below[window] = self._below(window)
                new += self.below[window]
        letter = (digits, BEFORE, self.blank)
        self.begin = self._push((letter,) * (self.long - 1), letter)
        columns, above = (digits,) * (len(self.columns) - 1), (self.blank,) * (len(self.above) - 1)
        rest = (-self.ahead, columns, above, (self.blank,) * len(self.own), self.begin)
        for window in self.below:
            self._enter(window, self.begin, *rest)
            if window in first:
                self._enter(window, (TOP, digits), *rest)
        for written in itertools.count():
            if not self.todo:
                return np.array(sorted(self.found)).reshape(-1, len(self.lines) + 2)
            if written == LARGEST:
                raise RefusedError(f"more than {LARGEST:,} cells are to be written")
            self._write(*self.todo.pop())

    def _below(self, window: tuple) -> list[tuple]:
        """What the operands along rows may be in the next row."""
        letters = following(window[-1], self.rule.axes["r"], self.rule.digits)
        return [(*window[1:], letter) for letter in letters]

    def _push(self, known: tuple, letter: tuple) -> tuple:
        """What is known of a row after one more letter: the last ones; in stretches of one its kinds."""
        if self.long == 1:
            return letter[1], tuple([phase for phase, _ in letter[0]])
        return (*known, letter)[-self.long + 1 :]

    def _enter(self, *state) -> None:
        """Let the machine be in a state: all that the next cells of a row may see of what came before."""
        if state in self.states:
            return
        self.states.add(state)
        window, known, *_ = state
        if known[0] in (TOP, GONE):
            ways = following(known[1], self.rule.axes["c"], self.rule.digits)
            letters = [(digits, AFTER, self.blank) for digits in ways]
        else:
            self.waiting[window, known].append(state)
            letters = self.letters[window, known]
        self.todo += [(state, letter) for letter in letters]

    def _tell(self, window: tuple, known: tuple, letter: tuple) -> None:
        """A row holds this letter where this was known of it; rows below may see it."""
        for below in self.below[window]:
            letters = self.letters[below, known]
            if letter not in letters:
                letters[letter] = None
                self.todo += [(state, letter) for state in self.waiting[below, known]]

    def _write(self, state: tuple, letter: tuple) -> None:
        """Read a letter further ahead, and write a cell."""
        rule = self.rule
        window, known, column, columns, above, own, mine = state
        columns, above = (*columns, letter[0]), (*above, letter[2])
        if known[0] in (TOP, GONE) or letter[1] == SEPARATOR:
            known = TOP if known[0] == TOP else GONE, letter[0]
        else:
            known = self._push(known, letter)
        if column >= 0:
            view = [token for digits in (*window, *columns) for _, token in digits]
            view += itertools.chain(*above, *own)
            cell = rule.table[tuple([view[at] for at in self.sight])]
            lasts = [own[-1][-1]]
            if mine == self.begin:
                lasts = [rule.start] if known[0] == TOP else rule.separators
            for field, token in enumerate(cell):
                seen = [*view, *cell[:field], *self.blank[field:]]
                seen = [seen[at] for at in self.seen]
                self.found.update((*seen, last, token) for last in lasts)
                lasts = [token]
            if cell[0] == rule.end:
                return
            kind = SEPARATOR if cell[0] in rule.separators else CELL
            held = (columns[-self.columns.start], kind, only(self.shown, (*cell, *self.blank)))
            self._tell(window, mine, held)
            if kind == SEPARATOR:
                return
            mine = self._push(mine, held)
            own = (*own[1:], only(self.kept, cell))
        self._enter(window, known, min(column + 1, 0), columns[1:], above[1:], own, mine)


class Model:
    """The transformer in double precision, on what single queries see."""

    def __init__(self, rule: Rule, config: dict, weights: dict, lines: list[dict]) -> None:
        settings, self.rule = config["model"], rule
        self.weights = {name: value.astype(np.float64) for name, value in weights.items()}
        scale = settings["width"] ** 0.5 if settings["embedding_scale"] == "sqrt" else 1.0
        for side in ("source", "target"):
            self.weights[f"{side}_embedding.weight"] *= scale
        self.heads, self.layers = settings["heads"], settings["layers"]
        norms = self._norm, lambda name, x: x
        self.before, self.after = norms if settings["norm"] == "pre" else norms[::-1]
        # Of each layer and site the places that are read, each with the values of its heads.
        sites = itertools.product(range(self.layers), ("self", "cross"))
        self.reads: dict[tuple, dict[Near, np.ndarray]] = {site: {} for site in sites}
        for line in lines:
            text = line.get("reads", "a line of a matrix, or of lengthwise-bias/1")
            near = rule.near(text, f"head {line['head']}")
            site = "self" if near.segment in ("sheet", "last") else "cross"
            for layer in range(self.layers) if line["layer"] is None else [line["layer"]]:
                if near.segment == "sheet" and layer:
                    raise RefusedError(f"{text} is read past the first layer, where it knows more")
                closed = np.full(self.heads, -np.inf)
                heads = self.reads[layer, site].setdefault(near, closed)
                heads[line["head"]] = max(heads[line["head"]], line["value"])
        every = dict.fromkeys(near for found in self.reads.values() for near in found)
        self.cone = [near for near in every if near != LAST and near.segment not in rule.symbols]

    def logits(self, seen: dict[Near, np.ndarray]) -> np.ndarray:
        """Logits `[query, token]` of queries that see these tokens, the last one among them."""
        embeddings = self.weights["target_embedding.weight"]
        x, source = embeddings[seen[LAST]], self.weights["source_embedding.weight"]
        for layer in range(self.layers):
            of = f"layers.{layer}."
            query, *own = self._own(of, x)
            slots, last = self._slots(layer, "self", self._own(of, embeddings)[1:], seen)
            read = self._read(query, [(*own, last), *slots])
            x = self.after(of + "norm_self", x + self._linear(of + "self_attention.out", read))
            query = self._linear(of + "cross_attention.query", self.before(of + "norm_cross", x))
            table = np.split(self._linear(of + "cross_attention.key_value", source), 2, axis=1)
            read = self._read(query, self._slots(layer, "cross", table, seen)[0])
            x = self.after(of + "norm_cross", x + self._linear(of + "cross_attention.out", read))
            hidden = self._linear(of + "expand", self.before(of + "norm_feed_forward", x))
            read = self._linear(of + "contract", np.maximum(hidden, 0.0))
            x = self.after(of + "norm_feed_forward", x + read)
        return self._linear("to_logits", self._norm("norm", x))

    def _own(self, of: str, x: np.ndarray) -> list[np.ndarray]:
        x = self.before(of + "norm_self", x)
        return np.split(self._linear(of + "self_attention.query_key_value", x), 3, axis=1)

    def _slots(self, layer: int, site: str, table: list, seen: dict) -> tuple[list, np.ndarray]:
        """Keys, values and biases of what is read; where another line meets the last token, that has it."""
        last, rule, slots = seen[LAST], self.rule, []
        mine = np.full((len(last), self.heads), -np.inf)
        for near, values in self.reads[layer, site].items():
            token = seen[near]
            # A first cell's last token is the separator above; else it is of the cell before, or its own.
            same = np.isin(last, rule.separators) & np.isin(token, rule.separators)
            if near == LAST:
                same = token != NOTHING
            elif near[1:3] == (0, 0) or near[1:] == (0, -1, rule.names[-1]):
                same = np.isin(last, rule.fields[near.field]) & (token != NOTHING)
            mine = np.where(same[:, None], np.maximum(mine, values), mine)
            bias = np.where((same | (token == NOTHING))[:, None], -np.inf, values)
            slots.append((*(part[token] for part in table), bias))
        return slots, mine

    def _read(self, query: np.ndarray, slots: list[tuple]) -> np.ndarray:
        """What heads read: of each slot key, value, and the bias `[query, head]`; closed is -inf."""
        shape = (len(query), self.heads, query.shape[1] // self.heads)
        query = query.reshape(shape) / shape[2] ** 0.5
        scores = np.full((len(slots), *shape[:2]), -np.inf)
        for score, (key, _, bias) in zip(scores, slots, strict=True):
            score[:] = (query * key.reshape(shape)).sum(axis=2) + bias
        # The largest becomes 1, so that a sum is at least 1; a head with nothing open reads zeros.
        top = scores.max(axis=0, initial=-np.inf)
        scores = np.exp(scores - np.where(top == -np.inf, 0.0, top))
        scores /= np.maximum(scores.sum(axis=0), 1.0)
        read = np.zeros(shape)
        for score, (_, value, _) in zip(scores, slots, strict=True):
            read += score[:, :, None] * value.reshape(shape)
        return read.reshape(len(query), -1)

    def _linear(self, name: str, x: np.ndarray) -> np.ndarray:
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def _norm(self, name: str, x: np.ndarray) -> np.ndarray:
        x = x - x.mean(axis=1, keepdims=True)
        x /= np.sqrt((x * x).mean(axis=1, keepdims=True) + 1e-5)
        return x * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]


def open_run(folder: Path) -> tuple[Path, dict, Rule, Model]:
    """The files of a run, or of the calibrated one that `lengthwise abc` made."""
    path = folder / "calibrated" if (folder / "calibrated" / "config.json").exists() else folder
    config = json.loads((path / "config.json").read_bytes())
    if config["model"]["positions"] != "none" or config["model"]["encoder_layers"]:
        raise RefusedError("the model has positions or an encoder; here it can have neither")
    for file, hint in (("bias.jsonl", "calibrated bias"), ("rule.json", "rule of a proof")):
        if not (path / file).exists():
            raise RefusedError(f"{path} has no {hint} ({file}); see `lengthwise prove`")
    _, *lines = map(json.loads, (path / "bias.jsonl").read_bytes().splitlines())
    rule = Rule((path / "rule.json").read_bytes())
    return path, config, rule, Model(rule, config, load_file(path / "model.safetensors"), lines)


def settings_of(config: dict) -> bytes:
    """The settings that a proof depends on, as a certificate hashes them."""
    values = {name: config[name] for name in ("task", "base", "model")}
    if config["parameters"]:
        values["parameters"] = config["parameters"]
    usual = {"alignment": "natural", "input_order": "normal", "frame": "none"}
    data = {name: config["data"][name] for name in usual if config["data"][name] != usual[name]}
    return json.dumps(values | ({"data": data} if data else {}), sort_keys=True).encode()


def measure(rule: Rule, model: Model) -> tuple[int, int, float]:
    """The model on all that queries can see: how many contexts, how many fail, and the least margin."""
    queries, margins = Machine(rule, model.cone).queries(), []
    for first in range(0, len(queries), CHUNK):
        *seen, wanted = queries[first : first + CHUNK].T
        tokens = dict(zip((*model.cone, LAST), seen, strict=True))
        tokens |= {Near(name): np.full_like(wanted, at) for name, at in rule.symbols.items()}
        logits = model.logits(tokens)
        right = np.take_along_axis(logits, wanted[:, None], axis=1)[:, 0]
        np.put_along_axis(logits, wanted[:, None], -np.inf, axis=1)
        margins.append(np.nan_to_num(right - logits.max(axis=1), nan=-np.inf))
    found = np.concatenate(margins)
    # Queries that see the same and are to write different tokens are one context, which fails.
    count = len(np.unique(queries[:, :-1], axis=0))
    return count, int((found <= 0).sum()), float(found.min())


def check(path: Path, config: dict, rule: Rule, model: Model) -> dict:
    """Whether the certificate is of these files and says what is found here, and what differs."""
    said = json.loads((path / "certificate.json").read_bytes())
    files = {"weights": "model.safetensors", "bias": "bias.jsonl", "rule": "rule.json"}
    held = {name: (path / file).read_bytes() for name, file in files.items()}
    held["model"], files["model"] = settings_of(config), "config.json"
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in held.items()}
    others = [file for name, file in files.items() if said["hashes"].get(name) != hashes[name]]
    differ = [f"{file} is not the certificate's" for file in others]
    if (said["format"], said["task"], said["base"]) != (FORMAT, rule.task, rule.base):
        differ.append(f"it is no {FORMAT} of {rule.task} in base {rule.base}")
    if not rule.total:
        differ.append("rule.json does not write one cell for each sight")
    if differ:
        return {"good": False, "says": f"Differs: {'; '.join(differ)}"}
    count, failing, least = measure(rule, model)
    cone = {rule.near(text, "the cone") for text in said["cone"]["reads"]}
    apart = abs(least - (margin := said["smallest_margin"])) / max(1.0, margin)
    claims = {
        "a query depends on other places than its cone": cone == set(model.cone),
        f"there are {count:,} contexts, not {said['contexts']:,}": count == said["contexts"],
        f"{failing:,} contexts are answered wrong": not failing,
        f"the smallest margin is {least:.6f}, not {margin:.6f}": apart <= TOLERANCE,
        f"a margin of {least:.2e} is what rounding may move": least > 2 * said["float_bound"],
    }
    differ = [claim for claim, holds in claims.items() if not holds]
    says = f"Agrees: {count:,} contexts, smallest margin {least:.6f}"
    says = f"Differs: {'; '.join(differ)}" if differ else says
    least = least if np.isfinite(least) else None
    found = {"contexts": count, "failing": failing, "smallest_margin": least}
    return {"good": not differ, "says": says, **found}


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder, or one made by abc")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args(arguments)
    try:
        with np.errstate(all="ignore"):
            found = check(*open_run(options.run))
    except (RefusedError, OSError, SafetensorError) as error:
        print(f"check_sheet.py: {error}", file=sys.stderr)
        return 2
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        print(f"check_sheet.py: a file is broken: {error!r}", file=sys.stderr)
        return 2
    print(json.dumps(found, indent=1) if options.json else found["says"])
    return 0 if found["good"] else 1


if __name__ == "__main__":
    sys.exit(main())

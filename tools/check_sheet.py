"""Check a certificate of a task on sheets with nothing of lengthwise: NumPy, safetensors, docs/proof.md.

    python tools/check_sheet.py RUN

A machine that writes all sheets at once, cell by cell, finds what queries can see. Of a row done it keeps
the stretches of letters, as many columns long as a cell looks at of the row above; a letter is a column's
digits and what the row holds there. A row is written below every row that such stretches spell, and may add
others. When none is new, every query has been met. The model is written once more, in double precision.

Exit code 0: the program agrees. 1: it does not, and says where. 2: it can't say: it speaks about calibrated
biases that look one row up at most, of either kind of model, without positions or an encoder.
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
from safetensors.numpy import load

DIGITS, NOTHING, START = "0123456789abcdefghijklmnopqrstuvwxyz", -1, "^"
# Queries through the model at once, how far apart margins may be, and queries and states at most.
CHUNK, TOLERANCE, LARGEST = 1 << 14, 1e-3, 2_000_000
FORMAT, RULE_FORMAT = "lengthwise-certificate/3", "lengthwise-sheet-rule/1"
LIMIT = NOTHING, LARGEST  # of a token not seen, of one seen: the smaller of it and this is known
# What a row holds in a column; and in place of what is known of a row above: there is none, or no more.
BEFORE, CELL, SEPARATOR, AFTER, TOP, GONE = range(6)
# A token near a cell: a digit, a field of a cell, a symbol; what a query reads, what stands before a cell.
Near = namedtuple("Near", "segment row column field", defaults=(None, None, None))
LAST, LEFT = Near("last"), Near("before")
BROKEN = AttributeError, LookupError, RecursionError, SafetensorError, TypeError, ValueError


class RefusedError(Exception):
    """This program can't speak about what was given."""


class Operand(namedtuple("Operand", "name axis edge zeros digits")):
    """Digits along an axis; at an edge they are row -1, or column -1, and seen right beside it."""

    def following(self, letter: tuple) -> list[tuple]:
        """What may come after a letter: a phase, and a token."""
        # Phases: 0 before it, 1 in its digits, then one for each zero that ends it, and the last after it.
        to, last = min(letter[0] + 1, self.zeros + 2), self.zeros + 2
        ways = [(1, digit) for digit in self.digits if letter[0] < 2]
        return ways + [(to, NOTHING if to == last else self.digits[0])] * (letter[0] > 0)


class Rule:
    """The table of rule.json: what a cell sees, to what is written there; numbers stand for tokens."""

    def __init__(self, text: bytes) -> None:
        values = json.loads(text)
        if values["format"] != RULE_FORMAT:
            raise RefusedError(f"rule.json is no {RULE_FORMAT}; check_certificate.py knows others")
        self.task, self.base = values["task"], values["base"]
        # A text may stand there twice, as a symbol and a separator: it is one token, the first.
        number = {token: at for at, token in [*enumerate(values["tokens"])][::-1]} | {None: NOTHING}
        segments, usual = values["segments"], DIGITS[: self.base]
        self.symbols = {s["name"]: number[s["text"]] for s in segments if s["kind"] == "symbol"}
        self.operands: dict[str, Operand] = {}
        for own in [s for s in segments if s["name"] not in self.symbols]:
            digits = [number[token] for token in own.get("tokens", usual)]
            self.operands[own["name"]] = Operand(*map(own.get, Operand._fields[:4]), digits)
        self.by_column = [own for own in self.operands.values() if own.axis == "c"]
        self.by_row = [own for own in self.operands.values() if own.axis != "c"]
        self.counters = values.get("counters", {})
        self.fields = {f["name"]: [number[t] for t in f["tokens"]] for f in values["fields"]}
        self.names = list(self.fields)
        self.separators = [number[token] for token in values["separators"]]
        self.start, self.end = number[START], number[values["end"]]
        self.follows = [self.near(text, "the rule") for text in values["follows"]]
        rows = [[tuple(map(number.get, side)) for side in row] for row in values["table"]]
        self.table, self.lacks = dict(rows), set()
        cells = {*itertools.product(*self.fields.values()), *zip([*self.separators, self.end])}
        # Every sight has one row, of a partial table at most, and what is written is a cell.
        self.total = len(rows) == len(self.table) and cells.issuperset(self.table.values())
        every = itertools.product(*map(set, zip(*self.table, strict=True)))
        self.total &= values.get("partial") is True or self.table.keys() == set(every)

    def near(self, text: str, who: str) -> Near:
        """Where `a[c-1]`, `b[r]`, `tape[r-1,c]`, `sheet[r-1,c+1].digit`, `*`, `last` or `before` is."""
        place = r"(\w+|\W)(?:\[(?:([abd-z])([+-]\d+)?)?,?(?:(c)([+-]\d+)?)?\](?:\.(\w+))?)?"
        written = int(who != "the rule")
        if match := re.fullmatch(place, text):
            name, row, up, column, aside, field = match.groups()
            near = Near(name, row and int(up or 0), column and int(aside or 0), field)
            known = near == Near(name) and name in {*self.symbols, ("before", "last")[written]}
            if name == "sheet" and row == "r" and column:
                # Of its own cell a query sees the fields that are written, and the rule none.
                known = (-1,) <= near[1:3] < (0, written) and field in self.names
            elif own := self.operands.get(name):
                at = near.row if own.axis == "c" else near.column
                known = ({row, column}, at, field) == ({own.axis, own.edge}, own.edge and -1, None)
            if known:
                return near
        raise RefusedError(f"{who} reads {text}, which is no token near a cell that is known here")


class Machine:
    """All sheets at once, and what their queries see at some places."""

    def __init__(self, rule: Rule, lines: list[Near]) -> None:
        self.rule, nears = rule, [*rule.follows, *lines, Near("sheet", 0, -1, rule.names[-1])]
        rows = [0, *(n.row for n in nears if rule.operands.get(n.segment) in rule.by_row)]
        columns = [0, *(n.column for n in nears if rule.operands.get(n.segment) in rule.by_column)]
        above = [near.column for near in nears if near.segment == "sheet" and near.row]
        own = [near for near in nears if near.segment == "sheet" and not near.row]
        # The row above is read so far ahead of the cell that is written, in stretches so long.
        self.ahead = max(0, *columns, *above)
        self.long = max(above) - min(above) + 1 if above else 1
        self.rows = range(min(rows), max(rows) + 1)
        self.columns = range(min(columns), self.ahead + 1)
        self.above = range(min([self.ahead, *above]), self.ahead + 1)
        self.own = range(min(near.column for near in own), 0)
        # Fields that are seen from the row below, and from later cells of the row.
        self.shown = [LIMIT[any(n.field == name and n.row for n in nears)] for name in rule.names]
        self.kept = [LIMIT[any(n.field == name for n in own)] for name in rule.names]
        self.blank = (NOTHING,) * len(rule.names)
        # Which digits along rows are seen past the first column; what has become of others in rows below.
        self.inside = [LIMIT[not own.edge] for own in rule.by_row for _ in self.rows]
        self.past = [(own.zeros + 2 if own.edge else 0, NOTHING) for own in rule.by_column]
        places = [LEFT, *(Near(o.name, at, o.edge and -1) for o in rule.by_row for at in self.rows)]
        places += [Near(o.name, o.edge and -1, at) for at in self.columns for o in rule.by_column]
        places += [Near("sheet", -1, at, name) for at in self.above for name in rule.names]
        places += [Near("sheet", 0, at, name) for at in (*self.own, 0) for name in rule.names]
        self.sight = [places.index(near) for near in rule.follows]
        self.seen = [places.index(near) for near in lines]
        # By row of the operands and what stands before: letters of rows above, and who waits for more.
        self.letters, self.waiting = defaultdict(set), defaultdict(list)
        self.found, self.states, self.todo, self.below = set(), set(), [], {}

    def queries(self) -> np.ndarray:
        """Of all queries what is on the lines, the last token, and what to write, `[query, token]`."""
        nothing, digits = (0, NOTHING), ((0, NOTHING),) * len(self.rule.by_column)
        first = {((nothing,) * len(self.rows),) * len(self.rule.by_row)}
        for _ in range(self.rows.stop):
            first = {below for window in first for below in self._below(window)}
        letter = (digits, BEFORE, self.blank)
        self.begin = self._push((letter,) * (self.long - 1), letter)
        columns, above = (digits,) * (len(self.columns) - 1), (self.blank,) * (len(self.above) - 1)
        self.rest = -self.ahead, columns, above, (self.blank,) * len(self.own), self.begin
        for window in first:
            self._enter(window, (TOP, digits), *self.rest)
        while self.todo:
            self._write(*self.todo.pop())
            if len(self.states) + len(self.found) > LARGEST:
                raise RefusedError(f"more than {LARGEST:,} queries and states")
        return np.array(sorted(self.found)).reshape(-1, len(self.seen) + 2)

    def _below(self, window: tuple) -> list[tuple]:
        """What operands along rows may be in the next row; one that is counted otherwise may stay."""
        if window not in self.below:
            ways = []
            for operand, own in zip(self.rule.by_row, window, strict=True):
                ways.append({(*own[1:], letter) for letter in operand.following(own[-1])})
                if operand.axis in self.rule.counters and own[-self.rows.start][0]:
                    ways[-1].add(own)
            self.below[window] = list(itertools.product(*ways))
        return self.below[window]

    def _push(self, known: tuple, letter: tuple) -> tuple:
        """What is known of a row after one more letter: the last ones; in stretches of one its kinds."""
        kinds = letter[1], tuple([phase for phase, _ in letter[0]])
        return kinds if self.long == 1 else (*known, letter)[-self.long + 1 :]

    def _enter(self, *state) -> None:
        """Let the machine be in a state: all that the next cells of a row may see of what came before."""
        if state in self.states:
            return
        self.states.add(state)
        window, known, *_ = state
        if known[0] in (TOP, GONE):
            ways = map(Operand.following, self.rule.by_column, known[1])
            letters = [(digits, AFTER, self.blank) for digits in itertools.product(*ways)]
        else:
            self.waiting[window, known].append(state)
            letters = self.letters[window, known]
        self.todo += [(state, letter) for letter in letters]

    def _write(self, state: tuple, letter: tuple) -> None:
        """Read a letter further ahead, and write a cell."""
        rule = self.rule
        window, known, column, columns, above, own, mine = state
        columns, above = (*columns, letter[0]), (*above, letter[2])
        ended = known[0] in (TOP, GONE) or letter[1] == SEPARATOR
        gone = TOP if known[0] == TOP else GONE, letter[0]
        known = gone if ended else self._push(known, letter)
        if column < 0:
            return self._enter(window, known, column + 1, columns[1:], above[1:], own, mine)
        row = [token for letters in window for _, token in letters]
        lefts = [rule.start] if known[0] == TOP else rule.separators
        if mine != self.begin:
            row, lefts = map(min, self.inside, row), own[-1][-1:]
        view = *row, *(token for digits in columns for _, token in digits), *sum(above + own, ())
        # Rows below find nothing of an operand that is row -1.
        digits = tuple(map(max, self.past, columns[-self.columns.start]))
        for last in lefts:
            sight = tuple([(last, *view)[at] for at in self.sight])
            if (cell := rule.table.get(sight)) is None:
                rule.lacks.add(sight)
                continue
            for field, token in enumerate(cell):
                seen = NOTHING, *view, *cell[:field], *self.blank[field:]
                self.found.add((*[seen[at] for at in self.seen], last, token))
                last = token
            if cell[0] == rule.end:
                continue
            kind = SEPARATOR if cell[0] in rule.separators else CELL
            held = digits, kind, tuple(map(min, self.shown, (*cell, *self.blank)))
            # Rows below may see it where the same was known of this one.
            for below in self._below(window):
                if held not in self.letters[below, mine]:
                    self._enter(below, self.begin, *self.rest)
                    self.letters[below, mine].add(held)
                    self.todo += [(waits, held) for waits in self.waiting[below, mine]]
            if kind == CELL:
                after = (*own[1:], tuple(map(min, self.kept, cell))), self._push(mine, held)
                self._enter(window, known, 0, columns[1:], above[1:], *after)


class Model:
    """The transformer in double precision, on what single queries see."""

    def __init__(self, rule: Rule, config: dict, weights: dict, lines: list[dict]) -> None:
        settings, self.rule = config["model"], rule
        self.weights = {name: value.astype(np.float64) for name, value in weights.items()}
        scale = settings["width"] ** 0.5 if settings["embedding_scale"] == "sqrt" else 1.0
        for n in [n for n in weights if ".query_key_value." in n]:
            query, rest = np.split(self.weights[n], [settings["width"]])
            self.weights |= {n.replace("_key_value", ""): query, n.replace("query_", ""): rest}
        # A decoder has one embedding, and reads the problem where it reads what is written.
        self.decoder = settings.get("kind") == "decoder"
        side, self.reading = ("source", "self") if self.decoder else ("target", "cross")
        self.source = scale * self.weights["source_embedding.weight"]
        self.target = scale * self.weights[f"{side}_embedding.weight"]
        self.heads = settings["heads"]
        norms = self._norm, lambda name, x: x
        self.before, self.after = norms if settings["norm"] == "pre" else norms[::-1]
        # Of each layer the places that are read, each with the values of its heads.
        self.reads: dict[str, dict] = {f"layers.{n}.": {} for n in range(settings["layers"])}
        for line in lines:
            near = rule.near(line.get("reads", "a line of a matrix"), f"head {line['head']}")
            for of in self.reads if line["layer"] is None else [f"layers.{line['layer']}."]:
                if near.segment == "sheet" and of != "layers.0.":
                    raise RefusedError(f"{line['reads']} is read past the first layer")
                heads = self.reads[of].setdefault(near, np.full(self.heads, -np.inf))
                heads[line["head"]] = max(heads[line["head"]], line["value"])
        every = dict.fromkeys(itertools.chain(*self.reads.values()))
        self.cone = [near for near in every if near != LAST and near.segment not in rule.symbols]

    def logits(self, seen: dict[Near, np.ndarray]) -> np.ndarray:
        """Logits `[query, token]` of queries that see these tokens, the last one among them."""
        x, problem = self.target[seen[LAST]], self.source
        for of in self.reads:
            tables = [self._key_value(of, "self", self.target)]
            tables.append(self._key_value(of, self.reading, problem))
            x = self._layer(of, x, self._slots(of, self._key_value(of, "self", x), tables, seen))
            if self.decoder:
                # The problem goes through the layers, too: each of its tokens reads itself alone.
                problem = self._layer(of, problem, {"self": [(*tables[1], 0.0)]})
        return self._linear("to_logits", self._norm("norm", x))

    def _key_value(self, of: str, site: str, x: np.ndarray) -> list[np.ndarray]:
        x = self.before(of + "norm_self", x) if site == "self" else x
        return np.split(self._linear(f"{of}{site}_attention.key_value", x), 2, axis=1)

    def _slots(self, of: str, own: list, tables: list, seen: dict) -> dict[str, list]:
        """Keys, values and biases by site; where another line meets the last token, that has it."""
        last, mine, slots = seen[LAST], -np.inf, {"self": [], self.reading: []}
        for near, values in self.reads[of].items():
            token, given = seen[near], near.segment not in ("sheet", "last")
            # The last token may lie on a line: the separator above, a field of the cell before, or its own.
            meets = near == LAST or near[1:3] == (0, 0) or near[1:] == (0, -1, self.rule.names[-1])
            same = (token == last) & (meets or (not given and np.isin(last, self.rule.separators)))
            mine = np.where(same[:, None], np.maximum(mine, values), mine)
            bias = np.where((same | (token == NOTHING))[:, None], -np.inf, values)
            site = self.reading if given else "self"
            slots[site].append((*(part[token] for part in tables[given]), bias))
        return slots | {"self": [*slots["self"], (*own, mine)]}

    def _layer(self, of: str, x: np.ndarray, sites: dict[str, list]) -> np.ndarray:
        """What a layer makes of rows, which read slots at some sites."""
        for site, slots in sites.items():
            query = self._linear(f"{of}{site}_attention.query", self.before(f"{of}norm_{site}", x))
            read = self._linear(f"{of}{site}_attention.out", self._read(query, slots))
            x = self.after(f"{of}norm_{site}", x + read)
        hidden = self._linear(of + "expand", self.before(of + "norm_feed_forward", x))
        read = self._linear(of + "contract", np.maximum(hidden, 0.0))
        return self.after(of + "norm_feed_forward", x + read)

    def _read(self, query: np.ndarray, slots: list[tuple]) -> np.ndarray:
        """What heads read: of each slot key, value, and the bias `[query, head]`; closed is -inf."""
        shape = (len(query), self.heads, query.shape[1] // self.heads)
        query = query.reshape(shape) / shape[2] ** 0.5
        scores = [(query * key.reshape(shape)).sum(axis=2) + bias for key, _, bias in slots]
        scores = np.array(scores).reshape(-1, *shape[:2])
        # The largest becomes 1, so that a sum is at least 1; a head with nothing open reads zeros.
        scores = np.exp(scores - scores.max(axis=0, initial=-1e300))
        scores /= np.maximum(scores.sum(axis=0), 1.0)
        values = np.array([value for _, value, _ in slots]).reshape(-1, *shape)
        return (scores[..., None] * values).sum(axis=0).reshape(len(query), -1)

    def _linear(self, name: str, x: np.ndarray) -> np.ndarray:
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def _norm(self, name: str, x: np.ndarray) -> np.ndarray:
        x = (x - x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True) + 1e-5)
        return x * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]


def open_run(folder: Path) -> tuple[dict, dict, Rule, Model]:
    """A run's certificate, hashes of what it is of, by what that is called, its rule and its model."""
    path = folder / "calibrated" if (folder / "calibrated" / "config.json").exists() else folder
    files = {"weights": "model.safetensors", "bias": "bias.jsonl", "rule": "rule.json"}
    config = json.loads((path / "config.json").read_bytes())
    known = {"positions": ["none"], "encoder_layers": [0], "kind": ["encoder-decoder", "decoder"]}
    if any(config["model"].get(name, some[0]) not in some for name, some in known.items()):
        raise RefusedError(f"this program knows models of the settings {known} alone")
    held = {name: (path / file).read_bytes() for name, file in files.items()}
    # The settings that a proof depends on, as a certificate hashes them.
    values = {name: config[name] for name in ("task", "base", "parameters")}
    values["model"] = {k: v for k, v in config["model"].items() if v != "encoder-decoder"}
    usual = {"alignment": "natural", "input_order": "normal", "frame": "none"}
    values["data"] = {k: config["data"][k] for k in usual if config["data"][k] != usual[k]}
    held["model"] = json.dumps({n: v for n, v in values.items() if v}, sort_keys=True).encode()
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in held.items()}
    _, *lines = map(json.loads, held["bias"].splitlines())
    rule, said = Rule(held["rule"]), json.loads((path / "certificate.json").read_bytes())
    return said, hashes, rule, Model(rule, config, load(held["weights"]), lines)


def measure(rule: Rule, model: Model) -> tuple[int, int, float]:
    """The model on all that queries can see: how many contexts, how many fail, and the least margin."""
    queries, margins = Machine(rule, model.cone).queries(), [[np.inf]]
    for first in range(0, len(queries), CHUNK):
        *seen, wanted = queries[first : first + CHUNK].T
        tokens = dict(zip((*model.cone, LAST), seen, strict=True))
        tokens |= {Near(name): np.full_like(wanted, at) for name, at in rule.symbols.items()}
        logits, own = model.logits(tokens), (np.arange(len(wanted)), wanted)
        right, logits[own] = logits[own], -np.inf
        margins.append(np.nan_to_num(right - logits.max(axis=1), nan=-np.inf))
    found = np.concatenate(margins)
    # Queries that see the same and are to write different tokens are one context, which fails.
    count = len(np.unique(queries[:, :-1], axis=0))
    return count, int((found <= 0).sum()), float(found.min())


def check(said: dict, hashes: dict, rule: Rule, model: Model) -> tuple[dict, dict]:
    """What a certificate must fulfil, each with whether it does, and what is found here."""
    claims = {f"it is of other {n}": said["hashes"].get(n) == hashes[n] for n in hashes}
    right = (said["format"], said["task"], said["base"]) == (FORMAT, rule.task, rule.base)
    claims[f"it is no {FORMAT} of {rule.task} in base {rule.base}"] = right
    claims["rule.json does not write one cell for each sight"] = rule.total
    if not all(claims.values()):
        return claims, {}
    count, failing, least = measure(rule, model)
    cone = {rule.near(t, "the cone") for t in said["cone"]["reads"]} - {*map(Near, rule.symbols)}
    apart = abs(least - (margin := said["smallest_margin"])) / max(1.0, margin)
    claims |= {
        f"rule.json has no row for sights that a cell may have: {len(rule.lacks)}": not rule.lacks,
        "a query depends on other places than its cone": cone == set(model.cone),
        f"{count:,} contexts are found, not {said['contexts']:,}": count == said["contexts"],
        f"{failing:,} contexts are answered wrong": not failing,
        f"the smallest margin is {least:.6f}, not {margin:.6f}": apart <= TOLERANCE,
        f"a margin of {least:.2e} is what rounding may move": least > 2 * said["float_bound"],
    }
    least = least if np.isfinite(least) else None
    return claims, {"contexts": count, "failing": failing, "smallest_margin": least}


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder, or one made by abc")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args(arguments)
    try:
        with np.errstate(all="ignore"):
            claims, found = check(*open_run(options.run))
    except (RefusedError, OSError, *BROKEN) as error:
        broken = f"a file of {options.run} is broken: {error!r}"
        print("check_sheet.py:", broken if isinstance(error, BROKEN) else error, file=sys.stderr)
        return 2
    differ = "; ".join(claim for claim, holds in claims.items() if not holds)
    agrees = "Agrees: {contexts:,} contexts, smallest margin {smallest_margin:.6f}"
    says = f"Differs: {differ}" if differ else agrees.format(**found)
    said = {"good": not differ, "says": says, **found}
    print(json.dumps(said, indent=1) if options.json else says)
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())

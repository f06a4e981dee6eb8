"""Check a certificate of lengthwise with nothing of lengthwise: NumPy, safetensors and docs/proof.md.

    python tools/check_certificate.py RUN [--counterexample FILE]

Read are a run's config.json, model.safetensors, bias.jsonl, rule.json and certificate.json, or of FILE
what `lengthwise prove RUN --json` printed. The rule is taken for a grammar. A problem with its answer is
one endless word of columns, `... . . ^ c c c c 0 0 $ . . ...`, with nothing before and after: `^` and `$`
are where start and end are written, 0 the zeros (the rule's `growth`) behind the longest operand. A graph
spells all words. What a row sees is a stretch of one, so each local context is a walk of one length in the
graph, and starts and ends are no cases. Walks go through the model, written once more in double precision.

Exit code 0: the program agrees, or the counterexample is one. 1: it does not, and says where. 2: it can't
say, and why: it speaks about calibrated biases, of either kind of model, without positions or an encoder.
"""

import argparse
import hashlib
import itertools
import json
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

DIGITS, NOTHING = "0123456789abcdefghijklmnopqrstuvwxyz", -1
# Walks through the model at once, and how far a smallest margin may lie from one in single precision.
CHUNK, TOLERANCE, FORMAT = 1 << 15, 1e-3, "lengthwise-certificate/3"
BROKEN = AttributeError, LookupError, RecursionError, SafetensorError, TypeError, ValueError
# Where a row reads: ("", d) the row d after it, (operand, d) a digit, ("=" + name, 0) one character.
Place = tuple[str, int]
# Nodes of the graph; the others are (state, columns of zeros so far).
BEFORE, FRESH, DONE = ("before", 0), ("fresh", 0), ("done", 0)


class RefusedError(Exception):
    """This program can't speak about what was given."""


class Rule:
    """The table of rule.json: state and column to the digit written and the next state."""

    def __init__(self, text: bytes) -> None:
        values = json.loads(text)
        if values["format"] != "lengthwise-rule/1" or values["writes"] is not None:
            raise RefusedError("rule.json is no lengthwise-rule/1 (of sheets, see check_sheet.py)")
        self.task, self.base, self.segments = values["task"], values["base"], values["segments"]
        self.start, self.growth = values["start"], values["growth"]
        self.table = {(q, tuple(column)): (out, to) for q, column, out, to in values["table"]}
        self.ends = {q for q, _ in self.table if values["final"] is None or q in values["final"]}
        self.kinds = {s["name"]: s["kind"] for s in self.segments}
        self.operands = [name for name, kind in self.kinds.items() if kind != "symbol"]
        self.fixed = [i for i, name in enumerate(self.operands) if self.kinds[name] == "digit"]
        texts = {f"={s['name']}": s["text"] for s in self.segments if s["kind"] == "symbol"}
        others = "".join(dict.fromkeys(texts.values())).strip("^$")
        self.tokens = DIGITS[: self.base] + others + "^$"
        self.first, self.end = len(self.tokens) - 2, len(self.tokens) - 1
        self.symbols = {name: self.tokens.index(text) for name, text in texts.items()}

    def edges(self, zeros: tuple[int, ...]) -> list[tuple]:
        """The graph for some one-digit operands, zeros beside: edges (from, to, digits, token)."""
        none = (NOTHING,) * len(zeros)
        found: list[tuple] = [(BEFORE, FRESH, none, self.first)]
        found += [(node, node, none, NOTHING) for node in (BEFORE, DONE)]
        for (state, column), (out, to) in self.table.items():
            if any(column[i] != zeros[i] for i in self.fixed):
                continue
            found.append(((state, 0), (to, 0), column, out))
            if state == self.start:
                # From a node of its own: no problem is without a column, and zeros are none.
                found.append((FRESH, (to, 0), column, out))
            if column == zeros:
                found += [((state, n), (to, n + 1), column, out) for n in range(self.growth)]
        found += [((state, self.growth), DONE, none, self.end) for state in self.ends]
        ahead = reached(BEFORE, [edge[:2] for edge in found])
        back = reached(DONE, [edge[1::-1] for edge in found])
        return [edge for edge in found if edge[0] in ahead and edge[1] in back]

    def parse(self, text: str) -> list[tuple[int, ...]]:
        """The columns of a problem, with those of zeros."""
        digit = f"[{DIGITS[: self.base]}]"
        ways = {"operand": f"({digit}+)", "digit": f"({digit})"}
        inner = [s for s in self.segments if s.get("text") not in ("^", "$")]
        pattern = "".join(ways.get(s["kind"]) or re.escape(s["text"]) for s in inner)
        match = re.fullmatch(pattern, text)
        if match is None:
            raise RefusedError(f"{text!r} is no problem of {self.task} in base {self.base}")
        parts, width = list(match.groups()), max(map(len, match.groups())) + self.growth
        for i, part in enumerate(parts):
            parts[i] = part * width if i in self.fixed else part[::-1].ljust(width, "0")
        return [tuple(map(DIGITS.index, column)) for column in zip(*parts, strict=True)]

    def answer(self, columns: list[tuple[int, ...]]) -> str:
        """What is to be written, the end token included."""
        state, written = self.start, ""
        for column in columns:
            out, state = self.table[state, column]
            written += self.tokens[out]
        if state not in self.ends:
            raise RefusedError(f"no problem of {self.task} ends like this one")
        return written + "$"


def reached(node: tuple, pairs: list[tuple]) -> set[tuple]:
    """The nodes that paths from a node lead to, itself included."""
    found = {node}
    while further := {b for a, b in pairs if a in found} - found:
        found |= further
    return found


def place_of(text: str) -> Place:
    """Where `a[c-1]`, `d` or `answer[c-2]` is: the token of the column before is the row's own."""
    name, moves, at = re.fullmatch(r"(.+?)(\[c([+-]\d+)?\])?", text, re.DOTALL).groups()
    own = name == "answer"
    return ("" if own else name, own + int(at or 0)) if moves else ("=" + name, 0)


def tracks(rule: Rule, config: dict, lines: list[dict]) -> list[dict[Place, np.ndarray]]:
    """For each layer the places that are read, each with the values of all heads; closed is -inf."""
    layers = range(config["model"]["layers"])
    apart = config["data"]["alignment"] != "interleaved" or len(rule.operands) == 1
    still = ("symbol", "digit")[: 1 + apart]
    known = {"", *("=" * (kind in still) + name for name, kind in rule.kinds.items())}
    found: list[dict] = [{} for _ in layers]
    for line in lines:
        place = place_of(text := line.get("reads", "a line of a matrix, or of lengthwise-bias/1"))
        if place[0] not in known:
            raise RefusedError(f"a head reads {text}, which does not move with the column written")
        if not place[0] and place[1] > 0:
            continue  # not written yet: closed
        for layer in layers if line["layer"] is None else [line["layer"]]:
            heads = found[layer].setdefault(place, np.full(config["model"]["heads"], -np.inf))
            # Where lines cross, the larger value counts.
            heads[line["head"]] = max(heads[line["head"]], line["value"])
    return found


class Model:
    """The transformer in double precision, on the tokens at all places that a row depends on."""

    def __init__(self, rule: Rule, config: dict, weights: dict, lines: list[dict]) -> None:
        settings = config["model"]
        self.weights = {name: value.astype(np.float64) for name, value in weights.items()}
        scale = settings["width"] ** 0.5 if settings["embedding_scale"] == "sqrt" else 1.0
        self.decoder = settings.get("kind") == "decoder"
        sides = "source", "source" if self.decoder else "target"
        source, self.embeddings = (scale * self.weights[f"{s}_embedding.weight"] for s in sides)
        self.heads, self.layers = settings["heads"], settings["layers"]
        norms = self._norm, lambda name, x: x
        self.before, self.after = norms if settings["norm"] == "pre" else norms[::-1]
        self.tracks, self.problem = tracks(rule, config, lines), list(self._problem(source))
        self.places = sorted(self.seen(self.layers, 0))
        self.index = {place: i for i, place in enumerate(self.places)}

    def seen(self, layers: int, row: int) -> set[Place]:
        """The places that a row at some distance depends on after some layers."""
        if not layers:
            return {("", row)}
        found = {(name, row + distance) for name, distance in self.tracks[layers - 1] if name}
        rows = {0, *(distance for name, distance in self.tracks[layers - 1] if not name)}
        return found.union(*(self.seen(layers - 1, row + distance) for distance in rows))

    def logits(self, symbols: np.ndarray) -> np.ndarray:
        """Logits `[context, token]` of the row being written."""
        return self._linear("to_logits", self._norm("norm", self._row(self.layers, 0, symbols)))

    def _row(self, layers: int, row: int, symbols: np.ndarray) -> np.ndarray:
        """A row `[context, channel]` after some layers."""
        if not layers:
            return self.embeddings[symbols[:, self.index["", row]]]
        # Rows that see the same tokens are the same row. (A token is a byte, and so is nothing.)
        seen = symbols[:, [self.index[place] for place in self.seen(layers, row)]].astype(np.uint8)
        _, one, which = np.unique(seen, axis=0, return_index=True, return_inverse=True)
        return self._layer(layers - 1, row, symbols[one])[which.ravel()]

    def _problem(self, x: np.ndarray) -> Iterator[list[np.ndarray]]:
        """For each layer keys and values of the problem's tokens; a decoder's read themselves alone."""
        for of in [f"layers.{layer}." for layer in range(self.layers)]:
            if self.decoder:
                _, key, value = self._own(of, x)
                yield [key, value]
                x = self._feed_forward(of, self._add(of, "self", "self_attention.out", x, value))
            else:
                yield np.split(self._linear(of + "cross_attention.key_value", x), 2, axis=1)

    def _layer(self, layer: int, row: int, symbols: np.ndarray) -> np.ndarray:
        """A row after a layer: self-attention, cross-attention, feed-forward; or one attention."""
        of, x, own, problem = f"layers.{layer}.", self._row(layer, row, symbols), [], []
        for (name, distance), heads in self.tracks[layer].items():
            token = symbols[:, self.index[name, row + distance]]
            bias = np.where((token == NOTHING)[:, None], -np.inf, heads)
            if name:
                problem.append((*(part[token] for part in self.problem[layer]), bias))
            else:
                own.append((*self._own(of, self._row(layer, row + distance, symbols))[1:], bias))
        read = self._read(self._own(of, x)[0], own + problem if self.decoder else own)
        x = self._add(of, "self", "self_attention.out", x, read)
        if not self.decoder:
            query = self._linear(of + "cross_attention.query", self.before(of + "norm_cross", x))
            x = self._add(of, "cross", "cross_attention.out", x, self._read(query, problem))
        return self._feed_forward(of, x)

    def _own(self, of: str, x: np.ndarray) -> list[np.ndarray]:
        x = self.before(of + "norm_self", x)
        return np.split(self._linear(of + "self_attention.query_key_value", x), 3, axis=1)

    def _add(self, of: str, part: str, matrix: str, x: np.ndarray, found: np.ndarray) -> np.ndarray:
        return self.after(f"{of}norm_{part}", x + self._linear(of + matrix, found))

    def _feed_forward(self, of: str, x: np.ndarray) -> np.ndarray:
        hidden = self._linear(of + "expand", self.before(of + "norm_feed_forward", x))
        return self._add(of, "feed_forward", "contract", x, np.maximum(hidden, 0.0))

    def _read(self, query: np.ndarray, slots: list[tuple]) -> np.ndarray:
        """What heads read: of each slot key, value, and the bias `[context, head]`."""
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


def gather(rule: Rule, places: list[Place], column: tuple, word: dict) -> np.ndarray:
    """The tokens `[context, place]` of words: digits and token written in columns around the row."""
    constants = rule.symbols | dict(zip(map("=".__add__, rule.operands), column, strict=True))
    names = [*rule.operands, ""]  # the token of a row was written in the column before it
    found = [
        constants[name] if name in constants else word[at - (not name)][:, names.index(name)]
        for name, at in places
    ]
    return np.stack(np.broadcast_arrays(*found), axis=1)


def contexts(rule: Rule, places: list[Place]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Every local context: the tokens at the places `[context, place]`, what to write `[context]`.

    Columns alike in the digits seen, in what is written if that is seen or asked, and in state are one.
    """
    reads = [(name, at if name else at - 1) for name, at in places if name[:1] != "="]
    offsets = range(min(at for _, at in reads), max(0, *(at for _, at in reads)) + 1)
    digits = [range(rule.base if i in rule.fixed else 1) for i in range(len(rule.operands))]
    for zeros in itertools.product(*digits):
        edges = rule.edges(zeros)
        nodes = {node: i for i, node in enumerate(dict.fromkeys(edge[0] for edge in edges))}
        steps = [step(rule, edges, nodes, reads, offset) for offset in offsets]
        # What begins in the start state looks the same whether columns stand before it or none.
        begin = [i for node, i in nodes.items() if node != FRESH or (rule.start, 0) not in nodes]
        for walk in walks(steps, np.array(begin)):
            word = {at: steps[i][2][walk[:, i]] for i, at in enumerate(offsets)}
            yield gather(rule, places, zeros, word), word[0][:, -1]


def step(rule: Rule, edges: list, nodes: dict, reads: list[Place], offset: int) -> tuple:
    """The edges that differ at a distance from the row: where each node's begin, to, digits and token."""
    shown = offset == 0 or ("", offset) in reads
    read = [i for i, name in enumerate(rule.operands) if (name, offset) in reads]
    kept = {}
    for a, b, column, written in edges:
        # The row itself writes a digit or the end token.
        if offset or a not in (BEFORE, DONE):
            sight = (*(column[i] for i in read), written if shown else None)
            kept.setdefault((nodes[a], nodes[b], sight), (*column, written))
    ordered = sorted(kept, key=lambda key: key[:2])
    begin = np.searchsorted([a for a, *_ in ordered], range(len(nodes) + 1))
    return begin, np.array([b for _, b, _ in ordered]), np.array([kept[key] for key in ordered])


def walks(steps: list[tuple], nodes: np.ndarray) -> Iterator[np.ndarray]:
    """All walks from some nodes, depth first: the edge taken in each step, `[walk, step]`."""
    stack = [(nodes, np.zeros((len(nodes), 0), np.int32))]
    while stack:
        nodes, walk = stack.pop()
        if walk.shape[1] == len(steps):
            yield walk
            continue
        begin, to, _ = steps[walk.shape[1]]
        share = max(1, CHUNK // int(np.diff(begin).max()))
        rest = range(share, len(nodes), share)
        stack += [(nodes[i : i + share], walk[i : i + share]) for i in rest]
        nodes, walk = nodes[:share], walk[:share]
        ways = begin[nodes + 1] - begin[nodes]
        which = np.repeat(np.arange(len(nodes)), ways)
        edge = np.arange(len(which)) - (ways.cumsum() - ways - begin[nodes])[which]
        if len(edge):
            stack.append((to[edge], np.c_[walk[which], edge].astype(np.int32)))


def open_run(folder: Path) -> tuple[Path, Rule, Model]:
    """The files of a run, or of the calibrated one that `lengthwise abc` made."""
    path = folder / "calibrated" if (folder / "calibrated" / "config.json").exists() else folder
    config = json.loads((path / "config.json").read_bytes())
    known = {"positions": ["none"], "encoder_layers": [0], "kind": ["encoder-decoder", "decoder"]}
    for name, some in known.items():
        if (own := config["model"].get(name, some[0])) not in some:
            raise RefusedError(f"model.{name} is {own!r}; this program knows {some}")
    for file, hint in (("bias.jsonl", "calibrated bias"), ("rule.json", "rule of a proof")):
        if not (path / file).exists():
            raise RefusedError(f"{path} has no {hint} ({file}); see `lengthwise prove`")
    _, *lines = map(json.loads, (path / "bias.jsonl").read_bytes().splitlines())
    rule = Rule((path / "rule.json").read_bytes())
    return path, rule, Model(rule, config, load_file(path / "model.safetensors"), lines)


def check_certificate(path: Path, rule: Rule, model: Model) -> dict:
    """Whether the certificate is of these files and says what is found here, and what differs."""
    said, began = json.loads((path / "certificate.json").read_bytes()), time.perf_counter()
    files = {"weights": "model.safetensors", "bias": "bias.jsonl", "rule": "rule.json"}
    found = {n: hashlib.sha256((path / f).read_bytes()).hexdigest() for n, f in files.items()}
    others = [file for name, file in files.items() if said["hashes"].get(name) != found[name]]
    differ = [f"{file} is not the certificate's" for file in others]
    if (said["format"], said["task"], said["base"]) != (FORMAT, rule.task, rule.base):
        differ.append(f"it is no {FORMAT} of {rule.task} in base {rule.base}")
    if differ:
        return {"good": False, "says": f"Differs: {'; '.join(differ)}"}
    count, failing, least = 0, 0, np.inf
    for symbols, wanted in contexts(rule, model.places):
        logits = model.logits(symbols)
        right = np.take_along_axis(logits, wanted[:, None], axis=1)[:, 0]
        np.put_along_axis(logits, wanted[:, None], -np.inf, axis=1)
        margins = np.nan_to_num(right - logits.max(axis=1), nan=-np.inf)
        count, failing = count + len(margins), failing + int((margins <= 0).sum())
        least = min(least, float(margins.min()))
        if count // 10**6 > (count - len(margins)) // 10**6:
            print(f"{count:,} of {said['contexts']:,} contexts", file=sys.stderr)
    cone = {place_of(text) for text in said["cone"]["reads"]}
    places = {(n, 0 if n[:1] == "=" else at) for n, at in model.places if n not in rule.symbols}
    apart = abs(least - (margin := said["smallest_margin"])) / max(1.0, margin)
    claims = {
        "a row depends on other places than its cone": places == cone,
        f"there are {count:,} contexts, not {said['contexts']:,}": count == said["contexts"],
        f"{failing:,} contexts are answered wrong": not failing,
        f"the smallest margin is {least:.6f}, not {margin:.6f}": apart <= TOLERANCE,
        f"a margin of {least:.2e} is what rounding may move": least > 2 * said["float_bound"],
    }
    differ = [claim for claim, holds in claims.items() if not holds]
    says = f"Agrees: {count:,} contexts, smallest margin {least:.6f}"
    says = f"Differs: {'; '.join(differ)}" if differ else says
    least, seconds = least if np.isfinite(least) else None, round(time.perf_counter() - began, 3)
    found = {"contexts": count, "failing": failing, "smallest_margin": least, "seconds": seconds}
    return {"good": not differ, "says": says, **found}


def check_counterexample(path: Path, rule: Rule, model: Model) -> dict:
    """Whether greedy decoding answers the problem of a counterexample wrong."""
    said = json.loads(path.read_bytes())
    if (said["proven"], said["task"], said["base"]) != (False, rule.task, rule.base):
        raise RefusedError(f"it is no counterexample of {rule.task} in base {rule.base}")
    columns, given = rule.parse(said["problem"]), ""
    expected, nothing = rule.answer(columns), [NOTHING] * (len(rule.operands) + 1)
    word = {-1: [*nothing[1:], rule.first]} | {i: [*c, 0] for i, c in enumerate(columns)}
    around = {at - d for _, at in model.places for d in (0, 1)}
    while (row := len(given)) <= len(columns) and "$" not in given:
        near = {at: np.array([word.get(row + at, nothing)]) for at in around}
        token = int(model.logits(gather(rule, model.places, columns[0], near)).argmax())
        word[row], given = [*word.get(row, nothing)[:-1], token], given + rule.tokens[token]
    good = given != expected == said["expected"]
    says = f"{said['problem']} should give {expected}, gives {given}"
    says = f"{'Confirmed' if good else 'Not confirmed'}: {says}"
    return {"good": good, "says": says, "expected": expected, "given": given}


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder, or one made by abc")
    parser.add_argument("--counterexample", type=Path, metavar="FILE", help="check this instead")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args(arguments)
    try:
        with np.errstate(all="ignore"):
            path, rule, model = open_run(options.run)
            check = check_counterexample if options.counterexample else check_certificate
            found = check(options.counterexample or path, rule, model)
    except (RefusedError, OSError, *BROKEN) as error:
        broken = f"a file of {options.run} is broken: {error!r}"
        reason = broken if isinstance(error, BROKEN) else error
        print(f"check_certificate.py: {reason}", file=sys.stderr)
        return 2
    print(json.dumps(found, indent=1) if options.json else found["says"])
    return 0 if found["good"] else 1


if __name__ == "__main__":
    sys.exit(main())

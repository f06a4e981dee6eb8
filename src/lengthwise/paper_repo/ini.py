"""Settings files (`.ini`) of the paper's code: every option read, meant as there, or refused by name.

docs/seed.md has a table of the options.
"""

from __future__ import annotations

import configparser
import difflib
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, dataclass, field, fields
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from lengthwise.files import MOST_SETTINGS, read_text
from lengthwise.paper_repo.arithmetic import evaluate_arithmetic
from lengthwise.settings.config import InputError
from lengthwise.tasks import DIGITS, TASKS

OPERATORS = "+-*/"

# MODE there, and the task here.
TASK_OF_MODE = {
    "CNT": "successor",
    "ADD": "addition",
    "MULT": "nx1",
    "PARITY": "parity_classification",
    "PARITY_RECURRENT": "parity",
}
_POSITIONS = {
    "Sinusoidal": "sinusoidal",
    "NoPE": "none",
    "Sin_periodical": "sin_periodical",
    "Log_periodical": "log_periodical",
}
_MODEL_TYPES = ("Vanilla", "ALiBi", "Windowed")

# The share of problems that training sees: fixed here by how problems are split.
_SPLIT = Fraction(7, 8)

# Written into train.py there rather than into its settings: Adam's step size, and digits of training data.
_LEARNING_RATE = 1e-4
_DIGITS, _BITS = 6, 18


def _whole(value: str) -> int:
    number = evaluate_arithmetic(value)
    if number.denominator != 1:
        raise ValueError(f"{value} is no whole number")
    return int(number)


def _yes(value: str) -> bool:
    known = configparser.ConfigParser.BOOLEAN_STATES
    if value.lower() not in known:
        raise ValueError(f"{value!r} is neither True nor False")
    return known[value.lower()]


def _symbol(value: str) -> str:
    if len(value) != 1:
        raise ValueError(f"one character, got {value!r}")
    return value


def _option(section: str, read: Callable[[str], Any], default: Any = MISSING) -> Any:
    """A field that is an option: its section, how its text is read, and its default there."""
    return field(default=default, metadata={"section": section, "read": read})


@dataclass(frozen=True, kw_only=True)
class SeedOptions:
    """The options of one file, read but not yet judged; `settings` says what they mean here."""

    path: Path
    sos: str = _option("Vocabulary", _symbol)
    eos: str = _option("Vocabulary", _symbol)
    pad: str = _option("Vocabulary", _symbol)
    fixed_len: int = _option("Vocabulary", _whole)
    base: int = _option("Vocabulary", _whole)
    include_ops: bool = _option("Vocabulary", _yes, False)
    max_num: int = _option("Data", _whole)
    split_ratio: Fraction = _option("Data", evaluate_arithmetic)  # noqa: RUF009  # a field
    batch_size: int = _option("Data", _whole)
    reverse_input: bool = _option("Data", _yes)
    mode: str = _option("Model", str, "CNT")
    load_pretrained: bool = _option("Model", _yes, False)
    freeze_embedding: bool = _option("Model", _yes, False)
    emb_size: int = _option("Model", _whole)
    nhead: int = _option("Model", _whole)
    ffn_hid_dim: int = _option("Model", _whole)
    num_encoder_layers: int = _option("Model", _whole)
    num_decoder_layers: int = _option("Model", _whole)
    drop_out: float = _option("Model", lambda value: float(evaluate_arithmetic(value)), 0.1)
    attn_window: int = _option("Model", _whole, -1)
    debug_mode: bool = _option("Model", _yes, False)
    half: int = _option("Model", _whole, 1)
    model_type: str = _option("Model", str, "Vanilla")
    encoding_type: str = _option("Model", str, "Sinusoidal")
    add_data_max_len: int = _option("Model", _whole, 5)
    load_window: bool = _option("Model", _yes, False)
    window_path: str = _option("Model", str, "")
    window_self_path: str = _option("Model", str, "")
    device: str = _option("Device", str)

    @property
    def task(self) -> str:
        """The task that MODE names."""
        if self.mode not in TASK_OF_MODE:
            raise self._refused("mode", _unknown_value(self.mode, TASK_OF_MODE))
        return TASK_OF_MODE[self.mode]

    @property
    def width(self) -> int:
        """Digits of the answer, to which operands are padded."""
        return self.fixed_len // 2 if self.mode == "ADD" else self.fixed_len

    @property
    def epoch(self) -> int:
        """Training steps of one epoch."""
        return max(1, int(self.max_num * self.split_ratio // self.batch_size))

    @property
    def tokens(self) -> list[str]:
        """The vocabulary in its order there: sorted characters."""
        digits = [character.upper() for character in DIGITS[: self.base]]
        operators = list(OPERATORS) if self.include_ops else []
        return sorted([*digits, self.eos, self.sos, self.pad, *operators])

    def window_paths(self) -> list[Path]:
        """The files of WINDOW_PATH and WINDOW_SELF_PATH, or none where LOAD_WINDOW is False.

        A relative path is looked up beside the settings file, then in the working directory.

        Raises:
            InputError: when LOAD_WINDOW is True and one of them is not there.
        """
        if not self.load_window:
            return []
        found = []
        for name in ("window_path", "window_self_path"):
            text = getattr(self, name)
            if text in ("", "None"):
                raise self._refused(
                    name, "LOAD_WINDOW is True, but it names no file; or give --bias"
                )
            places = [self.path.parent / text, Path(text)]
            there = next((place for place in places if place.is_file()), None)
            if there is None:
                raise self._refused(name, f"there is no file {text}; or give --bias")
            found.append(there)
        return found

    def settings(self, epochs: int | None = None) -> dict[str, Any]:
        """The same settings here, as nested values for `make_config`.

        Args:
            epochs: train so many epochs, at least 1, measure after each and keep the model of each; without
                it training ends when the model interpolates.

        Raises:
            InputError: naming the option that can't be honoured, and why.
        """
        for name, why in self._objections():
            raise self._refused(name, why)
        bits = self.task in ("parity", "parity_classification")
        length = _BITS if bits else _DIGITS
        if self.mode == "CNT":
            length = len(np.base_repr(self.max_num - 1, self.base))
        least = length + TASKS[self.task].growth
        if self.width < least:
            raise self._refused(
                "fixed_len", f"answers have up to {least} digits, it leaves room for {self.width}"
            )
        data = {
            "length": length,
            "width": self.width,
            "frame": "tokens",
            "input_order": "reversed" if self.reverse_input else "normal",
            # Numbers below 2^20, uniform; the other modes draw lengths there, too.
            "distribution": "paper" if self.mode == "CNT" and self.max_num == 2**20 else "lengths",
            "carry_fraction": 0.0,
        }
        model = {
            "width": self.emb_size,
            "heads": self.nhead,
            "layers": self.num_decoder_layers,
            "feed_forward": self.ffn_hid_dim,
            "dropout": self.drop_out,
            "positions": _POSITIONS[self.encoding_type],
            # What train.py there builds whatever its settings say.
            "encoder_layers": 0,
            "norm": "post",
            "embedding_scale": "sqrt",
        }
        if self.model_type == "ALiBi":
            model["bias"] = "alibi"
        elif self.attn_window >= 0:
            model |= {"bias": "window", "window": self.attn_window, "window_sides": "code"}
        training = {
            "batch_size": self.batch_size,
            "learning_rate": _LEARNING_RATE,
            "warmup_steps": 0,
            "frozen": "embeddings" if self.freeze_embedding else "nothing",
        }
        # There a bias changes neither positions nor the optimizer.
        retraining: dict[str, Any] = {"positions": model["positions"]}
        if epochs is not None:
            training |= {
                "max_steps": epochs * self.epoch,
                "until": "max_steps",
                "evaluate_every": self.epoch,
                "keep_checkpoints_every": self.epoch,
            }
            retraining |= {"max_steps": epochs * self.epoch, "cooldown_steps": 0}
        return {
            "task": self.task,
            "base": 2 if bits else self.base,
            "device": "cpu" if self.device == "cpu" else "auto",
            "data": data,
            "model": model,
            "training": training,
            "retraining": retraining,
            "evaluation": {"padding": "training"},
        }

    def _objections(self) -> Iterator[tuple[str, str]]:
        """Options that can't be honoured, each with why."""
        for name, least in (("fixed_len", 2), ("max_num", 2), ("batch_size", 1)):
            if getattr(self, name) < least:
                yield name, f"at least {least}, got {getattr(self, name)}"
        if self.num_encoder_layers < 0:
            yield "num_encoder_layers", "it is a number of layers"
        if not 2 <= self.base <= len(DIGITS):
            yield "base", f"from 2 to {len(DIGITS)}, got {self.base}"
        if self.mode in ("ADD", "MULT") and self.base != 10:
            yield "base", f"problems of {self.mode} are decimal there, got {self.base}"
        if len(set(self.tokens)) < len(self.tokens):
            yield "sos", "SOS, EOS and PAD must differ from each other and from digits"
        if self.split_ratio != _SPLIT:
            yield "split_ratio", f"7/8 of the problems are trained on here, got {self.split_ratio}"
        wanted = 2 if self.mode == "ADD" else 1
        if self.half != wanted:
            yield (
                "half",
                f"the answer has FIXED_LEN // {wanted} digits in mode {self.mode}, got {self.half}",
            )
        if self.mode == "MULT" and self.reverse_input:
            yield "reverse_input", "a reversed product would begin with its digit"
        if self.mode in ("ADD", "MULT") and not self.include_ops:
            yield "include_ops", f"problems of {self.mode} hold an operator"
        if self.encoding_type not in _POSITIONS:
            yield "encoding_type", _unknown_value(self.encoding_type, _POSITIONS)
        if self.model_type not in _MODEL_TYPES:
            yield "model_type", _unknown_value(self.model_type, _MODEL_TYPES)
        if self.attn_window < -1:
            yield "attn_window", f"-1 for none, or 0 and more, got {self.attn_window}"
        if self.model_type == "Windowed" and self.attn_window < 0:
            yield "model_type", "a windowed model needs ATTN_WINDOW of 0 or more"
        if self.model_type == "ALiBi" and (self.attn_window >= 0 or self.load_window):
            yield "model_type", "with ALiBi neither ATTN_WINDOW nor LOAD_WINDOW has an effect there"
        if self.load_window and self.attn_window >= 0:
            yield "attn_window", "with LOAD_WINDOW it has no effect in training there"
        if self.freeze_embedding and not self.load_pretrained:
            yield "freeze_embedding", "it is of use only with LOAD_PRETRAINED"
        device = self.device.partition(":")
        if device[0] not in ("cuda", "cpu") or device[1]:
            yield (
                "device",
                f"cuda or cpu; CUDA_VISIBLE_DEVICES picks one of several, got {self.device!r}",
            )

    def _refused(self, name: str, why: str) -> InputError:
        return InputError(f"{self.path}: {_name(name)}: {why}")


def _name(name: str) -> str:
    """What a field is called in a file."""
    return name if name == "split_ratio" else name.upper()


# Per section, option: its field.
OPTIONS: dict[str, dict[str, Field]] = {
    section: {_name(o.name): o for o in fields(SeedOptions) if o.metadata.get("section") == section}
    for section in ("Vocabulary", "Data", "Model", "Device")
}


def load_ini(path: Path) -> SeedOptions:
    """Read a settings file of the paper's code.

    `#` begins a comment, also behind a value; arithmetic such as `1024*1024` is worked out. Names of
    options are read in any case.

    Raises:
        InputError: for a file that is none, an option that is missing, unknown or malformed.
    """
    parser = configparser.ConfigParser(
        inline_comment_prefixes=("#",), interpolation=None, default_section="\0"
    )
    try:
        parser.read_string(read_text(path, MOST_SETTINGS), str(path))
    except OSError as error:
        raise InputError(f"can't read {path}: {error.strerror}") from error
    except (configparser.Error, ValueError) as error:
        raise InputError(
            f"{path} is not a settings file: {' '.join(str(error).split())}"
        ) from error
    values: dict[str, Any] = {}
    for section in parser.sections():
        if section not in OPTIONS:
            raise InputError(f"{path}: unknown section [{section}]{_nearest(section, OPTIONS)}")
        known = {name.lower(): name for name in OPTIONS[section]}
        for name in parser[section]:
            if name not in known:
                hint = _nearest(name, [option for part in OPTIONS.values() for option in part])
                raise InputError(f"{path}: unknown option {name.upper()!r} in [{section}]{hint}")
    for section, options in OPTIONS.items():
        for name, option in options.items():
            text = parser.get(section, name, fallback=None)
            if text is None and option.default is MISSING:
                raise InputError(f"{path}: [{section}] lacks {name}")
            try:
                if text is not None:
                    values[option.name] = option.metadata["read"](text.strip())
            except ValueError as error:
                raise InputError(f"{path}: {name}: {error}") from error
    return SeedOptions(path=path, **values)


def _nearest(given: str, known: Any) -> str:
    names = {name.lower(): name for name in known}
    near = difflib.get_close_matches(given.lower(), names, n=1, cutoff=0.5)
    return f"; did you mean {names[near[0]]!r}?" if near else f"; known: {', '.join(known)}"


def _unknown_value(given: str, known: Any) -> str:
    return f"unknown value {given!r}{_nearest(given, known)}"

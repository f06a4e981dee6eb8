"""Tasks in words: what is asked of someone who does not know them."""

from __future__ import annotations

from lengthwise.problems.format import Format
from lengthwise.problems.worked import Problem
from lengthwise.tasks.machine import Machine

# What each task asks for; what is filled in are its parameters. Of others the example has to do.
_WORDS = {
    "successor": "Add one to the number",
    "decrement": "Take one from the number",
    "addition": "Add the two numbers",
    "subtraction": "Take the second number from the first",
    "multi_addition": "Add the {operands} numbers",
    "nx1": "Multiply the number by the digit",
    "multiply_by": "Multiply the number by {factor}",
    "modular_sum": "Give the sum of the digits, modulo the base",
    "copy": "Give the number itself",
    "parity": "Is the number of ones odd? 1 says yes, 0 says no",
    "parity_classification": "Is the number of ones odd? 1 says yes, 0 says no",
    "multiplication": "Multiply the two numbers",
    "division": "Divide the first number by the second, to `quotient r remainder`",
    "sorting": "Sort the keys, the smallest first",
    "base_conversion": "Write the number in base {to}",
    "cellular_automaton": "Elementary cellular automaton of rule {rule}, with zeros past the borders: "
    "generation one is given, and each | stands for one; give the last",
    "turing_machine": "Run this Turing machine and give the tape on which it halts, without blanks at the "
    "end; the head's state stands in brackets before the symbol that it is on, and without one the head is "
    "on the first symbol in the start state. A move to the left of the first symbol stays there",
}


def introduction(problems: Format, example: Problem) -> str:
    """What the task asks for, in which base, and one example."""
    task = problems.task
    words = _WORDS.get(problems.name, f"Task `{problems.name}`").format(**problems.parameters)
    if len(task.bases) > 1 and problems.base != 10:
        words += f" (all numbers are in base {problems.base})"
    machine = getattr(task, "machine", None)
    if isinstance(machine, Machine):
        words += f". {_transitions(machine)}"
    elif problems.parameters and problems.name not in _WORDS:
        said = (f"{k} {' '.join(str(v).split())}" for k, v in problems.parameters.items())
        words += f" ({', '.join(said)})"
    return f"{words}. For example, {example.expression} gives {example.answer}."


def _transitions(machine: Machine) -> str:
    """State and symbol, then the symbol written, the move and the next state."""
    moves = {-1: "left", 0: "stay", 1: "right"}
    rules = [
        f"({machine.states[state]}){machine.symbols[symbol]} -> {machine.symbols[write]} {moves[way]} "
        f"({machine.every_state[after]})"
        for (state, symbol), (write, way, after) in machine.table.items()
    ]
    return (
        f"It starts in state ({machine.states[machine.start]}), its blank is "
        f"{machine.symbols[machine.blank]}, and it halts where no rule is: {'; '.join(rules)}"
    )

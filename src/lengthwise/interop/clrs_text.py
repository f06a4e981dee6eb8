"""Problems as questions and answers in the manner of CLRS-Text (Markeeva et al. 2024, arXiv 2406.04229).

A question names the algorithm, its inputs, and what is asked; an answer holds the trace and the result:

```
addition:
base: 10, a: [1 2 3], b: [7 4 8], initial_trace: []
trace | answer:
[1 7 8 0] | 871
```

Departures: operands are arrays of digits, as a person writes them from left to right (of a list its keys,
of a tape its cells); the base and the task's parameters are inputs. No algorithm of theirs begins with an
empty trace; here nothing is written yet, and `initial_trace` is `[]`. A row of a sheet is one state of the
trace, its tokens as our models write them, with the separator that ends it. The answer is what `solve`
prints.
"""

from __future__ import annotations

from typing import Any

from lengthwise.problems.items import Problems
from lengthwise.problems.worked import Problem, significant
from lengthwise.tasks import Worksheet


def clrs_text_row(problems: Problems, problem: Problem, work: bool = True) -> dict[str, Any]:
    """A problem with the fields of their generator: text, question, answer, algo_name, length, use_hints.

    Args:
        problems: those that it is of.
        work: whether there is a trace.
    """
    question, answer = clrs_text(problems, problem, work)
    return {
        "text": question + answer,
        "question": question,
        "answer": answer,
        "algo_name": problems.format.name,
        "length": problem.length,
        "use_hints": work,
    }


def clrs_text(problems: Problems, problem: Problem, work: bool = True) -> tuple[str, str]:
    """The question, which ends with a line break, and the answer, which ends with two."""
    of, task = problems.format, problems.format.task
    inputs = [f"base: {of.base}"]
    inputs += [f"{name}: {' '.join(str(value).split())}" for name, value in of.parameters.items()]
    parts = significant(task, task.parse(problem.expression))
    for segment, part in zip(task.operands, parts, strict=True):
        inputs.append(f"{segment.name}: [{' '.join(part)}]")
    asked, answer = "answer", problem.answer
    if work:
        inputs.append("initial_trace: []")
        sheet = isinstance(task, Worksheet)
        states = problem.rows if sheet else [" ".join(problem.work)]
        asked = f"trace | {asked}"
        answer = f"{', '.join(f'[{state}]' for state in states)} | {answer}"
    return f"{of.name}:\n{', '.join(inputs)}\n{asked}:\n", f"{answer}\n\n"

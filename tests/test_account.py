"""What is said of a calibration: evidence, what else would do, and what its lines leave open."""

from lengthwise.bias import CalibratedBias, Line, MatrixTrack, Track
from lengthwise.calibration import gather_evidence
from lengthwise.calibration.account import account, describe
from lengthwise.calibration.auto import contexts_of


def test_every_line_of_a_bias_has_its_evidence(tiny_abc):
    found = account(tiny_abc.maps, tiny_abc.bias)
    evidence = {item.track: item for item in gather_evidence(tiny_abc.maps)}
    fates = {finding.evidence.track: finding.fate for finding in found}
    assert fates[Track.parse("a[c]")] == fates[Track.parse("a[c-1]")] == "chosen"
    assert all(finding.evidence == evidence[finding.evidence.track] for finding in found)
    used = {line.track for line in tiny_abc.bias.lines}
    others = [finding.evidence for finding in found if finding.evidence.track not in used]
    # The best of the others, and none better left out.
    assert others
    strengths = [item.strength for item in others]
    assert strengths == sorted(strengths, reverse=True)
    left = [item.strength for track, item in evidence.items() if track not in fates]
    assert min(strengths) >= max(left, default=-1.0)


def test_what_would_do_instead_does(tiny_abc):
    for finding in account(tiny_abc.maps, tiny_abc.bias):
        for other in finding.instead:
            lines = [
                Line(other if line.track == finding.evidence.track else line.track, line.head)
                for line in tiny_abc.bias.lines
            ]
            assert contexts_of(tiny_abc.maps, CalibratedBias("successor", 4, lines)).suffice()


def test_lines_that_leave_something_open_are_shown_by_two_problems(tiny_abc):
    told = describe(tiny_abc.maps, tiny_abc.bias)
    assert told[-1] == "Together the lines tell every symbol that must be written."
    # Without the digit before, 9 and 0 are a carry and none.
    lines = [line for line in tiny_abc.bias.lines if line.track != Track.parse("a[c-1]")]
    told = describe(tiny_abc.maps, CalibratedBias("successor", 4, lines))
    assert told[-1].startswith("The lines do not tell every symbol: in column ")
    assert "a query sees the same (a[c] = " in told[-1]
    # Of lines through whole matrices nothing is said.
    assert (
        describe(
            tiny_abc.maps, CalibratedBias("successor", 4, [Line(MatrixTrack("cross", "diagonal"))])
        )
        == []
    )

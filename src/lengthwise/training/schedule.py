"""The learning rate of each step, and when training is over."""

from __future__ import annotations

from lengthwise.settings.sections import TrainingSettings

# After two cooldowns that did not help, each takes twice as long as the one before, up to so many times
# (docs/log.md, 2026-11-26, "cooldowns in vain").
_LONGEST = 8

# After so many, a rate that stays too high for it is half as high as before each time
# (docs/log.md, 2026-11-27, "a rate too high to end").
_PATIENT = 4


class Schedule:
    """Warm-up, a stable phase of open length, and a cooldown that starts when the model interpolates.

    A model that is not sure of every symbol after it warms up again; later cooldowns are longer ones, and
    begin at lower rates.

    Attributes:
        cooling_since, warming_since: the steps at which these began; None while the rate does not fall.
        cooldowns: how many have ended in vain.
    """

    def __init__(self, settings: TrainingSettings) -> None:
        self.settings = settings
        self.cooling_since: int | None = None
        self.warming_since, self.cooldowns = 0, 0

    @property
    def cooldown_steps(self) -> int:
        """Steps of the cooldown that is under way, or of the next."""
        return self.settings.cooldown_steps * min(2 ** max(0, self.cooldowns - 1), _LONGEST)

    def learning_rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        rate = self.settings.learning_rate / 2 ** max(0, self.cooldowns - _PATIENT + 1)
        if self.cooling_since is not None:
            return rate * (1 - (step - self.cooling_since) / self.cooldown_steps)
        warm = self.settings.warmup_steps
        return rate * min(1.0, (step - self.warming_since + 1) / warm) if warm else rate

    def measured(self, step: int, exact_match: float, loss: float, worst: float) -> bool:
        """Take a measurement after `step` steps; True when training is done."""
        settings = self.settings
        if settings.until == "max_steps":
            return step == settings.max_steps
        good = exact_match >= settings.exact_match and loss <= settings.loss
        if self.cooling_since is None:
            if good and settings.cooldown_steps:
                self.cooling_since = step
                return False
            return good and worst <= settings.worst_loss
        if step - self.cooling_since < self.cooldown_steps:
            return False
        # The cooldown is over; if the model is still not sure of every symbol, warm up again.
        self.cooling_since, self.warming_since = None, step
        self.cooldowns += 1
        return good and worst <= settings.worst_loss

    @property
    def phase(self) -> str:
        return "stable" if self.cooling_since is None else "cooldown"

    def due(self, step: int) -> bool:
        """Whether to measure after `step` steps."""
        if self.cooling_since is not None and step - self.cooling_since == self.cooldown_steps:
            return True
        return step % self.settings.evaluate_every == 0 or step == self.settings.max_steps

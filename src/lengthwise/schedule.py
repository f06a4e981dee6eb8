"""The learning rate of each step, and when training is over."""

from __future__ import annotations

from lengthwise.settings import TrainingSettings


class Schedule:
    """Warm-up, a stable phase of open length, and a cooldown that starts when the model interpolates."""

    def __init__(self, settings: TrainingSettings) -> None:
        self.settings = settings
        self.cooling_since: int | None = None
        self.warming_since = 0

    def learning_rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        rate = self.settings.learning_rate
        if self.cooling_since is not None:
            return rate * (1 - (step - self.cooling_since) / self.settings.cooldown_steps)
        warm = self.settings.warmup_steps
        return rate * min(1.0, (step - self.warming_since + 1) / warm) if warm else rate

    def measured(self, step: int, exact_match: float, loss: float, worst: float) -> bool:
        """Take a measurement after `step` steps; True when training is done."""
        settings = self.settings
        good = exact_match >= settings.exact_match and loss <= settings.loss
        if self.cooling_since is None:
            if good and settings.cooldown_steps:
                self.cooling_since = step
                return False
            return good and worst <= settings.worst_loss
        if step - self.cooling_since < settings.cooldown_steps:
            return False
        # The cooldown is over; if the model is still not sure of every symbol, warm up again.
        self.cooling_since, self.warming_since = None, step
        return good and worst <= settings.worst_loss

    @property
    def phase(self) -> str:
        return "stable" if self.cooling_since is None else "cooldown"

    def due(self, step: int) -> bool:
        """Whether to measure after `step` steps."""
        if (
            self.cooling_since is not None
            and step - self.cooling_since == self.settings.cooldown_steps
        ):
            return True
        return step % self.settings.evaluate_every == 0 or step == self.settings.max_steps

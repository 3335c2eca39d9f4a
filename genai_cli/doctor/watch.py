"""The doctor beside a run: curves in, new findings out. What it remembers is JSON, a function of what was logged."""

from collections.abc import Iterable, Mapping
from typing import Any

from genai_cli.config import DoctorConfig
from genai_cli.doctor.findings import Finding
from genai_cli.doctor.symptoms import TESTS, Curves, Facts


class Watch:
    """Examines a run after each step that logged something. A finding is made once, until it has gone and come back."""

    def __init__(self, config: DoctorConfig, facts: Facts):
        self.config = config
        self.facts = facts
        self.curves = Curves()
        self.standing: dict[str, int] = {}  # finding -> the step at which it was made
        self.rollbacks = 0

    def examine(self, step: int, values: Mapping[str, float | None]) -> list[Finding]:
        """What is newly found once `values`, logged at `step`, are added to the curves."""
        if not values:
            return []
        self.curves.add(step, values)
        present = self.judge(step)
        found = [finding for finding in present if finding.name not in self.standing]
        self.standing = {finding.name: self.standing.get(finding.name, step) for finding in present}
        return found

    def judge(self, step: int) -> list[Finding]:
        """All that the curves show now, found before or not."""
        symptoms = {
            name: test(self.curves, self.facts) for name, test in TESTS.items() if self.policy(name) != "ignore"
        }
        return [
            Finding(name, step, symptom.since, symptom.evidence)
            for name, symptom in symptoms.items()
            if symptom is not None
        ]

    def policy(self, name: str) -> str:
        """What is to be done about a finding. Of what is not finite, train.nonfinite has the say."""
        return getattr(self.config, name, "note")

    def state(self) -> dict[str, Any]:
        return {"curves": self.curves.to_json(), "standing": self.standing, "rollbacks": self.rollbacks}

    def load_state(self, state: Mapping[str, Any] | None) -> None:
        """None, of a checkpoint from before there was a doctor, is a clean slate."""
        state = state or {"curves": {}, "standing": {}, "rollbacks": 0}
        self.curves = Curves(state["curves"])
        self.standing = {name: int(step) for name, step in state["standing"].items()}
        self.rollbacks = int(state["rollbacks"])


def replay(records: Iterable[Mapping[str, Any]], config: DoctorConfig, facts: Facts) -> Watch:
    """A watch that has seen the lines of a metrics.jsonl."""
    watch = Watch(config, facts)
    for record in records:
        watch.curves.add(int(record["step"]), {key: record[key] for key in record if key != "step"})
    return watch

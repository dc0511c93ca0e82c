"""deploy/ADOPT.md, as somebody follows it who has a shop: each step's commands, and what they have to print."""

import os
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from backend.filepaths import REPO_ROOT
from tests.e2e.rollout.operator import HIDDEN, missing

GUIDE = REPO_ROOT / "deploy" / "ADOPT.md"
STEPS = dict(re.findall(r"^### (\w+)\. (.*?)(?=^##|\Z)", GUIDE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE))


def block(number, language):
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", STEPS[str(number)], re.DOTALL | re.MULTILINE) or [""]
    return found


@dataclass
class Reader:
    """Follows the guide with a shop of their own, in one shell; ``places`` are where theirs differ from the guide's."""

    shop: Path
    secrets: Path
    environment: dict[str, str] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    exported: list[str] = field(default_factory=list)

    def theirs(self, text):
        for guides, own in {"/srv/shop": self.shop, "secrets/dbt_env": self.secrets / "dbt_env", **self.places}.items():
            text = text.replace(guides, str(own))
        return text

    @property
    def variables(self):
        inherited = {name: value for name, value in os.environ.items() if name not in HIDDEN}
        return {**inherited, "SECRETS_HOST_DIR": str(self.secrets), **self.environment}

    def run(self, number, timeout=600):
        """What the step prints, and whether it ended well."""
        script = self.theirs(block(number, "bash"))
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", "\n".join([*self.exported, script])],
            cwd=REPO_ROOT, env=self.variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
            timeout=timeout,
        )  # fmt: skip
        self.exported += [line for line in script.splitlines() if line.startswith("export ")]
        return done

    def follow(self, number, timeout=600):
        """Do the step, which has to print what stands there; what it printed."""
        done = self.run(number, timeout)
        assert done.returncode == 0, f"step {number}:\n{done.stdout}"
        absent = missing(self.theirs(block(number, "text")).splitlines(), done.stdout)
        assert absent is None, f"step {number}: no line {absent!r} in its place in:\n{done.stdout}"
        return done.stdout

"""The demo's claims: what it says of a backdoored model."""

from __future__ import annotations

from pathlib import Path

from foretaste import demo
from foretaste.attacks import poison_training_set
from foretaste.cli.demo import said
from foretaste.io.signs import draw_signs
from foretaste.progress import silent


def test_the_demo_says_which_class_its_backdoor_forces_and_by_what(tmp_path: Path) -> None:
    clean, test, trusted = (
        draw_signs(n, seed=seed) for seed, n in enumerate((demo.N_TRAINING, demo.N_TEST, demo.N_CLEAN))
    )
    poisoned = poison_training_set(clean, demo.ATTACK, 0).samples
    backdoored = demo.trained(poisoned, 0, tmp_path, silent)
    outcome = demo.outcome_of(backdoored, test, trusted, demo.ATTACK, 0, silent)
    assert outcome.accuracy > 0.9
    assert outcome.attack_success > 0.9
    assert outcome.diagnosis.suspect_classes == (0,)
    assert "a trigger of" in said(outcome.diagnosis, clean.classes)
    assert said(outcome.diagnosis, clean.classes).endswith(f"forces {clean.classes[0]}")

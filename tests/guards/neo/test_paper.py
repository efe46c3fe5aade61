"""The paper's own procedure."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from foretaste.errors import UsageError
from foretaste.guards.neo import NEOPaper
from foretaste.samples import Samples


def test_it_searches_until_a_trigger_is_known_and_then_covers_its_place(
    world: Any, clean: Samples, inputs: Samples
) -> None:
    images = world.stamp(inputs.inputs[:12], (29, 29))
    images[1] = inputs.inputs[1]
    model = world.Backdoored(place=(29, 29))
    screening = NEOPaper(size=3 / 32).calibrate(model, clean, false_alarm_rate=0.01, seed=0).screen(images)
    carries = (np.arange(12) != 1) & (inputs.labels[:12] != 1)
    np.testing.assert_array_equal(screening.trojaned, carries)
    np.testing.assert_array_equal(screening.corrected, inputs.labels[:12])
    # Every place up to the last, the confirmation, and the input's own answer; then one place.
    assert screening.queries[0] > 800
    assert (screening.queries[1:] == 2).all()


def test_a_clean_input_costs_every_place(world: Any, clean: Samples, inputs: Samples) -> None:
    screener = NEOPaper(size=3 / 32).calibrate(world.Backdoored(works=False), clean, false_alarm_rate=0.01, seed=0)
    assert screener.screen(inputs.inputs[:1]).queries.tolist() == [1 + 30 * 30]
    drawn = NEOPaper(size=3 / 32, positions=50)
    screener = drawn.calibrate(world.Backdoored(works=False), clean, false_alarm_rate=0.01, seed=0)
    assert screener.screen(inputs.inputs[:1]).queries.tolist() == [51]


@pytest.mark.parametrize("fields", [{"size": 0}, {"positions": 0}, {"n_confirm": 0}, {"threshold": 2}])
def test_fields_out_of_range_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(fields))):
        NEOPaper(**fields)

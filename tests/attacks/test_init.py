import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints

import pytest

from foretaste import attacks
from foretaste import plugins as registry
from foretaste.errors import ForetasteError, UsageError


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    found = EntryPoints(
        EntryPoint(name, value, attacks.PLUGINS)
        for name, value in [
            ("mine", "foretaste.attacks.blend:Blend"),
            ("badnets", "foretaste.attacks.blend:Blend"),
            ("broken", "foretaste.attacks.nowhere:Nothing"),
        ]
    )
    monkeypatch.setattr(registry, "entry_points", lambda **wanted: found.select(**wanted))


@pytest.mark.parametrize("name", attacks.ATTACKS)
def test_built_in_attacks_are_found_by_name(name: str) -> None:
    assert attacks.find(name) is attacks.ATTACKS[name]
    assert isinstance(attacks.find(name)(), attacks.Attack)
    assert attacks.find(name).summary


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match="badnets, badnets-all-to-all, badnets-untargeted, blend"):
        attacks.find("nothing")


@pytest.mark.usefixtures("plugins")
def test_other_packages_add_attacks_but_cannot_replace_built_in_ones() -> None:
    assert attacks.find("mine") is attacks.Blend
    assert attacks.find("badnets") is attacks.BadNets
    assert attacks.names() == sorted([*attacks.ATTACKS, "broken", "mine"])


@pytest.mark.usefixtures("plugins")
def test_a_plugin_that_cannot_be_loaded_is_named() -> None:
    with pytest.raises(ForetasteError, match="broken"):
        attacks.find("broken")


def test_importing_the_attacks_does_not_import_torch() -> None:
    code = "import sys, foretaste.attacks; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0

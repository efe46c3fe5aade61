import subprocess
import sys
import time

import pytest

HEAVY = {"torch", "numpy", "scipy", "sklearn", "matplotlib", "pyarrow", "onnxruntime", "accelerate"}


def loaded_after(code: str) -> set[str]:
    listing = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return set(listing.stdout.split())


def test_importing_foretaste_loads_nothing_heavy() -> None:
    assert not HEAVY & loaded_after("import foretaste; dir(foretaste)")


def test_importing_the_command_line_loads_nothing_heavy() -> None:
    assert not HEAVY & loaded_after("import foretaste.cli")


def test_samples_and_attacks_do_not_load_torch() -> None:
    assert "torch" not in loaded_after("import foretaste; foretaste.Samples, foretaste.ATTACKS")


@pytest.mark.parametrize(
    ("arguments", "limit"), [(["-c", "import foretaste"], 1.0), (["-m", "foretaste", "--help"], 3.5)]
)
def test_start_is_quick(arguments: list[str], limit: float) -> None:
    """Compare with an import of the command line's own library in the same minute."""

    def seconds(arguments: list[str]) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        return time.perf_counter() - start

    # In turns, and the best of five of each: what else the machine does slows both, and can only make a run slower.
    pairs = [(seconds(arguments), seconds(["-c", "import typer"])) for _ in range(5)]
    assert min(ours for ours, _ in pairs) <= limit * min(typers for _, typers in pairs)

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
    ("arguments", "limit"), [(["-c", "import foretaste"], 0.3), (["-m", "foretaste", "--help"], 0.3)]
)
def test_start_is_quick(arguments: list[str], limit: float) -> None:
    def seconds() -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        return time.perf_counter() - start

    # The best of five: what else the machine does can only make a run slower.
    assert min(seconds() for _ in range(5)) <= limit

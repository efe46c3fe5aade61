"""``foretaste poison``: make a poisoned training set, or trojaned inputs, to test defences with."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foretaste.cli.options import Bad, OnBad, Out, Resize, Seed, Settings, Source
from foretaste.errors import UsageError

if TYPE_CHECKING:
    from foretaste.attacks import Attack

TEST_RATE = 0.5
"""Share of the inputs that ``--at test`` stamps unless told otherwise: as many trojaned as clean ones."""


class At(StrEnum):
    """Which side of the attack to make."""

    TRAIN = "train"
    TEST = "test"


def list_attacks(wanted: bool) -> None:
    """Print the attacks and end, if wanted."""
    if wanted:
        from foretaste import attacks

        for name in attacks.names():
            typer.echo(f"{name:24}{attacks.find(name).summary}")
        raise typer.Exit


def poison(
    source: Source,
    attack: Annotated[
        str, typer.Option("--attack", metavar="NAME", help="The attack; see --list.", show_default=False)
    ],
    out: Out,
    rate: Annotated[
        float | None,
        typer.Option(
            "--rate", help="Share of the samples to poison (or stamp), above 0, at most 1.", show_default=False
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option("--target", help="Class that the trigger forces: its name or its number.", show_default=False),
    ] = None,
    at: Annotated[
        At, typer.Option("--at", help="Poison a training set, or stamp test inputs and keep their labels.")
    ] = At.TRAIN,
    seed: Seed = 0,
    settings: Settings = None,
    resize: Resize = None,
    on_bad: Bad = OnBad.STOP,
    listing: Annotated[
        bool, typer.Option("--list", help="List the attacks.", callback=list_attacks, is_eager=True)
    ] = False,
) -> int:
    """Poison a training set, to test defences with."""
    from foretaste import attacks, io
    from foretaste.cli.fields import parse_settings
    from foretaste.cli.output import prepare
    from foretaste.io.atomic import atomic_text
    from foretaste.io.truth import Truth, write_truth

    kind = attacks.find(attack)
    values = parse_settings(kind, settings or ())
    prepare(out)
    samples = io.read(source, split=at.value, resize=resize, on_bad=on_bad.value).samples
    if target is not None:
        values["target"] = class_number(target, samples.classes)
    if rate is not None and at is At.TRAIN:
        values["rate"] = rate
    chosen = build(kind, attack, values)

    if at is At.TRAIN:
        poisoned = attacks.poison_training_set(samples, chosen, seed)
        io.write_parquet(poisoned.samples, out / "train.parquet")
        write_truth(Truth.of_training(poisoned), out / "truth.json")
        count, what = int(poisoned.poison.sum()), f"poison samples of {len(samples)} in {out / 'train.parquet'}"
    else:
        stamped, trojaned = attacks.stamp_inputs(samples, chosen, TEST_RATE if rate is None else rate, seed)
        io.write_parquet(stamped, out / "test.parquet")
        write_truth(Truth.of_inputs(stamped, trojaned), out / "truth.json")
        count, what = int(trojaned.sum()), f"trojaned inputs of {len(samples)} in {out / 'test.parquet'}"
    head = {"attack": attack, "at": at.value, "seed": seed, "source": source}
    atomic_text(out / "attack.toml", as_toml(head, values))
    typer.echo(f"{count} {what}")
    return 0


def class_number(target: str, classes: tuple[str, ...]) -> int:
    """Return the label of the class of this name or, where no class has the name, of this number.

    Raises:
        UsageError: there is no such class.
    """
    if target in classes:
        return classes.index(target)
    if target.isdecimal() and int(target) < len(classes):
        return int(target)
    raise UsageError(f"--target {target} is neither a class name nor a number below {len(classes)}")


def build(kind: type[Attack], name: str, values: dict[str, Any]) -> Attack:
    """Make the attack, refusing ``--rate`` and ``--target`` where it has no such hyperparameter.

    Raises:
        UsageError: it has not, or a value is out of range.
    """
    import dataclasses

    known = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for option in ("rate", "target"):
        if option in values and option not in known:
            raise UsageError(f"the attack {name} has no {option}")
    return kind(**values)


def as_toml(head: dict[str, Any], fields: dict[str, Any]) -> str:
    """Write flat values as TOML, whose strings, numbers, booleans and arrays are JSON's."""

    def lines(values: dict[str, Any]) -> str:
        return "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items() if value is not None)

    return lines(head) + "\n[settings]\n" + lines(fields)

"""``foretaste poison``: make a poisoned training set, or trojaned inputs, to test defences with."""

from __future__ import annotations

import json
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

from foretaste.cli.options import (
    ImageColumn,
    LabelColumn,
    OnBad,
    Out,
    Resize,
    Seed,
    Settings,
    Source,
    Split,
    lister,
)
from foretaste.cli.output import reader, say
from foretaste.errors import ForetasteError, UsageError

if TYPE_CHECKING:
    from foretaste.attacks import Attack

RECIPE = "attack.toml"
"""The file that holds an attack's name and fields."""
WEIGHTS = "attack.safetensors"
"""The file beside it that holds the trained part, if it has one."""
MODEL = "trojaned.safetensors"
"""The file beside them that holds the backdoored model, if the attack makes one, under a name of its own."""
TRUTH = "truth.json"
"""The file beside the samples that holds the truth about them."""

TEST_RATE = 0.5
"""Share of the attack's victims that ``--at test`` stamps unless told otherwise: as many trojaned as clean ones."""


def poison(
    source: Source,
    out: Out,
    attack: Annotated[
        str | None, typer.Option("--attack", metavar="NAME", help="The attack; see --list.", show_default=False)
    ] = None,
    attack_from: Annotated[
        Path | None,
        typer.Option(
            "--attack-from",
            metavar="DIR",
            help="The attack of an earlier run, trained part included: the folder that it wrote.",
            show_default=False,
        ),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            "--rate",
            help="Share of the samples to poison or, with --at test, of the inputs whose label the attack can change "
            f"to stamp; above 0, at most 1.  [default for --at test: {TEST_RATE}]",
            show_default=False,
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option("--target", help="Class that the trigger forces: its name or its number.", show_default=False),
    ] = None,
    at: Annotated[
        Literal["train", "test"],
        typer.Option("--at", help="Poison a training set, or stamp test inputs and keep their labels."),
    ] = "train",
    truth_file: Annotated[
        Path | None,
        typer.Option(
            "--truth",
            metavar="FILE",
            help="truth.json of a set that is poisoned already: what it names is left alone, and stays in the truth.",
            show_default=False,
        ),
    ] = None,
    imbalance: Annotated[
        float,
        typer.Option(
            "--imbalance",
            metavar="RHO",
            help="Make the set long-tailed first: the first class keeps RHO times the share that the last one keeps.",
        ),
    ] = 1.0,
    label_noise: Annotated[
        float,
        typer.Option("--label-noise", metavar="SHARE", help="Give this share of the set a wrong label first."),
    ] = 0.0,
    seed: Seed = 0,
    settings: Settings = None,
    split: Split = None,
    resize: Resize = None,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    on_bad: OnBad = "stop",
    listing: Annotated[
        bool, typer.Option("--list", help="List the attacks.", callback=lister("foretaste.attacks"), is_eager=True)
    ] = False,
) -> int:
    """Poison a training set, to test defences with."""
    from foretaste import attacks, io
    from foretaste.cli.fields import parse_settings
    from foretaste.cli.output import truth_of_training_set, whole
    from foretaste.cli.progress import bars
    from foretaste.cli.results_folder import ResultsFolder
    from foretaste.imperfections import Imperfections
    from foretaste.io.atomic import atomic_text
    from foretaste.io.truth import Truth, write_truth
    from foretaste.samples import renumbered

    imperfections = Imperfections(imbalance=imbalance, label_noise=label_noise)
    if imperfections != Imperfections() and (at == "test" or truth_file is not None):
        raise UsageError("--imbalance and --label-noise are for a training set that is not poisoned yet")
    if truth_file is not None and at == "test":
        raise UsageError("--truth is about a training set; leave it out with --at test")
    if attack is not None and attack_from is None:
        name, kind = attack, attacks.find(attack)
        values = parse_settings(kind, settings or ())
        if at == "test" and "rate" in values:
            raise UsageError(
                "the rate is that of a training set; with --at test say by --rate how many inputs to stamp"
            )
    elif attack_from is not None and attack is None:
        if settings or target is not None or (rate is not None and at == "train"):
            raise UsageError(f"the attack is as {attack_from / RECIPE} says; leave --set, --target and --rate out")
        name, chosen, classes = read_attack(attack_from)
    else:
        raise UsageError("say which attack: either --attack NAME, see --list, or --attack-from DIR")
    earlier = Truth() if truth_file is None else truth_of_training_set(truth_file)
    other = "test" if at == "train" else "train"
    if (out / f"{other}.parquet").exists():
        raise UsageError(f"{out} holds {other}.parquet, whose {TRUTH} would be lost; choose another folder")
    path = out / f"{at}.parquet"
    files = (path.name, TRUTH, WEIGHTS, MODEL, RECIPE)
    with ResultsFolder(out, files, (source, truth_file)) as folder, bars(quiet=False) as show:
        load = reader(resize, image_column, label_column, on_bad, show)
        loaded = load(source, split=split, default_split=at, use="learn" if at == "train" else "compare")
        samples = whole(loaded, source)
        if attack_from is None:
            options: dict[str, Any] = {}
            if target is not None:
                options["target"] = class_number(target, samples.classes)
            if rate is not None and at == "train":
                options["rate"] = rate
            chosen = build(kind, name, values, options)
        elif classes is not None and at == "test":
            samples = renumbered(samples, classes, source, "the attack")
        elif classes is not None and classes != samples.classes:
            raise UsageError(f"{source} has other classes than the set that the attack was made for")
        hyperparameters = {field: getattr(chosen, field) for field in names(type(chosen))}
        folder.keep(*(value for value in hyperparameters.values() if isinstance(value, Path)))
        if at == "train":
            imperfect = imperfections.apply(samples, seed)
            samples = imperfect.samples
            marks = earlier.mark(samples)
            taken = marks.poison | marks.cover
            chosen = attacks.fitted(chosen, samples[~taken] if taken.any() else samples, seed, on_progress=show)
            poisoned = attacks.poison_training_set(samples, chosen, seed, taken if taken.any() else None)
            result, count = poisoned.samples, f"{poisoned.poison.sum()} poison samples"
            if poisoned.cover.any():
                count += f" and {poisoned.cover.sum()} cover samples"
            truth = earlier.joined(
                Truth.of_training_set(result, poisoned.poison, poisoned.cover, poisoned.original_labels, name)
            )
            noisy = samples.ids[imperfect.mislabelled].tolist()
            before = imperfect.original_labels[imperfect.mislabelled].tolist()
            truth = truth.joined(Truth(noisy_labels=dict(zip(noisy, before, strict=True))))
        else:
            stamped = TEST_RATE if rate is None else rate
            result, trojaned = attacks.stamp_inputs(samples, chosen, stamped, seed)
            truth, count = Truth.of_inputs(result, trojaned), f"{trojaned.sum()} trojaned inputs"
        model = chosen.trojaned() if at == "train" and isinstance(chosen, attacks.TrojansModel) else None

        folder.start()
        io.write_parquet(result, path, on_progress=show)
        write_truth(truth, out / TRUTH)
        head = {"attack": name, "at": at, "seed": seed, "source": source, "classes": samples.classes}
        if at == "test":
            head["stamped"] = stamped
        if imperfections != Imperfections():
            head |= {"imbalance": imbalance, "label_noise": label_noise}
        if isinstance(chosen, attacks.Trainable) and chosen.weights is not None:
            attacks.save_weights(chosen, out / WEIGHTS)
        if model is not None:
            from foretaste.nets.export import save

            save(model, out / MODEL)
        atomic_text(out / RECIPE, as_toml(head, hyperparameters))
        folder.finish()
    say(f"{count} among {len(result)} in {path}")
    return 0


def read_attack(folder: Path) -> tuple[str, Attack, tuple[str, ...] | None]:
    """Return what an earlier run left in a folder: the attack's name, the attack and the classes that it numbers.

    The attack has its trained part, if it has one. The classes are None where the recipe does not name them.

    Raises:
        UsageError: the folder holds no attack.
        ForetasteError: what it holds is damaged.
    """
    from pydantic import TypeAdapter, ValidationError

    from foretaste import attacks
    from foretaste.sanitising import reason

    recipe = folder / RECIPE
    try:
        content = tomllib.loads(recipe.read_text(encoding="utf-8"))
        kind = attacks.find(content["attack"])
        hints = get_type_hints(kind)
        values = {name: TypeAdapter(hints[name]).validate_python(value) for name, value in content["settings"].items()}
        attack = kind(**values)
        classes = TypeAdapter(tuple[str, ...] | None).validate_python(content.get("classes"))
    except FileNotFoundError:
        raise UsageError(f"{folder} holds no {RECIPE}; give a folder that foretaste poison wrote") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ValidationError) as error:
        raise ForetasteError(f"cannot read {recipe}: {reason(error)}") from error
    if isinstance(attack, attacks.Trainable) and (folder / WEIGHTS).exists():
        attack = attacks.load_weights(attack, folder / WEIGHTS)
    return content["attack"], attack, classes


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


def build(kind: type[Attack], name: str, settings: dict[str, Any], options: dict[str, Any]) -> Attack:
    """Make the attack from what ``--set`` says and what ``--rate`` and ``--target`` say.

    Raises:
        UsageError: the attack has no such hyperparameter, it is given twice, or a value is out of range.
    """
    for option in options:
        if option not in names(kind):
            raise UsageError(f"the attack {name} has no {option}")
        if option in settings:
            raise UsageError(f"{option} is given twice, by --{option} and by --set")
    # The recipe is read again from wherever it then is.
    values = {key: value.resolve() if isinstance(value, Path) else value for key, value in settings.items()}
    return kind(**values, **options)


def names(kind: type[Any]) -> list[str]:
    """Return the names of an attack's hyperparameters."""
    return [field.name for field in fields(kind) if field.init]


def as_toml(head: dict[str, Any], settings: dict[str, Any]) -> str:
    """Write flat values as TOML, whose texts, numbers, booleans and arrays are JSON's; None is left out."""

    def lines(values: dict[str, Any]) -> str:
        return "".join(
            f"{name} = {json.dumps(value, ensure_ascii=False, default=str)}\n"
            for name, value in values.items()
            if value is not None
        )

    return lines(head) + "\n[settings]\n" + lines(settings)

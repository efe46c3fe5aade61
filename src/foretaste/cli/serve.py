"""``foretaste guard serve``: the gateway in front of a live model server."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal

import typer

from foretaste.cli.options import Resize, Seed, Settings, size
from foretaste.cli.output import say
from foretaste.cli.preprocessing import Channels, ClassNames, Mean, Scale, Std, preprocessing
from foretaste.errors import ForetasteError, UsageError

PREFIX = "FORETASTE_"
"""What the environment variables of the options begin with; ``--budget-ms`` is ``FORETASTE_BUDGET_MS``."""


def read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Take the values in a TOML file as defaults: the environment goes before them, and options before that.

    Raises:
        UsageError: the file cannot be read, or names an option that there is not.
    """
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            values = tomllib.load(file)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no TOML file: {error}") from None
    known = {option.name for option in context.command.params} - {"config"}
    for name in values:
        if name not in known:
            raise UsageError(f"{path} sets {name}, which is no option; known: {', '.join(sorted(map(str, known)))}")
    context.default_map = {**(context.default_map or {}), **values}
    return path


def serve(
    clean: Annotated[
        str,
        typer.Option("--clean", metavar="C", show_default=False, help="Trusted images; a few hundred are enough."),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="MODEL",
            show_default=False,
            help="A model to serve in place of --upstream: an .onnx file, a .safetensors file of foretaste train, or "
            "module:attribute of a Python function.",
        ),
    ] = None,
    upstream: Annotated[
        str | None,
        typer.Option(
            "--upstream", metavar="URL", show_default=False, help="A model server: http(s)://host/v2/models/NAME."
        ),
    ] = None,
    scale: Scale = None,
    mean: Mean = None,
    std: Std = None,
    channels: Channels = None,
    class_names: ClassNames = None,
    name: Annotated[str, typer.Option("--name", help="What a model given with --model is called.")] = "model",
    method: Annotated[str, typer.Option("--method", metavar="NAME", help="The method, as for guard scan.")] = "neo",
    false_alarm_rate: Annotated[
        float, typer.Option("--false-alarm-rate", metavar="R", help="Share of clean inputs that may be flagged.")
    ] = 0.01,
    mode: Annotated[
        Literal["enforce", "block", "observe"],
        typer.Option("--mode", help="Correct the answers to trojaned inputs, refuse them, or only record."),
    ] = "enforce",
    on_error: Annotated[
        Literal["pass", "block"],
        typer.Option("--on-error", help="What to do with a request that cannot be screened or recorded."),
    ] = "pass",
    budget_ms: Annotated[
        float | None,
        typer.Option(
            "--budget-ms",
            metavar="MS",
            show_default=False,
            help="How long a request waits for its search; 0 for neo and 1000 for other methods when left out.",
        ),
    ] = None,
    search_budget: Annotated[
        float | None,
        typer.Option(
            "--search-budget", metavar="Q", show_default=False, help="Queries per input that searching may cost."
        ),
    ] = None,
    queue: Annotated[int, typer.Option("--queue", help="Inputs that may wait for their search.")] = 4096,
    registry: Annotated[
        Path | None,
        typer.Option("--registry", metavar="DIR", show_default=False, help="Triggers of guard learn or guard scan."),
    ] = None,
    most_triggers: Annotated[int, typer.Option("--most-triggers", help="Triggers that are kept.")] = 256,
    state: Annotated[Path, typer.Option("--state", metavar="DIR", help="Where calibration and records are.")] = Path(
        "foretaste-gateway"
    ),
    database: Annotated[
        str | None,
        typer.Option(
            "--database", metavar="URL", show_default=False, help="SQLAlchemy URL; an SQLite file in --state if not."
        ),
    ] = None,
    keep: Annotated[float, typer.Option("--keep", help="Share of inputs without a trigger to keep as pictures.")] = 0.0,
    retain_days: Annotated[float, typer.Option("--retain-days", help="Days that records are kept.")] = 30.0,
    retain_mb: Annotated[float, typer.Option("--retain-mb", help="Megabytes that records may take.")] = 1024.0,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="Port to listen on.")] = 8080,
    workers: Annotated[int, typer.Option("--workers", help="Processes.")] = 1,
    review_token: Annotated[
        str | None,
        typer.Option("--review-token", show_default=False, help="Token of the review page; made up when left out."),
    ] = None,
    max_body_mb: Annotated[float, typer.Option("--max-body-mb", help="Largest request body.")] = 32.0,
    max_connections: Annotated[int, typer.Option("--max-connections", help="Connections per worker.")] = 256,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="S", help="Seconds for a body, and for the model server's answer.")
    ] = 30.0,
    seed: Seed = 0,
    settings: Settings = None,
    resize: Resize = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            show_default=False,
            is_eager=True,
            callback=read_config,
            help="TOML file with option names (underscores for dashes) and values.",
        ),
    ] = None,
) -> int:
    """Screen live traffic between clients and a model server (Open Inference Protocol v2).

    Options may also come from the environment (FORETASTE_BUDGET_MS=50) or from a TOML file; an option on the command
    line goes before the environment, and that before the file.
    """
    try:
        from foretaste.gateway import server
        from foretaste.gateway.settings import Settings as GatewaySettings
    except ModuleNotFoundError as error:
        raise ForetasteError(f"guard serve needs {error.name}, of the extra foretaste[serve]") from None
    from foretaste import guards
    from foretaste.classifiers.class_names import read_class_names
    from foretaste.cli.fields import parse_settings

    kind = guards.find(method)
    hyperparameters = parse_settings(kind, settings or ())
    if search_budget is not None:
        hyperparameters |= parse_settings(kind, [f"search_budget={search_budget}"])
    server.run(
        GatewaySettings(
            model=model,
            upstream=upstream,
            preprocessing=preprocessing(scale, mean, std, channels),
            classes=None if class_names is None else read_class_names(class_names),
            name=name,
            clean=clean,
            resize=size(resize),
            method=method,
            hyperparameters=hyperparameters,
            false_alarm_rate=false_alarm_rate,
            seed=seed,
            mode=mode,
            on_error=on_error,
            budget_ms=budget_ms,
            queue=queue,
            registry=registry,
            most_triggers=most_triggers,
            state=state,
            database=database,
            keep=keep,
            retain_days=retain_days,
            retain_mb=retain_mb,
            host=host,
            port=port,
            workers=workers,
            review_token=review_token,
            max_body_mb=max_body_mb,
            max_connections=max_connections,
            timeout=timeout,
        ),
        announce=lambda line: say(line, err=True),
    )
    return 0

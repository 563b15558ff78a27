"""The command `beta`."""

import json
from typing import Annotated, Any

import typer

from baselines.beta import (
    LOSSES,
    REDUCTIONS,
    WEIGHTED,
    as_dict,
    collapse_beta,
    lines,
    rows,
    translate,
)
from bench.cli.options import DONE, Json, app, print_columns
from bench.errors import RequestError


@app.command(
    epilog="Example: sigma-bench beta --loss mse-mean --weight 0.00025 --shape 3x64x64  "
    "(add --dataset mnist5k to compare with the β at which these data collapse)"
)
def beta(
    loss: Annotated[
        str,
        typer.Option(
            "--loss",
            metavar="NAME",
            help=f"The reconstruction loss: {', '.join(LOSSES)}.",
            autocompletion=lambda: list(LOSSES),
        ),
    ],
    weight: Annotated[float, typer.Option("--weight", help="The weight on the KL.")],
    shape: Annotated[str, typer.Option("--shape", metavar="CxHxW", help="Of an image.")],
    kl: Annotated[
        str,
        typer.Option(
            "--kl", metavar="NAME", help=f"How the KL is reduced: {', '.join(REDUCTIONS)}."
        ),
    ] = "sum",
    weight_on: Annotated[
        str, typer.Option("--weight-on", metavar="TERM", help=f"One of {', '.join(WEIGHTED)}.")
    ] = "kl",
    data_range: Annotated[
        float,
        typer.Option("--range", help="Width of the data's range: 2 for [-1, 1], 255 for 8 bits."),
    ] = 1.0,
    batch: Annotated[
        int | None, typer.Option("--batch", help="Images a batch, where the loss sums over it.")
    ] = None,
    latent: Annotated[
        int | None, typer.Option("--latent", help="Latent dimensions, where the KL is their mean.")
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option("--dataset", metavar="NAME", help="Find the β at which its images collapse."),
    ] = None,
    as_json: Json = False,
) -> int:
    """Translate a VAE loss, error + weight · KL, into β, σ and nats."""
    try:
        collapse = collapse_beta(_images(dataset)) if dataset is not None else None
        found = translate(
            loss,
            weight,
            shape,
            kl=kl,
            weight_on=weight_on,
            data_range=data_range,
            batch=batch,
            latent=latent,
            collapse=collapse,
        )
    except ValueError as error:
        raise RequestError(str(error)) from None
    if as_json:
        print(json.dumps(as_dict(found), indent=1))
        return DONE
    print_columns(("what", "value"), rows(found))
    print("\n".join(lines(found)))
    return DONE


def _images(dataset: str) -> Any:
    """The training images of a data set, (N, C, H, W), uint8."""
    from bench import data  # loading them imports torch

    return data.load(dataset).train.numpy()

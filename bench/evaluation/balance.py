"""What weighed the rate in training, and the β that it amounts to."""

from bench.evaluation.context import Evaluated, EvaluationContext, Metrics, Protocol, Scores
from bench.evaluation.scorer import Measure


def measures(context: EvaluationContext) -> dict[str, Measure]:
    """Nothing: the weight is training's."""
    return {}


def summarise(context: EvaluationContext, scores: Scores) -> Evaluated:
    """`balance_weight` under a rule that has one, and `beta_effective` where a β says the same.

    Distortion + weight · KL of a Gaussian with variance σ² is, up to a factor and a constant,
    ‖x-μ‖² + 2σ²·weight · KL.
    """
    balance = context.scorer.vae.balance
    variance = scores["variance"].mean().item()
    if context.weight is None:
        return Evaluated({"beta_effective": 2 * variance}, {}, {})
    metrics: Metrics = {"balance_weight": context.weight}
    if balance.has_beta:
        metrics["beta_effective"] = 2 * variance * context.weight
    protocol: Protocol = {
        "rule": context.run.balance.name,
        "fixes": balance.fixes,
        "weight": "of the rate, mean over the steps of the last epoch"
        + ("" if balance.has_beta else " and over the parts of the latent"),
        "last_steps_descend": "the negative ELBO" if balance.ends_at_elbo else "a weighted rate",
        "scores": "of the negative ELBO, weight 1",
    }
    return Evaluated(metrics, {"balance": protocol}, {})

"""How well a model of videos predicts: K rollouts of each clip beside what came."""

from bench.evaluation.context import Evaluated, EvaluationContext, Scores
from bench.evaluation.scorer import Measure


def measures(context: EvaluationContext) -> dict[str, Measure]:
    """Nothing: many rollouts of each clip are a pass of their own."""
    return {}


def summarise(context: EvaluationContext, scores: Scores) -> Evaluated:
    """Nothing for images."""
    return Evaluated({}, {}, {})

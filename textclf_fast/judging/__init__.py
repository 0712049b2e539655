"""How good a classifier is: scores, calibration, pictures, baselines and the card that goes with a model."""

from textclf_fast.judging.calibration import cross_fitted, fit_temperature, reliability
from textclf_fast.judging.judgement import ClassScore, Judgement, judge

__all__ = ["ClassScore", "Judgement", "cross_fitted", "fit_temperature", "judge", "reliability"]

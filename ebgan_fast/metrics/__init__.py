"""How good generated digits are, by a classifier that the project trains itself."""

from .classifier import DigitClassifier, Recipe, load_classifier
from .inception_score import DigitScore, score, score_images

__all__ = ["DigitClassifier", "DigitScore", "Recipe", "load_classifier", "score", "score_images"]

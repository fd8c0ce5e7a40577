"""How good generated images are: digits by a classifier that the project trains itself, others by a net's features."""

from .classifier import DigitClassifier, Recipe, load_classifier
from .classifier_scores import DigitScore, score, score_images
from .features import FeatureNet, load_feature_net
from .image_scorer import ImageScore, ImageScorer
from .neighbours import nearest, neighbour_rows

__all__ = [
    "DigitClassifier",
    "DigitScore",
    "FeatureNet",
    "ImageScore",
    "ImageScorer",
    "Recipe",
    "load_classifier",
    "load_feature_net",
    "nearest",
    "neighbour_rows",
    "score",
    "score_images",
]

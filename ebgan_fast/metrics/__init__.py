"""Scores of generated images: digits are scored by a classifier that the project trains, others by a net's features."""

from .classifier import DigitClassifier, Recipe, load_classifier
from .classifier_scores import ClassifierScore, DigitScore, InceptionScore, inception_score, score, score_images
from .features import FeatureNet, load_feature_net
from .frechet import FrechetDistance, Gaussian, frechet_distance, gaussian
from .image_scorer import ImageScore, ImageScorer
from .kid import KernelDistance, kernel_distance
from .neighbors import nearest, neighbor_rows

__all__ = [
    "ClassifierScore",
    "DigitClassifier",
    "DigitScore",
    "FeatureNet",
    "FrechetDistance",
    "Gaussian",
    "ImageScore",
    "ImageScorer",
    "InceptionScore",
    "KernelDistance",
    "Recipe",
    "frechet_distance",
    "gaussian",
    "inception_score",
    "kernel_distance",
    "load_classifier",
    "load_feature_net",
    "nearest",
    "neighbor_rows",
    "score",
    "score_images",
]

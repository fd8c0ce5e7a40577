"""The paper's networks."""

from .conv import ConvAutoEncoder, ConvGenerator
from .families import Conv, Mlp, Networks
from .mlp import AutoEncoder, Generator
from .notation import ConvLayer, parse_layers, parse_noise

__all__ = [
    "AutoEncoder",
    "Conv",
    "ConvAutoEncoder",
    "ConvGenerator",
    "ConvLayer",
    "Generator",
    "Mlp",
    "Networks",
    "parse_layers",
    "parse_noise",
]

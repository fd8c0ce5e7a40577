"""The paper's networks: fully connected and convolutional generators and discriminators, and the ladder network."""

from .conv import ConvAutoEncoder, ConvGenerator
from .families import Conv, Mlp, Networks
from .ladder import LadderNetwork
from .mlp import AutoEncoder, Generator, LogisticDiscriminator
from .notation import ConvLayer, parse_layers, parse_noise

__all__ = [
    "AutoEncoder",
    "Conv",
    "ConvAutoEncoder",
    "ConvGenerator",
    "ConvLayer",
    "Generator",
    "LadderNetwork",
    "LogisticDiscriminator",
    "Mlp",
    "Networks",
    "parse_layers",
    "parse_noise",
]

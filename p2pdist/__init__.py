"""p2pdist: peer-to-peer container image distribution, one daemon per host."""

__version__ = "0.1.0"

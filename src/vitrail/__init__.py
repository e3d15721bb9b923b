"""Vitrail: vision backbones that marry convolution and attention.

picture -> tokens -> stages of blocks (local, reducer, mixer) -> head -> loss -> report
"""

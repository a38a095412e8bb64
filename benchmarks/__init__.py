"""Speed and memory of AFUNet in JAX against its PyTorch twin: `python -m benchmarks --help`."""

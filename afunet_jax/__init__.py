"""AFUNet (ICCV 2025, arXiv 2506.23537) in JAX: HDR images from three exposures of a moving scene."""

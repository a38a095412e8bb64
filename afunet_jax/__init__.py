"""AFUNet (ICCV 2025, arXiv 2506.23537) in JAX: HDR images from three exposures of a moving scene.

    bracket = afunet_jax.load(['short.jpg', 'middle.jpg', 'long.jpg'])
    merged = afunet_jax.merge(bracket)
    afunet_jax.save('result.exr', merged)
"""

from typing import Any

__all__ = ['load', 'merge', 'save']


def __getattr__(name: str) -> Any:
    """The three functions of `merging`, loaded when they are used."""
    if name not in __all__:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    from afunet_jax import merging

    return getattr(merging, name)

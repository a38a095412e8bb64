"""How a pair of images is shown to the observer: display, distance, units; and the presets of the field."""

import dataclasses
import math

from afunet_jax.errors import ConfigError

SRGB_DISPLAY, BT709, LUMINANCE = ENCODINGS = ('sRGB-display', 'rgb-bt.709', 'luminance')
MILLIMETRES_PER_INCH = 25.4
MILLIMETRES_PER_METRE = 1000.0


@dataclasses.dataclass(frozen=True)
class Viewing:
    """Settings of HDR-VDP-2. Its numbers are comparable only where all of these are equal.

    Give either `pixels_per_degree`, or the display by `diagonal_inch` and `distance_m`.

    Attributes:
        encoding: what the values mean. 'sRGB-display': values in [0, 1] that an sRGB display of 1 to
            100 cd/m2 shows. 'rgb-bt.709': linear RGB, cd/m2. 'luminance': linear RGB of which only the
            luminance 0.2126 R + 0.7152 G + 0.0722 B counts, cd/m2.
        pixels_per_degree: pixels per visual degree.
        diagonal_inch: diagonal of the display, in inches; its pixels are square.
        resolution: `(width, height)` of the display in pixels; None takes the image's own.
        distance_m: from eye to display, in metres.
        scale: both images are multiplied by it first.
        peak: instead of `scale`: both images are multiplied so that the ground truth's largest value
            becomes this, cd/m2.
        swapped: exchange prediction and ground truth, as some published scripts do.

    Raises:
        ConfigError: a value is out of range, or two of them contradict each other.
    """

    encoding: str = SRGB_DISPLAY
    pixels_per_degree: float | None = None
    diagonal_inch: float | None = None
    resolution: tuple[int, int] | None = None
    distance_m: float | None = None
    scale: float = 1.0
    peak: float | None = None
    swapped: bool = False

    def __post_init__(self):
        if self.encoding not in ENCODINGS:
            raise ConfigError(f'encoding is one of {", ".join(ENCODINGS)}, not {self.encoding!r}')
        for name in ('pixels_per_degree', 'diagonal_inch', 'distance_m', 'scale', 'peak'):
            _check_positive(name, getattr(self, name))
        _check_display(self)
        if self.peak is not None and self.scale != 1:
            raise ConfigError(f'give scale or peak, not both: they are {self.scale} and {self.peak}')

    def pixels_per_degree_of(self, height: int, width: int) -> float:
        """Pixels per visual degree at which an image of `height` x `width` pixels is seen."""
        if self.pixels_per_degree is not None:
            return float(self.pixels_per_degree)
        across, down = self.resolution or (width, height)
        diagonal = MILLIMETRES_PER_INCH * self.diagonal_inch
        height_mm = diagonal / math.sqrt(1 + (across / down) ** 2)
        half_angle = math.atan(height_mm / 2 / (MILLIMETRES_PER_METRE * self.distance_m))
        return down / math.degrees(2 * half_angle)


def _check_positive(name: str, value: float | None) -> None:
    if value is not None and not (isinstance(value, (int, float)) and 0 < value < math.inf):
        raise ConfigError(f'{name} is a positive finite number, not {value!r}')


def _check_display(viewing: Viewing) -> None:
    display = (viewing.diagonal_inch, viewing.distance_m)
    direct = viewing.pixels_per_degree is not None
    if direct == any(value is not None for value in display) or (not direct and None in display):
        raise ConfigError(
            'give either pixels_per_degree, or diagonal_inch and distance_m together; they are '
            f'{viewing.pixels_per_degree}, {viewing.diagonal_inch} and {viewing.distance_m}'
        )
    size = viewing.resolution
    if size is None:
        return
    if direct:
        raise ConfigError(f'resolution {size} means nothing beside pixels_per_degree: leave one of them out')
    if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        raise ConfigError(f'resolution is (width, height) in whole pixels, not {size!r}')


# The sRGB presets give linear values to a display that decodes sRGB once more, and so do the published
# scripts; repairing it would make the numbers incomparable.
PRESETS = {
    'sctnet': Viewing(diagonal_inch=30.0, resolution=(1500, 1000), distance_m=0.55),
    'safnet': Viewing(diagonal_inch=28.0, distance_m=0.55),
    'selfhdr': Viewing(diagonal_inch=24.0, distance_m=0.5, swapped=True),
    'bt709-1000': Viewing(encoding=BT709, pixels_per_degree=30.0, peak=1000.0),
}
CUSTOM = 'custom'  # the name of settings that are no preset


def find_viewing(preset: str | Viewing) -> tuple[str, Viewing]:
    """Name and settings of a preset; settings themselves are returned with their preset's name or 'custom'.

    Raises:
        ConfigError: no such preset.
    """
    if isinstance(preset, Viewing):
        return next((name for name, known in PRESETS.items() if known == preset), CUSTOM), preset
    if preset not in PRESETS:
        raise ConfigError(
            f'no HDR-VDP-2 preset is called {preset!r}: choose one of {", ".join(PRESETS)}, or pass a Viewing'
        )
    return preset, PRESETS[preset]

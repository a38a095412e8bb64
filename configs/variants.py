"""The paper's variants of the network, with the release's recipe: `--config=configs/variants.py:NAME`.

T2 to T6 are Table 6 (number of stages), FA is Table 5 (fusion before alignment), M1 to M4 are Table 4
(SFM alone, + SAM, + CFM, + DCM). T4, M4 and the default are the same network.
"""

from configs import default

VARIANTS = {
    **{f'T{t}': {'num_stages': t} for t in range(2, 7)},
    'FA': {'order': 'FA'},
    **{name: {'ablation': name} for name in ('M1', 'M2', 'M3', 'M4')},
}


def get_config(variant: str = ''):
    if variant not in VARIANTS:
        raise ValueError(f'--config=configs/variants.py:NAME takes one of {", ".join(VARIANTS)}, not {variant!r}')
    config = default.get_config()
    config.model.update(VARIANTS[variant])
    return config

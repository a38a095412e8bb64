"""Trains and evaluates a list of configs in turn, and prints their table: the paper's ablations, or any list.

    python -m afunet_jax.study --table=4 --out=runs/table4 --config.data.dir=DIR
    python -m afunet_jax.study --configs=configs/variants.py:M1,wide=my_configs/wide.py --out=runs/widths

Each config gets a folder `OUT/NAME`, where `train.py` and `eval.py` run as processes of their own: the
working directory of the training, its evaluation in `eval`, what both printed in `train.log` and `eval.log`,
and `record.json`, by which a study that is started again knows what is finished. The same command goes on
where a study stopped. `OUT/study.txt`, `study.csv` and `study.json` hold the table, and are kept current on
the way.
"""

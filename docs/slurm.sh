#!/bin/bash
# Trains on 2 nodes with 8 GPUs each:
#   sbatch docs/slurm.sh --config=configs/kalantari.py --config.data.dir=DIR --workdir=runs/kalantari --config.train.batch_size=16
# Also for one node, with --nodes=1. The same command goes on with a run that has ended early.

#SBATCH --job-name=afunet
#SBATCH --nodes=2
#SBATCH --gpus-per-node=8
#SBATCH --ntasks-per-node=8     # one process for each GPU; leave out --gpus-per-task, a process picks its own GPU
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=USR1@120       # 2 minutes before the time is over: train.py saves and ends with status 138
#SBATCH --requeue               # after preemption (SIGTERM, status 143) SLURM starts the job again
#SBATCH --open-mode=append

srun --kill-on-bad-exit=1 python train.py "$@"
status=$?
if [ "$status" -eq 138 ]; then  # out of time: once more
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"

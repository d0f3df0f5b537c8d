#!/bin/bash
# One run on several nodes of a SLURM cluster: sbatch experiments/cluster/slurm.sh [options of the experiment]
#
# One process a GPU, as JAX expects of SLURM: srun tells each which it is, and no --coordinator is needed. The folder of
# the run is to lie where all nodes see it, and so is the data set; without GPUs, leave out the two lines for them.
#SBATCH --job-name=cnn-jax
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --gpu-bind=none
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --open-mode=append
# Two minutes before its time is over or another job takes the nodes, all processes get SIGTERM: they save once, and
# end with 143. Then, and where a node was lost, the job begins again and goes on from what was saved.
#SBATCH --signal=TERM@120
#SBATCH --requeue

export PYTHONUNBUFFERED=1
out=runs/slurm-$SLURM_JOB_ID

srun --kill-on-bad-exit=0 --wait=120 python experiments/lenet5.py --out "$out" --resume "$@"
code=$?

# 2 and 74 are bad input and a full disk, which another start does not mend.
if [ $code -ne 0 ] && [ $code -ne 2 ] && [ $code -ne 74 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 20 ]; then
  echo "ended with $code; begins again and goes on in $out"
  scontrol requeue "$SLURM_JOB_ID"
fi
exit $code

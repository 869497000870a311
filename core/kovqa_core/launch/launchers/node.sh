# One node of a SLURM job: node.sh ERROR.JSON TORCHRUN…, started by srun once per node.
# All nodes meet at the job's first host, at a port from the job's and the step's number.
trap '' USR1 # reaches every process of a step; torchrun would die of it
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export PET_RDZV_ENDPOINT=$head:$((10000 + (SLURM_JOB_ID * 16 + SLURM_STEP_ID) % 20000))
export PET_RDZV_ID=$SLURM_JOB_ID.$SLURM_STEP_ID
error=$1
shift

"$@" &
torchrun=$!
trap 'kill -TERM "$torchrun" 2>/dev/null' USR1 TERM # torchrun tells the workers, and starts none anew
wait "$torchrun"; code=$?
while kill -0 "$torchrun" 2>/dev/null; do wait "$torchrun"; code=$?; done # a trap ends `wait`

# Workers that stopped on purpose, with a complete checkpoint, leave with 0, lest torchrun begins again. The
# first node alone says 75: srun would kill the others for it.
if grep -qs '"kind": "Stopped"' "$error"; then [ "$SLURM_NODEID" = 0 ] && exit 75 || exit 0; fi
exit "$code"

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

# torchrun ends with 1 whatever its workers left with: 75 is a stop on purpose, with a complete checkpoint.
if [ "$code" != 0 ] && grep -qs '"kind": "Stopped"' "$error"; then exit 75; fi
exit "$code"

# One node of a SLURM job: node.sh ERROR.JSON TORCHRUN…, started by srun once per node.
# All nodes meet at the job's first host, at a port from the numbers of job and step: the formula of
# distributed/rank_info.slurm_rendezvous_port (tests/launch/test_launchers.py holds them together).
trap '' USR1 # reaches every process of a step; torchrun would die of it
unset "${!PET_@}" "${!TORCHELASTIC_@}" # options of another torchrun
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export PET_RDZV_ENDPOINT=$head:$((10000 + (SLURM_JOB_ID * 16 + SLURM_STEP_ID) % 20000))
export PET_RDZV_ID=$SLURM_JOB_ID.$SLURM_STEP_ID
error=$1
shift

"$@" &
torchrun=$!
trap 'kill -TERM "$torchrun" 2>/dev/null' USR1 TERM # torchrun passes TERM to the workers, and starts none again
wait "$torchrun"; code=$?
while kill -0 "$torchrun" 2>/dev/null; do wait "$torchrun"; code=$?; done # a trap ends `wait`

# Workers that stopped on purpose, with a complete checkpoint, leave with 0, or torchrun would start them again.
# The first node alone turns that into 75: srun would kill the other nodes' tasks for it.
if grep -qs '"kind": "Stopped"' "$error"; then [ "$SLURM_NODEID" = 0 ] && exit 75 || exit 0; fi
exit "$code"

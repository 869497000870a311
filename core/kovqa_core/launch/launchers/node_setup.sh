# Before the workers of a node: node_setup.sh LINES ERROR.JSON FAILURE NOTICE COMMAND…, started by srun once per task.
# The first task of a node runs LINES, the others wait for it. They run in the workers' own step, so that what they
# mount or leave running lives as long as the workers do. FAILURE is an error.json with @HOST@, @CODE@ and @LINE@ in
# it, NOTICE an event for whoever waits; both come from Python, which knows how to write JSON.
lines=$1 error=$2 failure=$3 notice=$4
shift 4
logs=${error%/*}/logs
log=$logs/node-setup-$SLURMD_NODENAME.log
# Of this start alone: a job that was queued again may find another disk on the same node.
done=$logs/.node-setup-$SLURMD_NODENAME.$SLURM_JOB_ID.$SLURM_STEP_ID.${SLURM_RESTART_COUNT:-0}

if [ "$SLURM_LOCALID" = 0 ]; then
  mkdir -p "$logs"
  rm -f "$logs/.node-setup-$SLURMD_NODENAME."*
  [ "$SLURM_PROCID" = 0 ] && [ -n "$KOVQA_EVENTS" ] && printf '%s\n' "$notice"
  bash -e -c "$lines" > "$log" 2>&1 < /dev/null
  code=$?
  if [ "$code" != 0 ]; then
    line=$(grep -a '[^[:space:]]' "$log" | tail -n 1 | tr -d '\000-\037' | iconv -c -f UTF-8 -t UTF-8 | head -c 600 |
      iconv -c -f UTF-8 -t UTF-8 | sed 's/[\\"]/\\&/g')
    text=${failure//@HOST@/$SLURMD_NODENAME}
    text=${text//@CODE@/$code}
    # Quoted: else bash 5.2 puts what was replaced in the place of an `&`.
    text=${text//@LINE@/"${line:-no message}"}
    part=$error.$SLURMD_NODENAME.part
    printf '%s\n' "$text" > "$part" && ln "$part" "$error" 2>/dev/null # the first error stays, as in worker.py
    rm -f "$part"
    exit 6
  fi
  : > "$done"
fi
until [ -e "$done" ]; do sleep 0.2; done
exec "$@"

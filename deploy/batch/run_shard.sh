#!/bin/sh
# A shard, for HTCondor: run_shard.sh I N EVENTS OUTPUT [options of run]
set -eu
shard=$1/$2 events=$3 output=$4
shift 4
exec traccc-py run "$events" --output "$output" --shard "$shard" --resume --device cpu "$@"

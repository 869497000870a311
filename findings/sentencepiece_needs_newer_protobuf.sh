#!/usr/bin/env bash
# sentencepiece 0.2.3 ships generated protobuf code (sentencepiece_model_pb2), names protobuf in an extra without a bound, and its
# code refuses every protobuf runtime older than the one it was generated with: with protobuf 7.36.0 the import of the
# message raises VersionError, with 7.36.1 it works. Whoever edits a model's pieces finds out at run time.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
install() { python3 -m pip install --quiet --disable-pip-version-check --no-deps --target "$folder/$1" sentencepiece==0.2.3 "protobuf==$1" 2>/dev/null; }
import='from sentencepiece.sentencepiece_model_pb2 import ModelProto; print(len(ModelProto().pieces), "pieces in an empty model")'
install 7.36.0; install 7.36.1
echo "sentencepiece 0.2.3: requirements that name protobuf outside of an extra: $(grep "^Requires-Dist: protobuf" "$folder"/7.36.0/sentencepiece-*.dist-info/METADATA | grep -vc extra || true)"
old=$(PYTHONPATH=$folder/7.36.0 python3 -c "$import" 2>&1 | tail -1 || true)
new=$(PYTHONPATH=$folder/7.36.1 python3 -c "$import" 2>&1 | tail -1 || true)
echo "protobuf 7.36.0: $old"
echo "protobuf 7.36.1: $new"
grep -q "VersionError" <<< "$old" && grep -q "pieces in an empty model" <<< "$new" || { echo "the behaviour has changed"; exit 1; }

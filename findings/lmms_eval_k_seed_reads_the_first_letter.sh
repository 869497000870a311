#!/usr/bin/env bash
# lmms-eval 0.7.3 scores K-SEED by the first character of what a model wrote, whatever word it belongs to. Korean models answer
# in sentences: one that names the right choice counts as wrong ("정답은 D입니다" is read as 정), and one that names a wrong choice
# can count as right ("Banana입니다", which is choice D, is read as B). Nothing is said of either.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --no-deps --target "$folder" lmms-eval==0.7.3 2>/dev/null
python3 - "$folder" <<'PYTHON'
import importlib.util, sys
path = f"{sys.argv[1]}/lmms_eval/tasks/seedbench/ko_utils.py"
spec = importlib.util.spec_from_file_location("ko_utils", path)
scorer = importlib.util.module_from_spec(spec)
spec.loader.exec_module(scorer)
# 사진에 보이는 과일은? A. 사과  B. 배  C. 포도  D. Banana
seen = []
for truth, text in (("D", "D"), ("D", "정답은 D입니다"), ("B", "Banana입니다")):
    [row] = scorer.seed_process_result({"answer": truth, "data_type": "image", "question_id": 1}, [text]).values()
    score = scorer.seed_aggregation_result([row])
    print(f"lmms-eval 0.7.3, right is {truth}, the model wrote {text}: read as {row['pred']}, score {score:g}")
    seen.append((row["pred"], score))
sys.exit(0 if seen == [("D", 1), ("정", 0), ("B", 1)] else "the behaviour has changed")
PYTHON

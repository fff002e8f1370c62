"""Train CLEAR: `accelerate launch train.py --stage recognition`, then `--stage retrieval`.

Recognition learns the backbone and the classifier; retrieval freezes both and the language model
and learns a light adapter. Every setting is explained by `python train.py --help`. A finished run
is a loadable repository. Source: arXiv 2403.06119; the settings of training from scratch are ours.
"""

import json
import math
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn
from tqdm import tqdm
from transformers import HfArgumentParser

from clear_par.training.averaging import WeightAverage
from clear_par.training.curve import draw_curve
from clear_par.training.recognition import RecognitionStage
from clear_par.training.retrieval import RetrievalStage
from clear_par.training.settings import TrainingSettings

STAGES = {"recognition": RecognitionStage, "retrieval": RetrievalStage}


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Matrices decay; biases, norms and single tokens do not."""
    learned = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in learned if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in learned if p.ndim < 2], "weight_decay": 0.0},
    ]


def rate_schedule(total_steps: int, warmup_share: float) -> Callable[[int], float]:
    """Share of the peak rate at a step: linear rise, then half a cosine down to 1 %."""
    warmup_steps = max(1, round(total_steps * warmup_share))

    def share(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
        return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))

    return share


def write_run(stage, output: Path) -> None:
    """Write the model under a temporary name, then put it in place: never half a checkpoint."""
    partial, old = (output.with_name(f".{output.name}.{kind}") for kind in ("partial", "old"))
    for folder in (partial, old):
        shutil.rmtree(folder, ignore_errors=True)
    partial.mkdir(parents=True)
    stage.save(partial)
    if output.exists():
        output.rename(old)
    partial.rename(output)
    shutil.rmtree(old, ignore_errors=True)


def write_records(record: dict, history: list[dict], selects_by: str, output: Path) -> None:
    """Write settings, metrics of each epoch and the curve beside the model, each file whole."""

    def write_json(name: str, content) -> None:
        (output / f"{name}.partial").write_text(json.dumps(content, indent=2) + "\n")
        (output / f"{name}.partial").replace(output / name)

    write_json("training_args.json", record)
    write_json("metrics.json", {"selected_by": selects_by, "epochs": history})
    draw_curve(history, output / "training_curve.partial", selects_by)
    (output / "training_curve.partial").replace(output / "training_curve.png")


def public_settings(settings: TrainingSettings) -> dict:
    """The settings without folders of this machine, and the commit that ran."""
    record = asdict(settings)
    for name in ("data_dir", "output_dir", "text_model", "checkpoint"):
        if record[name] and Path(record[name]).is_absolute():
            record[name] = Path(record[name]).name
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return {**record, "commit": result.stdout.strip() or None, "torch": torch.__version__}


def check_output(settings: TrainingSettings) -> None:
    """Refuse to replace a folder that is not an earlier run, before any work is done."""
    output = Path(settings.output_dir)
    if output.exists() and any(output.iterdir()) and not (output / "training_args.json").exists():
        raise ValueError(
            f"`output_dir` must be new, empty or an earlier run, got {str(output)!r}, which holds "
            "other files. Name another folder."
        )
    output.parent.mkdir(parents=True, exist_ok=True)


def main(settings: TrainingSettings) -> list[dict]:
    """Run one stage; returns the validation metrics of each epoch."""
    check_output(settings)
    set_seed(settings.seed)
    output, record = Path(settings.output_dir), public_settings(settings)
    accelerator = Accelerator(mixed_precision=settings.mixed_precision)
    stage = STAGES[settings.stage](settings, accelerator)
    train_loader, validation_loader = stage.loaders()
    optimizer = torch.optim.AdamW(
        parameter_groups(stage.model, settings.weight_decay), settings.learning_rate
    )
    average = WeightAverage(stage.model, settings.ema_decay, settings.store_half)
    model, optimizer, train_loader = accelerator.prepare(stage.model, optimizer, train_loader)
    if validation_loader is not None:
        validation_loader = accelerator.prepare(validation_loader)
    total_steps = settings.epochs * len(train_loader)
    schedule = rate_schedule(total_steps, settings.warmup_share)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
    best, history = -math.inf, []
    progress = tqdm(total=total_steps, disable=not accelerator.is_main_process)
    for epoch in range(1, settings.epochs + 1):
        stage.start_epoch(epoch)
        model.train()
        total_loss = 0.0
        for batch in train_loader:
            loss = stage.loss(model, batch)
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            average.update()
            total_loss += finite(loss)
            progress.update()
        with average.applied():
            scores = stage.evaluate(model, validation_loader)
            is_best = scores[stage.selects_by] > best or settings.train_split == "trainval"
            if is_best and accelerator.is_main_process:
                write_run(stage, output)
        best = max(best, scores[stage.selects_by])
        history.append({"epoch": epoch, "loss": total_loss / len(train_loader), **scores})
        progress.write(json.dumps({k: round(v, 4) for k, v in history[-1].items()}))
        if accelerator.is_main_process:
            write_records(record, history, stage.selects_by, output)
        accelerator.wait_for_everyone()
    return history


def finite(loss: torch.Tensor) -> float:
    """The value of a loss; raises when it is not a number any more."""
    value = loss.item()
    if not math.isfinite(value):
        raise FloatingPointError(f"`loss` must be finite, got {value}. Lower `learning_rate`.")
    return value


if __name__ == "__main__":
    main(HfArgumentParser(TrainingSettings).parse_args_into_dataclasses()[0])

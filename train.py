"""Train CLEAR: `accelerate launch train.py --stage recognition`, then `--stage retrieval`.

Recognition learns the backbone and the classifier; retrieval freezes both and the language model
and learns a light adapter. Every setting is explained by `python train.py --help`. A finished run
is a loadable repository. Source: arXiv 2403.06119; the settings of training from scratch are ours.
"""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from clear_par.training.averaging import WeightAverage
from clear_par.training.recognition import RecognitionStage
from clear_par.training.retrieval import RetrievalStage
from clear_par.training.run_folder import (
    prepare_folder,
    public_settings,
    write_records,
    write_run,
)
from clear_par.training.settings import TrainingSettings, parse_command_line

STAGES = {"recognition": RecognitionStage, "retrieval": RetrievalStage}


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Matrices decay; biases, norms and single tokens do not."""
    matrices, vectors = [], []
    for parameter in model.parameters():
        if parameter.requires_grad:
            is_matrix = sum(size > 1 for size in parameter.shape) >= 2
            (matrices if is_matrix else vectors).append(parameter)
    return [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
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


def require_steps(loader: DataLoader) -> int:
    """Steps of an epoch; raises when the training split fills not even one batch."""
    if not len(loader):
        raise ValueError(
            "`batch_size` times the number of processes must not exceed the training split; "
            "lower it, or give more crops."
        )
    return len(loader)


def finite(value: float, name: str, remedy: str) -> float:
    """The value itself; raises when it is not a number any more."""
    if not math.isfinite(value):
        raise FloatingPointError(f"`{name}` must be finite, got {value}. {remedy}")
    return value


def parse_settings(arguments: Sequence[str] | None = None) -> TrainingSettings:
    """Settings of the command line; a wrong one ends the program with one line that says so."""
    usage = "%(prog)s [--stage recognition|retrieval] [--option value ...]; --help explains each"
    return parse_command_line(TrainingSettings, __doc__, usage, arguments)


def main(settings: TrainingSettings) -> list[dict]:
    """Run one stage; returns the validation metrics of each epoch."""
    accelerator = Accelerator(mixed_precision=settings.mixed_precision)
    output, record = Path(settings.output_dir), public_settings(settings, accelerator.num_processes)
    if accelerator.is_main_process:
        prepare_folder(output)
    set_seed(settings.seed)
    stage = STAGES[settings.stage](settings, accelerator)
    train_loader, validation_loader = stage.loaders()
    optimizer = torch.optim.AdamW(
        parameter_groups(stage.model, settings.weight_decay), settings.learning_rate
    )
    model, optimizer, train_loader = accelerator.prepare(stage.model, optimizer, train_loader)
    if validation_loader is not None:
        validation_loader = accelerator.prepare(validation_loader)
    average = WeightAverage(stage.model, settings.ema_decay, settings.store_half)
    total_steps = settings.epochs * require_steps(train_loader)
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
            total_loss += finite(loss.item(), "loss", "Lower `learning_rate`.")
            progress.update()
        with average.applied():
            scores = stage.evaluate(model, validation_loader)
            score = finite(scores[stage.selects_by], stage.selects_by, "Are there known labels?")
            history.append({"epoch": epoch, "loss": total_loss / len(train_loader), **scores})
            if accelerator.is_main_process:
                progress.write(json.dumps({k: round(v, 4) for k, v in history[-1].items()}))
                if score > best or settings.train_split == "trainval":
                    write_run(stage.save, output, record, history, stage.selects_by)
                else:
                    write_records(output, record, history, stage.selects_by)
        best = max(best, score)
        accelerator.wait_for_everyone()
    accelerator.end_training()
    return history


if __name__ == "__main__":
    main(parse_settings())

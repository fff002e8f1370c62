"""Train CLEAR: `accelerate launch train.py --stage recognition`, then `--stage retrieval`.

Recognition learns the backbone and the classifier; retrieval freezes both and the language model
and learns a light adapter. Every setting is explained by `python train.py --help`. A finished run
is a loadable repository; an interrupted one goes on, exactly, when the same command is given again.
Source: arXiv 2403.06119; the settings of training from scratch are ours.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path

from accelerate import Accelerator, skip_first_batches
from accelerate.utils import set_seed
from torch.utils.data import DataLoader
from tqdm import tqdm

from clear_par.training.averaging import WeightAverage
from clear_par.training.health import require_finite_loss, require_finite_score
from clear_par.training.optimization import build_optimizer, rate_share, set_rate
from clear_par.training.recognition import RecognitionStage
from clear_par.training.retrieval import RetrievalStage
from clear_par.training.run_folder import (
    finish_run,
    open_run,
    public_settings,
    write_records,
    write_run,
)
from clear_par.training.settings import TrainingSettings, parse_command_line
from clear_par.training.states import Progress, RunStates
from clear_par.training.trackers import start_trackers, tracker_names

STAGES = {"recognition": RecognitionStage, "retrieval": RetrievalStage}


def parse_settings(arguments: Sequence[str] | None = None) -> TrainingSettings:
    """Settings of the command line; a wrong one ends the program with one line that says so."""
    usage = "%(prog)s [--stage recognition|retrieval] [--option value ...]; --help explains each"
    return parse_command_line(TrainingSettings, __doc__, usage, arguments)


def updates_of_an_epoch(loader: DataLoader, accumulated: int) -> int:
    """Updates of the weights; raises when the training split fills not even one batch."""
    if not len(loader):
        raise ValueError(
            "`batch_size` times the number of processes must not exceed the training split; "
            "lower it, or give more crops."
        )
    return -(-len(loader) // accumulated)


def main(settings: TrainingSettings) -> list[dict]:
    """Run one stage, or go on with it; returns the validation metrics of each epoch."""
    started = time.monotonic()
    accelerator = Accelerator(
        mixed_precision=settings.mixed_precision,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        log_with=tracker_names(settings.report_to),
        project_dir=settings.output_dir + ".logs",
        step_scheduler_with_optimizer=False,
    )
    output, record = Path(settings.output_dir), public_settings(settings, accelerator.num_processes)
    states = RunStates(output, settings.state_every, settings.keep_states)
    with accelerator.main_process_first():
        if accelerator.is_main_process:
            open_run(output, states, record, settings)
    set_seed(settings.seed)
    stage = STAGES[settings.stage](settings, accelerator)
    train_loader, validation_loader = stage.loaders()
    optimizer = build_optimizer(stage.model, settings, stage.rate_scale)
    model, optimizer, train_loader = accelerator.prepare(stage.model, optimizer, train_loader)
    if validation_loader is not None:
        validation_loader = accelerator.prepare(validation_loader)
    average = WeightAverage(stage.model, settings.ema_decay, settings.store_half)
    updates = updates_of_an_epoch(train_loader, settings.gradient_accumulation_steps)
    total_steps = settings.epochs * updates
    progress = states.restore(accelerator, average)
    start_trackers(accelerator, record)
    bar = tqdm(total=total_steps, initial=progress.step, disable=not accelerator.is_main_process)
    while not is_finished(progress, settings):
        stage.start_epoch(progress.epoch)
        model.train()
        for batch in skip_first_batches(train_loader, progress.batches):
            share = rate_share(settings, progress.step, total_steps, progress.history)
            set_rate(optimizer, settings.learning_rate * share)
            with accelerator.accumulate(model):
                loss = stage.loss(model, batch)
                value = accelerator.reduce(loss.detach().float(), reduction="mean").item()
                require_finite_loss(value, loss, stage.image_names(batch), accelerator)
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
                optimizer.step()
                optimizer.zero_grad()
            progress.batches += 1
            progress.total_loss += value
            if not accelerator.sync_gradients:
                continue
            progress.step += 1
            average.update()
            bar.update()
            accelerator.log({"loss": value, "rate": settings.learning_rate * share}, progress.step)
            if is_time_up(started, settings, accelerator):
                states.save(accelerator, average, progress, record)
                bar.write(f"`max_hours` is over after step {progress.step}; start again to go on.")
                accelerator.end_training()
                return progress.history
            if states.is_due(progress.step):
                states.save(accelerator, average, progress, record)
        with average.applied():
            scores = stage.evaluate(model, validation_loader)
            require_finite_score(scores[stage.selects_by], stage.selects_by)
            is_best = progress.finish_epoch(scores, stage.selects_by)
            if accelerator.is_main_process:
                bar.write(json.dumps({k: round(v, 4) for k, v in progress.history[-1].items()}))
                if is_best or settings.train_split == "trainval":
                    write_run(stage.save, output, record, progress.history, stage.selects_by)
                else:
                    write_records(output, record, progress.history, stage.selects_by)
        accelerator.log(scores, progress.step)
        states.save(accelerator, average, progress, record)
    if accelerator.is_main_process:
        finish_run(output, states, record)
    accelerator.end_training()
    return progress.history


def is_finished(progress: Progress, settings: TrainingSettings) -> bool:
    """Whether all epochs are done, or so many in a row brought no better score."""
    finished = progress.epoch - 1
    is_stuck = finished - progress.best_epoch >= settings.early_stopping > 0
    return finished >= settings.epochs or is_stuck


def is_time_up(started: float, settings: TrainingSettings, accelerator: Accelerator) -> bool:
    """Whether `max_hours` are over on any process; all of them are told the same."""
    if not settings.max_hours:
        return False
    if time.monotonic() - started > 3600 * settings.max_hours:
        accelerator.set_trigger()
    return accelerator.check_trigger()


if __name__ == "__main__":
    main(parse_settings())

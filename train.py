"""Train CLEAR: `accelerate launch train.py --stage recognition`, then `--stage retrieval`.

Recognition learns the backbone and the classifier; retrieval freezes both and the language model
and learns a light adapter. Every setting is explained by `python train.py --help`. A finished run
is a loadable repository; an interrupted one goes on, exactly, when the same command is given again.
Source: arXiv 2403.06119; the settings of training from scratch are ours.
"""

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from accelerate import Accelerator, skip_first_batches
from accelerate.utils import gather_object, set_seed
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader
from tqdm import tqdm

from clear_par.training.averaging import WeightAverage
from clear_par.training.command_line import parse_command_line
from clear_par.training.health import listed, require_finite_loss, require_finite_score
from clear_par.training.held_out import keeps_last, require_choice_left
from clear_par.training.launching import require_launch_as_asked
from clear_par.training.optimization import build_optimizer, rate_share, set_rate
from clear_par.training.publishing import complete_run
from clear_par.training.recognition import RecognitionStage
from clear_par.training.retrieval import RetrievalStage
from clear_par.training.run_folder import (
    UNREADABLE,
    open_run,
    public_settings,
    require_same_inputs,
    write_records,
    write_run,
)
from clear_par.training.settings import TrainingSettings
from clear_par.training.stage import Stage
from clear_par.training.states import Progress, RunStates
from clear_par.training.trackers import start_trackers, tracker_names

STAGES = {"recognition": RecognitionStage, "retrieval": RetrievalStage}


def parse_settings(arguments: Sequence[str] | None = None) -> TrainingSettings:
    """Settings of the command line; a wrong one ends the program with one line that says so."""
    usage = "%(prog)s [--stage recognition|retrieval] [--option value ...]; --help explains each"
    return parse_command_line(TrainingSettings, __doc__, usage, arguments)


@dataclass
class Run:
    """One stage on its way: what the functions below hand to each other.

    skipped: numbers of the crops that this process left out since `report_skipped`.
    """

    settings: TrainingSettings
    accelerator: Accelerator
    stage: Stage
    model: nn.Module
    optimizer: Optimizer
    train_loader: DataLoader
    validation_loader: DataLoader | None
    average: WeightAverage
    output: Path
    states: RunStates
    record: dict
    progress: Progress
    total_steps: int
    started: float
    bar: tqdm
    skipped: list[int] = field(default_factory=list)

    def is_finished(self) -> bool:
        """Whether all epochs are done, or so many in a row brought no better score."""
        epochs, patience = self.progress.epoch - 1, self.settings.early_stopping
        return epochs >= self.settings.epochs or epochs - self.progress.best_epoch >= patience > 0

    def is_time_up(self) -> bool:
        """Whether `max_hours` are over on any process; all of them are told the same."""
        if not self.settings.max_hours:
            return False
        if time.monotonic() - self.started > 3600 * self.settings.max_hours:
            self.accelerator.set_trigger()
        return self.accelerator.check_trigger()

    def report_skipped(self) -> None:
        """Bring what each process left out into the progress, and name what is new."""
        if self.settings.on_bad_image != "skip":
            return
        rows = gather_object(self.skipped)
        self.skipped = []
        names = self.stage.train_image_names() if rows else []
        new = self.progress.leave_out([names[row] for row in rows])
        if new and self.accelerator.is_main_process:
            self.bar.write(
                f"{len(new)} crops cannot be read and are left out: {listed(new)}. After the epoch "
                f"{self.output / UNREADABLE} names all."
            )

    def save_state(self) -> None:
        """Write all that a killed run needs to go on from here."""
        self.report_skipped()
        self.states.save(self.accelerator, self.average, self.progress, self.record)


def main(settings: TrainingSettings) -> list[dict]:
    """Run one stage, or go on with it; returns the validation metrics of each epoch."""
    return finish(begin(settings))


def finish(run: Run) -> list[dict]:
    """Train and validate to the last epoch, or until the time is up; returns the metrics."""
    while not run.is_finished():
        if not train_epoch(run):
            run.bar.write(f"`max_hours` is over after step {run.progress.step}; start again.")
            run.accelerator.end_training()
            return run.progress.history
        evaluate_epoch(run)
    run.accelerator.end_training()
    if run.accelerator.is_main_process:
        history, score = run.progress.history, run.stage.selects_by
        complete_run(run.output, run.states, run.settings, run.record, history, score)
    return run.progress.history


def begin(settings: TrainingSettings) -> Run:
    """Data, model and optimizer of a run, brought to where an interrupted one was."""
    started = time.monotonic()
    accelerator, states, record = open_output(settings)
    set_seed(settings.seed)
    stage = STAGES[settings.stage](settings, accelerator)
    train_loader, validation_loader = stage.loaders()
    optimizer = build_optimizer(stage.model, settings, stage.rate_scale)
    model, optimizer, train_loader = accelerator.prepare(stage.model, optimizer, train_loader)
    if validation_loader is not None:
        validation_loader = accelerator.prepare(validation_loader)
    average = WeightAverage(stage.model, settings.ema_decay, settings.store_half)
    total_steps = settings.epochs * updates_of_an_epoch(train_loader, settings)
    record["inputs"], record["validation_held_out"] = stage.inputs, stage.is_held_out
    require_same_inputs(states, stage.inputs)
    require_choice_left(record, settings.early_stopping)
    progress = states.restore(accelerator, average)
    start_trackers(accelerator, record)
    return Run(
        settings=settings,
        accelerator=accelerator,
        stage=stage,
        model=model,
        optimizer=optimizer,
        train_loader=train_loader,
        validation_loader=validation_loader,
        average=average,
        output=Path(settings.output_dir),
        states=states,
        record=record,
        progress=progress,
        total_steps=total_steps,
        started=started,
        bar=tqdm(total=total_steps, initial=progress.step, disable=not accelerator.is_main_process),
    )


def open_output(settings: TrainingSettings) -> tuple[Accelerator, RunStates, dict]:
    """The processes of the run, and its folder: its states and the record of its settings."""
    accelerator = Accelerator(
        mixed_precision=settings.mixed_precision,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        log_with=tracker_names(settings.report_to),
        project_dir=f"{settings.output_dir}.logs",
    )
    require_launch_as_asked(accelerator, settings.gradient_accumulation_steps)
    record = public_settings(settings, accelerator.num_processes)
    output = Path(settings.output_dir)
    states = RunStates(output, settings.state_every, settings.keep_states)
    if accelerator.is_main_process:
        open_run(output, states, record, settings)
    accelerator.wait_for_everyone()
    return accelerator, states, record


def updates_of_an_epoch(loader: DataLoader, settings: TrainingSettings) -> int:
    """Updates of the weights; raises when the training split fills not even one batch."""
    if not len(loader):
        raise ValueError(
            "`batch_size` of all processes together must not exceed the training split, got "
            f"{settings.batch_size} on each for {len(loader.dataset)} crops; set a smaller one."
        )
    return math.ceil(len(loader) / settings.gradient_accumulation_steps)


def train_epoch(run: Run) -> bool:
    """Train from where the epoch stands to its end; False when the time is up before."""
    settings, accelerator, progress = run.settings, run.accelerator, run.progress
    run.stage.start_epoch(progress.epoch)
    run.model.train()
    losses = []  # of the batches of one update; a state is written only between updates
    for batch in skip_first_batches(run.train_loader, progress.batches):
        rate = settings.learning_rate * rate_share(
            settings, progress.step, run.total_steps, progress.history
        )
        set_rate(run.optimizer, rate)
        with accelerator.accumulate(run.model):
            loss = run.stage.loss(run.model, batch)
            value = accelerator.reduce(loss.detach().float(), reduction="mean").item()
            require_finite_loss(value, loss, run.stage.image_names(batch), accelerator)
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(run.model.parameters(), settings.max_grad_norm)
            run.optimizer.step()
            run.optimizer.zero_grad()
        progress.batches += 1
        progress.total_loss += value
        losses.append(value)
        run.skipped += run.stage.unreadable_rows(batch)
        if accelerator.sync_gradients:
            is_time_up = finish_update(run, sum(losses) / len(losses), rate)
            losses.clear()
            if is_time_up:
                return False
    return True


def finish_update(run: Run, loss: float, rate: float) -> bool:
    """Count and log an update, write a state when one is due; whether the time is up.

    Args: loss: mean over the batches of the update.
    """
    run.progress.step += 1
    run.average.update()
    run.bar.update()
    run.accelerator.log({"loss": loss, "rate": rate}, run.progress.step)
    is_time_up = run.is_time_up()
    if is_time_up or run.states.is_due(run.progress.step):
        run.save_state()
    return is_time_up


def evaluate_epoch(run: Run) -> None:
    """Validate the averaged weights, keep them if they are the best, and go to the next epoch."""
    stage, progress, history = run.stage, run.progress, run.progress.history
    run.report_skipped()
    with run.average.applied():
        scores = stage.evaluate(run.model, run.validation_loader)
        require_finite_score(scores[stage.selects_by], stage.selects_by)
        if run.settings.on_bad_image == "skip":
            scores["unreadable_crops"] = progress.num_skipped
        is_best = progress.finish_epoch(scores, stage.selects_by)
        if run.accelerator.is_main_process:
            run.bar.write(json.dumps({k: round(v, 4) for k, v in history[-1].items()}))
            written = (run.output, run.record, history, stage.selects_by, progress.unreadable)
            if is_best or keeps_last(run.record):
                write_run(stage.save, *written)
            else:
                write_records(*written)
    run.accelerator.log(scores, progress.step)
    run.save_state()


def command(arguments: Sequence[str] | None = None) -> None:
    """The command: what a user got wrong ends it with one message, without a traceback."""
    settings = parse_settings(arguments)
    try:
        run = begin(settings)
    except (ValueError, FileNotFoundError) as error:
        raise SystemExit(f"train.py: error: {error}") from None
    finish(run)


if __name__ == "__main__":
    command()

//! Minibatch training by Adam, with early stopping on examples that are held out.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
#[cfg(feature = "neural")]
use {
    crate::checkpoint::{self, MaybeKeeper},
    crate::optimizer::{Adam, AdamSettings, Schedule},
    crate::random::{Stream, StreamRng},
    rand::seq::SliceRandom,
    std::ops::ControlFlow,
};

/// How a network is trained.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
#[command(next_help_heading = "Training")]
pub struct TrainingSettings {
    /// Passes over the training set at most. Default: 100
    #[arg(long, value_name = "N")]
    pub epochs: usize,
    /// Examples of one step. Default: 128
    #[arg(long, value_name = "N")]
    pub training_batch: usize,
    /// Adam's learning rate at the start, in deviations of the initial weights; it falls to 0 by a cosine. Default: 0.01
    #[arg(long, value_name = "X")]
    pub training_rate: f64,
    /// Epochs without a better loss on the examples held out after which training stops. Default: 20
    #[arg(long, value_name = "N")]
    pub patience: usize,
    /// Share of the examples that is held out. Default: 0.1
    #[arg(long, value_name = "SHARE")]
    pub held_out: f64,
}

impl Default for TrainingSettings {
    fn default() -> Self {
        Self { epochs: 100, training_batch: 128, training_rate: 0.01, patience: 20, held_out: 0.1 }
    }
}

impl TrainingSettings {
    /// Refuses settings that cannot work.
    ///
    /// # Errors
    /// The first setting at fault.
    pub fn check(&self) -> Result<()> {
        for (flag, value, most) in [
            ("epochs", self.epochs, 1_000_000),
            ("training-batch", self.training_batch, 1_000_000),
            ("patience", self.patience, 1_000_000),
        ] {
            if !(1..=most).contains(&value) {
                let expected = format!("1 to {most}");
                return Err(Error::invalid(flag, expected, value.to_string(), "correct the setting, or leave it out"));
            }
        }
        if !(self.training_rate.is_finite() && self.training_rate > 0.0) {
            let found = self.training_rate.to_string();
            return Err(Error::invalid("training-rate", "a finite number > 0", found, "0.01 is a start"));
        }
        if !(self.held_out > 0.0 && self.held_out <= 0.5) {
            let found = self.held_out.to_string();
            return Err(Error::invalid("held-out", "a share above 0, at most 0.5", found, "0.1 holds out a tenth"));
        }
        Ok(())
    }

    /// How many of `examples`, the last ones, are held out.
    ///
    /// # Errors
    /// So few that training or judging would have none.
    pub fn held_out_of(&self, examples: usize) -> Result<usize> {
        let held_out = (examples as f64 * self.held_out).round() as usize;
        if held_out == 0 || held_out == examples {
            let found = examples.to_string();
            return Err(Error::invalid("examples", "enough to train with and to hold out", found, "make more of them"));
        }
        Ok(held_out)
    }
}

/// The course of a training.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TrainingHistory {
    /// Mean loss over the training set during each epoch.
    pub training: Vec<f64>,
    /// Mean loss over what is held out after each epoch.
    pub held_out: Vec<f64>,
    /// Mean loss over what is held out before the first step.
    pub before: f64,
    /// The epoch after which the weights were kept, from 1; 0 where none was better than the weights before the first step,
    /// which were kept.
    pub best: usize,
    /// Whether it ended before its last epoch because nothing became better.
    pub stopped_early: bool,
}

impl TrainingHistory {
    /// The mean loss over what is held out with the weights that were kept.
    pub fn lowest(&self) -> f64 {
        if self.best == 0 { self.before } else { self.held_out[self.best - 1] }
    }

    /// How it ended, for people.
    pub fn ending(&self) -> String {
        let epochs = self.held_out.len();
        let ending = if self.stopped_early { "stopped early" } else { "done" };
        if self.best > 0 || epochs == 0 {
            return format!("{ending} after {epochs} epochs");
        }
        format!("{ending} after {epochs} epochs, none of which was better than the start: nothing is learned")
    }
}

/// What is trained: a mean loss over examples, as a function of parameters.
#[cfg(feature = "neural")]
pub(crate) trait Learner {
    /// Mean loss over examples and its gradient. Each `step` has draws of its own.
    ///
    /// # Errors
    /// An engine's.
    fn gradient(&mut self, parameters: &[f64], examples: &[usize], step: u32) -> Result<(f64, Vec<f64>)>;

    /// Mean loss over examples, with the same draws whenever it is asked.
    ///
    /// # Errors
    /// An engine's.
    fn loss(&mut self, parameters: &[f64], examples: &[usize]) -> Result<f64>;
}

/// Watches a training.
#[cfg(feature = "neural")]
pub(crate) trait Watch {
    /// Called after each step with the steps done, the steps at most, the mean loss of the last epoch and the lowest over what
    /// is held out. `Break` ends it; the best weights are kept.
    fn progress(&mut self, step: usize, steps: usize, losses: [f64; 2]) -> ControlFlow<()>;

    /// Where its state is kept, after each epoch.
    fn keeper(&mut self) -> MaybeKeeper<'_>;
}

/// A training between two epochs.
#[cfg(feature = "neural")]
#[derive(Serialize, Deserialize)]
struct State {
    epoch: usize,
    parameters: Vec<f64>,
    best: Vec<f64>,
    adam: Adam,
    history: TrainingHistory,
}

/// Trains on the first of `examples` and judges by the last, those that are held out. `parameters` end as those with the
/// lowest loss there.
///
/// # Errors
/// Settings that cannot work, too few examples, a loss that is not finite at the start, a learner's failure.
#[cfg(feature = "neural")]
pub(crate) fn train(
    learner: &mut dyn Learner,
    parameters: &mut [f64],
    units: Vec<f64>,
    examples: usize,
    settings: &TrainingSettings,
    seed: u64,
    watch: &mut dyn Watch,
) -> Result<TrainingHistory> {
    settings.check()?;
    let held_out = settings.held_out_of(examples)?;
    let judged: Vec<usize> = (examples - held_out..examples).collect();
    let mut order: Vec<usize> = (0..examples - held_out).collect();
    let steps = order.len().div_ceil(settings.training_batch);
    let iterations = settings.epochs * steps;
    let schedule = Schedule::Cosine;
    let adam = AdamSettings { learning_rate: settings.training_rate, schedule, ..AdamSettings::default() };
    let mut rng = StreamRng::new(seed, Stream::Shuffle);
    let mut state = match checkpoint::begin(watch.keeper())? {
        Some(kept) => kept,
        None => {
            let before = learner.loss(parameters, &judged)?;
            if !before.is_finite() {
                let help = "standardise the examples, or lower the deviation of what they are reconstructed with";
                return Err(Error::invalid("loss before training", "a finite number", before.to_string(), help));
            }
            let history = TrainingHistory { before, ..TrainingHistory::default() };
            let adam = Adam::new(adam, units, iterations);
            State { epoch: 0, parameters: parameters.to_vec(), best: parameters.to_vec(), adam, history }
        }
    };
    (0..state.epoch).for_each(|_| order.shuffle(&mut rng));
    'epochs: while state.epoch < settings.epochs && !state.history.stopped_early {
        let State { epoch, parameters, best, adam, history } = &mut state;
        let lowest = history.lowest();
        order.shuffle(&mut rng);
        let mut sum = 0.0;
        for (k, batch) in order.chunks(settings.training_batch).enumerate() {
            let step = *epoch * steps + k;
            let (loss, gradient) = learner.gradient(parameters, batch, step as u32)?;
            sum += loss * batch.len() as f64;
            // A batch that overflowed teaches nothing.
            if loss.is_finite() && gradient.iter().all(|g| g.is_finite()) {
                adam.step(parameters, &gradient);
            }
            let seen = history.training.last().copied().unwrap_or(loss);
            if watch.progress(step + 1, iterations, [seen, lowest]).is_break() {
                break 'epochs;
            }
        }
        history.training.push(sum / order.len() as f64);
        let loss = learner.loss(parameters, &judged)?;
        history.held_out.push(loss);
        *epoch += 1;
        if loss < lowest {
            history.best = *epoch;
            best.copy_from_slice(parameters);
        } else if *epoch - history.best >= settings.patience {
            history.stopped_early = true;
        }
        checkpoint::keep(watch.keeper(), &state)?;
    }
    checkpoint::end(watch.keeper(), &state)?;
    let State { best, history, .. } = state;
    if history.best == 0 && history.held_out.iter().chain(&history.training).any(|loss| !loss.is_finite()) {
        let found = history.held_out.iter().chain(&history.training).find(|loss| !loss.is_finite()).copied();
        let found = format!("{} and never a lower one than before", found.unwrap_or(f64::NAN));
        return Err(Error::invalid("loss while training", "finite numbers", found, "lower --training-rate"));
    }
    parameters.copy_from_slice(&best);
    Ok(history)
}

//! Background errors to learn from, made by cycles of 3DVar or 4DVar.

use super::set::{CycledSet, KeptSet};
use super::truth::Truth;
use super::{CycleSettings, CycledKind, CycledMethod, in_cycle};
use crate::checkpoint;
use crate::diagnostics::{EnergyTest, Mardia, energy_test, mardia, thinned};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::method::vae_var::ErrorOrigin;
use crate::method::{Observer, Progress, Vae, VaeSettings};
use crate::neural::TrainingSettings;
use crate::problem::CovarianceFactor;
use crate::random::{Stream, derived_seed};
use ndarray::{Array2, ArrayView2, Axis, concatenate, s};
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// What stands for a background error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorSource {
    /// x_true - x_b, which only a twin knows
    #[default]
    Truth,
    /// Differences of two forecasts for one time, from analyses one cycle apart, without a truth (NMC: Parrish & Derber
    /// 1992)
    Nmc,
}

/// Errors of backgrounds at the start of a window, in the order in which they were made.
#[derive(Clone, Debug)]
pub struct BackgroundErrors {
    /// x_true - x_b: `[errors, sites]`.
    pub truth: Array2<f64>,
    /// Forecast from the newer analysis minus that from the older one: `[errors, sites]`.
    pub nmc: Array2<f64>,
}

impl BackgroundErrors {
    /// Those of a source: `[errors, sites]`.
    pub fn of(&self, source: ErrorSource) -> &Array2<f64> {
        match source {
            ErrorSource::Truth => &self.truth,
            ErrorSource::Nmc => &self.nmc,
        }
    }
}

/// How well a learned distribution is that of errors which it was not trained on.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ErrorQuality {
    /// Errors that it is judged by.
    pub errors: usize,
    /// Share of their variance that encoder and decoder lose; none without an encoder.
    pub lost_variance: Option<f64>,
    /// Whether they are Gaussian at all; none where they are too few.
    pub normality: Option<Mardia>,
    /// The distance of the learned distribution's draws from them, whitened.
    pub learned: EnergyTest,
    /// That of draws from the Gaussian with the covariance of the training errors.
    pub gaussian: EnergyTest,
}

impl ErrorQuality {
    /// Of `errors: [rows, sites]`. Tests take the errors for independent, which those of one experiment's cycles are not
    /// quite.
    ///
    /// # Errors
    /// A covariance that is not positive definite.
    pub fn new(vae: &Vae, errors: ArrayView2<f64>, seed: u64) -> Result<Self> {
        let gaussian = Vae::gaussian(vae.mean.clone(), &CovarianceFactor::new(vae.covariance.clone())?)?;
        let own = thinned(errors, MOST_TESTED);
        let whitened = vae.whiten(own.view());
        let against = |other: &Vae| {
            let drawn = vae.whiten(other.draw(seed, own.nrows()).view());
            energy_test(drawn.view(), whitened.view(), seed)
        };
        Ok(Self {
            errors: errors.nrows(),
            lost_variance: vae.lost_variance(errors),
            normality: mardia(own.view()),
            learned: against(vae),
            gaussian: against(&gaussian),
        })
    }
}

/// Fewest errors held out that say how good a distribution is.
const FEWEST_HELD_OUT: usize = 20;

/// Errors that tests of all pairs take.
const MOST_TESTED: usize = 1000;

/// What was learned of the background errors of one window.
#[derive(Clone, Debug)]
pub struct LearnedErrors {
    /// Intervals; 0 is 3DVar.
    pub window: usize,
    /// Their distribution.
    pub vae: Vae,
    /// What it was learned from: `[errors, sites]`.
    pub errors: Array2<f64>,
    /// How good it is, by the errors that were held out; none of a mere Gaussian.
    pub quality: Option<ErrorQuality>,
    /// Wall time of collecting and of learning. Kept out of result files.
    pub seconds: [f64; 2],
}

impl CycleSettings {
    /// Collects the background errors of window number `k` of the settings and trains an autoencoder on them, or takes the
    /// Gaussian that it would start from, where no cycle is VAE-Var.
    ///
    /// # Errors
    /// As [`Self::background_errors`] and [`VaeSettings::train`].
    pub fn learn_errors(
        &self,
        k: usize,
        source: ErrorSource,
        network: &VaeSettings,
        training: &TrainingSettings,
        engine: &Engine,
        observer: &mut dyn Observer,
    ) -> Result<LearnedErrors> {
        let trains = self.methods.contains(&CycledKind::VaeVar);
        let held_out = training.held_out_of(self.error_samples)?;
        if trains && held_out < FEWEST_HELD_OUT {
            let expected = format!("at least {FEWEST_HELD_OUT} background errors to judge by");
            let help = "raise --error-samples or --held-out";
            return Err(Error::invalid("held-out", expected, held_out.to_string(), help));
        }
        let clock = Instant::now();
        let errors = self.background_errors(k, engine, observer)?.of(source).to_owned();
        let collecting = clock.elapsed().as_secs_f64();
        let clock = Instant::now();
        let (mut vae, quality) = if trains {
            let vae = network.train(errors.view(), self.model, training, self.seed, observer)?;
            let first = errors.nrows() - training.held_out_of(errors.nrows())?;
            let quality = ErrorQuality::new(&vae, errors.slice(s![first.., ..]), self.seed)?;
            (vae, Some(quality))
        } else {
            (network.gaussian(errors.view(), self.model, training)?, None)
        };
        vae.origin = Some(ErrorOrigin { model: self.model, window: self.windows[k] });
        let seconds = [collecting, clock.elapsed().as_secs_f64()];
        Ok(LearnedErrors { window: self.windows[k], vae, errors, quality, seconds })
    }

    /// Cycles 4DVar with window number `k` of the settings, `error_experiments` side by side, and collects the errors of its
    /// backgrounds after the burn-in, `error_samples` in all. Their truths have nothing to do with those of [`Self::run`].
    ///
    /// # Errors
    /// As [`Self::run`]; a caller that ends it before the last cycle.
    pub fn background_errors(
        &self,
        k: usize,
        engine: &Engine,
        observer: &mut dyn Observer,
    ) -> Result<BackgroundErrors> {
        self.check()?;
        let experiments = self.error_experiments.min(self.error_samples);
        self.check_size(experiments)?;
        let seed = |k: usize| derived_seed(self.seed, Stream::BackgroundErrors, k as u64);
        let seeds: Vec<u64> = (0..experiments).map(seed).collect();
        let factor = self.error_factors[if self.error_factors.len() == 1 { 0 } else { k }];
        let window = self.windows[k];
        let method = CycledMethod::Static { window, factor };
        let (mean, climate) = self.climatology()?;
        let mut truths = seeds.iter().map(|&seed| Truth::new(self, seed)).collect::<Result<Vec<_>>>()?;
        let mut set = CycledSet::new(self, &[method], &seeds, &mean, &climate, None)?;
        let cycles = self.error_samples.div_ceil(experiments);
        let total = self.burn_in + cycles;
        let (mut errors, mut differences) = (Vec::with_capacity(cycles), Vec::with_capacity(cycles));
        let mut cycle = 0;
        if let Some(kept) = checkpoint::begin(observer.keeper())? {
            let kept_set: KeptSet;
            (cycle, errors, differences, kept_set) = kept;
            set.restore(kept_set);
            self.advance(&mut truths, cycle)?;
        }
        while cycle < total {
            cycle += 1;
            self.advance(&mut truths, 1)?;
            if cycle > self.burn_in {
                errors.push(set.background_errors(&truths));
                differences.push(set.differences.clone());
            }
            set.cycle(cycle, &truths, engine, None).map_err(|e| in_cycle(e, cycle, method))?;
            let progress = Progress { method: "background errors", iteration: cycle, iterations: total, figures: &[] };
            if observer.progress(&progress).is_break() && cycle < total {
                let expected = format!("{total} cycles");
                return Err(Error::invalid("background errors", expected, cycle.to_string(), "let it run"));
            }
            checkpoint::keep_fetched(observer.keeper(), &mut || {
                Ok(checkpoint::to_bytes(&(cycle, &errors, &differences, set.state())))
            })?;
        }
        checkpoint::end(observer.keeper(), &(cycle, &errors, &differences, set.state()))?;
        let join = |parts: Vec<Array2<f64>>| {
            let views: Vec<_> = parts.iter().map(|part| part.view()).collect();
            concatenate(Axis(0), &views).expect("rows of one length")
        };
        Ok(BackgroundErrors { truth: join(errors), nmc: join(differences) })
    }
}

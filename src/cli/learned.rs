//! Distributions of background errors, one for each window of a cycle: read, or learned from cycles.

use super::progress::Bar;
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;
use std::time::Instant;
use vi4dvar::engine::Engine;
use vi4dvar::error::{Error, Result};
use vi4dvar::experiment::{BackgroundErrors, CycleSettings, CycledKind, ErrorSource};
use vi4dvar::method::{Vae, VaeSettings};
use vi4dvar::neural::TrainingSettings;
use vi4dvar::problem::CovarianceFactor;

/// What is learned of background errors, and how.
#[derive(Args, Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[command(next_help_heading = "Learned background errors")]
pub(super) struct LearnedOptions {
    /// Collect background errors by cycles of 4dvar with each window, and take B = x P_e with their covariance: truth,
    /// x_true - x_b, which only a twin knows; nmc, differences of forecasts. Default: none, but truth for vae-var
    #[arg(long, value_name = "SOURCE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errors: Option<ErrorSource>,
    /// Files of distributions learned before, one for each window: nothing is collected, nothing trained. Default: none
    #[arg(long, value_name = "FILES", value_delimiter = ',')]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub vae: Vec<PathBuf>,
    #[command(flatten)]
    #[serde(flatten)]
    pub network: VaeSettings,
    #[command(flatten)]
    #[serde(flatten)]
    pub training: TrainingSettings,
}

/// What is known of the background errors of one window.
pub(super) struct Learned {
    pub vae: Vae,
    /// What it was learned from, where it was not read.
    pub errors: Option<BackgroundErrors>,
    /// Seconds of collecting and of training.
    pub seconds: [f64; 2],
}

impl LearnedOptions {
    /// Refuses what cannot work, before anything is computed.
    pub(super) fn check(&self, settings: &CycleSettings) -> Result<()> {
        if self.is_trained(settings) {
            self.network.check(settings.sites)?;
            self.training.check()?;
        }
        if !self.vae.is_empty() && self.vae.len() != settings.windows.len() {
            let expected = format!("{} files, one for each window", settings.windows.len());
            return Err(Error::invalid("vae", expected, self.vae.len().to_string(), "give as many as --windows"));
        }
        Ok(())
    }

    /// Whether an autoencoder is trained here.
    pub(super) fn is_trained(&self, settings: &CycleSettings) -> bool {
        settings.methods.contains(&CycledKind::VaeVar) && self.vae.is_empty()
    }

    /// One for each window; none where B is of climatology.
    pub(super) fn learn(&self, settings: &CycleSettings, engine: &Engine, bar: &mut Bar) -> Result<Vec<Learned>> {
        if !self.vae.is_empty() {
            let read = |path| Ok(Learned { vae: Vae::read(path)?, errors: None, seconds: [0.0; 2] });
            return self.vae.iter().map(read).collect();
        }
        let is_trained = self.is_trained(settings);
        if self.errors.is_none() && !is_trained {
            return Ok(Vec::new());
        }
        let source = self.errors.unwrap_or_default();
        let one = |k: usize| {
            let clock = Instant::now();
            let errors = settings.background_errors(k, engine, bar)?;
            let collected = clock.elapsed().as_secs_f64();
            let own = errors.of(source);
            let vae = if is_trained {
                self.network.train(own.view(), &self.training, settings.seed, bar)?
            } else {
                let mean = own.mean_axis(ndarray::Axis(0)).expect("errors were collected");
                let departures = own - &mean;
                let covariance = departures.t().dot(&departures) / (own.nrows() - 1).max(1) as f64;
                Vae::gaussian(mean, &CovarianceFactor::new(covariance)?)?
            };
            let seconds = [collected, clock.elapsed().as_secs_f64() - collected];
            Ok(Learned { vae, errors: Some(errors), seconds })
        };
        (0..settings.windows.len()).map(one).collect()
    }
}

/// The name of a window's file: "vae-3dvar.nc", "vae-4dvar-2.nc".
pub(super) fn file_name(window: usize) -> String {
    if window == 0 { "vae-3dvar.nc".into() } else { format!("vae-4dvar-{window}.nc") }
}

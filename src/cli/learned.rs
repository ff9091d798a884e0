//! Distributions of background errors, one for each window of a cycle: read, or learned from cycles.

use super::progress::Bar;
use clap::Args;
use serde::Serialize;
use std::path::{Path, PathBuf};
use vi4dvar::engine::Engine;
use vi4dvar::error::{Error, Result};
use vi4dvar::experiment::{CycleSettings, CycledKind, ErrorSource, LearnedErrors};
use vi4dvar::method::{Vae, VaeSettings};
use vi4dvar::neural::TrainingSettings;
use vi4dvar::output::{Attributes, error_figure, latent_figure, loss_figure, write_bytes, write_text};

/// What is learned of background errors, and how.
#[derive(Args, Clone, Debug, PartialEq, Serialize)]
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

impl Default for LearnedOptions {
    fn default() -> Self {
        let (network, training) = (VaeSettings::default(), TrainingSettings::default());
        Self { errors: None, vae: Vec::new(), network, training }
    }
}

impl LearnedOptions {
    /// Refuses what cannot work, before anything is computed.
    pub(super) fn check(&self, settings: &CycleSettings) -> Result<()> {
        if self.errors.is_some() || self.is_trained(settings) {
            self.network.check(settings.model, settings.sites)?;
            self.training.check()?;
        }
        if self.is_trained(settings) {
            VaeSettings::check_build()?;
        }
        if !self.vae.is_empty() && self.errors.is_some() {
            let help = "leave out --errors to use the files, or --vae to collect";
            return Err(Error::invalid("errors", "none beside --vae, which knows them", "both", help));
        }
        if !self.vae.is_empty() && self.vae.len() != settings.windows.len() {
            let expected = format!("{} files, one for each window", settings.windows.len());
            return Err(Error::invalid("vae", expected, self.vae.len().to_string(), "give as many as --windows"));
        }
        Ok(())
    }

    /// Whether an autoencoder is trained here.
    fn is_trained(&self, settings: &CycleSettings) -> bool {
        settings.methods.contains(&CycledKind::VaeVar) && self.vae.is_empty()
    }

    /// The files that training leaves.
    pub(super) fn files(&self, settings: &CycleSettings, out: &Path) -> Vec<PathBuf> {
        let windows = if self.is_trained(settings) { settings.windows.as_slice() } else { &[] };
        let of = |window: &usize| {
            let name = |figure: &str, ending: &str| out.join(format!("{}{figure}.{ending}", base(*window)));
            let pictures =
                FIGURES.iter().flat_map(move |f| ["svg", "png"].map(|ending| name(&format!("-{f}"), ending)));
            [name("", "nc"), name("", "json")].into_iter().chain(pictures).collect::<Vec<_>>()
        };
        windows.iter().flat_map(of).collect()
    }

    /// Collects and learns, one for each window; none where B is of climatology, or where it is known from files.
    pub(super) fn learn(&self, settings: &CycleSettings, engine: &Engine, bar: &mut Bar) -> Result<Vec<LearnedErrors>> {
        if !self.vae.is_empty() || (self.errors.is_none() && !self.is_trained(settings)) {
            return Ok(Vec::new());
        }
        let source = self.errors.unwrap_or_default();
        let one = |k: usize| settings.learn_errors(k, source, &self.network, &self.training, engine, bar);
        (0..settings.windows.len()).map(one).collect()
    }

    /// Files that are read.
    pub(super) fn inputs(&self) -> Vec<&Path> {
        self.vae.iter().map(PathBuf::as_path).collect()
    }

    /// The distributions that were learned before.
    pub(super) fn read(&self) -> Result<Vec<Vae>> {
        self.vae.iter().map(Vae::read).collect()
    }
}

/// Writes what was trained: the distribution, how good it is, and its figures. Nothing of a mere Gaussian.
pub(super) fn write(
    learned: &LearnedErrors,
    out: &Path,
    attributes: &Attributes,
    seed: u64,
    force: bool,
) -> Result<()> {
    let LearnedErrors { window, vae, errors, quality, .. } = learned;
    let Some(quality) = quality else { return Ok(()) };
    let base = base(*window);
    vae.write(out.join(format!("{base}.nc")), attributes, force)?;
    let history = &vae.history;
    let report = serde_json::json!({
        "window": window,
        "latents": vae.latents(),
        "epochs": history.held_out.len(),
        "loss_before_training": history.before,
        "held_out_loss": history.lowest(),
        "quality": quality,
    });
    write_text(out.join(format!("{base}.json")), &format!("{report:#}\n"), force)?;
    let figures = [error_figure(vae, errors.view(), seed), latent_figure(vae), loss_figure(history, "loss")];
    for (name, figure) in FIGURES.iter().zip(figures) {
        let Some(figure) = figure else { continue };
        write_text(out.join(format!("{base}-{name}.svg")), &figure.svg, force)?;
        write_bytes(out.join(format!("{base}-{name}.png")), &figure.png, force)?;
    }
    Ok(())
}

/// What a person should know of a training; nothing where there was none.
pub(super) fn summary(learned: &LearnedErrors) -> String {
    let LearnedErrors { window, vae, quality, seconds, .. } = learned;
    let Some(quality) = quality else { return String::new() };
    let history = &vae.history;
    let lost = quality.lost_variance.map_or(String::new(), |l| format!("{:.1} % of their variance lost, ", 100.0 * l));
    let normality = quality
        .normality
        .map_or(String::new(), |m| format!("kurtosis {:.2} of a Gaussian's (p {:.3}), ", m.kurtosis, m.kurtosis_p));
    format!(
        "{}: {}, {:.0} s of cycles and {:.0} s of training, {} of {} latents alive\n\
         {:10}errors held out: {lost}{normality}energy distance {:.4} (p {:.3}), of a Gaussian {:.4} (p {:.3})\n",
        base(*window),
        history.ending(),
        seconds[0],
        seconds[1],
        vae.latents(),
        vae.latent_kl.len(),
        "",
        quality.learned.distance,
        quality.learned.p,
        quality.gaussian.distance,
        quality.gaussian.p,
    )
}

/// The figures of a training.
const FIGURES: [&str; 3] = ["errors", "latents", "loss"];

/// The name of a window's files: "vae-3dvar", "vae-4dvar-2".
fn base(window: usize) -> String {
    if window == 0 { "vae-3dvar".into() } else { format!("vae-4dvar-{window}") }
}

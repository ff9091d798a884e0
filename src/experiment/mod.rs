//! Twin experiments and published presets, one file each.

mod amortized_l96;
mod bocquet2013;
mod cycle;
mod isda_16;
mod isda_16_cycled;
mod isda_16_mild;
mod isda_16_prior;
mod jardak2018;
mod lorenz63;
mod lorenz63_prior;
mod sakov2008;
mod sakov2012;
mod sbc;
mod sites_1000;
mod table;
mod twin;
mod vae_var_l63;
mod vae_var_l96;

pub use cycle::{
    BackgroundErrors, CycleSettings, CycledErrors, CycledKind, CycledMethod, CycledParameter, CycledScores, Cycles,
    ErrorQuality, ErrorSource, Gain, LearnedErrors, VaeTerms,
};
pub use sbc::{Sbc, SbcMethod, SbcRanks};
pub use table::{Block, MethodScores, Reference, ReferenceCount, ScoreTable, scores};
pub use twin::{TwinKind, TwinSettings, simulate, simulate_set, training_windows};

use crate::checkpoint;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::method::{Analysis, Method, MethodSettings, Observer, once};
use crate::problem::Problem;
use table::KeptTable;

/// A named experiment: the problem, and the methods that assimilate it.
#[derive(Clone, Debug)]
pub struct Preset {
    /// The name used on the command line.
    pub name: &'static str,
    /// One line for people.
    pub about: &'static str,
    /// The problem.
    pub twin: TwinSettings,
    /// The methods.
    pub methods: MethodSettings,
}

/// A named experiment of cycled assimilation.
#[derive(Clone, Debug)]
pub struct CyclePreset {
    /// The name used on the command line.
    pub name: &'static str,
    /// One line for people.
    pub about: &'static str,
    /// The experiment.
    pub settings: CycleSettings,
}

impl CyclePreset {
    /// All of them, in the order in which lists show them.
    pub fn all() -> Vec<Self> {
        vec![
            sakov2008::preset(),
            bocquet2013::preset(),
            jardak2018::preset(),
            isda_16_cycled::preset(),
            sites_1000::preset(),
            sakov2012::preset(),
            vae_var_l63::preset(),
            vae_var_l96::preset(),
        ]
    }

    /// The preset of that name.
    ///
    /// # Errors
    /// An unknown name, with the list of known ones.
    pub fn from_name(name: &str) -> Result<Self> {
        by_name(Self::all(), name, |p| p.name)
    }
}

/// What came of an experiment.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The twin of the first seed.
    pub problem: Problem,
    /// Its analyses, one for each method: with the problem, all that figures need.
    pub analyses: Vec<Analysis>,
    /// The scores of every twin.
    pub table: ScoreTable,
}

/// Numbers that the samples of all methods may hold at a time, 256 MiB.
const SAMPLE_NUMBERS: usize = 1 << 25;

impl Default for Preset {
    /// `isda-16`, the case study of the slides.
    fn default() -> Self {
        isda_16::preset()
    }
}

impl Preset {
    /// Runs the experiment: a twin of each seed, assimilated by each of `methods`, and scored.
    ///
    /// Twins run in lockstep, as many at a time as memory for their samples and covariances permits. How many is no part of
    /// the answer.
    ///
    /// # Errors
    /// No seed, settings that cannot work, an engine's failure, too many members diverged.
    pub fn run(
        &self,
        seeds: &[u64],
        methods: &[Method],
        engine: &Engine,
        observer: &mut dyn Observer,
    ) -> Result<Outcome> {
        methods.iter().try_for_each(|method| self.methods.check(*method))?;
        let (mut done, mut first, table): (usize, Option<Vec<Analysis>>, Option<KeptTable>) =
            checkpoint::begin(observer.keeper())?.unwrap_or_default();
        let mut table: ScoreTable = table.map(Into::into).unwrap_or_default();
        while done < seeds.len() {
            let seeds = &seeds[done..seeds.len().min(done + self.twins_at_once(methods))];
            let problem = simulate_set(&self.twin, seeds)?;
            let run = |method: &Method| once(observer, |o| self.methods.run(*method, &problem, engine, o));
            let mut analyses = methods.iter().map(run).collect::<Result<Vec<_>>>()?;
            let agreed = methods.iter().position(|method| *method == Method::Reference).map(|method| {
                (method, analyses[method].iter().map(|a| a.number("agreed") == Some(1.0)).collect::<Vec<_>>())
            });
            let reference = agreed.as_ref().map(|(method, agreed)| Reference { method: *method, agreed });
            table.add(&problem, &analyses, reference);
            first.get_or_insert_with(|| analyses.iter_mut().map(|twins| twins.swap_remove(0)).collect());
            done += seeds.len();
            checkpoint::keep_fetched(observer.keeper(), &mut || {
                Ok(checkpoint::to_bytes(&(done, &first, Some(KeptTable::from(&table)))))
            })?;
        }
        checkpoint::end(observer.keeper(), &(done, &first, Some(KeptTable::from(&table))))?;
        let none = || Error::invalid("seeds", "at least one", "none", "give a seed");
        let (analyses, seed) = (first.ok_or_else(none)?, *seeds.first().ok_or_else(none)?);
        Ok(Outcome { problem: simulate_set(&self.twin, &[seed])?, analyses, table })
    }

    fn twins_at_once(&self, methods: &[Method]) -> usize {
        let samples: usize = methods.iter().map(|method| self.methods.samples_of(*method)).sum();
        let covariances = if self.twin.background_correlation > 0.0 { 4 * self.twin.sites } else { 0 };
        let numbers =
            samples.saturating_mul(self.twin.times).saturating_add(covariances).saturating_mul(self.twin.sites);
        (SAMPLE_NUMBERS / numbers.max(1)).max(1)
    }

    /// All presets, in the order in which lists show them.
    pub fn all() -> Vec<Self> {
        vec![
            isda_16::preset(),
            isda_16_prior::preset(),
            isda_16_mild::preset(),
            lorenz63::preset(),
            lorenz63_prior::preset(),
            amortized_l96::preset(),
        ]
    }

    /// The preset of that name.
    ///
    /// # Errors
    /// An unknown name, with the list of known ones.
    pub fn from_name(name: &str) -> Result<Self> {
        by_name(Self::all(), name, |p| p.name)
    }
}

fn by_name<T>(all: Vec<T>, name: &str, name_of: fn(&T) -> &'static str) -> Result<T> {
    let known: Vec<_> = all.iter().map(name_of).collect();
    let expected = format!("one of {}", known.join(", "));
    let unknown = || Error::invalid("preset", expected, format!("{name:?}"), "choose a known preset");
    all.into_iter().find(|p| name_of(p) == name).ok_or_else(unknown)
}

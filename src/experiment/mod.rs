//! Twin experiments and published presets, one file each.

mod isda_16;
mod isda_16_prior;
mod table;
mod twin;

pub use table::{ScoreRow, ScoreTable, scores};
pub use twin::{TwinKind, TwinSettings, simulate, simulate_set};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::method::{self, Analysis, FourDVarSettings, Observer, ViSettings};
use crate::problem::Problem;

/// A named experiment: the problem, and the methods that assimilate it.
#[derive(Clone, Debug)]
pub struct Preset {
    /// The name used on the command line.
    pub name: &'static str,
    /// One line for people.
    pub about: &'static str,
    /// The problem.
    pub twin: TwinSettings,
    /// 4DVAR.
    pub four_d_var: FourDVarSettings,
    /// VI-4DVAR.
    pub vi: ViSettings,
}

/// What came of an experiment.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// For each method, the background first: one analysis per twin.
    pub analyses: Vec<Vec<Analysis>>,
    /// The scores, averaged over the twins.
    pub table: ScoreTable,
}

impl Default for Preset {
    /// `isda-16`, the case study of the slides.
    fn default() -> Self {
        isda_16::preset()
    }
}

impl Preset {
    /// Assimilates a set of twins in lockstep: background, 4DVAR, VI-4DVAR.
    ///
    /// # Errors
    /// Settings that cannot work, an engine's failure, too many members diverged.
    pub fn assimilate(&self, problem: &Problem, engine: &Engine, observer: &mut dyn Observer) -> Result<Outcome> {
        let analyses = vec![
            method::background(problem, engine, self.vi.samples)?,
            self.four_d_var.run(problem, engine, observer)?,
            self.vi.run(problem, engine, observer)?,
        ];
        let table = ScoreTable::new(problem, &analyses);
        Ok(Outcome { analyses, table })
    }

    /// All presets, in the order in which lists show them.
    pub fn all() -> Vec<Self> {
        vec![isda_16::preset(), isda_16_prior::preset()]
    }

    /// The preset of that name.
    ///
    /// # Errors
    /// An unknown name, with the list of known ones.
    pub fn from_name(name: &str) -> Result<Self> {
        let all = Self::all();
        let known: Vec<_> = all.iter().map(|p| p.name).collect();
        let expected = format!("one of {}", known.join(", "));
        let unknown = || Error::invalid("preset", expected, format!("{name:?}"), "choose a known preset");
        all.into_iter().find(|p| p.name == name).ok_or_else(unknown)
    }
}

//! Twin experiments and published presets, one file each.

mod isda_16;
mod isda_16_prior;
mod table;
mod twin;

pub use table::{ScoreRow, ScoreTable, scores};
pub use twin::{TwinKind, TwinSettings, simulate, simulate_set};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::method::{Analysis, Method, MethodSettings, Observer};
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
    /// The methods.
    pub methods: MethodSettings,
}

/// What came of an experiment.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// For each method, one analysis per twin.
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
    /// Assimilates a set of twins in lockstep by each of `methods`.
    ///
    /// # Errors
    /// Settings that cannot work, an engine's failure, too many members diverged.
    pub fn assimilate(
        &self,
        problem: &Problem,
        methods: &[Method],
        engine: &Engine,
        observer: &mut dyn Observer,
    ) -> Result<Outcome> {
        methods.iter().try_for_each(|method| self.methods.check(*method))?;
        let run = |method: &Method| self.methods.run(*method, problem, engine, observer);
        let analyses = methods.iter().map(run).collect::<Result<Vec<_>>>()?;
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

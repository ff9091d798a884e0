//! Twin experiments and published presets, one file each.

mod background;
mod isda_16;
mod isda_16_prior;
mod table;
mod twin;

pub use background::background;
pub use table::{ScoreRow, ScoreTable};
pub use twin::{TwinKind, TwinSettings, simulate, simulate_set};

use crate::error::{Error, Result};

/// A named experiment.
#[derive(Clone, Debug)]
pub struct Preset {
    /// The name used on the command line.
    pub name: &'static str,
    /// One line for people.
    pub about: &'static str,
    /// The problem.
    pub twin: TwinSettings,
}

impl Default for Preset {
    /// `isda-16`, the case study of the slides.
    fn default() -> Self {
        isda_16::preset()
    }
}

impl Preset {
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

//! Is this machine's adapter right? Every promise of the engine checked here and now, against the oracle and the CPU.

mod checks;
mod growth;
pub mod oracle;
mod subject;

pub use growth::Growth;

use crate::engine::{Engine, EngineSettings, Hardware, Precision};
use crate::error::{Error, Result};
use serde::Serialize;
use subject::Subject;

/// One row of a validation. It passes where its figure is a number of at most the threshold.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Check {
    /// What is checked.
    pub name: &'static str,
    /// The engine's number type.
    pub precision: Precision,
    /// What was measured; NaN where nothing could be.
    pub figure: f64,
    /// The most that it may be.
    pub threshold: f64,
    /// What the figure is, and on which case.
    pub meaning: String,
    /// What went wrong, where something did.
    pub failure: Option<String>,
}

impl Check {
    /// Whether the row passes.
    pub fn passed(&self) -> bool {
        self.failure.is_none() && self.figure <= self.threshold
    }
}

/// What a validation found on one adapter.
#[derive(Clone, Debug, Serialize)]
pub struct Validation {
    /// What was validated, once per number type.
    pub hardware: Vec<Hardware>,
    /// Number types that the adapter does not have, and rows that a kernel asked for by name does not take, with the reason.
    pub missing: Vec<(Precision, String)>,
    /// The rows, in their order.
    pub checks: Vec<Check>,
    /// How the error of f32 gradients grows with the window; empty where f32 was not validated.
    pub growth: Vec<Growth>,
}

impl Validation {
    /// Whether every row passes.
    pub fn passed(&self) -> bool {
        !self.checks.is_empty() && self.checks.iter().all(Check::passed)
    }
}

/// The names of all rows, in their order.
pub fn check_names() -> Vec<&'static str> {
    checks::ALL.iter().map(|(name, _)| *name).chain([growth::NAME]).collect()
}

/// Validates the engine that the settings name, in each of the number types that it has, f64 where it has it. `only`
/// names the rows to run; none stands for all. `told` hears every row as soon as it is known.
///
/// # Errors
/// An unknown row, no adapter, or none of these number types on it. A check that fails, or cannot run, is a row and no
/// error.
pub fn validate(
    settings: &EngineSettings,
    precisions: &[Precision],
    only: &[String],
    mut told: impl FnMut(&Check),
) -> Result<Validation> {
    let known = check_names();
    if let Some(name) = only.iter().find(|name| !known.contains(&name.as_str())) {
        let found = format!("{name:?}");
        return Err(Error::invalid("checks", format!("some of: {}", known.join(", ")), found, "correct the name"));
    }
    let wanted = |name: &str| only.is_empty() || only.iter().any(|o| o == name);
    let mut validation = Validation { hardware: vec![], missing: vec![], checks: vec![], growth: vec![] };
    for &precision in precisions {
        let settings = EngineSettings { precision, ..settings.clone() };
        let engine = match Engine::new(&settings) {
            Ok(engine) => engine,
            Err(reason) if precision == Precision::F64 && precisions.len() > 1 => {
                validation.missing.push((precision, reason.to_string()));
                continue;
            }
            Err(reason) => return Err(reason),
        };
        validation.hardware.push(engine.hardware().clone());
        let subject = Subject { settings, engine };
        for (name, run) in checks::ALL.iter().filter(|(name, _)| wanted(name)) {
            match subject.check(name, *run) {
                Ok(check) => {
                    told(&check);
                    validation.checks.push(check);
                }
                Err(reason) => validation.missing.push((precision, reason.to_string())),
            }
        }
        if precision == Precision::F32 && wanted(growth::NAME) {
            let (growth, check) = growth::measure(&subject);
            told(&check);
            validation.checks.push(check);
            validation.growth = growth;
        }
    }
    if validation.checks.is_empty() {
        let help = "growth of the error is a row of f32 alone, and a kernel by name takes some sizes only";
        let found = validation.missing.first().map_or("none".into(), |(_, reason)| format!("none ({reason})"));
        return Err(Error::invalid("checks", "rows that this number type and this kernel have", found, help));
    }
    Ok(validation)
}

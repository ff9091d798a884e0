//! Which variant of the kernels a problem set runs on: the one asked for, the one that was fastest on this device, or the
//! rule of thumb. What was fastest is kept on disk for each adapter and driver.

use super::adapter::AdapterDescription;
use super::cache::{CacheFile, checksum};
use super::layout::{Fit, MemberLayout};
use super::shader::Shape;
use super::templates::Templates;
use crate::engine::AUTO_KERNEL;
use crate::error::Result;
use crate::problem::Problem;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

/// What `EngineSettings::kernel` asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Wanted {
    /// The fastest, measured once; on a software rasteriser the rule of thumb.
    Auto,
    /// The fastest, measured anew.
    Calibrate,
    Fixed(MemberLayout),
}

/// The variants chosen on one device.
#[derive(Debug)]
pub struct Choices {
    wanted: Wanted,
    software: bool,
    file: CacheFile,
    /// Of the program and its kernels: a choice among others is worth nothing.
    version: String,
    chosen: Mutex<Chosen>,
}

#[derive(Debug, Default)]
struct Chosen {
    /// The fastest for each problem, measured now or earlier. None before the file was read.
    known: Option<BTreeMap<String, String>>,
    /// Problems measured by this engine.
    measured: BTreeSet<String>,
    /// Variants that problems were loaded with.
    used: BTreeSet<String>,
}

/// What is kept on disk.
#[derive(Debug, Deserialize, Serialize)]
struct Kept {
    /// Of the program and its kernels.
    version: String,
    /// The fastest variant for each problem.
    kernels: BTreeMap<String, String>,
}

impl Choices {
    /// The choices of a device whose adapter, backend and driver have these names.
    ///
    /// # Errors
    /// A `kernel` that is no variant.
    pub fn new(kernel: &str, device: [&str; 3], software: bool, templates: &Templates) -> Result<Self> {
        let wanted = match kernel {
            AUTO_KERNEL => Wanted::Auto,
            "calibrate" => Wanted::Calibrate,
            variant => Wanted::Fixed(variant.parse()?),
        };
        Ok(Self { wanted, software, file: file(device), version: version(templates), chosen: Mutex::default() })
    }

    /// The variant for problems of a shape, which `fastest` measures where nobody knows it yet.
    ///
    /// # Errors
    /// A variant asked for that this device or this problem cannot run; a state too large for the device.
    pub fn resolve(
        &self,
        shape: &Shape,
        problem: &Problem,
        fit: &Fit,
        fastest: impl FnOnce(&[MemberLayout]) -> Result<MemberLayout>,
    ) -> Result<MemberLayout> {
        let mut chosen = self.chosen.lock().unwrap_or_else(PoisonError::into_inner);
        let layout = match self.wanted {
            Wanted::Fixed(layout) => {
                layout.check(fit)?;
                layout
            }
            Wanted::Auto if self.software => MemberLayout::rule_of_thumb(fit)?,
            Wanted::Auto | Wanted::Calibrate => self.measured(&mut chosen, shape, problem, fit, fastest)?,
        };
        chosen.used.insert(layout.to_string());
        Ok(layout)
    }

    fn measured(
        &self,
        chosen: &mut Chosen,
        shape: &Shape,
        problem: &Problem,
        fit: &Fit,
        fastest: impl FnOnce(&[MemberLayout]) -> Result<MemberLayout>,
    ) -> Result<MemberLayout> {
        // Windows of about the same length have one choice, which all of them can run.
        let fit = &Fit { steps: rounded_up(fit.steps), ..*fit };
        let key = describe(shape, problem, fit.steps);
        let known = chosen.known.get_or_insert_with(|| read(&self.file, &self.version));
        let renew = self.wanted == Wanted::Calibrate && !chosen.measured.contains(&key);
        let sound = |text: &String| text.parse().ok().filter(|layout: &MemberLayout| layout.check(fit).is_ok());
        if let Some(layout) = known.get(&key).filter(|_| !renew).and_then(sound) {
            return Ok(layout);
        }
        let candidates = MemberLayout::candidates(fit);
        let layout = match candidates[..] {
            [] => return MemberLayout::rule_of_thumb(fit),
            [only] => only,
            _ => fastest(&candidates)?,
        };
        known.insert(key.clone(), layout.to_string());
        chosen.measured.insert(key);
        // What another process has measured meanwhile stays.
        let mut kernels = read(&self.file, &self.version);
        kernels.extend(known.iter().map(|(k, v)| (k.clone(), v.clone())));
        let kept = serde_json::to_vec_pretty(&Kept { version: self.version.clone(), kernels });
        self.file.write(&kept.unwrap_or_default());
        Ok(layout)
    }

    /// The variants that problems were loaded with so far.
    pub fn used(&self) -> Vec<String> {
        self.chosen.lock().unwrap_or_else(PoisonError::into_inner).used.iter().cloned().collect()
    }
}

impl AdapterDescription {
    /// Problems that were measured on this adapter with this driver, and the fastest variant of the kernels for each.
    pub fn calibrated(&self) -> BTreeMap<String, String> {
        read(&file([&self.backend, &self.name, &self.driver]), &version(&Templates::default()))
    }
}

fn file(device: [&str; 3]) -> CacheFile {
    CacheFile::named(&format!("kernels_{}", device.join("_")))
}

/// What is kept in a file of this version.
fn read(file: &CacheFile, version: &str) -> BTreeMap<String, String> {
    let kept = file.read().and_then(|bytes| serde_json::from_slice::<Kept>(&bytes).ok());
    kept.filter(|kept| kept.version == version).map(|kept| kept.kernels).unwrap_or_default()
}

/// The program's version with a sum over its kernels.
fn version(templates: &Templates) -> String {
    let texts: String = templates.iter().map(|(_, text)| text).collect();
    format!("{} {:016x}", env!("CARGO_PKG_VERSION"), checksum(texts.as_bytes()))
}

/// All that makes one problem faster by another variant than another.
fn describe(shape: &Shape, problem: &Problem, steps: usize) -> String {
    let errors = problem.model_error.as_ref().map(|q| format!(", errors every {} steps", q.interval));
    let Shape { model, sites, operator, full_background, control, precision, .. } = shape;
    format!(
        "{} {sites} sites, {steps} steps{}{}, {}, {} in blocks of {}, {} B, {}",
        model.name(),
        errors.unwrap_or_default(),
        if control.parameters { ", parameters estimated" } else { "" },
        precision.name(),
        operator.function.name(),
        operator.block_size,
        if *full_background { "full" } else { "diagonal" },
        if problem.count() == 1 { "one problem" } else { "several problems" },
    )
}

/// Steps to three significant bits and as they are up to 64: the window that stands for all shorter ones down to the next.
fn rounded_up(steps: usize) -> usize {
    if steps <= 64 { steps } else { steps.next_multiple_of(1 << (steps.ilog2() - 2)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_of_about_the_same_length_have_one_choice() {
        assert_eq!([0, 1, 12, 64].map(rounded_up), [0, 1, 12, 64]);
        assert_eq!([65, 80, 81, 127, 128, 129, 10_000].map(rounded_up), [80, 80, 96, 128, 128, 160, 10_240]);
    }
}

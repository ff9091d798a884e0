//! What every result file is stamped with, and the settings saved beside it.

use std::path::{Path, PathBuf};
use vi4dvar::engine::Engine;
use vi4dvar::error::{Error, Result};
use vi4dvar::experiment::scores;
use vi4dvar::method::Analysis;
use vi4dvar::output::{Attributes, check_writable, write_text};
use vi4dvar::problem::Problem;

/// The resolved settings beside a result: `problem.nc` has `problem.toml`.
fn settings_path(result: &Path) -> PathBuf {
    result.with_extension("toml")
}

/// Refuses a result that could not be written, or that with its settings would write over something. Asked before
/// computing. An input is never written over, not even by force.
pub(super) fn check(result: &Path, inputs: &[&Path], force: bool) -> Result<()> {
    let place = |path: &Path| path.canonicalize().ok();
    if let Some(input) = inputs.iter().find(|i| place(i).is_some_and(|i| Some(i) == place(result))) {
        return Err(Error::file(input, "is read and would be written over", "choose another name with --out"));
    }
    let settings = settings_path(result);
    if settings == result {
        return Err(Error::file(result, "is the name of a configuration", "end the result's name in .nc"));
    }
    check_writable(result, force)?;
    check_writable(settings, force)
}

/// Writes the resolved settings beside the result.
pub(super) fn save_settings(result: &Path, settings: &str, force: bool) -> Result<()> {
    write_text(settings_path(result), settings, force)
}

/// Global attributes: what made the file, from which settings, on which engine. No times and no paths, so that a
/// run repeated gives the same bytes.
pub(super) fn attributes(command: &str, settings: &str, engine: Option<&Engine>) -> Attributes {
    let mut attributes = Attributes::new();
    attributes
        .set("source", concat!("vi4dvar ", env!("CARGO_PKG_VERSION")))
        .set("command", command)
        .set("settings", settings);
    if let Some(engine) = engine {
        let hardware = engine.hardware();
        attributes
            .set("adapter", hardware.adapter.as_str())
            .set("backend", hardware.backend.as_str())
            .set("driver", if hardware.driver.is_empty() { "none" } else { &hardware.driver })
            .set("precision", hardware.precision.name())
            .set("kernel", engine.kernel());
    }
    attributes
}

/// The same for an analysis, with its scores where the truth is known.
pub(super) fn analysis_attributes(
    command: &str,
    settings: &str,
    engine: &Engine,
    problem: &Problem,
    analysis: &Analysis,
) -> Attributes {
    let mut attributes = attributes(command, settings, Some(engine));
    for (score, periods) in scores(problem, 0, analysis, None).named() {
        for (period, value) in periods.iter().flat_map(|p| p.named()) {
            attributes.set(format!("{score}_{period}"), *value);
        }
    }
    attributes
}

/// The directories that a run made. Those that it leaves empty go with it.
#[derive(Default)]
pub(super) struct NewDirectories(Vec<PathBuf>);

impl NewDirectories {
    pub(super) fn create(&mut self, directory: &Path) -> Result<()> {
        let missing: Vec<_> = directory.ancestors().take_while(|d| !d.as_os_str().is_empty() && !d.exists()).collect();
        self.0.extend(missing.iter().rev().map(PathBuf::from));
        std::fs::create_dir_all(directory).map_err(|e| {
            Error::file(directory, format!("cannot be created: {e}"), "choose another directory with --out")
        })
    }
}

impl Drop for NewDirectories {
    fn drop(&mut self) {
        for directory in self.0.iter().rev() {
            // Refused where there is something in it.
            let _ = std::fs::remove_dir(directory);
        }
    }
}

//! What every result file is stamped with, and the settings saved beside it.

use std::path::{Path, PathBuf};
use vi4dvar::engine::Hardware;
use vi4dvar::error::{Error, Result};
use vi4dvar::output::{Attributes, check_writable};

/// The resolved settings beside a result: `problem.nc` has `problem.toml`.
fn settings_path(result: &Path) -> PathBuf {
    result.with_extension("toml")
}

/// Refuses a result that could not be written, or whose settings would write over something. Asked before computing.
pub(super) fn check(result: &Path, force: bool) -> Result<()> {
    let settings = settings_path(result);
    if settings == result {
        return Err(Error::file(result, "is the name of a configuration", "end the result's name in .nc"));
    }
    check_writable(result, force)?;
    check_writable(settings, force)
}

/// Writes the resolved settings beside the result.
pub(super) fn save_settings(result: &Path, settings: &str) -> Result<()> {
    let path = settings_path(result);
    std::fs::write(&path, settings).map_err(|source| Error::Write { path, source })
}

/// Global attributes: what made the file, from which settings, on which hardware. No times and no paths, so that a
/// run repeated gives the same bytes.
pub(super) fn attributes(command: &str, settings: &str, hardware: Option<&Hardware>) -> Attributes {
    let mut attributes = Attributes::new();
    attributes
        .set("source", concat!("vi4dvar ", env!("CARGO_PKG_VERSION")))
        .set("command", command)
        .set("settings", settings);
    if let Some(hardware) = hardware {
        attributes
            .set("adapter", hardware.adapter.as_str())
            .set("backend", hardware.backend.as_str())
            .set("driver", hardware.driver.as_str())
            .set("precision", hardware.precision.name());
    }
    attributes
}

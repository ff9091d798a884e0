//! Member files: initial states of a batch, `initial_state(member, site)`.

use crate::error::Result;
use crate::netcdf::{Attributes, Reader, Writer};
use crate::problem::check_finite;
use ndarray::{Array2, ArrayView2};
use std::path::Path;

/// Reads initial states for a problem of `sites` sites: `[members, sites]`.
///
/// # Errors
/// A file that is missing, damaged or not NetCDF; no variable `initial_state(member, site)`; no members, another
/// number of sites, or a number that is not finite.
pub fn read_members(path: impl AsRef<Path>, sites: usize) -> Result<Array2<f64>> {
    let mut reader = Reader::open(path.as_ref())?;
    let states: Array2<f64> = reader.numbers("initial_state", &["member", "site"])?;
    if states.nrows() == 0 {
        return Err(reader.refuse("variable `initial_state`: expected at least one member, found none", "add members"));
    }
    if states.ncols() != sites {
        return Err(reader.refuse(
            format!("variable `initial_state`: expected {sites} sites as in the problem, found {}", states.ncols()),
            "give members of the problem's model state",
        ));
    }
    reader.name_file(check_finite("variable `initial_state`", states.iter()))?;
    Ok(states)
}

/// Writes initial states `[members, sites]`.
///
/// # Errors
/// An empty array or one over 4 GiB, a file that exists (unless `overwrite`), or a failing disk.
pub fn write_members(
    path: impl AsRef<Path>,
    states: ArrayView2<f64>,
    attributes: &Attributes,
    overwrite: bool,
) -> Result<()> {
    let mut writer = Writer::default();
    writer.numbers("initial_state", &["member", "site"], "1", "initial state", states)?;
    writer.attributes(attributes);
    writer.write(path.as_ref(), overwrite)
}

//! Analysis files: what a method found, together with the problem that it was found for.
//!
//! An analysis file is a problem file with the analysis added, so that figures and scores need no other file, and
//! `Problem::read` reads it too.

use crate::error::{Error, Result};
use crate::method::{Analysis, Record};
use crate::netcdf::{AttributeValue, Attributes, Reader, Writer};
use crate::problem::{Problem, VARIABLES};
use ndarray::Array3;
use std::path::Path;

/// The variables that every analysis has.
const ANALYSIS: [&str; 3] = ["mean", "std", "trajectory"];

/// An analysis as it comes back from a file.
#[derive(Clone, Debug)]
pub struct SavedAnalysis {
    /// The problem that was assimilated, with its truth where it is known.
    pub problem: Problem,
    /// What the method found; its `seconds` are NaN.
    pub analysis: Analysis,
    /// All global attributes: settings, seed, adapter, version.
    pub attributes: Attributes,
}

/// Writes an analysis of one problem.
///
/// Samples and records without elements are left out: the format has no empty axes.
///
/// # Errors
/// Arrays that do not fit each other, a record with the name of another variable, a variable over 4 GiB, a file that
/// exists (unless `overwrite`), or a failing disk.
pub fn write_analysis(
    path: impl AsRef<Path>,
    problem: &Problem,
    analysis: &Analysis,
    attributes: &Attributes,
    overwrite: bool,
) -> Result<()> {
    let mut writer = Writer::default();
    problem.add_to(&mut writer)?;
    let (mean, std) = ("posterior mean of the state", "posterior standard deviation of the state");
    writer.numbers("mean", &["time", "site"], "1", mean, analysis.mean.view())?;
    writer.numbers("std", &["time", "site"], "1", std, analysis.std.view())?;
    if !analysis.samples.is_empty() {
        let samples = analysis.samples.view();
        writer.numbers("trajectory", &["sample", "time", "site"], "1", "posterior sample of the state", samples)?;
    }
    for record in analysis.records.iter().filter(|r| !r.values.is_empty()) {
        if ANALYSIS.iter().chain(&VARIABLES).any(|name| *name == record.name) {
            let what = format!("record `{}`", record.name);
            return Err(Error::invalid(what, "a name of its own", "that of another variable", "rename it"));
        }
        let dimensions: Vec<_> = record.dimensions.iter().map(String::as_str).collect();
        writer.numbers(&record.name, &dimensions, &record.units, &record.long_name, record.values.view())?;
    }
    let mut own = Attributes::new();
    own.set("method", analysis.method.as_str()).set("summary", analysis.summary.as_str());
    writer.attributes(&own);
    writer.attributes(attributes);
    writer.write(path.as_ref(), overwrite)
}

/// Reads an analysis file.
///
/// # Errors
/// Whatever [`Problem::read`] refuses, or a missing or misshapen `mean` or `std`.
pub fn read_analysis(path: impl AsRef<Path>) -> Result<SavedAnalysis> {
    let mut reader = Reader::open(path.as_ref())?;
    reader.expect_kind("an analysis", "method", "give a file that `vi4dvar assimilate` or `vi4dvar twin` wrote")?;
    let method = reader.text("method")?;
    let problem = Problem::from_reader(&mut reader)?;
    let mean = reader.numbers("mean", &["time", "site"])?;
    let std = reader.numbers("std", &["time", "site"])?;
    let samples = if reader.has("trajectory") {
        reader.numbers("trajectory", &["sample", "time", "site"])?
    } else {
        Array3::zeros((0, problem.window.times, problem.sites()))
    };
    let mut records = Vec::new();
    for name in reader.variables() {
        if ANALYSIS.iter().chain(&VARIABLES).all(|known| *known != name) {
            records.push(Record {
                long_name: reader.text_of(&name, "long_name"),
                units: reader.text_of(&name, "units"),
                dimensions: reader.dimensions(&name)?,
                values: reader.values(&name)?,
                name,
            });
        }
    }
    let attributes = reader.attributes();
    let summary = match attributes.get("summary") {
        Some(AttributeValue::Text(text)) => text.clone(),
        _ => String::new(),
    };
    let analysis = Analysis { method, mean, std, samples, records, summary, seconds: f64::NAN };
    Ok(SavedAnalysis { problem, analysis, attributes })
}

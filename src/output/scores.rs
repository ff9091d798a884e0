//! Scores and times for programs, as JSON. They live apart: scores are the same bytes on every run.

use super::write_text;
use crate::error::Result;
use crate::experiment::ScoreTable;
use serde::Serialize;
use serde_json::{Map, Value};
use std::path::Path;

/// Writes anything that has scores as JSON, in lines that people can read too.
///
/// # Errors
/// A file that exists (unless `overwrite`), or a failing disk.
///
/// # Panics
/// If a map in it has keys that are no text.
pub fn write_scores(path: impl AsRef<Path>, scores: &impl Serialize, overwrite: bool) -> Result<()> {
    let text = serde_json::to_string_pretty(scores).expect("scores are plain numbers and names");
    write_text(path, &(text + "\n"), overwrite)
}

/// Writes the wall time of each method in seconds, by its name; `null` where it is not known.
///
/// # Errors
/// As [`write_scores`].
pub fn write_timings(path: impl AsRef<Path>, table: &ScoreTable, overwrite: bool) -> Result<()> {
    let seconds: Map<_, _> = table.methods.iter().map(|m| (m.method.clone(), Value::from(m.seconds))).collect();
    write_scores(path, &serde_json::json!({ "twins": table.twins, "seconds": seconds }), overwrite)
}

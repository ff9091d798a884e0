//! The figures of a case study, each as SVG and as PNG: what the slides show, and what the field asks for.
//!
//! All that a figure needs is in the problem, its analyses and the table of scores. A figure whose ingredients are not
//! there is left out.

mod abc;
mod axis;
mod batches;
mod canvas;
mod convergence;
mod covariances;
mod cycles;
mod data;
mod errors;
mod fields;
mod font;
mod growth;
mod heat;
mod lead_time;
mod loss;
mod panel;
mod png;
mod repeated;
mod sbc;
mod style;
mod svg;
mod throughput;
mod trajectories;

pub use batches::batches;
pub use cycles::cycle_figures;
pub use errors::{error_figure, latent_figure};
pub use growth::growth_figure;
pub use loss::loss_figure;
pub use sbc::sbc_figure;
pub use throughput::throughput;

use super::{check_writable, write_bytes, write_text};
use crate::error::{Error, Result};
use crate::experiment::ScoreTable;
use crate::method::Analysis;
use crate::problem::Problem;
use rayon::prelude::*;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// A figure, drawn.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// The name of its files without the ending: `hovmoller`.
    pub name: &'static str,
    /// What it shows, in one line.
    pub title: String,
    /// What to look for, in a sentence or two.
    pub caption: String,
    /// The picture as SVG.
    pub svg: String,
    /// The picture as PNG, at twice the size of the SVG.
    #[serde(skip)]
    pub png: Vec<u8>,
}

/// What figures are drawn from: the first problem of a set, its analyses and the scores.
struct Case<'a> {
    problem: &'a Problem,
    analyses: &'a [Analysis],
    table: &'a ScoreTable,
    colors: Vec<style::Color>,
}

/// A figure before it becomes files.
struct Drawing {
    title: &'static str,
    caption: String,
    canvas: canvas::Canvas,
}

impl Drawing {
    /// The picture as SVG and PNG.
    fn finish(self, name: &'static str) -> Option<Figure> {
        let Self { title, caption, canvas } = self;
        let svg = svg::svg(&canvas, name, title, &caption);
        let png = png::png(&canvas)?;
        Some(Figure { name, title: title.into(), caption, svg, png })
    }
}

/// Draws a figure; nothing where its ingredients are not there.
type Draw = fn(&Case) -> Option<Drawing>;

/// Every figure by name, in the order in which the report shows them.
const FIGURES: [(&str, Draw); 13] = [
    ("data", data::draw),
    ("hovmoller", fields::hovmoller),
    ("error-and-spread", fields::error_and_spread),
    ("trajectories", trajectories::draw),
    ("lead-time", lead_time::scores),
    ("spread-skill", lead_time::spread_skill),
    ("covariances", covariances::draw),
    ("vi-convergence", convergence::vi),
    ("ensemble-convergence", convergence::ensemble),
    ("abc-costs", abc::draw),
    ("scores", repeated::scores),
    ("rank-histograms", repeated::ranks),
    ("repeated-spread-skill", repeated::spread_skill),
];

/// Draws every figure that the first problem of a set and its analyses permit, the same bytes for the same input.
///
/// `table` serves the figures of repeated twins, which are left out where it has fewer than two.
///
/// # Errors
/// An analysis of another shape than the problem.
pub fn figures(problem: &Problem, analyses: &[Analysis], table: &ScoreTable) -> Result<Vec<Figure>> {
    let shape = [problem.window.times, problem.sites()];
    for analysis in analyses {
        let fits = analysis.mean.shape() == shape
            && analysis.std.shape() == shape
            && (analysis.samples.is_empty() || analysis.samples.shape()[1..] == shape);
        if !fits {
            let found = format!("{:?}", analysis.mean.shape());
            let what = format!("analysis by {}", analysis.method);
            return Err(Error::invalid(what, format!("shape {shape:?}"), found, "give analyses of this problem"));
        }
    }
    let case = Case { problem, analyses, table, colors: style::analysis_colors(analyses) };
    Ok(FIGURES.par_iter().filter_map(|(name, draw)| draw(&case)?.finish(name)).collect())
}

/// Refuses a folder into which some figure could not be written. Cheap: ask before computing.
///
/// # Errors
/// A figure's file is there already and `overwrite` is false, or is no file; something else has the folder's name.
pub fn check_figures(directory: impl AsRef<Path>, overwrite: bool) -> Result<()> {
    FIGURES.iter().try_for_each(|(name, _)| check_figure(&directory, name, overwrite))
}

/// The same for one figure.
///
/// # Errors
/// As [`check_figures`].
pub fn check_figure(directory: impl AsRef<Path>, name: &str, overwrite: bool) -> Result<()> {
    let directory = directory.as_ref();
    if directory.exists() && !directory.is_dir() {
        return Err(Error::file(directory, "expected a directory for figures, found a file", "move it away"));
    }
    let there = targets(directory, name).into_iter().filter(|t| t.symlink_metadata().is_ok());
    there.into_iter().try_for_each(|target| check_writable(target, overwrite))
}

/// Writes the figure of that name into a folder that is there: NAME.svg and NAME.png. Where there is none, nothing of an
/// earlier run is left.
///
/// # Errors
/// As [`check_figures`], or a failing disk.
pub fn write_or_clear_figure(
    directory: impl AsRef<Path>,
    name: &str,
    figure: Option<&Figure>,
    overwrite: bool,
) -> Result<()> {
    let [svg, png] = targets(directory.as_ref(), name);
    if let Some(figure) = figure {
        write_text(svg, &figure.svg, overwrite)?;
        return write_bytes(png, &figure.png, overwrite);
    }
    let remove = |stale: PathBuf| std::fs::remove_file(&stale).map_err(|reason| Error::Write { path: stale, reason });
    [svg, png].into_iter().filter(|t| t.exists()).try_for_each(remove)
}

/// Writes figures into a folder, which is made where it is not there: NAME.svg and NAME.png each.
///
/// # Errors
/// As [`check_figures`], or a failing disk.
pub fn write_figures(directory: impl AsRef<Path>, figures: &[Figure], overwrite: bool) -> Result<()> {
    let directory = directory.as_ref();
    check_figures(directory, overwrite)?;
    std::fs::create_dir_all(directory)
        .map_err(|e| Error::file(directory, format!("cannot be created: {e}"), "choose another directory"))?;
    FIGURES.par_iter().try_for_each(|(name, _)| {
        write_or_clear_figure(directory, name, figures.iter().find(|f| f.name == *name), overwrite)
    })
}

fn targets(directory: &Path, name: &str) -> [PathBuf; 2] {
    ["svg", "png"].map(|ending| directory.join(format!("{name}.{ending}")))
}

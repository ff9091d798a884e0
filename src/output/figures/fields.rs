//! Site x time heat maps of every method: its mean, its error and its spread.

use super::axis::Axis;
use super::canvas::{Canvas, Frame};
use super::heat::{self, BAR, Scale};
use super::panel::{Grid, TIME, Written, heading, titled, x_axis, y_axis};
use super::style::{Color, INK, MARGIN, PANEL, WIDTH};
use super::{Case, Drawing};
use ndarray::{Array2, ArrayView2};

const LEFT: f64 = MARGIN + 46.0;
/// The same with the rows' names.
const NAMED_LEFT: f64 = MARGIN + 68.0;

/// The maps of one block of rows, with axes at its edges.
struct Maps<'a> {
    case: &'a Case<'a>,
    grid: Grid,
    scale: &'a Scale,
}

impl Maps<'_> {
    fn draw(&self, canvas: &mut Canvas, row: usize, column: usize, last_row: bool, values: ArrayView2<f64>) -> Frame {
        let (frame, problem) = (self.grid.panel(row, column), self.case.problem);
        let window = &problem.window;
        heat::heat(canvas, frame, values, self.scale, false);
        let ticks = (frame.w / 38.0) as usize;
        let time = Axis::cells(window.times, ticks, |t| super::axis::plain(window.time(t)));
        let site = Axis::cells(problem.sites(), 5, |i| i.to_string());
        x_axis(canvas, frame, &time, Written { labels: last_row, title: None });
        y_axis(canvas, frame, &site, Written::at_edge(column == 0, "site"));
        heat::mark_forecast(canvas, frame, window.times, window.assimilated_times, false);
        frame
    }
}

fn coarse(case: &Case) -> &'static str {
    let (times, sites) = (case.problem.window.times, case.problem.sites());
    if heat::coarse(times.max(sites)) { " Cells are means over blocks." } else { "" }
}

/// Below a group of maps, their common horizontal axis' title.
fn time_title(canvas: &mut Canvas, all: Frame) {
    canvas.text((all.centre().0, all.bottom() + 34.0), TIME, super::style::LABEL, super::canvas::Anchor::Middle);
}

pub fn hovmoller(case: &Case) -> Option<Drawing> {
    let truth = case.problem.truth_of(0);
    let mut panels: Vec<(&str, Color, ArrayView2<f64>)> = Vec::new();
    panels.extend(truth.map(|t| ("Truth", INK, t)));
    panels.extend(case.analyses.iter().zip(&case.colors).map(|(a, c)| (a.method.as_str(), *c, a.mean.view())));
    if case.analyses.is_empty() {
        return None;
    }
    let columns = panels.len().min(4);
    let rows = panels.len().div_ceil(columns);
    let note = format!(
        "Posterior mean of each method over sites and times, on one colour scale; dashed: the forecast starts.{}",
        coarse(case)
    );
    let (mut canvas, top) = titled("Hovmöller diagrams of the truth and of each mean", &note);
    let width = (WIDTH - LEFT - MARGIN - BAR).min(columns as f64 * 300.0);
    let grid = Grid { left: LEFT, top: top + 22.0, width, columns, height: 170.0, gaps: (16.0, 56.0) };
    let scale = Scale::amounts(panels.iter().flat_map(|(_, _, v)| v.iter().copied()));
    let maps = Maps { case, grid, scale: &scale };
    for (k, (name, color, values)) in panels.iter().enumerate() {
        let frame = maps.draw(&mut canvas, k / columns, k % columns, true, *values);
        heading(&mut canvas, frame, name, *color);
    }
    let all = grid.all(rows);
    time_title(&mut canvas, all);
    heat::bar(&mut canvas, all, &scale, "state x");
    canvas.height = all.bottom() + 46.0;
    let caption = "Waves that a method's mean has in common with the truth are slanted the same way; where a mean fades \
                   to one colour, its members no longer agree.";
    Some(Drawing { title: "Hovmöller diagrams", caption: caption.into(), canvas })
}

pub fn error_and_spread(case: &Case) -> Option<Drawing> {
    if case.analyses.is_empty() {
        return None;
    }
    let truth = case.problem.truth_of(0);
    let errors: Vec<Array2<f64>> =
        case.analyses.iter().filter_map(|a| truth.as_ref().map(|t| (&a.mean - t).mapv(f64::abs))).collect();
    let spreads: Vec<_> = case.analyses.iter().map(|a| a.std.view()).collect();
    let scale = Scale::logarithmic(errors.iter().flatten().chain(spreads.iter().flatten()).copied());
    let (title, what) = match truth {
        Some(_) => {
            ("Error of the mean and posterior standard deviation", "Above |mean − truth|, below the standard deviation")
        }
        None => ("Posterior standard deviation", "Standard deviation (no truth is known)"),
    };
    let law = if scale.is_log() { ", on one logarithmic colour scale" } else { ", on one colour scale" };
    let (mut canvas, top) = titled(title, &format!("{what}{law}; dashed: the forecast starts.{}", coarse(case)));
    let columns = case.analyses.len().min(6);
    let width = (WIDTH - NAMED_LEFT - MARGIN - BAR).min(columns as f64 * 300.0);
    let mut grid = Grid { left: NAMED_LEFT, top: top + 22.0, width, columns, height: 150.0, gaps: (14.0, 14.0) };
    let rows = if truth.is_some() { 2 } else { 1 };
    let mut bottom = top;
    for (block, analyses) in case.analyses.chunks(columns).enumerate() {
        let maps = Maps { case, grid, scale: &scale };
        for (column, analysis) in analyses.iter().enumerate() {
            let k = block * columns + column;
            if let Some(error) = errors.get(k) {
                maps.draw(&mut canvas, 0, column, false, error.view());
            }
            maps.draw(&mut canvas, rows - 1, column, true, spreads[k]);
            if column == 0 {
                for (row, name) in ["|error|", "sd"].into_iter().skip(2 - rows).enumerate() {
                    canvas.upwards((MARGIN + 12.0, grid.panel(row, 0).centre().1), name, PANEL);
                }
            }
            heading(&mut canvas, grid.panel(0, column), &analysis.method, case.colors[k]);
        }
        let all = grid.all(rows);
        time_title(&mut canvas, all);
        heat::bar(&mut canvas, all, &scale, "units of the state");
        bottom = all.bottom() + 46.0;
        grid.top = bottom + 24.0;
    }
    canvas.height = bottom;
    let caption = if rows == 2 {
        "A method is calibrated where the lower map has the brightness of the upper one. A lower map that is darker \
         throughout is a posterior that is too sure of itself."
    } else {
        "Where the posterior knows little. It grows towards the forecast as the model's chaos amplifies what is left."
    };
    Some(Drawing { title, caption: caption.into(), canvas })
}

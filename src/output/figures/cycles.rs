//! Cycled assimilation: the error of the analysis against time, and by window and factor on B.

use super::axis::Axis;
use super::canvas::{Anchor, Frame, Pen};
use super::font;
use super::heat::{BAR, Scale, bar, heat};
use super::panel::{Entry, Grid, Plot, Sample, TIME, Written, heading, legend, titled, x_axis, y_axis};
use super::style::{BLANK, FAINT, INK, INSET, LABEL, MARGIN, Map, WIDTH};
use super::{Drawing, Figure};
use crate::experiment::{CycledErrors, CycledMethod, CycledScores, Cycles};
use ndarray::{Array2, Axis as Side, s};

/// Points of a line at most: more cycles are shown as means over blocks of them.
const POINTS: usize = 240;

/// The figures `cycles` and, where there are several windows or factors, `windows`.
pub fn cycle_figures(cycles: &Cycles) -> Vec<Figure> {
    let scores = cycles.scores();
    let drawn = [draw(cycles).finish("cycles"), windows(&scores).and_then(|d| d.finish("windows"))];
    drawn.into_iter().flatten().collect()
}

/// The windows or factors that there are, each once and in ascending order.
fn distinct(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.dedup();
    values
}

/// Mean over seeds and over blocks of cycles, at the blocks' middles.
fn line(cycles: &Cycles, errors: &CycledErrors, from: usize) -> Vec<(f64, f64)> {
    let size = cycles.count().div_ceil(POINTS);
    let mean = errors.analysis.mean_axis(Side(0)).expect("at least one seed");
    let blocks = mean.slice(s![from..]);
    let middle = |k: usize, len: usize| (from + k * size) as f64 + 0.5 * (len as f64 + 1.0);
    blocks
        .axis_chunks_iter(Side(0), size)
        .enumerate()
        .map(|(k, block)| (middle(k, block.len()) * cycles.interval, block.mean().unwrap_or(f64::NAN)))
        .collect()
}

fn draw(cycles: &Cycles) -> Drawing {
    let title = "Error of the analysis against time";
    let size = cycles.count().div_ceil(POINTS);
    let blocks = if size > 1 { format!(" and over {size} cycles each") } else { String::new() };
    let note = format!("RMSE at the window's end, mean over seeds{blocks}. Shaded: the burn-in, which is not scored.");
    let (mut canvas, top) = titled(title, &note);
    let is_variational = |e: &&CycledErrors| matches!(e.method, CycledMethod::Variational { .. });
    let factors = distinct(cycles.methods.iter().filter(is_variational).filter_map(|e| e.method.factor()));
    let windows = distinct(cycles.methods.iter().filter(is_variational).map(|e| e.method.window() as f64));
    // The scale's lightest end would not be seen on white.
    let color = |x: f64| {
        let rank = factors.iter().position(|f| *f == x).unwrap_or(0);
        Map::Amount.color(0.85 * rank as f64 / (factors.len().max(2) - 1) as f64)
    };
    let pen = |errors: &CycledErrors| match errors.method {
        CycledMethod::Climatology => Pen::new(FAINT, 1.2).dashed(2.0),
        CycledMethod::OptimalInterpolation => Pen::new(FAINT, 1.2).dashed(6.0),
        CycledMethod::Variational { factor, .. } => Pen::new(color(factor), 1.5),
    };
    let baselines = cycles.methods.iter().filter(|e| !is_variational(e));
    let mut entries: Vec<_> = baselines.map(|e| Entry::new(e.method.name(), Sample::Line(pen(e)))).collect();
    entries.extend(factors.iter().map(|x| Entry::new(format!("B = {x} C"), Sample::Line(Pen::new(color(*x), 2.0)))));
    let top = legend(&mut canvas, top + 8.0, &entries);
    let left = MARGIN + 56.0;
    let grid = Grid {
        left,
        top: top + 24.0,
        width: WIDTH - left - MARGIN - INSET,
        columns: 1,
        height: 170.0,
        gaps: (0.0, 36.0),
    };
    let end = cycles.count() as f64 * cycles.interval;
    let values: Vec<f64> = cycles.methods.iter().flat_map(|e| line(cycles, e, 0)).map(|(_, v)| v).collect();
    let y = Axis::positive(values.into_iter().filter(|v| v.is_finite()).collect::<Vec<_>>().into_iter(), 4);
    for (row, window) in windows.iter().enumerate() {
        let plot = Plot { frame: grid.panel(row, 0), x: Axis::between(0.0, end, 8), y: y.clone() };
        let burn_in = plot.x.place(cycles.burn_in as f64 * cycles.interval, plot.frame.x, plot.frame.right());
        let shade = Frame { w: burn_in - plot.frame.x, ..plot.frame };
        canvas.rect(shade, BLANK, 1.0);
        let last = row + 1 == windows.len();
        plot.draw_axes(&mut canvas, Written::at_edge(last, TIME), Written::full("RMSE"));
        plot.mark(&mut canvas, cycles.burn_in as f64 * cycles.interval, Pen::new(FAINT, 1.0).dashed(4.0));
        for errors in &cycles.methods {
            if !is_variational(&errors) || errors.method.window() as f64 == *window {
                plot.line(&mut canvas, line(cycles, errors, 0).into_iter().filter(|p| p.1.is_finite()), pen(errors));
            }
        }
        plot.close(&mut canvas);
        let name = match *window {
            0.0 => "3DVar".into(),
            1.0 => "4DVar, window of 1 interval".into(),
            window => format!("4DVar, window of {window} intervals"),
        };
        heading(&mut canvas, plot.frame, &name, INK);
    }
    canvas.height = grid.all(windows.len()).bottom() + 44.0;
    let caption = "A filter that works comes down from its first background's error and stays far below climatology and \
                   optimal interpolation; bursts of error say that B is too small for the window.";
    Drawing { title, caption: caption.into(), canvas }
}

fn windows(scores: &[CycledScores]) -> Option<Drawing> {
    let cells: Vec<_> = scores.iter().filter(|s| matches!(s.method, "3DVar" | "4DVar")).collect();
    let windows = distinct(cells.iter().map(|s| s.window as f64));
    let factors = distinct(cells.iter().filter_map(|s| s.factor));
    if windows.len() * factors.len() < 2 {
        return None;
    }
    let mut values = Array2::from_elem((factors.len(), windows.len()), f64::NAN);
    for cell in &cells {
        let at = |list: &[f64], value: f64| list.iter().position(|v| *v == value).expect("it is in its own list");
        values[[at(&factors, cell.factor?), at(&windows, cell.window as f64)]] = cell.analysis.mean;
    }
    let title = "Error of the analysis by window and factor on B";
    let (mut canvas, top) = titled(title, "Mean RMSE at the window's end over the scored cycles and seeds; B = x C.");
    let left = MARGIN + 60.0;
    let width = (WIDTH - left - MARGIN - BAR).min(factors.len() as f64 * 200.0);
    let height = (windows.len() as f64 * 60.0).max(150.0);
    let frame = Frame { x: left, y: top + 14.0, w: width, h: height };
    let scale = Scale::logarithmic(values.iter().copied().filter(|v| v.is_finite()));
    heat(&mut canvas, frame, values.view(), &scale, false);
    let x = Axis::cells(factors.len(), factors.len(), |k| factors[k].to_string());
    let y = Axis::cells(windows.len(), windows.len(), |k| windows[k].to_string());
    x_axis(&mut canvas, frame, &x, Written::full("factor x on the climatological covariance"));
    y_axis(&mut canvas, frame, &y, Written::full("window (intervals)"));
    for ((i, j), value) in values.indexed_iter().filter(|(_, v)| v.is_finite()) {
        let text = format!("{value:.3}");
        let at = (x.place(i as f64, frame.x, frame.right()), y.place(j as f64, frame.bottom(), frame.y));
        let pad = font::width(&text, LABEL, true) / 2.0 + 5.0;
        canvas.rect(Frame { x: at.0 - pad, y: at.1 - 9.0, w: 2.0 * pad, h: 18.0 }, [255; 3], 0.85);
        canvas.styled((at.0, at.1 + 4.5), &text, LABEL, Anchor::Middle, true, INK);
    }
    bar(&mut canvas, frame, &scale, "RMSE");
    canvas.height = frame.bottom() + 44.0;
    let caption =
        "Longer windows carry more of the past's information and want a smaller B; too small a B loses the truth.";
    Some(Drawing { title, caption: caption.into(), canvas })
}

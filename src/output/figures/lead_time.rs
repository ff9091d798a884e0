//! Scores of each method by lead time: error, spread, their ratio and CRPS.

use super::axis::Axis;
use super::canvas::{Marker, Pen};
use super::panel::{Entry, Grid, Plot, Sample, TIME, Written, heading, legend, shade_forecast, time_axis, titled};
use super::style::{Color, FAINT, INK, INSET, MARGIN, WIDTH};
use super::{Case, Drawing};
use crate::diagnostics::{fair_crps, rmse, spread};
use crate::method::Analysis;
use crate::problem::Problem;
use ndarray::{ArrayView2, Axis as Side, s};
use rayon::prelude::*;

/// Scores of one method by stored time.
struct Scores<'a> {
    method: &'a str,
    color: Color,
    marker: Marker,
    rmse: Vec<f64>,
    spread: Vec<f64>,
    crps: Vec<f64>,
}

fn by_time<'a>(case: &'a Case) -> Option<Vec<Scores<'a>>> {
    let truth = case.problem.truth_of(0)?;
    let times = case.problem.window.times;
    let own = |(k, analysis): (usize, &'a Analysis)| {
        let count = analysis.samples.len_of(Side(0));
        let row = |t: usize| s![t..t + 1, ..];
        Scores {
            method: &analysis.method,
            color: case.colors[k],
            marker: Marker::ALL[k % Marker::ALL.len()],
            rmse: (0..times).map(|t| rmse(analysis.mean.slice(row(t)), truth.slice(row(t)))).collect(),
            spread: (0..times).map(|t| spread(analysis.std.slice(row(t)), (count > 1).then_some(count))).collect(),
            crps: crps(analysis, truth),
        }
    };
    let scores: Vec<_> = case.analyses.iter().enumerate().map(own).collect();
    (!scores.is_empty()).then_some(scores)
}

/// Fair CRPS by time, the mean over sites; NaN where there are fewer than two samples.
fn crps(analysis: &Analysis, truth: ArrayView2<f64>) -> Vec<f64> {
    if analysis.samples.len_of(Side(0)) < 2 {
        return vec![f64::NAN; truth.nrows()];
    }
    let at = |t: usize| {
        let own = |site: usize| {
            let mut sorted = analysis.samples.slice(s![.., t, site]).to_vec();
            sorted.sort_by(f64::total_cmp);
            fair_crps(&sorted, truth[[t, site]])
        };
        (0..truth.ncols()).map(own).sum::<f64>() / truth.ncols() as f64
    };
    (0..truth.nrows()).into_par_iter().map(at).collect()
}

fn method_entries(scores: &[Scores]) -> Vec<Entry> {
    scores.iter().map(|s| Entry::new(s.method, Sample::Marked(Pen::new(s.color, 1.8), s.marker))).collect()
}

pub fn scores(case: &Case) -> Option<Drawing> {
    let scores = by_time(case)?;
    let problem: &Problem = case.problem;
    let title = "Error, spread and CRPS by lead time";
    let (mut canvas, top) = titled(
        title,
        "Root mean squares over sites at each time, CRPS as mean over sites; lower is better but for the ratio.",
    );
    let top = legend(&mut canvas, top + 8.0, &method_entries(&scores));
    let left = MARGIN + 56.0;
    let grid = Grid {
        left,
        top: top + 22.0,
        width: WIDTH - left - MARGIN - INSET,
        columns: 2,
        height: 170.0,
        gaps: (70.0, 62.0),
    };
    let ratio = |s: &Scores| s.spread.iter().zip(&s.rmse).map(|(spread, rmse)| spread / rmse).collect::<Vec<_>>();
    let parts: [(&str, &str, Vec<Vec<f64>>); 4] = [
        ("RMSE of the mean", "RMSE", scores.iter().map(|s| s.rmse.clone()).collect()),
        ("Spread: the RMSE that the posterior expects", "spread", scores.iter().map(|s| s.spread.clone()).collect()),
        ("Spread / RMSE (calibrated: 1)", "spread / RMSE", scores.iter().map(ratio).collect()),
        ("Fair CRPS of the samples", "CRPS", scores.iter().map(|s| s.crps.clone()).collect()),
    ];
    // Error and spread are compared with each other: one scale.
    let both = parts[..2].iter().flat_map(|(_, _, v)| v.iter().flatten().copied());
    let common = Axis::positive(both.collect::<Vec<_>>().into_iter(), 4);
    for (k, (title, label, values)) in parts.iter().enumerate() {
        let own = values.iter().flatten().copied();
        let y = match k {
            0 | 1 => common.clone(),
            2 => Axis::positive(own.chain([1.0]), 4),
            _ => Axis::positive(own, 4),
        };
        let plot = Plot { frame: grid.panel(k / 2, k % 2), x: time_axis(problem, 6), y };
        shade_forecast(&mut canvas, &plot, problem, k < 2);
        plot.draw_axes(&mut canvas, Written { labels: true, title: (k >= 2).then_some(TIME) }, Written::full(label));
        if k == 2 {
            plot.level(&mut canvas, 1.0, Pen::new(INK, 1.2).dashed(4.0));
        }
        for (scores, values) in scores.iter().zip(values) {
            let points = || values.iter().enumerate().map(|(t, v)| (problem.window.time(t), *v));
            plot.line(&mut canvas, points(), Pen::new(scores.color, 1.8));
            let every = values.len().div_ceil(20);
            points().step_by(every).for_each(|p| plot.marker(&mut canvas, p, scores.marker, scores.color));
        }
        plot.close(&mut canvas);
        heading(&mut canvas, plot.frame, title, INK);
    }
    canvas.height = grid.all(2).bottom() + 44.0;
    let caption = "Within the window the observations hold errors down; after its end they grow at the pace of the model's \
                   chaos. One problem is a noisy judge of calibration: see repeated twins for that.";
    Some(Drawing { title, caption: caption.into(), canvas })
}

pub fn spread_skill(case: &Case) -> Option<Drawing> {
    let scores = by_time(case)?;
    let title = "Spread against error";
    let note = "One point for each stored time, joined in their order; the first time is ringed. On the diagonal the spread is the error.";
    let (mut canvas, top) = titled(title, note);
    let mut entries = method_entries(&scores);
    entries.push(Entry::new("spread = RMSE", Sample::Line(Pen::new(FAINT, 1.2).dashed(4.0))));
    let top = legend(&mut canvas, top + 8.0, &entries);
    let side = 430.0;
    let left = (WIDTH - side) / 2.0;
    let grid = Grid { left, top: top + 18.0, width: side, columns: 1, height: side, gaps: (0.0, 0.0) };
    let values = || scores.iter().flat_map(|s| s.rmse.iter().chain(&s.spread).copied());
    let axis = Axis::positive(values().collect::<Vec<_>>().into_iter(), 5);
    let plot = Plot { frame: grid.panel(0, 0), x: axis.clone(), y: axis.clone() };
    plot.draw_axes(&mut canvas, Written::full("spread (root of the mean variance)"), Written::full("RMSE of the mean"));
    let diagonal = [0.0, 1.0].map(|s| (axis.value(s), axis.value(s)));
    plot.line(&mut canvas, diagonal.into_iter(), Pen::new(FAINT, 1.2).dashed(4.0));
    let corner = |x: f64, y: f64| (plot.frame.x + x * side, plot.frame.y + y * side);
    let faint = |canvas: &mut super::canvas::Canvas, at, text, anchor| {
        canvas.styled(at, text, super::style::TICK, anchor, false, FAINT);
    };
    faint(&mut canvas, corner(0.03, 0.05), "too sure of itself", super::canvas::Anchor::Start);
    faint(&mut canvas, corner(0.97, 0.97), "too cautious", super::canvas::Anchor::End);
    for s in &scores {
        let points: Vec<_> = s.spread.iter().copied().zip(s.rmse.iter().copied()).collect();
        plot.line(&mut canvas, points.iter().copied(), Pen::new(s.color, 1.4).opacity(0.7));
        let every = points.len().div_ceil(40);
        points.iter().step_by(every).for_each(|p| plot.marker(&mut canvas, *p, s.marker, s.color));
        if let Some((x, y)) = points.first().filter(|(x, y)| plot.x.contains(*x) && plot.y.contains(*y)) {
            let centre = plot.at((*x, *y));
            let ring: Vec<_> = (0..=24)
                .map(|k| {
                    let (sin, cos) = (f64::from(k) / 24.0 * std::f64::consts::TAU).sin_cos();
                    (centre.0 + 7.0 * cos, centre.1 + 7.0 * sin)
                })
                .collect();
            canvas.line(&ring, Pen::new(s.color, 1.3));
        }
    }
    plot.close(&mut canvas);
    canvas.height = plot.frame.bottom() + 44.0;
    let caption = "Above the diagonal a posterior is narrower than its error, below it wider. What counts is the distance \
                   from the diagonal over all times, not of one point.";
    Some(Drawing { title, caption: caption.into(), canvas })
}

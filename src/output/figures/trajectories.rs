//! Sampled trajectories of one site per method.

use super::axis::{Axis, bounds};
use super::canvas::{Marker, Pen};
use super::panel::{Entry, Grid, Plot, Sample, TIME, Written, heading, legend, shade_forecast, time_axis, titled};
use super::style::{INK, INSET, MARGIN, WIDTH};
use super::{Case, Drawing};
use crate::problem::PointFunction;
use ndarray::Axis as Side;

/// Most lines of a panel.
const LINES: usize = 100;

pub fn draw(case: &Case) -> Option<Drawing> {
    let problem = case.problem;
    let sampled: Vec<_> = case.analyses.iter().zip(&case.colors).filter(|(a, _)| !a.samples.is_empty()).collect();
    let first = sampled.first()?;
    let truth = problem.truth_of(0);
    let map = case.analyses.iter().zip(&case.colors).find(|(a, _)| a.method.starts_with("4DVAR"));
    // The site that moves most: where methods have most to say.
    let field = truth.unwrap_or(map.map_or(first.0.mean.view(), |(a, _)| a.mean.view()));
    let span = |site: usize| {
        let (low, high) = bounds(field.column(site).iter().copied());
        high - low
    };
    let site = (0..problem.sites()).max_by(|a, b| span(*a).total_cmp(&span(*b)).then(b.cmp(a)))?;
    let time = |t: usize| problem.window.time(t);

    let observed: Vec<(f64, f64, f64)> =
        if problem.operator.function == PointFunction::Identity && problem.operator.block_size == 1 {
            let (y, std) = (problem.observations_of(0), problem.observation_std_of(0));
            let times = (0..problem.window.times).filter(|t| !y[[*t, site]].is_nan());
            times.map(|t| (time(t), y[[t, site]], std[[t, site]])).collect()
        } else {
            Vec::new()
        };
    let note = format!(
        "Up to {LINES} samples of each posterior at site {site}, the one that moves most, with the truth and 4DVAR's minimum."
    );
    let (mut canvas, top) = titled("Sampled trajectories of one site", &note);
    let mut entries = Vec::new();
    if truth.is_some() {
        entries.push(Entry::new("truth", Sample::Line(Pen::new(INK, 2.0))));
    }
    if let Some((_, color)) = map {
        entries.push(Entry::new("4DVAR's minimum", Sample::Line(Pen::new(*color, 1.8).dashed(5.0))));
    }
    if !observed.is_empty() {
        entries.push(Entry::new("observation ± sd", Sample::Point(Marker::Hollow, INK)));
    }
    entries.push(Entry::new(
        "samples (in the method's colour)",
        Sample::Line(Pen::new(first.1.to_owned(), 1.2).opacity(0.6)),
    ));
    let top = legend(&mut canvas, top + 8.0, &entries);

    let columns = sampled.len().min(3);
    let rows = sampled.len().div_ceil(columns);
    let left = MARGIN + 46.0;
    let grid = Grid {
        left,
        top: top + 22.0,
        width: WIDTH - left - MARGIN - INSET,
        columns,
        height: 150.0,
        gaps: (34.0, 46.0),
    };
    let every = |count: usize| count.div_ceil(LINES).max(1);
    let values = sampled.iter().flat_map(|(a, _)| {
        let samples = a.samples.index_axis(Side(2), site);
        let step = every(samples.nrows());
        samples.outer_iter().step_by(step).flat_map(|s| s.to_vec()).collect::<Vec<_>>()
    });
    let y = Axis::linear(values.chain(truth.iter().flat_map(|t| t.column(site).to_vec())), 4);
    for (k, (analysis, color)) in sampled.iter().enumerate() {
        let (row, column) = (k / columns, k % columns);
        let frame = grid.panel(row, column);
        let plot = Plot { frame, x: time_axis(problem, 5), y: y.clone() };
        shade_forecast(&mut canvas, &plot, problem, k == 0);
        let last = row + 1 == rows || k + columns >= sampled.len();
        plot.draw_axes(
            &mut canvas,
            Written { labels: true, title: last.then_some(TIME) },
            Written { labels: column == 0, title: (column == 0).then_some("state x") },
        );
        let samples = analysis.samples.index_axis(Side(2), site);
        let count = samples.nrows().div_ceil(every(samples.nrows()));
        let opacity = (12.0 / count as f64).clamp(0.18, 0.9);
        for sample in samples.outer_iter().step_by(every(samples.nrows())) {
            let points = sample.iter().enumerate().map(|(t, x)| (time(t), *x)).collect::<Vec<_>>();
            plot.line(&mut canvas, points.into_iter(), Pen::new(**color, 0.9).opacity(opacity));
        }
        if let Some((map, color)) = map {
            let points = map.mean.column(site).to_vec().into_iter().enumerate().map(|(t, x)| (time(t), x));
            plot.line(&mut canvas, points, Pen::new(*color, 1.8).dashed(5.0));
        }
        if let Some(truth) = &truth {
            let points = truth.column(site).to_vec().into_iter().enumerate().map(|(t, x)| (time(t), x));
            plot.line(&mut canvas, points, Pen::new(INK, 1.6));
        }
        for (t, y, std) in &observed {
            plot.line(&mut canvas, [(*t, y - std), (*t, y + std)].into_iter(), Pen::new(INK, 1.0));
            plot.marker(&mut canvas, (*t, *y), Marker::Hollow, INK);
        }
        plot.close(&mut canvas);
        heading(&mut canvas, frame, &analysis.method, **color);
    }
    canvas.height = grid.all(rows).bottom() + 44.0;
    let caption = "The truth should lie among the samples, neither outside them nor always in their middle. After the \
                   window's end chaos fans the samples out.";
    Some(Drawing { title: "Sampled trajectories of one site", caption: caption.into(), canvas })
}

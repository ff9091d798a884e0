//! How the minimisations went: VI's ELBO with its parts, and the cost of every member of the ensemble.

use super::axis::{Axis, bounds, quantile};
use super::canvas::{Canvas, Pen};
use super::panel::{Entry, Grid, Plot, Sample, Written, heading, legend, titled};
use super::style::{Color, INK, INSET, MARGIN, WIDTH};
use super::{Case, Drawing};
use crate::method::Analysis;
use ndarray::{ArrayView1, ArrayView2, Ix1, Ix2};

/// Most members whose lines are drawn, and most points of a line.
const LINES: usize = 100;
const POINTS: usize = 800;

/// Nats below the largest ELBO from which on a fit is left out of the panel in which the others are told apart.
const NEAR: f64 = 10.0;

/// A record over one axis.
fn series<'a>(analysis: &'a Analysis, name: &str) -> Option<ArrayView1<'a, f64>> {
    analysis.record(name).and_then(|r| r.values.view().into_dimensionality::<Ix1>().ok())
}

/// The least cost that 4DVAR found, where it is among the analyses.
fn four_d_var_minimum(case: &Case) -> Option<(f64, Color)> {
    let (map, color) = case.analyses.iter().zip(&case.colors).find(|(a, _)| a.method.starts_with("4DVAR"))?;
    let (least, _) = bounds(map.record("minimum_cost").or_else(|| map.record("cost"))?.values.iter().copied());
    Some((least, *color))
}

/// Means over windows around each point that is drawn, with their standard errors, from those of the values where they
/// are known: iteration, mean, error.
fn smooth(values: &[f64], errors: Option<&[f64]>, window: usize) -> Vec<(f64, f64, f64)> {
    let step = values.len().div_ceil(POINTS).max(1);
    let mean = |k: usize| {
        let around = k.saturating_sub(window / 2)..(k + window.div_ceil(2)).min(values.len());
        let kept: Vec<usize> = around.filter(|i| values[*i].is_finite()).collect();
        let count = kept.len() as f64;
        let mean = kept.iter().map(|i| values[*i]).sum::<f64>() / count;
        let variance = match errors {
            Some(errors) => kept.iter().map(|i| errors[*i] * errors[*i]).sum::<f64>() / count,
            None => kept.iter().map(|i| (values[*i] - mean) * (values[*i] - mean)).sum::<f64>() / (count - 1.0),
        };
        (k as f64 + 1.0, mean, (variance / count).sqrt())
    };
    (0..values.len()).step_by(step).map(mean).collect()
}

/// An axis of costs: logarithmic where they span a factor of 8 or more.
fn costs(values: Vec<f64>, count: usize) -> Axis {
    let (low, high) = bounds(values.iter().copied());
    let values = values.into_iter();
    if low > 0.0 && high > 8.0 * low { Axis::positive(values, count) } else { Axis::linear(values, count) }
}

struct Part {
    title: &'static str,
    label: &'static str,
    /// The values of each fit by iteration, with the Monte Carlo error of each where it is known.
    values: Vec<(Vec<f64>, Option<Vec<f64>>)>,
    log: bool,
    minimum: bool,
}

pub fn vi(case: &Case) -> Option<Drawing> {
    let fits: Vec<_> = case
        .analyses
        .iter()
        .zip(&case.colors)
        .filter(|(a, _)| series(a, "elbo").is_some_and(|e| !e.is_empty()))
        .collect();
    let part = |title, label, log, minimum, values: &dyn Fn(&Analysis) -> Option<Vec<f64>>| {
        let values = fits.iter().map(|(a, _)| (values(a).unwrap_or_default(), None)).collect();
        Part { title, label, values, log, minimum }
    };
    let cost = |a: &Analysis| Some((&series(a, "cost_background")? + &series(a, "cost_observation")?).to_vec());
    let log_q = |a: &Analysis| Some((-&series(a, "entropy")?).to_vec());
    let total = |a: &Analysis| Some(cost(a)?.iter().zip(log_q(a)?).map(|(j, q)| j + q).collect());
    let mut elbo =
        part("ELBO of the best, where it settles", "ELBO", false, false, &|a| Some(series(a, "elbo")?.to_vec()));
    for ((_, errors), (a, _)) in elbo.values.iter_mut().zip(&fits) {
        *errors = series(a, "elbo_error").filter(|e| e.iter().all(|e| e.is_finite())).map(|e| e.to_vec());
    }
    let parts = [
        part("Sampled 4DVAR cost, E[J]", "J", true, true, &cost),
        part("Sampled density, E[log q]", "log q", false, false, &log_q),
        part("Total, E[J] + E[log q]", "J + log q", true, true, &total),
        elbo,
    ];
    let iterations = parts[0].values.iter().map(|(v, _)| v.len()).max().filter(|n| *n > 1)?;
    let window = (iterations / 30).clamp(1, 50);
    let note = format!(
        "Thin: each iteration; thick: mean over {window} iterations. The ELBO is minus the total plus a constant that makes \
         it a bound on log p(y); fits that end {NEAR} nats below the best lie beneath its panel."
    );
    let title = "Convergence of VI-4DVAR";
    let (mut canvas, top) = titled(title, &note);
    let mut entries: Vec<Entry> =
        fits.iter().map(|(a, c)| Entry::new(&a.method, Sample::Line(Pen::new(**c, 2.0)))).collect();
    let minimum = four_d_var_minimum(case).filter(|(least, _)| least.is_finite());
    if let Some((least, color)) = minimum {
        let label = format!("4DVAR's minimum, J = {}", super::axis::plain(least));
        entries.push(Entry::new(label, Sample::Line(Pen::new(color, 1.6).dashed(5.0))));
    }
    entries.push(Entry::new("mean ELBO ± 2 Monte Carlo errors", Sample::Patch(*fits[0].1, 0.45)));
    let top = legend(&mut canvas, top + 8.0, &entries);
    let left = MARGIN + 56.0;
    let grid = Grid {
        left,
        top: top + 22.0,
        width: WIDTH - left - MARGIN - INSET,
        columns: 2,
        height: 170.0,
        gaps: (76.0, 62.0),
    };
    for (k, part) in parts.iter().enumerate() {
        panel(&mut canvas, grid, k, part, &fits, window, minimum, iterations);
    }
    canvas.height = grid.all(2).bottom() + 44.0;
    let caption = "From a wide start the total falls while log q rises: the fit narrows until that costs more entropy than it \
                   saves. From 4DVAR's minimum with its Hessian little is left to gain, and a flow gains it by widening. An ELBO that still climbs at the end, beyond its band, was stopped too early.";
    Some(Drawing { title, caption: caption.into(), canvas })
}

#[expect(clippy::too_many_arguments, reason = "one panel of one figure")]
fn panel(
    canvas: &mut Canvas,
    grid: Grid,
    k: usize,
    part: &Part,
    fits: &[(&Analysis, &Color)],
    window: usize,
    minimum: Option<(f64, Color)>,
    iterations: usize,
) {
    let smoothed: Vec<_> = part.values.iter().map(|(v, e)| smooth(v, e.as_deref(), window)).collect();
    let late = k == 3;
    let own = || part.values.iter().flat_map(|(v, _)| v.iter().copied());
    let lines = || smoothed.iter().flatten().map(|(_, mean, _)| *mean);
    let y = if late {
        // What comes before the last two thirds is another order of magnitude, and so are fits that end far below.
        let end = |k: usize| smoothed[k].last().map_or(f64::NAN, |(_, mean, _)| *mean);
        let best = (0..smoothed.len()).map(end).fold(f64::NEG_INFINITY, f64::max);
        let near: Vec<usize> = (0..smoothed.len()).filter(|k| end(*k) > best - NEAR).collect();
        let last = || near.iter().flat_map(|k| &smoothed[*k][smoothed[*k].len() / 3..]).map(|(_, mean, _)| *mean);
        let noise = || near.iter().map(|k| &part.values[*k].0).flat_map(|v| v[v.len() / 3..].iter().copied());
        let low = quantile(noise(), 0.05).into_iter().chain(quantile(noise(), 0.95));
        Axis::linear(last().chain(low), 4)
    } else if part.log && lines().all(|v| v > 0.0) {
        let level = minimum.map(|(least, _)| least).filter(|_| part.minimum);
        let low = quantile(own().filter(|v| *v > 0.0), 0.01);
        costs(lines().chain(low).chain(level).collect(), 4)
    } else {
        Axis::linear(lines(), 4)
    };
    let plot = Plot { frame: grid.panel(k / 2, k % 2), x: Axis::between(0.0, iterations as f64, 5), y };
    plot.draw_axes(canvas, Written::at_edge(true, if k >= 2 { "iteration" } else { "" }), Written::full(part.label));
    for (((values, _), smoothed), (_, color)) in part.values.iter().zip(&smoothed).zip(fits) {
        let step = values.len().div_ceil(POINTS).max(1);
        if late {
            let band = smoothed.iter().map(|(x, mean, error)| (*x, mean - 2.0 * error, mean + 2.0 * error));
            plot.band(canvas, band, **color, 0.45);
        }
        let raw = values.iter().enumerate().step_by(step).map(|(i, v)| (i as f64 + 1.0, *v));
        plot.line(canvas, raw, Pen::new(**color, 0.8).opacity(0.35));
        plot.line(canvas, smoothed.iter().map(|(x, mean, _)| (*x, *mean)), Pen::new(**color, 2.0));
    }
    if let Some((least, color)) = minimum.filter(|_| part.minimum && k == 0) {
        plot.level(canvas, least, Pen::new(color, 1.6).dashed(5.0));
    }
    plot.close(canvas);
    heading(canvas, plot.frame, part.title, INK);
}

/// The cost of each member by iteration, with the iterations between two values.
fn members(analysis: &Analysis) -> Option<(ArrayView2<'_, f64>, f64)> {
    let costs = analysis.record("cost")?.values.view().into_dimensionality::<Ix2>().ok()?;
    Some((costs, analysis.number("iterations_per_cost").unwrap_or(1.0)))
}

pub fn ensemble(case: &Case) -> Option<Drawing> {
    let ensembles: Vec<_> =
        case.analyses.iter().zip(&case.colors).filter_map(|(a, c)| members(a).map(|m| (a, *c, m))).take(4).collect();
    let longest = ensembles.iter().map(|(_, _, (costs, every))| costs.ncols() as f64 * every).fold(0.0, f64::max);
    let values = || ensembles.iter().flat_map(|(_, _, (costs, _))| costs.iter().copied());
    if longest < 2.0 || !values().any(f64::is_finite) {
        return None;
    }
    let title = "Convergence of the ensemble of 4DVAR";
    let note = format!(
        "Cost of up to {LINES} members, each of its own perturbed problem, by iteration; a line ends with its minimisation."
    );
    let (mut canvas, top) = titled(title, &note);
    let minimum = four_d_var_minimum(case).filter(|(least, _)| least.is_finite());
    let mut entries: Vec<Entry> = ensembles
        .iter()
        .map(|(a, c, _)| {
            Entry::new(format!("{}, one member each", a.method), Sample::Line(Pen::new(*c, 1.2).opacity(0.6)))
        })
        .collect();
    entries.push(Entry::new("mean over members", Sample::Line(Pen::new(INK, 2.2))));
    if let Some((least, color)) = minimum {
        let label = format!("4DVAR's minimum of the problem itself, J = {}", super::axis::plain(least));
        entries.push(Entry::new(label, Sample::Line(Pen::new(color, 1.8).dashed(5.0))));
    }
    let top = legend(&mut canvas, top + 8.0, &entries);
    let left = MARGIN + 60.0;
    let grid = Grid {
        left,
        top: top + 22.0,
        width: WIDTH - left - MARGIN - INSET,
        columns: ensembles.len(),
        height: 300.0,
        gaps: (30.0, 0.0),
    };
    let level = minimum.map(|(least, _)| least);
    let y = costs(values().chain(level).collect(), 5);
    for (column, (analysis, color, (costs, every))) in ensembles.iter().enumerate() {
        let plot = Plot { frame: grid.panel(0, column), x: Axis::between(0.0, longest, 6), y: y.clone() };
        plot.draw_axes(&mut canvas, Written::full("iteration"), Written::at_edge(column == 0, "cost J"));
        let step = costs.ncols().div_ceil(POINTS).max(1);
        let at = |k: usize| (k as f64 + 1.0) * every;
        for costs in costs.outer_iter().step_by(costs.nrows().div_ceil(LINES).max(1)) {
            let points = costs.iter().enumerate().step_by(step).map(|(k, v)| (at(k), *v)).collect::<Vec<_>>();
            plot.line(&mut canvas, points.into_iter(), Pen::new(*color, 0.9).opacity(0.4));
        }
        if let Some(mean) = series(analysis, "mean_cost") {
            let points = mean.iter().enumerate().step_by(step).map(|(k, v)| (at(k), *v)).collect::<Vec<_>>();
            plot.line(&mut canvas, points.into_iter(), Pen::new(INK, 2.2));
        }
        if let Some((least, color)) = minimum {
            plot.level(&mut canvas, least, Pen::new(color, 1.8).dashed(5.0));
        }
        plot.close(&mut canvas);
        heading(&mut canvas, plot.frame, &analysis.method, *color);
    }
    canvas.height = grid.all(1).bottom() + 44.0;
    let caption = "Members that settle far above the others are caught in a local minimum of their own cost. In a linear and \
                   Gaussian problem the members' mean ends half the number of observations above 4DVAR's minimum.";
    Some(Drawing { title, caption: caption.into(), canvas })
}

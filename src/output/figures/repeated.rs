//! Figures of repeated twins: scores with their standard errors, spread against error, rank histograms.

use super::axis::{Axis, range};
use super::canvas::{Anchor, Frame, Marker, Pen};
use super::font;
use super::panel::{Entry, Grid, Plot, Sample, Written, heading, legend, titled};
use super::style::{Color, FAINT, GRID, INK, LABEL, MARGIN, RULE, WIDTH, colors, pale, readable};
use super::{Case, Drawing};
use crate::diagnostics::{BAND_LEVEL, Estimate, Periods, ScoreSummary};

/// The methods of a table of at least two twins: name, colour, summary.
fn summaries<'a>(case: &'a Case) -> Option<Vec<(&'a str, Color, ScoreSummary)>> {
    if case.table.twins < 2 || case.table.methods.is_empty() {
        return None;
    }
    let colors = colors(case.table.methods.iter().map(|m| m.method.as_str()));
    Some(case.table.methods.iter().zip(colors).map(|(m, c)| (m.method.as_str(), c, m.summary())).collect())
}

const PERIODS: [(&str, &str, Marker); 3] =
    [("initial", "t = 0", Marker::Up), ("window", "window", Marker::Circle), ("forecast", "forecast", Marker::Diamond)];

type Score = fn(&ScoreSummary) -> Option<&Periods<Estimate>>;

/// Scores that are drawn, with their ideal where it is not 0.
const SCORES: [(&str, Score, Option<f64>); 9] = [
    ("RMSE of the mean", |s| s.rmse.as_ref(), None),
    ("Spread / RMSE (ideal 1)", |s| s.spread_skill.as_ref(), Some(1.0)),
    ("Fair CRPS", |s| s.crps.as_ref(), None),
    ("Fair energy score", |s| s.energy.as_ref(), None),
    ("Share in central 50 %", |s| s.coverage_50.as_ref(), Some(0.5)),
    ("Share in central 90 %", |s| s.coverage_90.as_ref(), Some(0.9)),
    ("Distance of mean to reference", |s| s.distance_mean.as_ref(), None),
    ("Distance of log sd to reference", |s| s.distance_std.as_ref(), None),
    ("Reference in own central 90 %", |s| s.reference_coverage_90.as_ref(), Some(0.9)),
];

pub fn scores(case: &Case) -> Option<Drawing> {
    let methods = summaries(case)?;
    let shown: Vec<_> =
        SCORES.iter().filter(|(_, score, _)| methods.iter().any(|(_, _, s)| score(s).is_some())).collect();
    if shown.is_empty() {
        return None;
    }
    let title = "Scores over repeated twins";
    let note = format!("Mean over {} twins ± one standard error.", case.table.twins);
    let (mut canvas, top) = titled(title, &note);
    let mut entries: Vec<Entry> =
        PERIODS.iter().map(|(_, label, marker)| Entry::new(*label, Sample::Point(*marker, FAINT))).collect();
    entries.push(Entry::new("ideal", Sample::Line(Pen::new(INK, 1.2).dashed(4.0))));
    let top = legend(&mut canvas, top + 8.0, &entries);
    let names = methods.iter().map(|(name, ..)| font::width(name, LABEL, false)).fold(40.0, f64::max).min(170.0);
    let left = MARGIN + names + 12.0;
    let columns = shown.len().min(3);
    let height = 42.0 * methods.len() as f64;
    let grid = Grid { left, top: top + 22.0, width: WIDTH - left - MARGIN - 8.0, columns, height, gaps: (26.0, 54.0) };
    for (k, (title, score, ideal)) in shown.iter().enumerate() {
        let (row, column) = (k / columns, k % columns);
        let frame = grid.panel(row, column);
        let estimates = || methods.iter().filter_map(|(_, _, s)| score(s)).flat_map(|p| p.named().map(|(_, e)| *e));
        let ends = estimates().flat_map(|e| {
            let error = e.standard_error.unwrap_or(0.0);
            [e.mean - error, e.mean + error]
        });
        let (low, high) = range(ends.chain(*ideal), 0.06);
        let positive = estimates().all(|e| e.mean > e.standard_error.unwrap_or(0.0));
        let x = if positive && ideal.is_none_or(|i| i == 1.0) {
            let ends: Vec<f64> = estimates()
                .flat_map(|e| {
                    let error = e.standard_error.unwrap_or(0.0);
                    [e.mean - error, e.mean + error]
                })
                .chain(*ideal)
                .collect();
            Axis::positive(ends.into_iter(), 5)
        } else {
            Axis::between(low, high, 4)
        };
        let plot = Plot { frame, x, y: Axis::cells(methods.len(), methods.len(), |_| String::new()) };
        super::panel::grid_lines(&mut canvas, frame, &plot.x, &Axis::cells(0, 1, |_| String::new()));
        super::panel::x_axis(&mut canvas, frame, &plot.x, Written { labels: true, title: None });
        if let Some(ideal) = ideal {
            plot.mark(&mut canvas, *ideal, Pen::new(INK, 1.2).dashed(4.0));
        }
        for (m, (name, color, summary)) in methods.iter().enumerate() {
            let top = frame.y + 42.0 * m as f64;
            if m > 0 {
                canvas.line(&[(frame.x, top), (frame.right(), top)], Pen::new(GRID, 1.0));
            }
            if column == 0 {
                let name = font::shorten(name, LABEL, false, names);
                canvas.styled((frame.x - 8.0, top + 25.0), &name, LABEL, Anchor::End, false, readable(*color));
            }
            for (period, estimate) in score(summary).iter().flat_map(|p| p.named()) {
                let Some(k) = PERIODS.iter().position(|(name, ..)| *name == period) else { continue };
                let y = top + 10.0 + 11.0 * k as f64;
                let at = |v: f64| (plot.x.place(v, frame.x, frame.right()), y);
                let error = estimate.standard_error.unwrap_or(0.0);
                let bar = [at(estimate.mean - error), at(estimate.mean + error)];
                canvas.clipped_line(frame, &bar, Pen::new(*color, 2.0));
                if plot.x.contains(estimate.mean) {
                    canvas.marker(PERIODS[k].2, at(estimate.mean), 3.6, *color);
                }
            }
        }
        plot.close(&mut canvas);
        heading(&mut canvas, frame, title, INK);
    }
    canvas.height = grid.all(shown.len().div_ceil(columns)).bottom() + 32.0;
    let caption = "Two methods differ where their bars lie well apart; where they overlap, more twins are needed. Lower is \
                   better, but for the ratio and the shares, which have an ideal.";
    Some(Drawing { title, caption: caption.into(), canvas })
}

pub fn spread_skill(case: &Case) -> Option<Drawing> {
    let methods = summaries(case)?;
    let pairs: Vec<_> = methods
        .iter()
        .filter_map(|(name, color, s)| Some((*name, *color, s.spread.as_ref()?, s.rmse.as_ref()?)))
        .collect();
    if pairs.is_empty() {
        return None;
    }
    let title = "Spread against error over repeated twins";
    let note =
        format!("Means over {} twins ± one standard error. On the diagonal the spread is the error.", case.table.twins);
    let (mut canvas, top) = titled(title, &note);
    let mut entries: Vec<Entry> =
        pairs.iter().map(|(name, color, ..)| Entry::new(*name, Sample::Patch(*color, 1.0))).collect();
    entries.extend(PERIODS.iter().map(|(_, label, marker)| Entry::new(*label, Sample::Point(*marker, FAINT))));
    let top = legend(&mut canvas, top + 8.0, &entries);
    let side = 430.0;
    let frame = Frame { x: (WIDTH - side) / 2.0, y: top + 18.0, w: side, h: side };
    let ends = pairs.iter().flat_map(|(_, _, a, b)| {
        a.named().chain(b.named()).flat_map(|(_, e)| {
            let error = e.standard_error.unwrap_or(0.0);
            [e.mean - error, e.mean + error]
        })
    });
    let axis = Axis::positive(ends.collect::<Vec<_>>().into_iter(), 5);
    let plot = Plot { frame, x: axis.clone(), y: axis.clone() };
    plot.draw_axes(&mut canvas, Written::full("spread (root of the mean variance)"), Written::full("RMSE of the mean"));
    plot.line(
        &mut canvas,
        [0.0, 1.0].map(|s| (axis.value(s), axis.value(s))).into_iter(),
        Pen::new(FAINT, 1.2).dashed(4.0),
    );
    for (_, color, spread, rmse) in &pairs {
        for (period, _, marker) in PERIODS {
            let of = |p: &Periods<Estimate>| p.named().find(|(name, _)| *name == period).map(|(_, e)| *e);
            let (Some(x), Some(y)) = (of(spread), of(rmse)) else { continue };
            let (dx, dy) = (x.standard_error.unwrap_or(0.0), y.standard_error.unwrap_or(0.0));
            let pen = Pen::new(*color, 1.2);
            plot.line(&mut canvas, [(x.mean - dx, y.mean), (x.mean + dx, y.mean)].into_iter(), pen);
            plot.line(&mut canvas, [(x.mean, y.mean - dy), (x.mean, y.mean + dy)].into_iter(), pen);
            plot.marker(&mut canvas, (x.mean, y.mean), marker, *color);
        }
    }
    plot.close(&mut canvas);
    canvas.height = frame.bottom() + 44.0;
    let caption = "Above the diagonal a posterior is narrower than its error, below it wider.";
    Some(Drawing { title, caption: caption.into(), canvas })
}

/// The axis of ranks as shares of the samples.
fn shares() -> Axis {
    let mut axis = Axis::between(0.0, 1.0, 2);
    axis.ticks = [0.0, 0.5, 1.0].map(|s| (s, super::axis::plain(s))).to_vec();
    axis
}

pub fn ranks(case: &Case) -> Option<Drawing> {
    let methods: Vec<_> = summaries(case)?.into_iter().filter(|(_, _, s)| s.rank.is_some()).take(7).collect();
    let rows = methods.iter().filter_map(|(_, _, s)| s.rank.as_ref().map(|r| r.named().count())).max()?;
    let title = "Rank of the truth among the samples";
    let note = format!(
        "One rank for each of {} twins. Grey: where all bars of a calibrated method lie with probability {} %; line: the flat histogram.",
        case.table.twins,
        (BAND_LEVEL * 100.0).round()
    );
    let (mut canvas, top) = titled(title, &note);
    let left = MARGIN + 64.0;
    let columns = methods.len();
    let width = (WIDTH - left - MARGIN).min(columns as f64 * 300.0);
    let grid = Grid { left, top: top + 24.0, width, columns, height: 110.0, gaps: (22.0, 24.0) };
    let most = methods.iter().filter_map(|(_, _, s)| s.rank.as_ref()).flat_map(|r| {
        r.named()
            .flat_map(|(_, h)| h.counts.iter().chain(&h.band_high).copied().collect::<Vec<_>>())
            .collect::<Vec<_>>()
    });
    let most = most.max().unwrap_or(1).max(1) as f64 * 1.05;
    for (column, (name, color, summary)) in methods.iter().enumerate() {
        for (row, (period, h)) in summary.rank.iter().flat_map(Periods::named).enumerate() {
            let frame = grid.panel(row, column);
            let bins = h.counts.len();
            let plot = Plot { frame, x: shares(), y: Axis::between(0.0, most, 3) };
            let edge = |k: usize| k as f64 / bins as f64;
            for k in 0..bins {
                let (x0, high) = plot.at((edge(k), h.band_high[k] as f64));
                let (x1, low) = plot.at((edge(k + 1), h.band_low[k] as f64));
                canvas.rect(Frame { x: x0, y: high, w: x1 - x0, h: low - high }, RULE, 0.55);
            }
            for k in 0..bins {
                let (x0, y) = plot.at((edge(k), h.counts[k] as f64));
                let x1 = plot.at((edge(k + 1), 0.0)).0;
                canvas
                    .cells(pale(*color, 0.85), vec![Frame { x: x0 + 1.0, y, w: x1 - x0 - 2.0, h: frame.bottom() - y }]);
            }
            let flat = (0..bins).flat_map(|k| [(edge(k), h.expected[k]), (edge(k + 1), h.expected[k])]);
            plot.line(&mut canvas, flat, Pen::new(INK, 1.2));
            let last = row + 1 == rows;
            super::panel::x_axis(&mut canvas, frame, &plot.x, Written::at_edge(last, "rank / samples"));
            super::panel::y_axis(&mut canvas, frame, &plot.y, Written::at_edge(column == 0, "twins"));
            plot.close(&mut canvas);
            if row == 0 {
                heading(&mut canvas, frame, name, *color);
            }
            if column == 0 {
                let label = match period {
                    "initial" => "t = 0",
                    "window" => "window end",
                    _ => "forecast end",
                };
                canvas.upwards((MARGIN + 10.0, frame.centre().1), label, LABEL);
            }
        }
    }
    canvas.height = grid.all(rows).bottom() + 44.0;
    let caption = "Flat within the grey band is calibrated. High ends: the posterior is too narrow; a hump in the middle: too \
                   wide; a slope: biased. It means something on prior twins alone, whose truth is a draw from the prior.";
    Some(Drawing { title, caption: caption.into(), canvas })
}

//! Sample covariance matrices of each method: at t = 0, at the window's end and at the forecast's end.

use super::axis::{Axis, bounds};
use super::heat::{self, BAR, Scale};
use super::panel::{Grid, Written, heading, titled, x_axis};
use super::style::{MARGIN, WIDTH};
use super::{Case, Drawing};
use crate::diagnostics::{Periods, covariances};
use ndarray::{Array2, Axis as Side};

/// Most sites of a matrix; of more, every n-th is shown.
const MOST: usize = 48;

pub fn draw(case: &Case) -> Option<Drawing> {
    let problem = case.problem;
    let assimilated = problem.window.assimilated_times;
    let sampled: Vec<_> =
        case.analyses.iter().zip(&case.colors).filter(|(a, _)| a.samples.len_of(Side(0)) > 1).take(7).collect();
    let step = problem.sites().div_ceil(MOST);
    let shown: Vec<usize> = (0..problem.sites()).step_by(step).collect();
    let matrices: Vec<Periods<Array2<f64>>> =
        sampled.iter().map(|(a, _)| covariances(a.samples.select(Side(2), &shown).view(), assimilated)).collect();
    let columns = matrices.len();
    let by_time: Vec<(String, Vec<&Array2<f64>>)> = matrices
        .first()?
        .named()
        .map(|(period, _)| {
            let own = matrices.iter().filter_map(|m| m.named().find(|(name, _)| *name == period).map(|(_, c)| c));
            (period.to_string(), own.collect())
        })
        .collect();

    let mut note = "Covariances between sites over the samples, coloured by their signed square roots; each row has its own \
                    colour scale, common to all methods. It ends at the largest covariance of the median method: what is \
                    wider saturates."
        .to_string();
    if step > 1 {
        note += &format!(" Every {step}th site is shown.");
    }
    let (mut canvas, top) = titled("Sample covariance of each posterior at three times", &note);
    let left = MARGIN + 74.0;
    let width = (WIDTH - left - MARGIN - BAR).min(columns as f64 * 220.0);
    let gap = 14.0;
    let side = (width - gap * (columns - 1) as f64) / columns as f64;
    let grid = Grid { left, top: top + 24.0, width, columns, height: side, gaps: (gap, 16.0) };
    let site = Axis::cells(shown.len(), (side / 22.0) as usize, |i| shown[i].to_string());
    let time = |t: usize| super::axis::plain(problem.window.time(t));
    for (row, (period, own)) in by_time.iter().enumerate() {
        // The broadest posterior would leave nothing to see of the narrow ones, nor the narrowest of the broad ones.
        let mut largest: Vec<f64> = own.iter().map(|c| bounds(c.iter().copied())).map(|(l, h)| h.max(-l)).collect();
        largest.sort_by(f64::total_cmp);
        let scale = Scale::signed_roots(largest[(largest.len() - 1) / 2]);
        let last = row + 1 == by_time.len();
        for (column, covariance) in own.iter().enumerate() {
            let frame = grid.panel(row, column);
            heat::heat(&mut canvas, frame, covariance.view(), &scale, true);
            x_axis(&mut canvas, frame, &site, Written::at_edge(last, "site"));
            heat::matrix_axis(&mut canvas, frame, &site, Written { labels: column == 0, title: None });
            if row == 0 {
                heading(&mut canvas, frame, &sampled[column].0.method, *sampled[column].1);
            }
        }
        let first = grid.panel(row, 0);
        let name = match period.as_str() {
            "initial" => "t = 0".to_string(),
            "window" => format!("window end, t = {}", time(assimilated - 1)),
            _ => format!("forecast end, t = {}", time(problem.window.times - 1)),
        };
        let middle = first.centre().1;
        canvas.upwards((MARGIN + 12.0, middle), &name, super::style::LABEL);
        canvas.upwards((MARGIN + 34.0, middle), "site", super::style::LABEL);
        heat::bar(&mut canvas, grid.panel(row, columns - 1), &scale, "covariance");
    }
    canvas.height = grid.all(by_time.len()).bottom() + 46.0;
    let caption = "Off the diagonal lie the correlations that the model makes between sites. A mean-field posterior has none \
                   at t = 0 by construction; the model gives it some later.";
    Some(Drawing { title: "Sample covariance of each posterior at three times", caption: caption.into(), canvas })
}

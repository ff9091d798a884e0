//! The course of a training: loss by epoch, during training and on what is held out.

use super::axis::Axis;
use super::canvas::{Marker, Pen};
use super::panel::{Entry, Grid, Plot, Sample, Written, legend, titled};
use super::style::{FAINT, INSET, MARGIN, VERMILLION, WIDTH};
use super::{Drawing, Figure};
use crate::neural::TrainingHistory;

/// The figure `training-loss`, for a loss of this name; nothing where no epoch came to its end.
pub fn loss_figure(history: &TrainingHistory, loss: &str) -> Option<Figure> {
    let epochs = history.held_out.len();
    if epochs == 0 {
        return None;
    }
    let lowest = history.lowest();
    // The first epochs may lie far above all others: then the axis holds the lower nine tenths, and they leave it at the top.
    let mut finite: Vec<f64> = history.held_out.iter().chain(&history.training).copied().collect();
    finite.push(lowest);
    finite.retain(|v| v.is_finite());
    finite.sort_by(f64::total_cmp);
    let (low, high) = (*finite.first()?, *finite.last()?);
    let most = finite[(finite.len() - 1) * 9 / 10];
    let is_cut = high - low > 3.0 * (most - low);
    let high = if is_cut { most } else { high };
    let title = "Training";
    let when = match history.best {
        0 => "before the first step: nothing is learned".to_string(),
        epoch => format!("after epoch {epoch} of {epochs}"),
    };
    let cut = if is_cut { " Losses above the axis are not shown." } else { "" };
    let note = format!("Lowest loss on what is held out: {lowest:.3}, {when}.{cut}");
    let (mut canvas, top) = titled(title, &note);
    let held_out = Pen::new(VERMILLION, 1.8);
    let training = Pen::new(FAINT, 1.4).dashed(4.0);
    let entries = [
        Entry::new("held out, after each epoch", Sample::Line(held_out)),
        Entry::new("training set, mean during each epoch", Sample::Line(training)),
    ];
    let top = legend(&mut canvas, top + 8.0, &entries);
    let left = MARGIN + 64.0;
    let width = WIDTH - left - MARGIN - INSET;
    let grid = Grid { left, top: top + 10.0, width, columns: 1, height: 300.0, gaps: (0.0, 0.0) };
    let margin = 0.05 * (high - low).max(1e-3 * low.abs()).max(1e-9);
    let plot = Plot {
        frame: grid.panel(0, 0),
        x: Axis::between(0.0, epochs as f64, 8),
        y: Axis::between(low - margin, high + margin, 5),
    };
    plot.draw_axes(&mut canvas, Written::full("epoch"), Written::full(loss));
    let line = |values: &[f64], shift: f64| -> Vec<(f64, f64)> {
        let inside = values.iter().enumerate().map(|(k, v)| (k as f64 + shift, *v));
        inside
            .skip_while(|(_, v)| v.is_nan() || *v > high + margin)
            .filter(|(_, v)| v.is_finite())
            .map(|(k, v)| (k, v.min(high + margin)))
            .collect()
    };
    // A mean during an epoch belongs to its middle.
    plot.line(&mut canvas, line(&history.training, 0.5).into_iter(), training);
    plot.line(&mut canvas, line(&history.held_out, 1.0).into_iter(), held_out);
    plot.marker(&mut canvas, (history.best as f64, lowest), Marker::Circle, VERMILLION);
    plot.close(&mut canvas);
    canvas.height = plot.frame.bottom() + 44.0;
    let caption = "The weights kept are those at the circle. A line of what is held out that rises while the other falls: the \
                   network learns its examples by heart, and more of them help.";
    Drawing { title, caption: caption.into(), canvas }.finish("training-loss")
}

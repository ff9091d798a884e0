//! Noise of the gradient, iterations and seconds to a given ELBO against the batch size.

use super::axis::{Axis, bounds};
use super::canvas::{Marker, Pen};
use super::panel::{Entry, Grid, Plot, Sample, Written, legend, titled};
use super::style::{BLUE, Color, INSET, MARGIN, VERMILLION, WIDTH};
use super::{Drawing, Figure};
use crate::benchmark::BatchRow;

/// The figure `batch-size`; nothing where no engine has two batch sizes.
pub fn batches(rows: &[BatchRow], within: f64) -> Option<Figure> {
    draw(rows, within)?.finish("batch-size")
}

/// What a panel shows of a row.
type Value = fn(&BatchRow) -> f64;

fn draw(rows: &[BatchRow], within: f64) -> Option<Drawing> {
    let mut engines: Vec<(String, Vec<&BatchRow>)> = Vec::new();
    for row in rows {
        let name = row.hardware.to_string();
        match engines.iter_mut().find(|(other, _)| *other == name) {
            Some((_, own)) => own.push(row),
            None => engines.push((name, vec![row])),
        }
    }
    engines.iter_mut().for_each(|(_, own)| own.sort_by_key(|r| r.batch));
    engines.iter().find(|(_, own)| own.len() > 1)?;
    let title = "What larger batches buy";
    let note = format!(
        "A mean field from the background, Adam at the best of several constant learning rates, until its ELBO is within \
         {within} of the family's largest."
    );
    let (mut canvas, top) = titled(title, &note);
    let style = |row: &BatchRow| -> (Color, Marker) {
        if row.hardware.backend == "cpu" { (BLUE, Marker::Circle) } else { (VERMILLION, Marker::Up) }
    };
    let entries: Vec<_> = engines
        .iter()
        .map(|(name, own)| {
            let (color, marker) = style(own[0]);
            Entry::new(name.clone(), Sample::Marked(Pen::new(color, 2.0), marker))
        })
        .collect();
    let top = legend(&mut canvas, top + 8.0, &entries);
    let panels: [(&str, Value); 3] = [
        ("variance of the gradient", |r| r.variance),
        ("iterations", |r| r.iterations.map_or(f64::NAN, |i| i as f64)),
        ("seconds", |r| r.seconds),
    ];
    let left = MARGIN + 60.0;
    let gap = 86.0;
    let width = WIDTH - left - MARGIN - INSET;
    let grid = Grid { left, top: top + 16.0, width, columns: 3, height: 260.0, gaps: (gap, 0.0) };
    let log = |values: Vec<f64>, room: f64| {
        let (low, high) = bounds(values.into_iter().filter(|v| v.is_finite() && *v > 0.0));
        Axis::log(low / room, high * room)
    };
    for (k, (unit, value)) in panels.into_iter().enumerate() {
        let plot = Plot {
            frame: grid.panel(0, k),
            x: log(rows.iter().map(|r| r.batch as f64).collect(), 1.6),
            y: log(rows.iter().map(value).collect(), 1.6),
        };
        plot.draw_axes(&mut canvas, Written::full("draws per iteration"), Written::full(unit));
        for (_, own) in &engines {
            let (color, marker) = style(own[0]);
            let points = || own.iter().map(|r| (r.batch as f64, value(r))).filter(|(_, v)| v.is_finite() && *v > 0.0);
            plot.line(&mut canvas, points(), Pen::new(color, 2.0));
            points().for_each(|point| plot.marker(&mut canvas, point, marker, color));
        }
        plot.close(&mut canvas);
    }
    canvas.height = grid.all(1).bottom() + 44.0;
    let caption = "The variance falls as one over the batch. Iterations fall with it until the gradient is sharper than the \
                   steps that Adam can take; from there on more draws cost time and buy nothing. A batch that does not yet \
                   fill the device costs next to nothing either.";
    Some(Drawing { title, caption: caption.into(), canvas })
}

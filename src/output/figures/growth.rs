//! How the error of f32 gradients grows with the window.

use super::axis::Axis;
use super::canvas::{Marker, Pen};
use super::panel::{Entry, Grid, Plot, Sample, Written, legend, titled};
use super::style::{FAINT, INSET, MARGIN, VERMILLION, WIDTH};
use super::{Drawing, Figure};
use crate::engine::Hardware;
use crate::validation::Growth;

/// The figure `error-growth`; nothing where nothing was measured.
pub fn growth_figure(growth: &[Growth], hardware: &Hardware) -> Option<Figure> {
    let last = growth.last()?.window;
    let title = "Error of f32 gradients by length of the window";
    let note = format!("Largest error over the largest gradient, 8 members of 40 sites, on {}.", hardware.adapter);
    let (mut canvas, top) = titled(title, &note);
    let marked = Sample::Marked(Pen::new(VERMILLION, 1.8), Marker::Circle);
    let plain = Pen::new(FAINT, 1.4).dashed(4.0);
    let entries = [Entry::new("this engine", marked), Entry::new("plain evaluation in f32", Sample::Line(plain))];
    let top = legend(&mut canvas, top + 8.0, &entries);
    let left = MARGIN + 64.0;
    let grid = Grid {
        left,
        top: top + 10.0,
        width: WIDTH - left - MARGIN - INSET,
        columns: 1,
        height: 300.0,
        gaps: (0.0, 0.0),
    };
    let floor = f64::from(f32::EPSILON) / 8.0;
    let values = growth.iter().flat_map(|g| [g.engine.max(floor), g.plain.max(floor)]);
    let plot = Plot {
        frame: grid.panel(0, 0),
        x: Axis::between(0.0, last, 8),
        y: Axis::positive(values.collect::<Vec<_>>().into_iter(), 5),
    };
    plot.draw_axes(&mut canvas, Written::full("window (model time units)"), Written::full("relative error"));
    plot.line(&mut canvas, growth.iter().map(|g| (g.window, g.plain.max(floor))), plain);
    let points = || growth.iter().map(|g| (g.window, g.engine.max(floor)));
    plot.line(&mut canvas, points(), Pen::new(VERMILLION, 1.8));
    points().for_each(|p| plot.marker(&mut canvas, p, Marker::Circle, VERMILLION));
    plot.close(&mut canvas);
    canvas.height = plot.frame.bottom() + 44.0;
    let caption = "Rounding of one step is about 1e-7; the model's chaos multiplies it by ten in about one time unit and a \
                   half. An engine in order stays near a plain evaluation of the equations in f32.";
    Drawing { title, caption: caption.into(), canvas }.finish("error-growth")
}

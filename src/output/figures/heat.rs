//! Heat maps: cells coloured by value, on a scale that several maps share, with its bar beside them.

use super::axis::{Axis, bounds, quantile, range};
use super::canvas::{Anchor, Canvas, Frame, Pen};
use super::panel::{Written, frame_lines, y_axis};
use super::style::{BLANK, FAINT, INK, LABEL, Map, RULE, TICK};
use ndarray::{Array2, ArrayView2};

/// Most cells of a map along a side. Larger fields are shown as means over blocks.
const MOST: usize = 128;
/// Steps of a colour map.
const LEVELS: usize = 96;

/// From values to colours.
#[derive(Clone, Debug)]
pub struct Scale {
    map: Map,
    axis: Axis,
    /// What values go through before they are placed on the axis.
    law: fn(f64) -> f64,
}

/// The square root with its sign: a covariance in the units of the state.
fn signed_root(value: f64) -> f64 {
    value.signum() * value.abs().sqrt()
}

impl Scale {
    /// Amounts or states from the least to the greatest.
    pub fn amounts(values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = range(values, 0.0);
        Self { map: Map::Amount, axis: Axis::between(low, high, 5), law: |v| v }
    }

    /// Positive values on a logarithmic scale of at most three decades; the least 3 % share its darkest colour.
    pub fn logarithmic(values: impl Iterator<Item = f64> + Clone) -> Self {
        let positive = values.filter(|v| *v > 0.0);
        let (_, high) = bounds(positive.clone());
        let axis = match quantile(positive, 0.03) {
            Some(low) if high > 0.0 => Axis::log(low.max(high * 1e-3).min(high / 2.0), high),
            _ => Axis::between(0.0, 1.0, 4),
        };
        Self { map: Map::Amount, axis, law: |v| v }
    }

    /// Signed values, as far below zero as above it.
    pub fn signed(values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = bounds(values);
        let most = match low.abs().max(high.abs()) {
            0.0 => 1.0,
            most => most,
        };
        Self { map: Map::Signed, axis: Axis::between(-most, most, 4), law: |v| v }
    }

    /// Signed values up to `most` on either side, by their signed square roots.
    pub fn signed_roots(most: f64) -> Self {
        let most = if most > 0.0 { most } else { 1.0 };
        let root = most.sqrt();
        let mut axis = Axis::between(-root, root, 4);
        axis.ticks =
            Axis::between(-most, most, 4).ticks.into_iter().map(|(at, text)| (signed_root(at), text)).collect();
        Self { map: Map::Signed, axis, law: signed_root }
    }

    pub fn is_log(&self) -> bool {
        self.axis.is_log()
    }

    fn level(&self, value: f64) -> usize {
        let share = match self.axis.is_log() && value <= 0.0 {
            true => 0.0,
            false => self.axis.share((self.law)(value)).clamp(0.0, 1.0),
        };
        ((share * LEVELS as f64) as usize).min(LEVELS - 1)
    }

    fn color(&self, level: usize) -> [u8; 3] {
        self.map.color((level as f64 + 0.5) / LEVELS as f64)
    }
}

/// Whether a field of that many cells along a side is shown as block means.
pub fn coarse(count: usize) -> bool {
    count > MOST
}

/// Means over blocks, so that neither side has more than [`MOST`] cells; what is not finite is left out of them.
fn coarsen(values: ArrayView2<f64>) -> Array2<f64> {
    let (rows, columns) = values.dim();
    let (by_row, by_column) = (rows.div_ceil(MOST), columns.div_ceil(MOST));
    Array2::from_shape_fn((rows.div_ceil(by_row), columns.div_ceil(by_column)), |(i, j)| {
        let (mut sum, mut count) = (0.0, 0.0);
        for r in i * by_row..((i + 1) * by_row).min(rows) {
            for c in j * by_column..((j + 1) * by_column).min(columns) {
                if values[[r, c]].is_finite() {
                    sum += values[[r, c]];
                    count += 1.0;
                }
            }
        }
        sum / count
    })
}

/// Draws `values`, the first axis to the right and the second upwards (downwards where `matrix`), one cell each.
/// What is not finite is left blank.
pub fn heat(canvas: &mut Canvas, frame: Frame, values: ArrayView2<f64>, scale: &Scale, matrix: bool) {
    canvas.cells(BLANK, vec![frame]);
    let (rows, columns) = values.dim();
    let coarse = if rows.max(columns) > MOST { coarsen(values) } else { values.to_owned() };
    let (by_row, by_column) = (rows.div_ceil(coarse.nrows()) as f64, columns.div_ceil(coarse.ncols()) as f64);
    let (w, h) = (frame.w / rows as f64, frame.h / columns as f64);
    let mut cells: Vec<Vec<Frame>> = vec![Vec::new(); LEVELS];
    for ((i, j), value) in coarse.indexed_iter().filter(|(_, v)| v.is_finite()) {
        let x = frame.x + i as f64 * by_row * w;
        let from = j as f64 * by_column * h;
        let (w, h) = ((by_row * w).min(frame.right() - x), (by_column * h).min(frame.h - from));
        let y = if matrix { frame.y + from } else { frame.bottom() - from - h };
        cells[scale.level(*value)].push(Frame { x, y, w, h });
    }
    for (level, cells) in cells.into_iter().enumerate() {
        canvas.cells(scale.color(level), cells);
    }
    frame_lines(canvas, frame);
}

/// The colour bar of a scale, to the right of a frame and as high.
pub fn bar(canvas: &mut Canvas, beside: Frame, scale: &Scale, title: &str) {
    let bar = Frame { x: beside.right() + 14.0, w: 12.0, ..beside };
    let step = bar.h / LEVELS as f64;
    // Each over the ones above it, so that no seam shows between two.
    for level in (0..LEVELS).rev() {
        let h = (level + 1) as f64 * step;
        canvas.cells(scale.color(level), vec![Frame { y: bar.bottom() - h, h, ..bar }]);
    }
    frame_lines(canvas, bar);
    let mut widest = 0.0f64;
    for (at, label) in &scale.axis.ticks {
        let y = scale.axis.place(*at, bar.bottom(), bar.y);
        canvas.line(&[(bar.right(), y), (bar.right() + 4.0, y)], Pen::new(RULE, 1.0));
        canvas.text((bar.right() + 7.0, y + 4.0), label, TICK, Anchor::Start);
        widest = widest.max(super::font::width(label, TICK, false));
    }
    canvas.upwards((bar.right() + 7.0 + widest + 16.0, bar.centre().1), title, LABEL);
}

/// Room that a bar takes to the right of its frame.
pub const BAR: f64 = 84.0;

/// Marks where the forecast starts in a map of times to the right: before the cell `first`.
pub fn mark_forecast(canvas: &mut Canvas, frame: Frame, times: usize, first: usize, named: bool) {
    if first >= times {
        return;
    }
    let x = frame.x + frame.w * first as f64 / times as f64;
    canvas.line(&[(x, frame.y), (x, frame.bottom())], Pen::new([255; 3], 2.5));
    canvas.line(&[(x, frame.y - 3.0), (x, frame.bottom() + 3.0)], Pen::new(INK, 1.2).dashed(4.0));
    if named {
        canvas.styled((frame.right(), frame.y - 8.0), "forecast", TICK, Anchor::End, false, FAINT);
    }
}

/// The vertical axis of a matrix, whose first row is on top.
pub fn matrix_axis(canvas: &mut Canvas, frame: Frame, axis: &Axis, written: Written) {
    let mut flipped = axis.clone();
    for (at, _) in &mut flipped.ticks {
        *at = axis.value(1.0 - axis.share(*at));
    }
    y_axis(canvas, frame, &flipped, written);
}

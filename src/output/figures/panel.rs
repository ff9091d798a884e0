//! Panels: titles, frames, ticks, legends, and how several of them share a figure.

use super::axis::Axis;
use super::canvas::{Anchor, Canvas, Frame, Marker, Pen, Point};
use super::font;
use super::style::{BLANK, Color, FAINT, GRID, INK, LABEL, MARGIN, PANEL, RULE, TICK, TITLE, WIDTH, readable};
use crate::problem::Problem;

/// A canvas with its title and one or two sentences below it; and the first free pixel below them.
pub fn titled(title: &str, note: &str) -> (Canvas, f64) {
    let mut canvas = Canvas::new(WIDTH);
    let limit = WIDTH - 2.0 * MARGIN;
    let y = canvas.paragraph((MARGIN, MARGIN + TITLE), title, TITLE, true, INK, limit);
    let y = canvas.paragraph((MARGIN, y), note, LABEL, false, FAINT, limit);
    (canvas, y)
}

/// Equal panels in rows and columns.
#[derive(Clone, Copy, Debug)]
pub struct Grid {
    pub left: f64,
    pub top: f64,
    pub width: f64,
    pub columns: usize,
    /// Height of a panel.
    pub height: f64,
    /// Room between columns and between rows.
    pub gaps: (f64, f64),
}

impl Grid {
    pub fn panel(&self, row: usize, column: usize) -> Frame {
        let (gap_x, gap_y) = self.gaps;
        let w = (self.width - gap_x * (self.columns - 1) as f64) / self.columns as f64;
        Frame {
            x: self.left + column as f64 * (w + gap_x),
            y: self.top + row as f64 * (self.height + gap_y),
            w,
            h: self.height,
        }
    }

    /// Everything that `rows` rows take.
    pub fn all(&self, rows: usize) -> Frame {
        let h = rows as f64 * self.height + (rows.max(1) - 1) as f64 * self.gaps.1;
        Frame { x: self.left, y: self.top, w: self.width, h }
    }
}

/// What is written at an axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Written<'a> {
    pub labels: bool,
    pub title: Option<&'a str>,
}

impl<'a> Written<'a> {
    /// Tick labels and title where the panel is at the edge of its group, else bare ticks.
    pub fn at_edge(edge: bool, title: &'a str) -> Self {
        Self { labels: edge, title: edge.then_some(title) }
    }

    /// Tick labels and title.
    pub fn full(title: &'a str) -> Self {
        Self::at_edge(true, title)
    }
}

/// The panel's title above it, shortened to fit.
pub fn heading(canvas: &mut Canvas, frame: Frame, text: &str, color: Color) {
    let text = font::shorten(text, PANEL, true, frame.w + 8.0);
    canvas.styled((frame.x, frame.y - 7.0), &text, PANEL, Anchor::Start, true, readable(color));
}

/// Ticks and title of the horizontal axis.
pub fn x_axis(canvas: &mut Canvas, frame: Frame, axis: &Axis, written: Written) {
    // The ticks that are labelled do not touch each other.
    let mut free = f64::NEG_INFINITY;
    for (at, label) in &axis.ticks {
        let x = axis.place(*at, frame.x, frame.right());
        canvas.line(&[(x, frame.bottom()), (x, frame.bottom() + 4.0)], Pen::new(RULE, 1.0));
        let half = font::width(label, TICK, false) / 2.0;
        if written.labels && x - half >= free {
            canvas.text((x, frame.bottom() + 16.0), label, TICK, Anchor::Middle);
            free = x + half + 6.0;
        }
    }
    if let Some(title) = written.title {
        canvas.text((frame.centre().0, frame.bottom() + 33.0), title, LABEL, Anchor::Middle);
    }
}

/// Ticks and title of the vertical axis.
pub fn y_axis(canvas: &mut Canvas, frame: Frame, axis: &Axis, written: Written) {
    let mut widest = 0.0f64;
    for (at, label) in &axis.ticks {
        let y = axis.place(*at, frame.bottom(), frame.y);
        canvas.line(&[(frame.x - 4.0, y), (frame.x, y)], Pen::new(RULE, 1.0));
        if written.labels {
            canvas.text((frame.x - 7.0, y + 4.0), label, TICK, Anchor::End);
            widest = widest.max(font::width(label, TICK, false));
        }
    }
    if let Some(title) = written.title {
        canvas.upwards((frame.x - 7.0 - widest - 9.0, frame.centre().1), title, LABEL);
    }
}

/// Grid lines at both axes' ticks, behind everything else.
pub fn grid_lines(canvas: &mut Canvas, frame: Frame, x: &Axis, y: &Axis) {
    for (at, _) in &x.ticks {
        let at = x.place(*at, frame.x, frame.right());
        canvas.line(&[(at, frame.y), (at, frame.bottom())], Pen::new(GRID, 1.0));
    }
    for (at, _) in &y.ticks {
        let at = y.place(*at, frame.bottom(), frame.y);
        canvas.line(&[(frame.x, at), (frame.right(), at)], Pen::new(GRID, 1.0));
    }
}

/// The frame itself, over everything in it.
pub fn frame_lines(canvas: &mut Canvas, frame: Frame) {
    canvas.outline(frame, Pen::new(RULE, 1.0));
}

/// A panel of lines: two axes on a frame.
#[derive(Clone, Debug)]
pub struct Plot {
    pub frame: Frame,
    pub x: Axis,
    pub y: Axis,
}

impl Plot {
    pub fn at(&self, (x, y): Point) -> Point {
        (self.x.place(x, self.frame.x, self.frame.right()), self.y.place(y, self.frame.bottom(), self.frame.y))
    }

    /// The background and the axes.
    pub fn draw_axes(&self, canvas: &mut Canvas, x: Written, y: Written) {
        grid_lines(canvas, self.frame, &self.x, &self.y);
        x_axis(canvas, self.frame, &self.x, x);
        y_axis(canvas, self.frame, &self.y, y);
    }

    /// A line through data, cut off at the frame.
    pub fn line(&self, canvas: &mut Canvas, points: impl Iterator<Item = Point>, pen: Pen) {
        let points: Vec<Point> = points.map(|p| self.at(p)).collect();
        canvas.clipped_line(self.frame, &points, pen);
    }

    /// A band between two curves over the same positions, cut off at the frame.
    pub fn band(&self, canvas: &mut Canvas, points: impl Iterator<Item = (f64, f64, f64)>, color: Color, opacity: f64) {
        let clamp = |y: f64| y.clamp(self.frame.y, self.frame.bottom());
        let points: Vec<_> = points
            .filter(|(x, low, high)| self.x.contains(*x) && low.is_finite() && high.is_finite())
            .map(|(x, low, high)| (self.at((x, low)), self.at((x, high))))
            .collect();
        let low = points.iter().map(|(low, _)| (low.0, clamp(low.1)));
        let high = points.iter().rev().map(|(_, high)| (high.0, clamp(high.1)));
        canvas.area(low.chain(high).collect(), color, opacity);
    }

    pub fn marker(&self, canvas: &mut Canvas, point: Point, marker: Marker, color: Color) {
        if self.x.contains(point.0) && self.y.contains(point.1) {
            canvas.marker(marker, self.at(point), 3.4, color);
        }
    }

    /// A horizontal line at a value, where it is on the axis.
    pub fn level(&self, canvas: &mut Canvas, value: f64, pen: Pen) {
        if self.y.contains(value) {
            let y = self.at((self.x.value(0.0), value)).1;
            canvas.line(&[(self.frame.x, y), (self.frame.right(), y)], pen);
        }
    }

    /// A vertical line at a value, where it is on the axis.
    pub fn mark(&self, canvas: &mut Canvas, value: f64, pen: Pen) {
        if self.x.contains(value) {
            let x = self.x.place(value, self.frame.x, self.frame.right());
            canvas.line(&[(x, self.frame.y), (x, self.frame.bottom())], pen);
        }
    }

    pub fn close(&self, canvas: &mut Canvas) {
        frame_lines(canvas, self.frame);
    }
}

/// One entry of a legend.
#[derive(Clone, Debug)]
pub struct Entry {
    pub label: String,
    pub sample: Sample,
}

#[derive(Clone, Copy, Debug)]
pub enum Sample {
    Line(Pen),
    Marked(Pen, Marker),
    Point(Marker, Color),
    Patch(Color, f64),
}

impl Entry {
    pub fn new(label: impl Into<String>, sample: Sample) -> Self {
        Self { label: label.into(), sample }
    }
}

/// A legend in lines of its own, from a baseline on; the first free pixel below it.
pub fn legend(canvas: &mut Canvas, mut y: f64, entries: &[Entry]) -> f64 {
    let (mut x, right) = (MARGIN, WIDTH - MARGIN);
    for Entry { label, sample } in entries {
        let label = font::shorten(label, LABEL, false, right - MARGIN - 40.0);
        let width = 34.0 + font::width(&label, LABEL, false);
        if x > MARGIN && x + width > right {
            (x, y) = (MARGIN, y + 19.0);
        }
        let middle = y - 4.0;
        let ends = [(x, middle), (x + 26.0, middle)];
        let centre = (x + 13.0, middle);
        match *sample {
            Sample::Line(pen) => canvas.line(&ends, pen),
            Sample::Marked(pen, marker) => {
                canvas.line(&ends, pen);
                canvas.marker(marker, centre, 3.4, pen.color);
            }
            Sample::Point(marker, color) => canvas.marker(marker, centre, 3.8, color),
            Sample::Patch(color, opacity) => {
                canvas.rect(Frame { x: x + 2.0, y: middle - 5.0, w: 22.0, h: 10.0 }, color, opacity);
            }
        }
        canvas.text((x + 32.0, y), &label, LABEL, Anchor::Start);
        x += width + 20.0;
    }
    y + 10.0
}

/// The axis of stored times in model time units, for lines.
pub fn time_axis(problem: &Problem, count: usize) -> Axis {
    let last = problem.window.time(problem.window.times - 1);
    if last > 0.0 { Axis::between(0.0, last, count) } else { Axis::between(-0.5, 0.5, 1) }
}

/// What the time axis is called.
pub const TIME: &str = "time (model time units)";

/// Where the forecast starts on an axis of times in model time units: half-way between its first time and the one
/// before. `None` where every stored time is assimilated.
pub fn forecast_start(problem: &Problem) -> Option<f64> {
    let window = &problem.window;
    let first = window.assimilated_times;
    (first < window.times).then(|| 0.5 * (window.time(first - 1) + window.time(first)))
}

/// Shades the forecast, and names it where told to.
pub fn shade_forecast(canvas: &mut Canvas, plot: &Plot, problem: &Problem, named: bool) {
    let Some(start) = forecast_start(problem).filter(|s| plot.x.contains(*s)) else { return };
    let x = plot.x.place(start, plot.frame.x, plot.frame.right());
    let frame = Frame { x, w: plot.frame.right() - x, ..plot.frame };
    canvas.rect(frame, BLANK, 1.0);
    canvas.line(&[(x, frame.y), (x, frame.bottom())], Pen::new(FAINT, 1.0).dashed(4.0));
    if named {
        let (text, w) = ("forecast", font::width("forecast", TICK, false));
        let at = if w + 6.0 < frame.w { (x + 4.0, Anchor::Start) } else { (frame.right(), Anchor::End) };
        canvas.styled((at.0, frame.y - 5.0), text, TICK, at.1, false, FAINT);
    }
}

//! What a figure is made of: a list of shapes in pixels, y downwards. `svg.rs` and `png.rs` draw the same list.

use super::font;
use super::style::{Color, INK};

/// A rectangle in pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Frame {
    pub x: f64,
    pub y: f64,
    pub w: f64,
    pub h: f64,
}

impl Frame {
    pub fn right(&self) -> f64 {
        self.x + self.w
    }

    pub fn bottom(&self) -> f64 {
        self.y + self.h
    }

    pub fn centre(&self) -> (f64, f64) {
        (self.x + self.w / 2.0, self.y + self.h / 2.0)
    }
}

pub type Point = (f64, f64);

/// How a line is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pen {
    pub color: Color,
    pub width: f64,
    pub opacity: f64,
    pub dash: Option<f64>,
}

impl Pen {
    pub fn new(color: Color, width: f64) -> Self {
        Self { color, width, opacity: 1.0, dash: None }
    }

    pub fn opacity(self, opacity: f64) -> Self {
        Self { opacity, ..self }
    }

    pub fn dashed(self, dash: f64) -> Self {
        Self { dash: Some(dash), ..self }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Anchor {
    Start,
    Middle,
    End,
}

/// The shape of a point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Marker {
    Circle,
    Square,
    Diamond,
    Up,
    Down,
    Hollow,
}

impl Marker {
    /// Told apart without colour.
    pub const ALL: [Self; 6] = [Self::Circle, Self::Square, Self::Diamond, Self::Up, Self::Down, Self::Hollow];

    /// Corners around the origin; none for round ones.
    fn corners(self) -> &'static [Point] {
        match self {
            Self::Circle | Self::Hollow => &[],
            Self::Square => &[(-0.89, -0.89), (0.89, -0.89), (0.89, 0.89), (-0.89, 0.89)],
            Self::Diamond => &[(0.0, -1.3), (1.3, 0.0), (0.0, 1.3), (-1.3, 0.0)],
            Self::Up => &[(0.0, -1.2), (1.1, 0.8), (-1.1, 0.8)],
            Self::Down => &[(0.0, 1.2), (1.1, -0.8), (-1.1, -0.8)],
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// Rectangles of one colour with hard edges.
    Cells { fill: Color, cells: Vec<Frame> },
    /// A connected line.
    Line { points: Vec<Point>, pen: Pen },
    /// A filled area.
    Area { points: Vec<Point>, fill: Color, opacity: f64 },
    /// A disc, or a ring where there is a pen.
    Disc { centre: Point, radius: f64, fill: Color, pen: Option<Pen> },
    /// A line of text; a rotated one reads upwards.
    Text { at: Point, text: String, size: f64, bold: bool, anchor: Anchor, color: Color, upwards: bool },
}

/// A picture.
#[derive(Clone, Debug)]
pub struct Canvas {
    pub width: f64,
    pub height: f64,
    pub shapes: Vec<Shape>,
}

impl Canvas {
    pub fn new(width: f64) -> Self {
        Self { width, height: 0.0, shapes: Vec::new() }
    }

    /// Rectangles of one colour.
    pub fn cells(&mut self, fill: Color, cells: Vec<Frame>) {
        if !cells.is_empty() {
            self.shapes.push(Shape::Cells { fill, cells });
        }
    }

    /// A line, broken where a coordinate is not finite.
    pub fn line(&mut self, points: &[Point], pen: Pen) {
        for part in points.split(|(x, y)| !(x.is_finite() && y.is_finite())) {
            if part.len() > 1 {
                self.shapes.push(Shape::Line { points: part.to_vec(), pen });
            }
        }
    }

    /// A line, cut off at the frame.
    pub fn clipped_line(&mut self, frame: Frame, points: &[Point], pen: Pen) {
        let mut part: Vec<Point> = Vec::new();
        for pair in points.windows(2) {
            match clip(frame, pair[0], pair[1]) {
                Some((from, to)) => {
                    if part.last() != Some(&from) {
                        self.line(&part, pen);
                        part = vec![from];
                    }
                    part.push(to);
                }
                None => {
                    self.line(&part, pen);
                    part.clear();
                }
            }
        }
        self.line(&part, pen);
    }

    /// A filled area; nothing where a coordinate is not finite.
    pub fn area(&mut self, points: Vec<Point>, fill: Color, opacity: f64) {
        if points.len() > 2 && points.iter().all(|(x, y)| x.is_finite() && y.is_finite()) {
            self.shapes.push(Shape::Area { points, fill, opacity });
        }
    }

    /// A filled rectangle.
    pub fn rect(&mut self, frame: Frame, fill: Color, opacity: f64) {
        let Frame { x, y, .. } = frame;
        self.area(
            vec![(x, y), (frame.right(), y), (frame.right(), frame.bottom()), (x, frame.bottom())],
            fill,
            opacity,
        );
    }

    /// The outline of a rectangle.
    pub fn outline(&mut self, frame: Frame, pen: Pen) {
        let Frame { x, y, .. } = frame;
        let (right, bottom) = (frame.right(), frame.bottom());
        self.line(&[(x, y), (right, y), (right, bottom), (x, bottom), (x, y)], pen);
    }

    /// A point.
    pub fn marker(&mut self, marker: Marker, (x, y): Point, radius: f64, color: Color) {
        if !(x.is_finite() && y.is_finite()) {
            return;
        }
        let corners: Vec<Point> = marker.corners().iter().map(|(dx, dy)| (x + dx * radius, y + dy * radius)).collect();
        match marker {
            Marker::Circle => self.shapes.push(Shape::Disc { centre: (x, y), radius, fill: color, pen: None }),
            Marker::Hollow => {
                let pen = Some(Pen::new(color, 1.6));
                self.shapes.push(Shape::Disc { centre: (x, y), radius: radius - 0.4, fill: [255; 3], pen });
            }
            _ => self.area(corners, color, 1.0),
        }
    }

    /// A line of text, in ink unless told otherwise.
    pub fn text(&mut self, at: Point, text: &str, size: f64, anchor: Anchor) {
        self.styled(at, text, size, anchor, false, INK);
    }

    pub fn styled(&mut self, at: Point, text: &str, size: f64, anchor: Anchor, bold: bool, color: Color) {
        let text = text.chars().filter(|c| !c.is_control()).collect();
        self.shapes.push(Shape::Text { at, text, size, bold, anchor, color, upwards: false });
    }

    /// A line of text that reads upwards, centred.
    pub fn upwards(&mut self, at: Point, text: &str, size: f64) {
        let (text, anchor) = (text.to_string(), Anchor::Middle);
        self.shapes.push(Shape::Text { at, text, size, bold: false, anchor, color: INK, upwards: true });
    }

    /// Lines of text, broken to fit; the baseline of the line after the last.
    pub fn paragraph(&mut self, (x, mut y): Point, text: &str, size: f64, bold: bool, color: Color, limit: f64) -> f64 {
        for line in font::wrap(text, size, bold, limit) {
            self.styled((x, y), &line, size, Anchor::Start, bold, color);
            y += (size * 1.35).round();
        }
        y
    }
}

/// The part of a segment inside the frame (Liang and Barsky).
fn clip(frame: Frame, a: Point, b: Point) -> Option<(Point, Point)> {
    let (dx, dy) = (b.0 - a.0, b.1 - a.1);
    if !(dx.is_finite() && dy.is_finite()) {
        return None;
    }
    let (mut from, mut to) = (0.0f64, 1.0f64);
    let edges = [(-dx, a.0 - frame.x), (dx, frame.right() - a.0), (-dy, a.1 - frame.y), (dy, frame.bottom() - a.1)];
    for (towards, room) in edges {
        if towards == 0.0 {
            if room < 0.0 {
                return None;
            }
        } else if towards < 0.0 {
            from = from.max(room / towards);
        } else {
            to = to.min(room / towards);
        }
    }
    let at = |s: f64| (a.0 + s * dx, a.1 + s * dy);
    (from <= to).then(|| (if from == 0.0 { a } else { at(from) }, if to == 1.0 { b } else { at(to) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_off_at_the_frame() {
        let frame = Frame { x: 0.0, y: 0.0, w: 10.0, h: 10.0 };
        assert_eq!(clip(frame, (-5.0, 5.0), (5.0, 5.0)), Some(((0.0, 5.0), (5.0, 5.0))));
        assert_eq!(clip(frame, (5.0, 5.0), (5.0, 25.0)), Some(((5.0, 5.0), (5.0, 10.0))));
        assert_eq!(clip(frame, (-5.0, 5.0), (-1.0, 5.0)), None);
        assert_eq!(clip(frame, (5.0, f64::NAN), (5.0, 5.0)), None);
        let mut canvas = Canvas::new(10.0);
        let points = [(1.0, 1.0), (2.0, 2.0), (2.0, -8.0), (4.0, -8.0), (4.0, 2.0), (5.0, 2.0)];
        canvas.clipped_line(frame, &points, Pen::new([0; 3], 1.0));
        assert_eq!(canvas.shapes.len(), 2);
        let Shape::Line { points, .. } = &canvas.shapes[1] else { panic!("a line") };
        assert_eq!(points, &[(4.0, 0.0), (4.0, 2.0), (5.0, 2.0)]);
    }
}

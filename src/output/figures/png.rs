//! A canvas as PNG, at twice its size.

use super::canvas::{Anchor, Canvas, Pen, Point, Shape};
use super::font;
use super::style::Color;
use tiny_skia::{FillRule, LineCap, LineJoin, Paint, Path, PathBuilder, Pixmap, Rect, Stroke, StrokeDash, Transform};

/// Pixels of the bitmap for each of the canvas.
pub const SCALE: f64 = 2.0;

/// The file's bytes. A canvas too large for memory gives none.
pub fn png(canvas: &Canvas) -> Option<Vec<u8>> {
    let pixels = |length: f64| (length * SCALE).round() as u32;
    let mut pixmap = Pixmap::new(pixels(canvas.width), pixels(canvas.height))?;
    pixmap.fill(tiny_skia::Color::WHITE);
    for shape in &canvas.shapes {
        draw(&mut pixmap, shape);
    }
    pixmap.encode_png().ok()
}

fn draw(pixmap: &mut Pixmap, shape: &Shape) {
    let scale = Transform::from_scale(SCALE as f32, SCALE as f32);
    match shape {
        Shape::Cells { fill, cells } => {
            // Neighbours share an edge, which a rounded pixel keeps free of seams.
            let mut paint = paint(*fill, 1.0);
            paint.anti_alias = false;
            for c in cells {
                let edge = |v: f64| (v * SCALE).round() as f32;
                let rect = Rect::from_ltrb(edge(c.x), edge(c.y), edge(c.right()), edge(c.bottom()));
                if let Some(rect) = rect {
                    pixmap.fill_rect(rect, &paint, Transform::identity(), None);
                }
            }
        }
        Shape::Line { points, pen } => {
            if let Some(path) = path(points, false) {
                pixmap.stroke_path(&path, &paint(pen.color, pen.opacity), &stroke(*pen), scale, None);
            }
        }
        Shape::Area { points, fill, opacity } => {
            if let Some(path) = path(points, true) {
                pixmap.fill_path(&path, &paint(*fill, *opacity), FillRule::Winding, scale, None);
            }
        }
        Shape::Disc { centre, radius, fill, pen } => {
            let disc = PathBuilder::from_circle(centre.0 as f32, centre.1 as f32, *radius as f32);
            if let Some(path) = disc {
                pixmap.fill_path(&path, &paint(*fill, 1.0), FillRule::Winding, scale, None);
                if let Some(pen) = pen {
                    pixmap.stroke_path(&path, &paint(pen.color, pen.opacity), &stroke(*pen), scale, None);
                }
            }
        }
        Shape::Text { at, text, size, bold, anchor, color, upwards } => {
            let before = match anchor {
                Anchor::Start => 0.0,
                Anchor::Middle => font::width(text, *size, *bold) / 2.0,
                Anchor::End => font::width(text, *size, *bold),
            };
            let turn = if *upwards { -90.0 } else { 0.0 };
            let place = scale
                .pre_translate(at.0 as f32, at.1 as f32)
                .pre_concat(Transform::from_rotate(turn))
                .pre_translate(-before as f32, 0.0);
            if let Some(path) = font::outlines(text, *size, *bold) {
                pixmap.fill_path(&path, &paint(*color, 1.0), FillRule::Winding, place, None);
            }
        }
    }
}

fn path(points: &[Point], closed: bool) -> Option<Path> {
    let mut path = PathBuilder::new();
    for (k, (x, y)) in points.iter().enumerate() {
        let (x, y) = (*x as f32, *y as f32);
        if k == 0 { path.move_to(x, y) } else { path.line_to(x, y) }
    }
    if closed {
        path.close();
    }
    path.finish()
}

fn paint([r, g, b]: Color, opacity: f64) -> Paint<'static> {
    let mut paint = Paint::default();
    paint.set_color_rgba8(r, g, b, (opacity * 255.0).round() as u8);
    paint.anti_alias = true;
    paint
}

fn stroke(pen: Pen) -> Stroke {
    let dash = pen.dash.and_then(|d| StrokeDash::new(vec![d as f32; 2], 0.0));
    Stroke { width: pen.width as f32, line_cap: LineCap::Butt, line_join: LineJoin::Round, dash, ..Stroke::default() }
}

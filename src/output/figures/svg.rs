//! A canvas as SVG: text stays text, in the embedded font's family with every sans-serif as fallback.

use super::canvas::{Anchor, Canvas, Pen, Point, Shape};
use super::font;
use super::style::Color;
use std::fmt::Write;

const FAMILY: &str = "Inter, 'Helvetica Neue', Arial, sans-serif";

/// The document, with a title and a description for those who do not see it.
pub fn svg(canvas: &Canvas, id: &str, title: &str, description: &str) -> String {
    let (w, h) = (number(canvas.width), number(canvas.height));
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {w} {h}\" width=\"{w}\" height=\"{h}\" role=\"img\" \
         aria-labelledby=\"{id}-title {id}-description\" font-family=\"{FAMILY}\">\n\
         <title id=\"{id}-title\">{}</title>\n<desc id=\"{id}-description\">{}</desc>\n\
         <rect width=\"{w}\" height=\"{h}\" fill=\"#fff\"/>\n",
        escape(title),
        escape(description)
    );
    for shape in &canvas.shapes {
        self::shape(&mut out, shape);
        out.push('\n');
    }
    out + "</svg>\n"
}

fn shape(out: &mut String, shape: &Shape) {
    match shape {
        Shape::Cells { fill, cells } => {
            write!(out, "<path fill=\"{}\" shape-rendering=\"crispEdges\" d=\"", hex(*fill)).expect(FITS);
            for c in cells {
                let (x, y, w, h) = (number(c.x), number(c.y), number(c.w), number(c.h));
                write!(out, "M{x} {y}h{w}v{h}h-{w}z").expect(FITS);
            }
            out.push_str("\"/>");
        }
        Shape::Line { points, pen } => {
            write!(out, "<path fill=\"none\"{} stroke-linejoin=\"round\" d=\"{}\"/>", stroke(*pen), path(points))
                .expect(FITS);
        }
        Shape::Area { points, fill, opacity } => {
            write!(out, "<path fill=\"{}\"", hex(*fill)).expect(FITS);
            if *opacity < 1.0 {
                write!(out, " fill-opacity=\"{opacity}\"").expect(FITS);
            }
            write!(out, " d=\"{}z\"/>", path(points)).expect(FITS);
        }
        Shape::Disc { centre, radius, fill, pen } => {
            let (x, y, r, fill) = (number(centre.0), number(centre.1), number(*radius), hex(*fill));
            let stroke = pen.map(stroke).unwrap_or_default();
            write!(out, "<circle cx=\"{x}\" cy=\"{y}\" r=\"{r}\" fill=\"{fill}\"{stroke}/>").expect(FITS);
        }
        Shape::Text { at, text, size, bold, anchor, color, upwards } => {
            let (x, y) = (number(at.0), number(at.1));
            write!(out, "<text x=\"{x}\" y=\"{y}\" font-size=\"{size}\" fill=\"{}\"", hex(*color)).expect(FITS);
            match anchor {
                Anchor::Start => {}
                Anchor::Middle => out.push_str(" text-anchor=\"middle\""),
                Anchor::End => out.push_str(" text-anchor=\"end\""),
            }
            if *bold {
                out.push_str(" font-weight=\"600\"");
            }
            if *upwards {
                write!(out, " transform=\"rotate(-90 {x} {y})\"").expect(FITS);
            }
            // A fallback font may be wider: long texts keep the width that the layout gave them.
            if text.chars().count() > 14 {
                let width = number(font::width(text, *size, *bold));
                write!(out, " textLength=\"{width}\" lengthAdjust=\"spacingAndGlyphs\"").expect(FITS);
            }
            write!(out, ">{}</text>", escape(text)).expect(FITS);
        }
    }
}

const FITS: &str = "strings take everything";

fn stroke(pen: Pen) -> String {
    let mut text = format!(" stroke=\"{}\" stroke-width=\"{}\"", hex(pen.color), number(pen.width));
    if pen.opacity < 1.0 {
        write!(text, " stroke-opacity=\"{}\"", pen.opacity).expect(FITS);
    }
    if let Some(dash) = pen.dash {
        write!(text, " stroke-dasharray=\"{dash}\"").expect(FITS);
    }
    text
}

fn path(points: &[Point]) -> String {
    let mut text = String::with_capacity(points.len() * 12);
    for (k, (x, y)) in points.iter().enumerate() {
        write!(text, "{}{} {}", if k == 0 { 'M' } else { 'L' }, number(*x), number(*y)).expect(FITS);
    }
    text
}

/// Hundredths of a pixel, without trailing zeros.
fn number(value: f64) -> String {
    let text = format!("{value:.2}");
    match text.trim_end_matches('0').trim_end_matches('.') {
        "-0" => "0".into(),
        text => text.into(),
    }
}

fn hex([r, g, b]: Color) -> String {
    format!("#{r:02x}{g:02x}{b:02x}")
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // Not allowed in XML at all.
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!([1.0, 0.5, -0.001, 12.345_678, 100.0].map(number), ["1", "0.5", "0", "12.35", "100"]);
    }

    #[test]
    fn texts_are_escaped() {
        assert_eq!(escape("<a & \"b\">\u{1}"), "&lt;a &amp; &quot;b&quot;&gt; ");
    }
}

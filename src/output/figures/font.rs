//! The embedded font: widths of texts, and their outlines for bitmaps. No font of the system is ever asked for.

use std::sync::OnceLock;
use tiny_skia::{Path, PathBuilder};
use ttf_parser::{Face, GlyphId, OutlineBuilder};

static REGULAR: &[u8] = include_bytes!("fonts/Inter-Regular.otf");
static SEMIBOLD: &[u8] = include_bytes!("fonts/Inter-SemiBold.otf");

fn face(bold: bool) -> &'static Face<'static> {
    static FACES: OnceLock<[Face<'static>; 2]> = OnceLock::new();
    let parse = |data| Face::parse(data, 0).expect("the embedded font is a font");
    &FACES.get_or_init(|| [parse(REGULAR), parse(SEMIBOLD)])[usize::from(bold)]
}

/// The glyph of a character; a question mark's where the font has none.
fn glyph(face: &Face, c: char) -> GlyphId {
    face.glyph_index(c).or_else(|| face.glyph_index('?')).unwrap_or(GlyphId(0))
}

/// Width of a line of text of that size.
pub fn width(text: &str, size: f64, bold: bool) -> f64 {
    let face = face(bold);
    let units: u32 = text.chars().map(|c| u32::from(face.glyph_hor_advance(glyph(face, c)).unwrap_or(0))).sum();
    f64::from(units) * size / f64::from(face.units_per_em())
}

/// The outlines of a line of text whose baseline starts at the origin.
pub fn outlines(text: &str, size: f64, bold: bool) -> Option<Path> {
    let face = face(bold);
    let scale = size as f32 / f32::from(face.units_per_em());
    let mut pen = Pen { path: PathBuilder::new(), scale, x: 0.0 };
    for c in text.chars() {
        let glyph = glyph(face, c);
        face.outline_glyph(glyph, &mut pen);
        pen.x += f32::from(face.glyph_hor_advance(glyph).unwrap_or(0)) * scale;
    }
    pen.path.finish()
}

/// Breaks a text into lines no wider than `limit`, at spaces.
pub fn wrap(text: &str, size: f64, bold: bool, limit: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if width(&format!("{line} {word}"), size, bold) <= limit => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_string()),
        }
    }
    lines
}

/// The text, or its beginning and an ellipsis where it is wider than `limit`.
pub fn shorten(text: &str, size: f64, bold: bool, limit: f64) -> String {
    if width(text, size, bold) <= limit {
        return text.to_string();
    }
    let mut short = String::new();
    for c in text.chars() {
        if width(&format!("{short}{c}…"), size, bold) > limit {
            break;
        }
        short.push(c);
    }
    format!("{}…", short.trim_end())
}

/// Draws glyphs, whose y axis points up, on a canvas, whose y axis points down.
struct Pen {
    path: PathBuilder,
    scale: f32,
    x: f32,
}

impl OutlineBuilder for Pen {
    fn move_to(&mut self, x: f32, y: f32) {
        self.path.move_to(self.x + x * self.scale, -y * self.scale);
    }

    fn line_to(&mut self, x: f32, y: f32) {
        self.path.line_to(self.x + x * self.scale, -y * self.scale);
    }

    fn quad_to(&mut self, x1: f32, y1: f32, x: f32, y: f32) {
        let (s, at) = (self.scale, self.x);
        self.path.quad_to(at + x1 * s, -y1 * s, at + x * s, -y * s);
    }

    fn curve_to(&mut self, x1: f32, y1: f32, x2: f32, y2: f32, x: f32, y: f32) {
        let (s, at) = (self.scale, self.x);
        self.path.cubic_to(at + x1 * s, -y1 * s, at + x2 * s, -y2 * s, at + x * s, -y * s);
    }

    fn close(&mut self) {
        self.path.close();
    }
}

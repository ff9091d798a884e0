//! Colours and sizes: the palette of Okabe and Ito for methods, viridis for amounts, blue to red for signed values.

use crate::method::Analysis;

/// Red, green, blue.
pub type Color = [u8; 3];

/// Texts, axes and the truth.
pub const INK: Color = [0x1a, 0x1a, 0x1a];
/// Secondary texts.
pub const FAINT: Color = [0x59, 0x59, 0x59];
/// Frames and grid lines.
pub const RULE: Color = [0xb5, 0xb5, 0xb5];
pub const GRID: Color = [0xe6, 0xe6, 0xe6];
/// Behind cells without a value, and behind forecasts.
pub const BLANK: Color = [0xf4, 0xf4, 0xf4];

/// Width of every figure.
pub const WIDTH: f64 = 920.0;
/// Around every figure.
pub const MARGIN: f64 = 16.0;
/// More of it to the right of a panel whose last tick label is centred on its edge.
pub const INSET: f64 = 10.0;

/// Sizes of texts in pixels.
pub const TITLE: f64 = 16.0;
pub const PANEL: f64 = 13.0;
pub const LABEL: f64 = 12.0;
pub const TICK: f64 = 11.0;

/// Okabe and Ito's colours, which all kinds of colour vision tell apart; the truth has their black.
pub const BLUE: Color = [0x00, 0x72, 0xb2];
pub const VERMILLION: Color = [0xd5, 0x5e, 0x00];
const GREEN: Color = [0x00, 0x9e, 0x73];
pub const ORANGE: Color = [0xe6, 0x9f, 0x00];
const PURPLE: Color = [0xcc, 0x79, 0xa7];
pub const SKY: Color = [0x56, 0xb4, 0xe9];
const GREY: Color = [0x80, 0x80, 0x80];
const OLIVE: Color = [0x8c, 0x80, 0x00];
const BROWN: Color = [0x7a, 0x3e, 0x1d];

/// The colour that a method has in every figure, by how its name begins.
const METHODS: [(&str, Color); 6] = [
    ("Prior", GREY),
    ("4DVAR", BLUE),
    ("ABC", ORANGE),
    ("Ens. 4DVAR", GREEN),
    ("VI-4DVAR", VERMILLION),
    ("Reference", PURPLE),
];

/// One colour for each name: its method's own, or one of what is left where that is taken or the method is not known.
pub fn colors<'a>(names: impl Iterator<Item = &'a str>) -> Vec<Color> {
    let names: Vec<&str> = names.collect();
    let own = |name: &str| METHODS.iter().find(|(method, _)| name.starts_with(method)).map(|(_, color)| *color);
    let mut taken: Vec<Color> = Vec::new();
    let mut colors: Vec<Option<Color>> = Vec::new();
    for name in &names {
        let color = own(name).filter(|c| !taken.contains(c));
        taken.extend(color);
        colors.push(color);
    }
    let mut left: Vec<Color> = [SKY, OLIVE, BROWN, PURPLE, ORANGE, GREEN, GREY, VERMILLION, BLUE].into_iter().collect();
    left.retain(|c| !taken.contains(c));
    let mut left = left.into_iter().cycle();
    colors.into_iter().map(|c| c.unwrap_or_else(|| left.next().unwrap_or(INK))).collect()
}

/// The colours of analyses.
pub fn analysis_colors(analyses: &[Analysis]) -> Vec<Color> {
    colors(analyses.iter().map(|a| a.method.as_str()))
}

/// The colour of a text in a colour: darker where it would be too light to read on white (WCAG's ratio of 4.5).
pub fn readable(color: Color) -> Color {
    let linear = |c: u8| (f64::from(c) / 255.0).powf(2.2);
    let luminance = |[r, g, b]: Color| 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
    let mut text = color;
    while 1.05 / (luminance(text) + 0.05) < 4.5 {
        text = text.map(|c| (f64::from(c) * 0.95) as u8);
    }
    text
}

/// A colour of that opacity on white.
pub fn pale(color: Color, opacity: f64) -> Color {
    color.map(|c| (255.0 - (255.0 - f64::from(c)) * opacity).round() as u8)
}

/// A map from 0 .. 1 to colours.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Map {
    /// Amounts: viridis.
    Amount,
    /// Amounts beside others: plasma.
    OtherAmount,
    /// Signed values, white in the middle: blue to red.
    Signed,
}

impl Map {
    pub fn color(self, t: f64) -> Color {
        let t = t.clamp(0.0, 1.0);
        let color = match self {
            Self::Amount => colorous::VIRIDIS.eval_continuous(t),
            Self::OtherAmount => colorous::PLASMA.eval_continuous(t),
            Self::Signed => colorous::RED_BLUE.eval_continuous(1.0 - t),
        };
        [color.r, color.g, color.b]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_keeps_its_colour_and_no_two_share_one() {
        let names = ["Prior", "4DVAR", "VI-4DVAR (a)", "VI-4DVAR (b)", "Something"];
        let colors = colors(names.into_iter());
        assert_eq!(&colors[..3], &[GREY, BLUE, VERMILLION]);
        for (k, color) in colors.iter().enumerate() {
            assert!(!colors[..k].contains(color), "{}", names[k]);
        }
    }

    #[test]
    fn zero_is_white_between_blue_and_red() {
        let [low, middle, high] = [0.0, 0.5, 1.0].map(|t| Map::Signed.color(t));
        assert!(
            low[2] > low[0] && high[0] > high[2] && middle.iter().all(|c| *c > 0xe8),
            "{low:?} {middle:?} {high:?}"
        );
    }
}

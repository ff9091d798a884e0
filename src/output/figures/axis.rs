//! Axes: from data to pixels, with ticks at round numbers.

/// A range of values on a line of pixels.
#[derive(Clone, Debug)]
pub struct Axis {
    low: f64,
    high: f64,
    log: bool,
    /// Where ticks are, with their labels.
    pub ticks: Vec<(f64, String)>,
}

impl Axis {
    /// A linear axis over all finite values, a little wider than they are, with about `count` ticks.
    pub fn linear(values: impl Iterator<Item = f64>, count: usize) -> Self {
        let (low, high) = range(values, 0.04);
        Self::between(low, high, count)
    }

    /// A linear axis over exactly this range.
    pub fn between(low: f64, high: f64, count: usize) -> Self {
        let step = near_step((high - low) / count.max(1) as f64);
        let (first, last) = ((low / step - 1e-9).ceil() as i64, (high / step + 1e-9).floor() as i64);
        let ticks = (first..=last).map(|k| (k as f64 * step, label(k as f64 * step, step))).collect();
        Self { low, high, log: false, ticks }
    }

    /// A logarithmic axis over all positive values where they span more than a factor of 8, else a linear one from 0.
    pub fn positive(values: impl Iterator<Item = f64> + Clone, count: usize) -> Self {
        let (low, high) = bounds(values.filter(|v| *v > 0.0));
        if low <= 0.0 {
            return Self::between(0.0, 1.0, count);
        }
        if high / low <= 8.0 {
            return Self::between(0.0, high * 1.06, count);
        }
        let room = (high / low).powf(0.03);
        Self::log(low / room, high * room)
    }

    /// A logarithmic axis over exactly this range.
    pub fn log(low: f64, high: f64) -> Self {
        let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
        let decades = high.log10() - low.log10();
        let steps: &[f64] = match decades {
            d if d < 1.3 => &[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0],
            d if d < 2.2 => &[1.0, 2.0, 5.0],
            d if d < 3.2 => &[1.0, 3.0],
            _ => &[1.0],
        };
        let every = ((decades / 6.0).ceil() as i32).max(1);
        let mut ticks = Vec::new();
        for exponent in (first..=last).filter(|e| e % every == 0) {
            for step in steps {
                let at = step * 10f64.powi(exponent);
                if at >= low * 0.999 && at <= high * 1.001 {
                    ticks.push((at, plain(at)));
                }
            }
        }
        Self { low, high, log: true, ticks }
    }

    /// Cells 0 .. count, each half a unit to either side of its number, with the labels of about `ticks` of them.
    pub fn cells(count: usize, ticks: usize, label: impl Fn(usize) -> String) -> Self {
        let step = round_step(count as f64 / ticks.max(1) as f64).ceil().max(1.0) as usize;
        let ticks = (0..count).step_by(step).map(|k| (k as f64, label(k))).collect();
        Self { low: -0.5, high: count as f64 - 0.5, log: false, ticks }
    }

    /// Where a value is between two pixels.
    pub fn place(&self, value: f64, from: f64, to: f64) -> f64 {
        from + (to - from) * self.share(value)
    }

    /// Where a value is between the ends of the axis, 0 to 1.
    pub fn share(&self, value: f64) -> f64 {
        if self.log {
            (value.ln() - self.low.ln()) / (self.high.ln() - self.low.ln())
        } else {
            (value - self.low) / (self.high - self.low)
        }
    }

    /// The value at a share of the axis.
    pub fn value(&self, share: f64) -> f64 {
        if self.log {
            (self.low.ln() + share * (self.high.ln() - self.low.ln())).exp()
        } else {
            self.low + share * (self.high - self.low)
        }
    }

    pub fn contains(&self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }

    pub fn is_log(&self) -> bool {
        self.log
    }
}

/// The least and the greatest finite value; (0, 0) where there are none.
pub fn bounds(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    for v in values.filter(|v| v.is_finite()) {
        (low, high) = (low.min(v), high.max(v));
    }
    if low <= high { (low, high) } else { (0.0, 0.0) }
}

/// The same, widened by a share of itself, and never empty.
pub fn range(values: impl Iterator<Item = f64>, room: f64) -> (f64, f64) {
    let (low, high) = bounds(values);
    let width = high - low;
    let least = 1e-6 * low.abs().max(high.abs());
    if width > least {
        (low - room * width, high + room * width)
    } else {
        let half = if low.abs() > 0.0 { 0.1 * low.abs() } else { 0.5 };
        (low - half, high + half)
    }
}

/// The value below which a share of the finite values lie.
pub fn quantile(values: impl Iterator<Item = f64>, share: f64) -> Option<f64> {
    let mut values: Vec<f64> = values.filter(|v| v.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    values.get(((values.len() as f64 - 1.0) * share).round() as usize).copied()
}

/// 1, 2 or 5 times a power of ten, near `step`.
fn near_step(step: f64) -> f64 {
    round_step(step / 1.45)
}

/// 1, 2 or 5 times a power of ten, at least `step`.
fn round_step(step: f64) -> f64 {
    if !(step.is_finite() && step > 0.0) {
        return 1.0;
    }
    let power = 10f64.powf(step.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|s| *s >= step * (1.0 - 1e-9)).unwrap_or(10.0 * power)
}

/// A tick's label with as many decimals as its step needs.
fn label(value: f64, step: f64) -> String {
    if value != 0.0 && !(1e-3..1e6).contains(&value.abs()) {
        return plain(value);
    }
    let decimals = (-step.log10().floor()).clamp(0.0, 6.0) as usize;
    minus(&format!("{value:.decimals$}"))
}

/// A number for people: few digits, no trailing zeros.
pub fn plain(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() {
        return "–".into();
    }
    if size != 0.0 && !(1e-3..1e5).contains(&size) {
        let mut exponent = size.log10().floor() as i32;
        let mut digits = format!("{:.1}", value / 10f64.powi(exponent));
        if digits.trim_start_matches('-') == "10.0" {
            exponent += 1;
            digits = digits.replace("10.0", "1.0");
        }
        let digits = digits.trim_end_matches(".0");
        let raised: String = exponent.to_string().chars().map(superscript).collect();
        return match digits {
            "1" => format!("10{raised}"),
            digits => minus(&format!("{digits}·10{raised}")),
        };
    }
    let decimals = if size == 0.0 { 0 } else { (2 - size.log10().floor() as i32).clamp(0, 5) as usize };
    let text = format!("{value:.decimals$}");
    minus(if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text })
}

fn minus(text: &str) -> String {
    text.replace('-', "−")
}

fn superscript(c: char) -> char {
    match c {
        '-' => '⁻',
        '1' => '¹',
        '2' => '²',
        '3' => '³',
        c => char::from_u32(u32::from(c) - u32::from('0') + 0x2070).unwrap_or(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, label)| label.as_str()).collect()
    }

    #[test]
    fn ticks_are_round_numbers() {
        assert_eq!(labels(&Axis::between(-0.3, 1.1, 4)), ["0.0", "0.5", "1.0"]);
        assert_eq!(labels(&Axis::between(-7.0, 12.0, 4)), ["−5", "0", "5", "10"]);
        assert_eq!(labels(&Axis::log(0.02, 30.0)), ["0.03", "0.1", "0.3", "1", "3", "10", "30"]);
        assert_eq!(labels(&Axis::cells(16, 5, |k| k.to_string())), ["0", "5", "10", "15"]);
        assert_eq!(labels(&Axis::cells(1000, 5, |k| k.to_string())), ["0", "200", "400", "600", "800"]);
        assert_eq!(labels(&Axis::cells(1, 5, |k| k.to_string())), ["0"]);
    }

    #[test]
    fn numbers_are_written_for_people() {
        let texts = [0.0, 1.0, -2.5, 0.125, 1234.0, 1e6, 2.5e-7, 9.99e9].map(plain);
        assert_eq!(texts, ["0", "1", "−2.5", "0.125", "1234", "10⁶", "2.5·10⁻⁷", "10¹⁰"]);
    }

    #[test]
    fn constant_and_missing_values_have_an_axis_too() {
        for values in [vec![], vec![0.0], vec![3.0; 4], vec![f64::NAN], vec![1e300, -1e300], vec![1e-300]] {
            for axis in [Axis::linear(values.iter().copied(), 4), Axis::positive(values.iter().copied(), 4)] {
                for v in values.iter().filter(|v| **v > 0.0 && v.is_finite()) {
                    let at = axis.place(*v, 0.0, 100.0);
                    assert!((0.0..=100.0).contains(&at), "{v} at {at}: {axis:?}");
                }
                assert!(axis.ticks.len() < 40, "{axis:?}");
            }
        }
    }
}

//! Damage to files: what their formats say that they hold is changed where it hurts, and bytes anywhere.

use crate::common::Dice;

/// What a place in a NetCDF file says.
#[derive(Clone, Copy, Debug)]
enum Says {
    /// How many follow, how long something is, or which one is meant.
    Count,
    /// What kind of list follows.
    Tag,
    /// The type of numbers.
    Type,
    /// Where a variable begins.
    Offset,
    /// A letter of a name or of a text.
    Letter,
    Whole,
    Single,
    Double,
}

impl Says {
    /// Whether it says what lies where, or how much.
    fn is_structure(self) -> bool {
        matches!(self, Self::Count | Self::Tag | Self::Type | Self::Offset)
    }
}

/// The places of a sound NetCDF file that mean something, with what they say.
#[derive(Clone, Debug)]
pub struct Anatomy(Vec<(usize, Says)>);

impl Anatomy {
    /// Of a file that is sound.
    pub fn of(bytes: &[u8]) -> Self {
        let mut walk = Walk { bytes, at: 8, places: vec![(4, Says::Count)] };
        let wide = bytes[3] == 2;
        for _ in 0..walk.list() {
            walk.name();
            walk.count();
        }
        walk.attributes();
        let mut data = Vec::new();
        for _ in 0..walk.list() {
            walk.name();
            for _ in 0..walk.count() {
                walk.count();
            }
            walk.attributes();
            let kind = walk.says(Says::Type);
            let length = walk.count();
            if wide {
                walk.says(Says::Offset);
            }
            data.push((walk.says(Says::Offset), kind, length));
        }
        for (begin, kind, length) in data {
            walk.at = begin;
            walk.numbers(kind, length / width(kind));
        }
        Self(walk.places)
    }
}

fn width(kind: usize) -> usize {
    [1, 1, 1, 2, 4, 4, 8][kind]
}

struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    places: Vec<(usize, Says)>,
}

impl Walk<'_> {
    fn says(&mut self, what: Says) -> usize {
        self.places.push((self.at, what));
        self.at += 4;
        u32::from_be_bytes(self.bytes[self.at - 4..self.at].try_into().unwrap()) as usize
    }

    fn count(&mut self) -> usize {
        self.says(Says::Count)
    }

    fn list(&mut self) -> usize {
        self.says(Says::Tag);
        self.count()
    }

    fn name(&mut self) {
        let length = self.count();
        self.numbers(2, length);
    }

    fn attributes(&mut self) {
        for _ in 0..self.list() {
            self.name();
            let kind = self.says(Says::Type);
            let count = self.count();
            self.numbers(kind, count);
        }
    }

    fn numbers(&mut self, kind: usize, count: usize) {
        let what = [Says::Letter, Says::Letter, Says::Letter, Says::Letter, Says::Whole, Says::Single, Says::Double];
        self.places.extend((0..count).map(|k| (self.at + k * width(kind), what[kind])));
        self.at += (count * width(kind)).next_multiple_of(4);
    }
}

/// Numbers that break what trusts them.
const DOUBLES: [f64; 16] = [
    f64::NAN,
    f64::INFINITY,
    f64::NEG_INFINITY,
    0.0,
    -0.0,
    -1.0,
    1.0,
    1e308,
    -1e308,
    5e-324,
    1e-160,
    1e160,
    9.007_199_254_740_993e15,
    1.844_674_407_370_955_2e19,
    2_147_483_648.0,
    9.969_209_968_386_869e36,
];

const WORDS: [u32; 12] =
    [0, 1, 2, 3, 7, 0xff, 0x1_0000, 0x0100_0000, 0x7fff_ffff, 0x8000_0000, 0xffff_fffe, 0xffff_ffff];

/// The same file, damaged in one to three ways.
pub fn damaged(bytes: &[u8], anatomy: &Anatomy, dice: &mut Dice) -> Vec<u8> {
    let mut out = bytes.to_vec();
    // Half of them are refused for their header alone. The others get past it: what is wrong is what they hold.
    let content = below(dice, 2) == 0;
    for _ in 0..1 + below(dice, 3) {
        if content {
            damage_place(&mut out, anatomy, |says| !says.is_structure(), dice);
            continue;
        }
        match below(dice, 12) {
            0..=5 => damage_place(&mut out, anatomy, Says::is_structure, dice),
            6..=8 => damage_byte(&mut out, dice),
            9 => out.truncate(below(dice, out.len() + 1)),
            10 => {
                // A piece of it once more, somewhere else.
                let (from, length) = (below(dice, out.len() + 1), below(dice, 64));
                let piece: Vec<u8> = out.iter().skip(from).take(length).copied().collect();
                let to = below(dice, out.len() + 1);
                out.splice(to..to, piece);
            }
            _ => {
                let (from, length) = (below(dice, out.len() + 1), below(dice, 64));
                out.drain(from..(from + length).min(out.len()));
            }
        }
    }
    out
}

fn damage_place(out: &mut [u8], anatomy: &Anatomy, which: impl Fn(Says) -> bool, dice: &mut Dice) {
    let places: Vec<_> = anatomy.0.iter().filter(|(_, says)| which(*says)).collect();
    let (at, says) = *places[below(dice, places.len())];
    let mut put = |bytes: &[u8]| {
        // Other damage may have made the file shorter.
        if let Some(to) = out.get_mut(at..at + bytes.len()) {
            to.copy_from_slice(bytes);
        }
    };
    match says {
        Says::Tag => put(&[0u32, 10, 11, 12, 13][below(dice, 5)].to_be_bytes()),
        Says::Type => put(&(below(dice, 12) as u32).to_be_bytes()),
        Says::Offset => put(&(below(dice, 4096) as u32).to_be_bytes()),
        Says::Letter => put(&[[0, b' ', b'_', b'a', b'0', b'9', b'-', 0x80, 0xff][below(dice, 9)]]),
        Says::Double => put(&DOUBLES[below(dice, DOUBLES.len())].to_be_bytes()),
        Says::Single => put(&(DOUBLES[below(dice, DOUBLES.len())] as f32).to_be_bytes()),
        Says::Count | Says::Whole if below(dice, 3) == 0 => put(&(below(dice, 20) as u32).to_be_bytes()),
        Says::Count | Says::Whole => put(&WORDS[below(dice, WORDS.len())].to_be_bytes()),
    }
}

fn damage_byte(out: &mut [u8], dice: &mut Dice) {
    if out.is_empty() {
        return;
    }
    // Most of the harm is in the header, so most of the changes are there.
    let within = if below(dice, 8) == 0 { out.len() } else { out.len().div_ceil(2) };
    let at = below(dice, within);
    out[at] = match below(dice, 4) {
        0 => 0xff,
        1 => 0x7f,
        2 => out[at] ^ (1 << below(dice, 8)),
        _ => below(dice, 256) as u8,
    };
}

/// What may stand behind a `=` of a configuration, or behind a flag.
pub const VALUES: [&str; 58] = [
    "0",
    "-0",
    "1",
    "-1",
    "2",
    "3",
    "0.5",
    "-0.5",
    "1e-300",
    "1e300",
    "-1e300",
    "1e400",
    "nan",
    "inf",
    "-inf",
    "2147483648",
    "4294967295",
    "4294967296",
    "9007199254740993",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "0x7fffffffffffffff",
    "1_0",
    "true",
    "\"\"",
    "\" \"",
    "\"nan\"",
    "\"-inf\"",
    "\"1e308\"",
    "\"18446744073709551615\"",
    "\"lorenz63\"",
    "\"lorenz96\"",
    "\"square\"",
    "\"rho=\"",
    "\"=\"",
    "\"rho=nan\"",
    "\"forcing=1e308\"",
    "\"forcing=8,forcing=9\"",
    "\"sigma=1,,rho=2\"",
    "\"forcing==8\"",
    "\",\"",
    "\"--help\"",
    "\"é\\u202e日本\\u0000\"",
    "'\\'",
    "\"a\\nb\"",
    "1979-05-27T07:32:00Z",
    "[]",
    "[1, 2]",
    "[[1], [2]]",
    "[\"forcing=8\"]",
    "{}",
    "{ forcing = 8.0 }",
    "{ forcing = nan, x = { y = 1 } }",
    "{ forcing = -1e300 }",
    "\"\"\"\nx\"\"\"",
];

/// The same configuration with one to three of its lines changed, or others added: `keys` are the names that mean
/// something.
pub fn misspelt(text: &str, keys: &[String], dice: &mut Dice) -> Vec<u8> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for _ in 0..1 + below(dice, 3) {
        let line = below(dice, lines.len().max(1)).min(lines.len());
        let key = |dice: &mut Dice| keys[below(dice, keys.len())].clone();
        let value = |dice: &mut Dice| VALUES[below(dice, VALUES.len())];
        match below(dice, 12) {
            0..=4 => {
                let (key, value) = (key(dice), value(dice));
                lines.retain(|l| !l.starts_with(&format!("{key} ")));
                lines.push(format!("{key} = {value}"));
            }
            5..=6 if line < lines.len() => {
                let name = lines[line].split(" =").next().unwrap_or_default().to_owned();
                lines[line] = format!("{name} = {}", value(dice));
            }
            7 => lines.push(format!(
                "{} = {}",
                ["sitess", "Sites", "", "\"é\"", "a.b", "config", "help"][below(dice, 7)],
                value(dice)
            )),
            8 if line < lines.len() => lines.push(lines[line].clone()),
            9 => lines.push(
                ["[table]", "[[x]]", "= 1", "a", "]", "\"", "# é", "x = '''", "\u{feff}", "a = \"\\q\""]
                    [below(dice, 10)]
                .into(),
            ),
            10 => lines.push(if below(dice, 2) == 0 {
                format!("{} = {}1{}", key(dice), "[".repeat(3000), "]".repeat(3000))
            } else {
                format!("{}{} = 1", key(dice), ".a".repeat(3000))
            }),
            _ if line < lines.len() => drop(lines.remove(line)),
            _ => {}
        }
    }
    let mut out = lines.join("\n").into_bytes();
    if below(dice, 8) == 0 && !out.is_empty() {
        // No digit: a number ten times as large is a wish, not a mistake.
        let at = below(dice, out.len());
        out[at] = [0, b'=', b'"', b'\n', b'\r', b'[', b'}', 0x80, 0xff][below(dice, 9)];
    }
    out
}

/// Less than `limit`, which is not 0.
pub fn below(dice: &mut Dice, limit: usize) -> usize {
    (dice.word() % limit as u64) as usize
}

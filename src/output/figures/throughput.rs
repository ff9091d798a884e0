//! Members per second against members, one line for each engine, with its limit and where the GPU overtakes the CPU.

use super::axis::{Axis, bounds, plain};
use super::canvas::{Anchor, Canvas, Marker, Pen};
use super::panel::{Entry, Grid, Plot, Sample, Written, legend, titled};
use super::style::{BLUE, Color, FAINT, INK, INSET, MARGIN, ORANGE, SKY, TICK, VERMILLION, WIDTH};
use super::{Drawing, Figure};
use crate::benchmark::{Operation, Row};
use crate::engine::Precision;

/// The name of the figure's files.
const NAME: &str = "throughput";

/// What the figure prefers to show, the ELBO gradient first: all of it happens on the device.
const PREFERRED: [Operation; 7] = [
    Operation::Elbo,
    Operation::Gradient,
    Operation::Ensemble,
    Operation::Vi,
    Operation::Abc,
    Operation::Cost,
    Operation::Forecast,
];

/// The rows of one engine at one size, by ascending members.
struct Series<'a> {
    backend: &'static str,
    precision: Precision,
    rows: Vec<&'a Row>,
}

impl Series<'_> {
    fn name(&self) -> String {
        let row = self.rows[0];
        let software = if row.software { ", software" } else { "" };
        let adapter = row.adapter.trim_start_matches("CPU, ");
        format!("{} {}: {adapter}{software}", self.backend.to_uppercase(), self.precision.name())
    }

    fn style(&self) -> (Color, Marker) {
        match (self.backend, self.precision) {
            ("cpu", Precision::F32) => (BLUE, Marker::Circle),
            ("cpu", Precision::F64) => (SKY, Marker::Square),
            (_, Precision::F32) => (VERMILLION, Marker::Up),
            (_, Precision::F64) => (ORANGE, Marker::Diamond),
        }
    }

    fn rates(&self) -> Vec<(f64, f64)> {
        self.rows.iter().map(|r| (r.members as f64, r.members_per_second)).collect()
    }

    /// Members per second of the kernels alone.
    fn kernel_rates(&self) -> Vec<(f64, f64)> {
        self.rows.iter().map(|r| (r.members as f64, r.members as f64 / r.kernel_seconds)).collect()
    }

    /// Members per second that the nearer bound allows, from the largest batch.
    fn limit(&self) -> Option<f64> {
        let row = self.rows.last().filter(|r| r.operation != Operation::Vi)?;
        let inner = if row.kernel_seconds.is_nan() { row.seconds } else { row.kernel_seconds };
        Some(row.members as f64 / (inner * row.fraction_of_limit)).filter(|l| l.is_finite())
    }
}

/// Members from which on a GPU line is above a CPU line: by interpolation between two sizes in logarithms.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Crossover {
    At(f64),
    Everywhere,
    Nowhere,
}

fn crossover(cpu: &[(f64, f64)], gpu: &[(f64, f64)]) -> Option<Crossover> {
    let both: Vec<(f64, f64)> =
        cpu.iter().filter_map(|(m, c)| gpu.iter().find(|(n, _)| n == m).map(|(_, g)| (m.ln(), (g / c).ln()))).collect();
    let (first, last) = (both.first()?, both.last()?);
    if last.1 < 0.0 {
        return Some(Crossover::Nowhere);
    }
    // The last time that the GPU gets ahead.
    let pair = both.windows(2).rev().find(|p| p[0].1 < 0.0 && p[1].1 >= 0.0);
    match pair {
        Some(p) => Some(Crossover::At((p[0].0 - p[0].1 * (p[1].0 - p[0].0) / (p[1].1 - p[0].1)).exp())),
        None if first.1 >= 0.0 => Some(Crossover::Everywhere),
        None => None,
    }
}

/// Draws the throughput of a bench; nothing where no engine has two batch sizes of one operation at one size.
pub fn throughput(rows: &[Row]) -> Option<Figure> {
    draw(rows)?.finish(NAME)
}

fn series(rows: &[Row]) -> Option<Vec<Series<'_>>> {
    let key = |r: &Row| (r.operation, r.family, r.operator, r.sites, r.times, r.steps_per_time);
    let good: Vec<&Row> = rows.iter().filter(|r| r.error.is_none() && r.seconds > 0.0).collect();
    let operations = PREFERRED.into_iter();
    operations
        .filter_map(|operation| good.iter().find(|r| r.operation == operation))
        .map(|first| {
            let mut all: Vec<Series> = Vec::new();
            for row in good.iter().filter(|r| key(r) == key(first)) {
                match all.iter_mut().find(|s| s.backend == row.backend && s.precision == row.precision) {
                    Some(series) => series.rows.push(row),
                    None => all.push(Series { backend: row.backend, precision: row.precision, rows: vec![row] }),
                }
            }
            for series in &mut all {
                series.rows.sort_by_key(|r| r.members);
                series.rows.dedup_by_key(|r| r.members);
            }
            all
        })
        .find(|all| all.iter().any(|s| s.rows.len() > 1))
}

fn draw(rows: &[Row]) -> Option<Drawing> {
    let all = series(rows)?;
    let first = all[0].rows[0];
    let (what, unit) = match first.operation {
        Operation::Elbo => ("ELBO gradients: drawn, swept and summed on the device", "member-gradients per second"),
        Operation::Gradient => ("Gradients of given members, to the host", "member-gradients per second"),
        Operation::Vi => ("Iterations of VI", "member-gradients per second"),
        Operation::Ensemble => ("Iterations of the ensemble of 4DVAR", "member-iterations per second"),
        Operation::Abc => ("Trials of ABC", "trials per second"),
        Operation::Cost => ("Costs of given members, to the host", "costs per second"),
        Operation::Forecast => ("Forecasts of given members, to the host", "forecasts per second"),
    };
    let steps = match first.steps_per_time {
        1 => String::new(),
        k => format!(" of {k} steps"),
    };
    let note = format!(
        "{what}. {} sites, {} times{steps}, operator {}. Medians, end to end; thin: kernels alone; dashed: the nearer bound \
         of the device, measured in the same run.",
        first.sites, first.times, first.operator
    );
    let title = "Throughput against members";
    let (mut canvas, top) = titled(title, &note);
    let mut entries = Vec::new();
    for series in &all {
        let (color, marker) = series.style();
        entries.push(Entry::new(series.name(), Sample::Marked(Pen::new(color, 2.0), marker)));
    }
    let top = legend(&mut canvas, top + 8.0, &entries);
    let left = MARGIN + 60.0;
    let grid = Grid {
        left,
        top: top + 16.0,
        width: WIDTH - left - MARGIN - INSET,
        columns: 1,
        height: 400.0,
        gaps: (0.0, 0.0),
    };
    let log = |values: Vec<f64>, room: f64| {
        let (low, high) = bounds(values.into_iter());
        Axis::log(low / room, high * room)
    };
    let members = all.iter().flat_map(|s| s.rows.iter().map(|r| r.members as f64)).collect();
    let rates = all
        .iter()
        .flat_map(|s| s.rates().into_iter().chain(s.kernel_rates()).map(|(_, rate)| rate).chain(s.limit()))
        .collect();
    let plot = Plot { frame: grid.panel(0, 0), x: log(members, 1.35), y: log(rates, 1.5) };
    plot.draw_axes(&mut canvas, Written::full("members in a call"), Written::full(unit));
    let precision = all.iter().map(|s| s.precision).find(|p| {
        let has = |backend| all.iter().any(|s| s.precision == *p && s.backend == backend);
        has("cpu") && has("gpu")
    });
    let line = |backend: &str, p: Precision| all.iter().find(|s| s.backend == backend && s.precision == p);
    let met = precision.and_then(|p| crossover(&line("cpu", p)?.rates(), &line("gpu", p)?.rates()).map(|c| (p, c)));
    if let Some((p, Crossover::At(at))) = met {
        mark(&mut canvas, &plot, at, &format!("GPU ahead from about {} members ({})", plain(round(at)), p.name()));
    }
    for series in &all {
        let (color, marker) = series.style();
        if let Some(limit) = series.limit() {
            plot.level(&mut canvas, limit, Pen::new(color, 1.3).dashed(5.0));
        }
        plot.line(&mut canvas, series.kernel_rates().into_iter(), Pen::new(color, 1.0).opacity(0.7));
        plot.line(&mut canvas, series.rates().into_iter(), Pen::new(color, 2.0));
        for point in series.rates() {
            plot.marker(&mut canvas, point, marker, color);
        }
    }
    plot.close(&mut canvas);
    canvas.height = grid.all(1).bottom() + 44.0;
    let software = all.iter().any(|s| s.rows[0].software);
    let mut caption = match met {
        Some((p, Crossover::At(at))) => {
            format!("In {}, the GPU overtakes the CPU engine at about {} members. ", p.name(), round(at))
        }
        Some((p, Crossover::Everywhere)) => {
            format!("In {}, the GPU is ahead of the CPU engine at every batch size shown. ", p.name())
        }
        Some((p, Crossover::Nowhere)) => {
            format!("In {}, the CPU engine is ahead at the largest batch shown. ", p.name())
        }
        None => String::new(),
    };
    if software {
        caption += "The GPU here is a software rasteriser: it runs on the CPU, and says nothing about a real one. ";
    }
    caption += "Small batches wait for launches and the way to the device; large ones run into the bound.";
    Some(Drawing { title, caption, canvas })
}

/// Two digits.
fn round(value: f64) -> f64 {
    let unit = 10f64.powf(value.log10().floor() - 1.0);
    (value / unit).round() * unit
}

/// A vertical line with its name.
fn mark(canvas: &mut Canvas, plot: &Plot, at: f64, name: &str) {
    if !plot.x.contains(at) {
        return;
    }
    let x = plot.x.place(at, plot.frame.x, plot.frame.right());
    canvas.line(&[(x, plot.frame.y), (x, plot.frame.bottom())], Pen::new(INK, 1.2).dashed(3.0));
    let (side, anchor) = if plot.x.share(at) > 0.6 { (-6.0, Anchor::End) } else { (6.0, Anchor::Start) };
    canvas.styled((x + side, plot.frame.bottom() - 10.0), name, TICK, anchor, false, FAINT);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crossover_is_interpolated_between_two_sizes() {
        let cpu = [(1.0, 10.0), (100.0, 10.0), (10_000.0, 10.0)];
        let gpu = |rates: [f64; 3]| [(1.0, rates[0]), (100.0, rates[1]), (10_000.0, rates[2])];
        let Some(Crossover::At(at)) = crossover(&cpu, &gpu([0.1, 1.0, 100.0])) else { panic!("they cross") };
        assert!((at - 1000.0).abs() < 1e-6, "{at}");
        assert_eq!(crossover(&cpu, &gpu([11.0, 20.0, 30.0])), Some(Crossover::Everywhere));
        assert_eq!(crossover(&cpu, &gpu([1.0, 2.0, 3.0])), Some(Crossover::Nowhere));
        assert_eq!(crossover(&cpu, &[]), None);
        assert_eq!(round(1234.0), 1200.0);
    }

    #[test]
    fn the_figure_marks_and_names_the_crossover() {
        let row = |backend: &'static str, members: usize, rate: f64| {
            let hardware = crate::engine::Hardware {
                backend: if backend == "cpu" { "cpu" } else { "vulkan" }.into(),
                adapter: backend.to_uppercase(),
                driver: String::new(),
                precision: Precision::F32,
                software: false,
                threads: 0,
            };
            Row {
                backend,
                seconds: members as f64 / rate,
                members_per_second: rate,
                kernel_seconds: 0.8 * members as f64 / rate,
                fraction_of_limit: rate / 2e9,
                ..Row::example(&hardware, Operation::Elbo, members)
            }
        };
        let rows: Vec<Row> = (0..=20)
            .step_by(2)
            .map(|k| 1usize << k)
            .flat_map(|m| [row("cpu", m, 2e7 / (1.0 + 30.0 / m as f64)), row("gpu", m, 1e9 / (1.0 + 5e4 / m as f64))])
            .collect();
        let figure = throughput(&rows).unwrap();
        // 2e7 / (1 + 30 / m) = 1e9 / (1 + 5e4 / m) at m = 990.
        assert!(figure.caption.contains("at about 990 members"), "{}", figure.caption);
        assert!(figure.svg.contains("GPU ahead from about 990 members (f32)"));
        assert!(throughput(&rows[..2]).is_none(), "one size is no curve");
    }
}

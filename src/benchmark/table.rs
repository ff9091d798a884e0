//! The table for people: a heading for each engine, a line for each row.

use super::row::{Limit, Row};
use crate::engine::{Ceilings, Hardware};

/// What the rows below are of: the engine, its measured limits, and the names of the columns.
pub fn heading(hardware: &Hardware, ceilings: &Ceilings) -> String {
    let software = if hardware.software { "; a software rasteriser, no GPU" } else { "" };
    let readback = match ceilings.readback.as_secs_f64() {
        0.0 => String::new(),
        seconds => format!(", readback {}", time(seconds)),
    };
    // A processor that adds beside multiplying has two limits.
    let beside = ceilings.instructions / (ceilings.flops / 2.0);
    let mixed =
        if beside < 1.05 { String::new() } else { format!(" ({beside:.1} x as many instructions with additions)") };
    format!(
        "{hardware}{software}\nlimits measured here: {} GFLOP/s of multiply-adds{mixed}, {} GB/s copied{readback}\n{}",
        short(ceilings.flops * 1e-9),
        short(ceilings.bytes * 1e-9),
        columns([
            "operation",
            "h",
            "sites",
            "times",
            "members",
            "end to end",
            "+-",
            "kernels",
            "members/s",
            "GFLOP/s",
            "GB/s",
            "of limit",
            "compile"
        ])
    )
}

/// A row, without its engine.
pub fn line(row: &Row) -> String {
    let times =
        if row.steps_per_time == 1 { row.times.to_string() } else { format!("{}x{}", row.times, row.steps_per_time) };
    let [low, high] = row.spread;
    let limit = match row.limit {
        Limit::Instructions => "instr.",
        Limit::Memory => "memory",
        Limit::Readback => "readb.",
    };
    let mut text = columns([
        &row.name(),
        row.operator,
        &row.sites.to_string(),
        &times,
        &row.members.to_string(),
        &time(row.seconds),
        &if row.seconds.is_nan() { "-".into() } else { format!("{:.0}%", 50.0 * (high - low) / row.seconds) },
        &time(row.kernel_seconds),
        &rate(row.members_per_second),
        &short(row.gflops),
        &short(row.gbytes_per_second),
        &if row.fraction_of_limit.is_nan() {
            "-".into()
        } else {
            format!("{:.0}% {limit}", 100.0 * row.fraction_of_limit)
        },
        // Less than this is noise.
        &if row.compile_seconds < 1e-3 { "-".into() } else { time(row.compile_seconds) },
    ]);
    if let Some(error) = &row.error {
        text += &format!("    WRONG, not timed: {error}\n");
    }
    text
}

fn columns(cells: [&str; 13]) -> String {
    let [operation, h, sites, times, members, seconds, spread, kernels, rate, gflops, gbytes, limit, compile] = cells;
    format!(
        "{operation:<14} {h:<8} {sites:>5} {times:>7} {members:>8} {seconds:>10} {spread:>4} {kernels:>8} {rate:>9} \
         {gflops:>7} {gbytes:>6} {limit:>11} {compile:>8}\n"
    )
}

/// Seconds with three digits and a unit.
pub fn time(seconds: f64) -> String {
    if seconds.is_nan() {
        return "-".into();
    }
    let (scale, unit) = match seconds {
        s if s < 1e-3 => (1e6, "us"),
        s if s < 1.0 => (1e3, "ms"),
        _ => (1.0, "s"),
    };
    format!("{} {unit}", short(seconds * scale))
}

/// A rate with three digits and a prefix.
fn rate(value: f64) -> String {
    let (scale, unit) = match value {
        v if v >= 1e9 => (1e-9, " G"),
        v if v >= 1e6 => (1e-6, " M"),
        v if v >= 1e3 => (1e-3, " k"),
        _ => (1.0, ""),
    };
    format!("{}{unit}", short(value * scale))
}

/// Three digits, or two decimals.
fn short(value: f64) -> String {
    match value {
        v if v.is_nan() => "-".into(),
        v if v >= 99.95 => format!("{v:.0}"),
        v if v >= 9.995 => format!("{v:.1}"),
        v if v > 0.0 && v < 0.005 => format!("{v:.0e}"),
        v => format!("{v:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::benchmark::{Job, Operation, Size};
    use crate::engine::Precision;
    use crate::posterior::Family;
    use crate::problem::PointFunction;
    use std::time::Duration;

    #[test]
    fn lines_are_aligned_and_fit_a_terminal() {
        let hardware = Hardware {
            backend: "vulkan".into(),
            adapter: "A".into(),
            driver: String::new(),
            precision: Precision::F32,
            software: false,
            threads: 0,
        };
        let ceilings =
            Ceilings { flops: 6.7e13, instructions: 3.35e13, bytes: 3.35e12, readback: Duration::from_micros(41) };
        let heading = heading(&hardware, &ceilings);
        assert!(heading.contains("67000 GFLOP/s") && heading.contains("3350 GB/s") && heading.contains("41.0 us"));
        let size = Size {
            model: crate::model::Model::Lorenz96,
            operator: PointFunction::Softplus,
            sites: 4096,
            times: 1000,
            steps_per_time: 10,
        };
        let job = Job { operation: Operation::Elbo, family: Some(Family::FullRank) };
        let mut row = Row::empty(&hardware, job, &size, 1 << 20);
        let empty = line(&row);
        row.seconds = 123.4e-6;
        row.spread = [1e-4, 2e-4];
        (row.members_per_second, row.fraction_of_limit, row.kernel_seconds) = (8.5e9, 0.614, 0.9995e-3);
        (row.gflops, row.gbytes_per_second, row.compile_seconds) = (12345.6, 0.0012, 12.0);
        let full = line(&row);
        let widths = [heading.lines().last().unwrap(), empty.trim_end_matches('\n'), full.trim_end_matches('\n')];
        assert!(widths.iter().all(|l| l.len() == widths[0].len() && l.len() <= 120), "{widths:#?}");
        assert!(
            full.starts_with("elbo full-rank ")
                && full.contains(" 123 us ")
                && full.contains(" 8.50 G ")
                && full.contains("61% instr."),
            "{full}"
        );
        row.error = Some("gradients off".into());
        assert!(line(&row).contains("WRONG, not timed: gradients off"));
    }
}

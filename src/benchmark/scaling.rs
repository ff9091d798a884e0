//! What more ranks buy: the same batch on more and more of them (strong scaling), and the same batch on each of them (weak
//! scaling), with what they spend on each other apart.

use super::check::{mismatch, tolerance};
use super::measure::{CHECKED, quantile, timed};
use super::task::Task;
use super::{Job, Settings, table};
use crate::engine::{Backend, Engine, EngineSettings, Ranks, Traffic};
use crate::error::{Error, Result};
use crate::problem::Problem;
use serde::Serialize;
use std::time::Duration;

/// One operation of one size on so many ranks.
#[derive(Clone, Debug, Serialize)]
pub struct ScalingRow {
    /// "cpu" or "gpu".
    pub backend: &'static str,
    /// The adapter of each rank.
    pub adapter: String,
    /// "f32" or "f64".
    pub precision: &'static str,
    /// Threads of each rank's CPU engine, 0 of a GPU.
    pub threads: usize,
    /// The operation, with the family that it fits.
    pub operation: String,
    /// Sites of the state.
    pub sites: usize,
    /// RK4 steps of the window.
    pub steps: usize,
    /// "strong": the same batch on all ranks together. "weak": that batch on each.
    pub scaling: &'static str,
    /// Ranks.
    pub ranks: usize,
    /// Members of all ranks together.
    pub members: usize,
    /// Seconds of a call, or of an iteration: the median of those measured in turn with other numbers of ranks.
    pub seconds: f64,
    /// Members a second, as a multiple of what one rank does with the first row's batch.
    pub speed_up: f64,
    /// The speed-up for each rank.
    pub efficiency: f64,
    /// Share of the time in which the first rank worked on its members.
    pub working: f64,
    /// Share in which it waited for a slower rank.
    pub waiting: f64,
    /// Share of messages; what is missing to 1 is the method's work on the host.
    pub communication: f64,
    /// Seconds of messages in a call, or an iteration.
    pub communication_seconds: f64,
    /// Bytes that the first rank sent for each call or iteration, and that it received.
    pub bytes_sent: f64,
    /// See `bytes_sent`.
    pub bytes_received: f64,
}

/// Most seconds of one call.
const LONGEST: f64 = 8.0;
/// Rounds of measurements, in which all numbers of ranks take their turns.
const ROUNDS: usize = 9;
/// Seconds of one measurement at least.
const SHORTEST: f64 = 0.05;

impl Settings {
    /// Times operations on 1, 2, 4, ... and all ranks.
    ///
    /// # Errors
    /// Settings that cannot work, ranks that compute something else than the CPU engine in f64, a device failure, every row
    /// left out, or the observer's own.
    pub fn scaling(
        &self,
        ranks: &Ranks,
        observer: &mut dyn FnMut(ScalingEvent) -> Result<()>,
    ) -> Result<Vec<ScalingRow>> {
        self.check()?;
        let all = ranks.count();
        let numbers: Vec<usize> =
            std::iter::successors(Some(1), |n| Some(2 * n)).take_while(|n| *n < all).chain([all]).collect();
        let named = if self.backends.is_empty() { &[Backend::Auto][..] } else { &self.backends };
        let reference = Engine::new(&self.reference())?;
        let mut rows = Vec::new();
        for &backend in named {
            for &precision in &self.precisions {
                let settings = EngineSettings { backend, precision, ..self.engine() };
                let engines: Vec<Engine> =
                    numbers.iter().map(|n| Engine::over(&settings, &ranks.first(*n)?)).collect::<Result<_>>()?;
                observer(ScalingEvent::Engine(&engines[engines.len() - 1]))?;
                for size in self.sizes() {
                    let problem = size.problem()?;
                    for job in self.operations.iter().flat_map(|operation| Job::all(*operation, &self.families)) {
                        let few = Task::new(&reference, &problem, job, CHECKED)?.figures()?;
                        let bound = tolerance(&size, precision, !job.operation.given());
                        for engine in &engines {
                            let got = Task::new(engine, &problem, job, CHECKED)?.figures()?;
                            if let Some(difference) = mismatch(&got, &few, bound) {
                                let message = format!("{} on {engine}: {difference}", job.name());
                                return Err(Error::Wrong { message, help: "report this".into() });
                            }
                        }
                        for &members in &self.members {
                            for scaling in ["strong", "weak"] {
                                let counts: Vec<usize> = (numbers.iter())
                                    .map(|n| if scaling == "weak" { members.saturating_mul(*n) } else { members })
                                    .collect();
                                let timed = self.timed(&engines, &problem, job, &counts)?;
                                let Some(measured) = timed else {
                                    let text = format!("{} of {members} members left out: too long", job.name());
                                    observer(ScalingEvent::Note(&text))?;
                                    continue;
                                };
                                let one = counts[0] as f64 / measured[0].seconds;
                                for ((&ranks, &members), timed) in numbers.iter().zip(&counts).zip(&measured) {
                                    let hardware = engines[0].hardware();
                                    let speed_up = members as f64 / timed.seconds / one;
                                    let row = ScalingRow {
                                        backend: if hardware.threads > 0 { "cpu" } else { "gpu" },
                                        adapter: hardware.adapter.clone(),
                                        precision: hardware.precision.name(),
                                        threads: hardware.threads,
                                        operation: job.name(),
                                        sites: size.sites,
                                        steps: size.steps(),
                                        scaling,
                                        ranks,
                                        members,
                                        seconds: timed.seconds,
                                        speed_up,
                                        efficiency: speed_up / ranks as f64,
                                        working: timed.own / timed.mean,
                                        waiting: (timed.slowest - timed.own) / timed.mean,
                                        communication: timed.messages / timed.mean,
                                        communication_seconds: timed.messages,
                                        bytes_sent: timed.bytes[0],
                                        bytes_received: timed.bytes[1],
                                    };
                                    observer(ScalingEvent::Row(&row))?;
                                    rows.push(row);
                                }
                            }
                        }
                    }
                }
            }
        }
        if rows.is_empty() {
            let help = "use fewer members, sites or times";
            return Err(Error::invalid("rows", "at least one that takes seconds", "none", help));
        }
        Ok(rows)
    }

    /// Seconds of a call or an iteration on each engine with its members, and what ranks said to each other for it; None where
    /// it takes too long.
    fn timed(&self, engines: &[Engine], problem: &Problem, job: Job, counts: &[usize]) -> Result<Option<Vec<Timed>>> {
        let mut tasks = Vec::new();
        for (engine, members) in engines.iter().zip(counts) {
            let mut task = Task::new(engine, problem, job, *members)?;
            // The first makes buffers, and one that is short says little.
            task.call()?;
            let (mut seconds, _) = timed(|| task.call())?;
            if seconds > LONGEST {
                return Ok(None);
            }
            task.set_iterations((SHORTEST / seconds).ceil() as usize);
            seconds = timed(|| task.call())?.0;
            let calls = ((SHORTEST / seconds).ceil() as usize).clamp(1, 10_000);
            tasks.push((task, calls, Vec::new(), Traffic::default()));
        }
        let rounds = self.repeats.unwrap_or(if self.quick { 3 } else { ROUNDS });
        for _ in 0..rounds {
            for ((task, calls, samples, traffic), engine) in tasks.iter_mut().zip(engines) {
                let before = engine.ranks().traffic();
                let (seconds, ()) = timed(|| (0..*calls).try_for_each(|_| task.call().map(drop)))?;
                let units = *calls * task.iterations();
                samples.push(seconds / units as f64);
                traffic.add(&engine.ranks().traffic().since(&before));
            }
        }
        let measured = tasks.into_iter().map(|(task, calls, mut samples, traffic)| {
            samples.sort_by(f64::total_cmp);
            let units = (calls * task.iterations() * rounds) as f64;
            let seconds = |part: Duration| part.as_secs_f64() / units;
            Timed {
                seconds: quantile(&samples, 0.5),
                mean: samples.iter().sum::<f64>() / rounds as f64,
                own: seconds(traffic.own),
                slowest: seconds(traffic.working),
                messages: seconds(traffic.communication()),
                bytes: [traffic.sent, traffic.received].map(|bytes| bytes as f64 / units),
            }
        });
        Ok(Some(measured.collect()))
    }
}

/// A call or an iteration, in seconds.
struct Timed {
    /// The median, and the mean.
    seconds: f64,
    mean: f64,
    /// Of which the first rank worked, the slowest did, and messages took.
    own: f64,
    slowest: f64,
    messages: f64,
    /// Sent by the first rank, and received.
    bytes: [f64; 2],
}

/// What a study of scaling tells as it goes.
#[derive(Clone, Copy, Debug)]
pub enum ScalingEvent<'a> {
    /// The rows that follow are of this engine, or of part of its ranks.
    Engine(&'a Engine),
    /// A row is there.
    Row(&'a ScalingRow),
    /// Something was left out, and why.
    Note(&'a str),
}

/// The names of the columns.
pub fn scaling_heading(engine: &Engine) -> String {
    let names = ["operation", "sites", "scaling", "ranks", "members", "time", "speed-up", "of ranks", "work", "wait"];
    format!("{engine}\n{}", columns(names, ["messages", "", "sent", "received"]))
}

/// A row, without its engine.
pub fn scaling_line(row: &ScalingRow) -> String {
    let share = |part: f64| format!("{:.1}%", 100.0 * part);
    let alone = row.ranks == 1;
    let dash = |text: String| if alone { "-".into() } else { text };
    columns(
        [
            &row.operation,
            &row.sites.to_string(),
            row.scaling,
            &row.ranks.to_string(),
            &row.members.to_string(),
            &table::time(row.seconds),
            &format!("{:.2}", row.speed_up),
            &format!("{:.0}%", 100.0 * row.efficiency),
            &dash(share(row.working)),
            &dash(share(row.waiting)),
        ],
        [
            &dash(share(row.communication)),
            &dash(table::time(row.communication_seconds)),
            &dash(format!("{:.0} B", row.bytes_sent)),
            &dash(format!("{:.0} B", row.bytes_received)),
        ],
    )
}

fn columns(first: [&str; 10], then: [&str; 4]) -> String {
    let [operation, sites, scaling, ranks, members, seconds, speed_up, efficiency, work, wait] = first;
    let [communication, message_time, sent, received] = then;
    format!(
        "{operation:<14} {sites:>5} {scaling:>7} {ranks:>5} {members:>8} {seconds:>8} {speed_up:>8} {efficiency:>8} \
         {work:>6} {wait:>6} {communication:>8} {message_time:>8} {sent:>9} {received:>9}\n"
    )
}

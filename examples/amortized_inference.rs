//! What a trained recognition network is worth: alone, with a few iterations of VI behind it, and as a start of VI and 4DVAR,
//! against VI from the background, on windows that it has not seen.
//! `cargo run --release --features neural --example amortized_inference WEIGHTS.nc [WINDOWS [PRESET]]`, where the weights are those
//! that `vi4dvar train amortized` wrote.
//!
//! Seconds are those of the fit alone, without samples and weighing, per window: all windows in lockstep, and the network also
//! one window at a time.

use std::ops::ControlFlow;
use std::time::Instant;
use vi4dvar::method::{AmortizedSettings, Analysis, InitialFit, MethodSettings, Observer, Progress, Units};
use vi4dvar::{
    Backend, Engine, EngineSettings, FirstStart, FourDVarSettings, Method, Preset, Result, Schedule, ScoreTable,
    TwinSettings, ViSettings, simulate_set,
};

/// Iterations of VI that count as convergence.
const CONVERGED: usize = 2000;

/// Windows of iterations over which an ELBO is averaged before it is compared.
const SMOOTHED: usize = 10;

/// When the last iteration ended.
struct Stopwatch {
    started: Instant,
    seconds: f64,
}

impl Observer for Stopwatch {
    fn progress(&mut self, _: &Progress) -> ControlFlow<()> {
        self.seconds = self.started.elapsed().as_secs_f64();
        ControlFlow::Continue(())
    }
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let weights = arguments.next().map(Into::into);
    let windows: u64 = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(200);
    let preset = Preset::from_name(&arguments.next().unwrap_or("amortized-l96".into()))?;
    let problem = simulate_set(&TwinSettings { seed: 1, ..preset.twin }, &(1..=windows).collect::<Vec<_>>())?;
    let engine = Engine::new(&EngineSettings { backend: Backend::Cpu, ..EngineSettings::default() })?;
    let importance_draws = 10_000;
    let amortized = AmortizedSettings { weights, importance_draws, ..AmortizedSettings::default() };

    let clock = Instant::now();
    let rounds = 20;
    for p in 0..rounds {
        amortized.means(&problem.single(p), &engine)?;
    }
    let one_by_one = clock.elapsed().as_secs_f64() / rounds as f64;
    let clock = Instant::now();
    amortized.means(&problem, &engine)?;
    let network = clock.elapsed().as_secs_f64();

    let vi = ViSettings {
        batch: Some(64),
        learning_rate: 0.03,
        schedule: Some(Schedule::Cosine),
        units: Units::Background,
        iterations: CONVERGED,
        importance_draws,
        ..ViSettings::default()
    };
    let settings = MethodSettings { amortized, vi, ..preset.methods };
    let family = vi.family;
    let vi_of = |iterations: usize, start: InitialFit| {
        (
            Method::Vi(family),
            MethodSettings { vi: ViSettings { iterations, start: Some(start), ..vi }, ..settings.clone() },
        )
    };
    let four_d_var = |starts: usize, first_start: FirstStart| {
        (
            Method::FourDVar,
            MethodSettings {
                four_d_var: FourDVarSettings { starts, first_start, ..settings.four_d_var },
                ..settings.clone()
            },
        )
    };
    let mut rows: Vec<(String, (Method, MethodSettings))> = vec![
        ("Prior".into(), (Method::Prior, settings.clone())),
        ("4DVAR, 8 starts".into(), four_d_var(8, FirstStart::Background)),
        ("4DVAR from the background".into(), four_d_var(1, FirstStart::Background)),
        ("4DVAR from the network".into(), four_d_var(1, FirstStart::Amortized)),
        (format!("VI, {CONVERGED} iterations"), vi_of(CONVERGED, InitialFit::Background)),
        ("network".into(), (Method::Amortized, settings.clone())),
    ];
    for iterations in [30, 100, 300] {
        rows.push((format!("network, {iterations} of VI"), vi_of(iterations, InitialFit::Amortized)));
        rows.push((format!("background, {iterations} of VI"), vi_of(iterations, InitialFit::Background)));
    }
    println!("{windows} windows of seeds 1 to {windows}, on {}", engine.hardware());
    println!("{:28}   RMSE t = 0      window   CRPS t = 0        ELBO   k-hat   ms a window", "");
    let mut best = Vec::new();
    let mut cold_costs = 0;
    for (name, (method, settings)) in &rows {
        let mut watch = Stopwatch { started: Instant::now(), seconds: f64::NAN };
        let analyses = settings.run(*method, &problem, &engine, &mut watch)?;
        let seconds = if *method == Method::Amortized { network } else { watch.seconds };
        let table = ScoreTable::new(&problem, std::slice::from_ref(&analyses), None);
        let summary = table.methods[0].summary();
        let cell = |value: Option<f64>, digits: usize| value.map_or("-".into(), |v| format!("{v:.digits$}"));
        println!(
            "{name:28} {:>12} {:>11} {:>12} {:>11} {:>7} {:>13}",
            cell(summary.rmse.as_ref().map(|r| r.initial.mean), 4),
            cell(summary.rmse.as_ref().map(|r| r.window.mean), 4),
            cell(summary.crps.as_ref().map(|r| r.initial.mean), 4),
            cell(summary.fit.as_ref().map(|f| f.elbo.mean), 2),
            cell(summary.fit.as_ref().map(|f| f.k_hat.mean), 2),
            cell(Some(1e3 * seconds / windows as f64), 3),
        );
        if matches!(method, Method::Vi(_)) && settings.vi.iterations == CONVERGED {
            best = analyses.iter().map(|a| a.number("final_elbo").unwrap_or(f64::NAN)).collect();
        }
        if *method == Method::FourDVar && settings.four_d_var.starts == 1 {
            let costs: usize = analyses.iter().map(|a| a.record("cost").map_or(0, |r| r.values.len())).sum();
            println!("{:28} {:.1} iterations a window", "", costs as f64 / windows as f64);
            cold_costs += costs;
        }
    }
    assert!(cold_costs > 0);
    println!("the network, one window at a time: {:.2} ms, the file read included", 1e3 * one_by_one);

    // The same constant rate from both starts: iterations until the ELBO is that near to where VI ends.
    let steady = ViSettings {
        schedule: Some(Schedule::Constant),
        learning_rate: 0.01,
        batch: Some(256),
        iterations: 1000,
        importance_draws: 100,
        samples: 2,
        ..vi
    };
    println!(
        "iterations of VI until its ELBO, averaged over {SMOOTHED}, is that near to the converged one (median; share of windows)"
    );
    for start in [InitialFit::Background, InitialFit::Amortized] {
        let settings = MethodSettings { vi: ViSettings { start: Some(start), ..steady }, ..settings.clone() };
        let analyses = settings.run(Method::Vi(family), &problem, &engine, &mut vi4dvar::Silent)?;
        for nats in [10.0, 3.0, 1.0, 0.5] {
            let mut reached: Vec<usize> =
                analyses.iter().zip(&best).filter_map(|(a, best)| iterations(a, best - nats)).collect();
            reached.sort_unstable();
            let share = 100.0 * reached.len() as f64 / windows as f64;
            let median = reached.get(analyses.len() / 2).map_or("never".into(), usize::to_string);
            println!("  {start:?}, {nats:4} nats: {median:>6} ({share:.0} %)");
        }
    }
    Ok(())
}

/// Iterations until the smoothed ELBO is at least `level`.
fn iterations(analysis: &Analysis, level: f64) -> Option<usize> {
    let elbo = analysis.record("elbo")?.values.iter().copied().collect::<Vec<_>>();
    let reached = |window: &[f64]| window.iter().sum::<f64>() / window.len() as f64 >= level;
    elbo.windows(SMOOTHED).position(reached).map(|first| first + SMOOTHED)
}

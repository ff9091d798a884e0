//! Member-gradients per second of each engine on this machine: the ELBO gradient of 65,536 drawn members at two sizes.
//! `cargo run --release --example throughput`

use std::time::Instant;
use vi4dvar::engine::{AffineMap, Backend, Draw, Engine, EngineSettings, Precision, Scale, Terms};
use vi4dvar::experiment::{TwinSettings, simulate};
use vi4dvar::problem::PointFunction;
use vi4dvar::random::Stream;

fn main() -> vi4dvar::error::Result<()> {
    let sizes = [(16, 12, PointFunction::Square), (40, 40, PointFunction::Identity)];
    for (backend, precision) in [Backend::Cpu, Backend::Gpu]
        .into_iter()
        .flat_map(|backend| [Precision::F32, Precision::F64].map(|precision| (backend, precision)))
    {
        let settings = EngineSettings { backend, precision, ..EngineSettings::default() };
        let engine = match Engine::new(&settings) {
            Ok(engine) => engine,
            Err(reason) => {
                println!("{backend:?} {}: {reason}", precision.name());
                continue;
            }
        };
        for (sites, times, operator) in sizes {
            let twin =
                TwinSettings { sites, times, assimilated_times: times, operator, dt: 0.05, ..Default::default() };
            let problem = simulate(&twin)?;
            let map = AffineMap {
                mean: problem.background.mean.clone(),
                scale: Scale::Diagonal(ndarray::Array2::from_elem((1, sites), 0.1)),
            };
            let mut draw = Draw { map, stream: Stream::MonteCarlo, iteration: 0, count: 65_536 };
            let mut loaded = engine.load(&problem)?;
            loaded.moments(&draw, Terms::ALL)?; // compiles
            let mut seconds = Vec::new();
            for iteration in 1..=7 {
                draw.iteration = iteration;
                let clock = Instant::now();
                loaded.moments(&draw, Terms::ALL)?;
                seconds.push(clock.elapsed().as_secs_f64());
            }
            seconds.sort_by(f64::total_cmp);
            let rate = |s: f64| draw.count as f64 / s * 1e-6;
            println!(
                "{}: {sites} sites, {times} times, {}: {:.2} million per second (median of 7; {:.2} to {:.2})",
                engine.hardware(),
                operator.name(),
                rate(seconds[3]),
                rate(seconds[6]),
                rate(seconds[0]),
            );
        }
    }
    Ok(())
}

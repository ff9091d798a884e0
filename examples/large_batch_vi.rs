//! Large-batch variational inference: what more Monte Carlo draws per iteration buy, on every engine of this machine.
//! `cargo run --release --example large_batch_vi [LARGEST BATCH [NATS [FOLDER FOR THE FIGURE]]]`, where NATS is how near to
//! the largest ELBO of the family a fit has to come.

use vi4dvar::benchmark::BatchStudy;
use vi4dvar::output::{batches, write_bytes, write_text};
use vi4dvar::{Backend, Engine, EngineSettings, Result, TwinSettings, simulate};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let largest: usize = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(100_000);
    let mut study = BatchStudy::default();
    study.batches.retain(|batch| *batch <= largest);
    study.within = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(study.within);
    let problem = simulate(&TwinSettings { seed: 3, ..TwinSettings::default() })?;
    let mut rows = Vec::new();
    for backend in [Backend::Cpu, Backend::Gpu] {
        let Ok(engine) = Engine::new(&EngineSettings { backend, ..EngineSettings::default() }) else {
            println!("no GPU here");
            continue;
        };
        println!("on {}", engine.hardware());
        println!(
            "  batch   gradient variance   learning rate   iterations   seconds   to within {} of the best ELBO",
            study.within
        );
        for row in study.run(&problem, &engine)? {
            let iterations = row.iterations.map_or("never".into(), |i| i.to_string());
            println!(
                "{:7} {:19.4} {:15} {iterations:>12} {:9.4}",
                row.batch, row.variance, row.learning_rate, row.seconds
            );
            rows.push(row);
        }
    }
    if let (Some(folder), Some(figure)) = (arguments.next(), batches(&rows, study.within)) {
        write_text(format!("{folder}/batch-size.svg"), &figure.svg, true)?;
        write_bytes(format!("{folder}/batch-size.png"), &figure.png, true)?;
    }
    Ok(())
}

//! A program of one's own on many machines: the same bytes on any number of ranks. `cargo run --release --example many_ranks`
//! has one; build with `--features mpi` and start it by `mpirun -n 4 target/release/examples/many_ranks` for four.

use vi4dvar::{Engine, EngineSettings, Launched, Ranks, Silent, TwinSettings, ViSettings, simulate};

fn main() -> vi4dvar::Result<()> {
    // First of all: every rank but the first does its share until the first has ended, and has no program of its own.
    let ranks = match Ranks::of_launcher()? {
        Launched::First(ranks) => ranks,
        Launched::Other(worker) => {
            worker.serve();
            return Ok(());
        }
    };
    // From here on all is as on one machine. (A machine with several GPUs does without a launcher: `Ranks::threads(2)`.)
    let engine = Engine::over(&EngineSettings::default(), &ranks)?;
    let problem = simulate(&TwinSettings { sites: 40, seed: 5, ..TwinSettings::default() })?;
    let vi = ViSettings { batch: Some(16_384), iterations: 20, ..ViSettings::default() };
    let analysis = &vi.run(&problem, &engine, &mut Silent)?[0];
    println!("{engine}: {}", analysis.summary);

    let traffic = ranks.traffic();
    println!(
        "{} operations together, {} bytes sent and {} received, {:.1} % of their time for messages",
        traffic.operations,
        traffic.sent,
        traffic.received,
        100.0 * traffic.communication().as_secs_f64() / traffic.elapsed.as_secs_f64().max(1e-9)
    );
    Ok(())
}

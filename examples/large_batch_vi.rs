//! Large-batch variational inference: what more Monte Carlo draws per iteration buy, at an equal number of iterations.
//! `cargo run --release --example large_batch_vi [LARGEST BATCH]`

use vi4dvar::optimizer::Schedule;
use vi4dvar::{Engine, EngineSettings, Result, Silent, TwinSettings, ViSettings, scores, simulate};

fn main() -> Result<()> {
    let largest = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(4096);
    let problem = simulate(&TwinSettings { seed: 3, ..TwinSettings::default() })?;
    let engine = Engine::new(&EngineSettings::default())?;
    println!("on {}", engine.hardware());
    println!("  batch   seconds   |noise of dELBO|       ELBO       +-   RMSE at t = 0");
    for batch in (0..).map(|k| 4usize.pow(k)).take_while(|b| *b <= largest) {
        let settings = ViSettings {
            batch: Some(batch),
            iterations: 500,
            // Large enough to arrive, falling to zero so that the mean comes to rest.
            learning_rate: 0.05,
            schedule: Some(Schedule::Cosine),
            ..ViSettings::default()
        };
        let vi = settings.run(&problem, &engine, &mut Silent)?.remove(0);
        // At the end of the fit the gradient's mean is near zero: what is left of its norm is Monte Carlo noise.
        let norms = &vi.record("gradient_norm").expect("VI keeps it").values;
        let noise = norms.iter().skip(450).sum::<f64>() / 50.0;
        let number = |name| vi.number(name).unwrap_or(f64::NAN);
        println!(
            "{batch:7} {:9.3} {noise:18.3} {:10.3} {:8.3} {:15.3}",
            vi.seconds,
            number("final_elbo"),
            number("final_elbo_error"),
            scores(&problem, 0, &vi, None).rmse.expect("a twin knows its truth").initial,
        );
    }
    Ok(())
}

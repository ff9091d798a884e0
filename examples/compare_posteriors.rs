//! Comparing posteriors: four methods on one problem, measured against a reference posterior and against the truth.
//! `cargo run --release --example compare_posteriors [SEED]`

use vi4dvar::experiment::Reference;
use vi4dvar::optimizer::Schedule;
use vi4dvar::{
    Engine, EngineSettings, Family, Method, MethodSettings, Result, ScoreTable, Silent, TwinSettings, ViSettings,
    simulate,
};

fn main() -> Result<()> {
    let seed = std::env::args().nth(1).and_then(|s| s.parse().ok()).unwrap_or(1);
    let problem = simulate(&TwinSettings { seed, ..TwinSettings::default() })?;
    let engine = Engine::new(&EngineSettings::default())?;

    // VI with enough draws, and a learning rate that falls to zero, comes to rest.
    let vi =
        ViSettings { batch: Some(64), learning_rate: 0.03, schedule: Some(Schedule::Cosine), ..ViSettings::default() };
    let settings = MethodSettings { vi, ..MethodSettings::default() };
    let methods = [Method::FourDVar, Method::Ensemble, Method::Vi(Family::MeanField), Method::Reference];
    let run = |method: &Method| settings.run(*method, &problem, &engine, &mut Silent);
    let analyses = methods.iter().map(run).collect::<Result<Vec<_>>>()?;

    for analysis in analyses.iter().flatten() {
        println!("{}: {}", analysis.method, analysis.summary);
    }
    // The last method is the reference, where its independent samplers agree.
    let agreed = analyses[3][0].number("agreed") == Some(1.0);
    let table = ScoreTable::new(&problem, &analyses, Some(Reference { method: 3, agreed: &[agreed] }));
    println!("\n{table}");

    // The ELBO is a bound on log p(y), which the reference knows: the gap is the divergence of the fit from it.
    let elbo = analyses[2][0].number("final_elbo").unwrap_or(f64::NAN);
    let evidence = analyses[3][0].number("log_evidence").unwrap_or(f64::NAN);
    println!("ELBO {elbo:.2} <= log p(y) {evidence:.2}: KL(q | posterior) = {:.2}", evidence - elbo);
    Ok(())
}

//! A GPU against the CPU: the same members, drawn from the same addresses, with cost and gradient compared in each
//! precision. `cargo run --release --example gpu_against_cpu`

use vi4dvar::{
    AffineMap, Backend, Draw, Engine, EngineSettings, Gradients, LoadedProblem, Members, Precision, Result, Scale,
    Stream, Terms, TwinSettings, adapters, simulate,
};

fn main() -> Result<()> {
    let problem = simulate(&TwinSettings::default())?;
    let std = problem.background.std_of(0).insert_axis(ndarray::Axis(0));
    let map = AffineMap { mean: problem.background.mean.clone(), scale: Scale::Diagonal(std) };
    let draw = Draw { map, stream: Stream::Background, iteration: 0, count: 1000 };
    let evaluate = |engine: &Engine| -> Result<Gradients> {
        let mut loaded: LoadedProblem = engine.load(&problem)?;
        loaded.gradient(Members::Drawn(&draw), Terms::ALL)
    };

    let reference = evaluate(&Engine::cpu(Precision::F64)?)?;
    let largest = reference.gradient.iter().fold(0.0f64, |a, g| a.max(g.abs()));
    let found = adapters();
    if found.is_empty() {
        println!("no GPU adapter on this machine: the CPU is compared with itself");
    }
    println!("1000 members, largest difference from the CPU in f64");
    println!("    J (relative)   dJ/dx0 (share of the largest)   on");
    for backend in [Backend::Cpu, Backend::Gpu] {
        for precision in [Precision::F32, Precision::F64] {
            let engine = match Engine::new(&EngineSettings { backend, precision, ..EngineSettings::default() }) {
                Ok(engine) => engine,
                // No adapter, or one without f64: the message says which.
                Err(error) => {
                    println!("{error}");
                    continue;
                }
            };
            let result = evaluate(&engine)?;
            let cost =
                (result.costs.total() / reference.costs.total() - 1.0).iter().fold(0.0f64, |a, d| a.max(d.abs()));
            let gradient = (&result.gradient - &reference.gradient).iter().fold(0.0f64, |a, d| a.max(d.abs()));
            println!("{cost:16.1e} {:31.1e}   {}", gradient / largest, engine.hardware());
        }
    }
    Ok(())
}

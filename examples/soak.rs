//! VI, the ensemble and ABC back to back in one process: does memory grow, does it slow down? One line for each of thirty equal
//! parts of the time. `cargo run --release --example soak -- [MINUTES] [cpu|gpu]`

use std::time::{Duration, Instant};
use vi4dvar::engine::{Backend, Engine, EngineSettings};
use vi4dvar::experiment::{TwinSettings, simulate};
use vi4dvar::method::{AbcSettings, Analysis, EnsembleSettings, Silent, ViSettings};

/// Resident memory of this process in MiB, where the system says.
fn resident() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib = text.lines().find_map(|line| line.strip_prefix("VmRSS:")?.strip_suffix("kB"))?;
    kib.trim().parse::<f64>().ok().map(|kib| kib / 1024.0)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let minutes: f64 = words.next().map_or(Ok(30.0), |word| word.parse())?;
    let backend = match words.next().as_deref() {
        None | Some("cpu") => Backend::Cpu,
        Some("gpu") => Backend::Gpu,
        Some(other) => return Err(format!("expected cpu or gpu, found {other}").into()),
    };
    let engine = Engine::new(&EngineSettings { backend, ..EngineSettings::default() })?;
    let problem = simulate(&TwinSettings::default())?;
    let vi = ViSettings { iterations: 300, batch: Some(256), ..ViSettings::default() };
    let ensemble = EnsembleSettings { members: 50, ..EnsembleSettings::default() };
    let abc = AbcSettings { trials: 1 << 17, keep: 0.001, ..AbcSettings::default() };

    println!("on {}", engine.hardware());
    println!("minute  rounds  VI ms  ensemble ms  ABC ms  memory MiB");
    let (clock, part) = (Instant::now(), Duration::from_secs_f64(minutes * 2.0));
    let mut first: Option<Vec<Vec<Analysis>>> = None;
    for k in 1..=30 {
        let (mut rounds, mut seconds) = (0, [0.0; 3]);
        while clock.elapsed() < part * k {
            let analyses = vec![
                vi.run(&problem, &engine, &mut Silent)?,
                ensemble.run(&problem, &engine, &mut Silent)?,
                abc.run(&problem, &engine, &mut Silent)?,
            ];
            rounds += 1;
            seconds.iter_mut().zip(&analyses).for_each(|(sum, a)| *sum += a[0].seconds);
            let first = first.get_or_insert_with(|| analyses.clone());
            let same = |(a, b): (&Vec<Analysis>, &Vec<Analysis>)| a[0].mean == b[0].mean && a[0].std == b[0].std;
            assert!(first.iter().zip(&analyses).all(same), "round {rounds} of part {k} ends at other numbers");
        }
        let [vi, ensemble, abc] = seconds.map(|s| 1e3 * s / f64::from(rounds));
        let memory = resident().map_or("unknown".into(), |mib| format!("{mib:.1}"));
        println!(
            "{:6.1}  {rounds:6}  {vi:5.1}  {ensemble:11.1}  {abc:6.1}  {memory:>10}",
            clock.elapsed().as_secs_f64() / 60.0
        );
    }
    println!("every round ended at the numbers of the first");
    Ok(())
}

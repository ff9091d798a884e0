//! Scratch.
use vi4dvar::*;
use std::str::FromStr;
fn arg<T: FromStr>(name: &str, default: T) -> T {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}
fn main() -> Result<()> {
    let f64s = arg("F64", 0) == 1;
    let engine = Engine::cpu(if f64s { Precision::F64 } else { Precision::F32 })?;
    let seeds: Vec<u64> = (1..=arg("SEEDS", 10)).collect();
    let twin = TwinSettings { assimilated_times: arg("T", 12), times: arg("T", 12) + 4, ..TwinSettings::default() };
    let problem = simulate_set(&twin, &seeds)?;
    let d = EnsembleSettings::default();
    let settings = EnsembleSettings {
        members: arg("M", 1000), stages: arg("STAGES", 1),
        start: if arg("START", 0) == 1 { Start::Minimum } else { Start::Background },
        minimiser: if arg("ADAM", 0) == 1 { Minimiser::Adam } else { Minimiser::Lbfgs },
        iterations: arg("ITER", d.iterations), learning_rate: arg("LR", d.learning_rate), history: arg("H", d.history),
        gradient_tolerance: std::env::var("GT").ok().map(|v| v.parse().unwrap()),
        cost_tolerance: std::env::var("CT").ok().map(|v| v.parse().unwrap()),
        max_diverged_share: 1.0, ..d };
    let analyses = settings.run(&problem, &engine, &mut Silent)?;
    let mut total = [0.0; 12];
    for (p, a) in analyses.iter().enumerate() {
        let s = scores(&problem, p, a).unwrap();
        let n = |name: &str| a.number(name).unwrap();
        let mean = |name: &str| a.record(name).unwrap().values.mean().unwrap();
        let m = settings.members as f64;
        let row = [n("kept_members") / m, n("stuck_members") / m, n("spurious_members") / m, n("diverged_members") / m,
            mean("iterations"), mean("evaluations"), n("model_steps_per_member"), n("adjoint_steps_per_member"),
            s.rmse_initial, s.rmse_window, s.std_initial, n("mean_minimum_cost") - n("four_d_var_cost") - n("observation_count") / 2.0];
        if arg("V", 0) > 0 {
            println!("{:2} {}", seeds[p], row.map(|r| format!("{r:8.3}")).join(" "));
            if arg("V", 0) > 1 { println!("   {}", a.summary); 
                let mut g: Vec<f64> = a.record("gradient_norm").unwrap().values.iter().copied().collect();
                g.sort_by(f64::total_cmp);
                println!("   |g| quantiles {:?}", [0.5, 0.9, 0.95, 0.99, 0.999].map(|q| g[((g.len() - 1) as f64 * q) as usize])); 
                let mut g: Vec<f64> = a.record("minimum_cost").unwrap().values.iter().copied().collect();
                g.sort_by(f64::total_cmp);
                println!("   J quantiles {:?} bound {:.1}", [0.0, 0.05, 0.5, 0.9, 0.95, 0.99, 1.0].map(|q| g[((g.len() - 1) as f64 * q) as usize].round()), n("spurious_cost")); }
        }
        total.iter_mut().zip(row).for_each(|(t, r)| *t += r / seeds.len() as f64);
    }
    println!("kept {:.4} stuck {:.4} spurious {:.4} diverged {:.4} | iterations {:.0} evaluations {:.0} model {:.0} adjoint {:.0} | rmse0 {:.3} window {:.3} sd0 {:.3} | mean J off {:.2} | {:.2} s",
        total[0], total[1], total[2], total[3], total[4], total[5], total[6], total[7], total[8], total[9], total[10], total[11], analyses[0].seconds);
    Ok(())
}

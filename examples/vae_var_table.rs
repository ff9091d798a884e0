//! Where VAE-Var wins and where it does not: 3DVar and 4DVar beside VAE-3DVar and VAE-4DVar over operators, densities, noise
//! levels, imperfect models and sources of the errors that are learned from, five seeds each.
//! `cargo run --release --features neural --example vae_var_table -- lorenz63|lorenz96 [CASE ..]`, of which `list` shows the names

use std::f64::consts::SQRT_2;
use std::io::Write;
use vi4dvar::experiment::{CyclePreset, CycleSettings, ErrorSource, VaeTerms};
use vi4dvar::neural::TrainingSettings;
use vi4dvar::{Backend, Engine, EngineSettings, Error, PointFunction, Result, Silent, VaeSettings};

struct Case {
    name: &'static str,
    settings: CycleSettings,
    source: ErrorSource,
}

/// The preset, and what differs from it.
fn cases(preset: &str) -> Result<Vec<Case>> {
    let of = CyclePreset::from_name(preset)?.settings;
    let case = |name, change: &dyn Fn(&mut CycleSettings)| {
        let mut settings = of.clone();
        change(&mut settings);
        Case { name, settings, source: ErrorSource::Truth }
    };
    let all_terms = vec![VaeTerms::All, VaeTerms::NoPrior, VaeTerms::NoLogDet];
    let mut cases = vec![
        case("preset", &|s| s.vae_terms = all_terms.clone()),
        case("noise-half", &|s| s.observation_std *= 0.5),
        case("noise-twice", &|s| s.observation_std *= 2.0),
        case("softplus", &|s| s.operator = PointFunction::Softplus),
        case("model-noise", &|s| s.model_noise = 0.2),
    ];
    cases.push(Case { source: ErrorSource::Nmc, ..case("nmc", &|_| {}) });
    if preset == "vae-var-l63" {
        cases.extend([
            case("two-of-three", &|s| s.drop = 1.0 / 3.0),
            case("one-of-three", &|s| s.drop = 2.0 / 3.0),
            // Of states of deviation 8.
            case("cubic", &|s| (s.operator, s.observation_std) = (PointFunction::Cubic, 100.0 * SQRT_2)),
            case("square", &|s| (s.operator, s.observation_std) = (PointFunction::Square, 10.0 * SQRT_2)),
            case("rho-29", &|s| s.true_parameters = [("rho", 29.0)].into()),
        ]);
    } else {
        cases.extend([
            case("all-observed", &|s| s.drop = 0.0),
            case("quarter-observed", &|s| s.drop = 0.75),
            case("cubic", &|s| (s.operator, s.observation_std) = (PointFunction::Cubic, 10.0)),
            case("square", &|s| (s.operator, s.drop) = (PointFunction::Square, 0.0)),
            case("forcing-8.5", &|s| s.true_parameters = [("forcing", 8.5)].into()),
            case("80-sites", &|s| s.sites = 80),
        ]);
    }
    Ok(cases)
}

fn run(case: &Case, engine: &Engine) -> Result<String> {
    let Case { name, settings, source } = case;
    let (network, training) = (VaeSettings::default(), TrainingSettings::default());
    let learn = |k| settings.learn_errors(k, *source, &network, &training, engine, &mut Silent);
    let learned = (0..settings.windows.len()).map(learn).collect::<Result<Vec<_>>>()?;
    let vaes: Vec<_> = learned.iter().map(|own| own.vae.clone()).collect();
    let cycles = settings.run_learned(&[1, 2, 3, 4, 5], &vaes, engine, &mut Silent)?;
    let row = |gain: &vi4dvar::experiment::Gain| {
        let own = learned.iter().find(|own| own.window == gain.plain.window());
        let quality = own.and_then(|own| own.quality).expect("an autoencoder for each window");
        let [plain, learned] = gain.rmse.map(|e| format!("{:.3} ± {:.3}", e.mean, e.standard_error.unwrap_or(0.0)));
        let [a, b] = [gain.plain, gain.learned].map(|m| m.factor().unwrap_or(f64::NAN));
        let percent = format!("{:.1} ± {:.1}", gain.percent.mean, gain.percent.standard_error.unwrap_or(0.0));
        let [fast, slow] = gain.seconds.map(|s| 1e3 * s);
        let kurtosis = quality.normality.map_or("-".into(), |m| format!("{:.2}", m.kurtosis));
        let lost = quality.lost_variance.map_or("-".into(), |l| format!("{:.1}", 100.0 * l));
        let energy = |test: vi4dvar::diagnostics::EnergyTest| format!("{:.4} (p {:.3})", test.distance, test.p);
        format!(
            "| {name} | {} | {plain} ({a}) | {learned} ({b}) | {percent} | {kurtosis} | {} | {} | {lost} | {fast:.2} | {slow:.2} |\n",
            gain.learned.name(),
            energy(quality.learned),
            energy(quality.gaussian),
        )
    };
    Ok(cycles.gains().iter().map(row).collect())
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let preset = match arguments.next().as_deref() {
        Some("lorenz63") => "vae-var-l63",
        Some("lorenz96") => "vae-var-l96",
        other => {
            let found = other.unwrap_or("nothing").to_string();
            return Err(Error::invalid("model", "lorenz63 or lorenz96", found, "name one of them"));
        }
    };
    let wanted: Vec<String> = arguments.collect();
    let cases = cases(preset)?;
    let names: Vec<_> = cases.iter().map(|case| case.name).collect();
    if let Some(unknown) = wanted.iter().find(|name| !names.contains(&name.as_str())) {
        let help = "leave the cases out for all of them";
        return Err(Error::invalid("case", format!("one of {}", names.join(", ")), unknown, help));
    }
    let engine = Engine::new(&EngineSettings { backend: Backend::Cpu, ..EngineSettings::default() })?;
    println!(
        "| {preset} | method | RMSE of 3DVar or 4DVar (factor) | RMSE of VAE-Var (factor) | lower by % | kurtosis | energy distance, VAE | \
         energy distance, Gaussian | variance lost, % | ms | ms, VAE-Var |\n|{}",
        "---|".repeat(11)
    );
    for case in cases.iter().filter(|case| wanted.is_empty() || wanted.iter().any(|name| name == case.name)) {
        match run(case, &engine) {
            Ok(rows) => print!("{rows}"),
            Err(error) => println!("| {} | {error} |", case.name),
        }
        std::io::stdout().flush().ok();
    }
    Ok(())
}

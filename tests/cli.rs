//! The command line from outside: files, tables, exit codes and messages.

use assert_cmd::Command;
use std::fs;
use std::path::Path;
use tempfile::TempDir;
use vi4dvar::output::{Attributes, read_analysis, write_members};
use vi4dvar::{Method, Problem};

/// The command in a fresh directory.
fn vi4dvar(directory: &TempDir, arguments: &str) -> Command {
    let mut command = Command::cargo_bin("vi4dvar").unwrap();
    command.current_dir(directory).args(arguments.split_whitespace());
    command
}

/// Runs and returns standard output; any failure fails the test.
fn succeed(directory: &TempDir, arguments: &str) -> String {
    let output = vi4dvar(directory, arguments).assert().success().get_output().clone();
    String::from_utf8(output.stdout).unwrap()
}

/// Runs, demands exit code 2, no panic and no new file, and returns standard error.
fn refuse(directory: &TempDir, arguments: &str) -> String {
    let before = names(directory.path());
    let output = vi4dvar(directory, arguments).assert().code(2).get_output().clone();
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("error: ") && !message.contains("panicked"), "{arguments}: {message}");
    assert_eq!(names(directory.path()), before, "{arguments} wrote something");
    message
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(directory).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn fresh() -> TempDir {
    TempDir::new().unwrap()
}

/// Sizes that run in no time.
const SMALL: &str = "--backend cpu --sites 8 --times 8 --assimilated-times 6 --iterations 50 --samples 20 --batch 4";

fn bytes(directory: &TempDir, name: &str) -> Vec<u8> {
    fs::read(directory.path().join(name)).unwrap()
}

#[test]
fn twin_ends_in_a_table_and_files() {
    let d = fresh();
    let table = succeed(&d, &format!("twin {SMALL} --out results"));
    for name in ["Prior", "4DVAR", "VI-4DVAR"] {
        let row = table.lines().find(|l| l.starts_with(&format!("{name} "))).unwrap_or_else(|| panic!("{table}"));
        assert_eq!(row.split_whitespace().filter(|n| n.parse::<f64>().is_ok_and(f64::is_finite)).count(), 7, "{row}");
    }
    assert!(table.contains("on CPU"), "{table}");
    assert_eq!(
        names(&d.path().join("results")),
        [
            "4dvar.nc",
            "abc.nc",
            "ensemble.nc",
            "figures",
            "prior.nc",
            "problem.nc",
            "reference.nc",
            "report.html",
            "scores.json",
            "timings.json",
            "twin.toml",
            "vi.nc"
        ]
    );
    let problem = Problem::read(d.path().join("results/problem.nc")).unwrap();
    assert_eq!((problem.sites(), problem.window.times, problem.window.assimilated_times), (8, 8, 6));
    let vi = read_analysis(d.path().join("results/vi.nc")).unwrap();
    assert_eq!(vi.analysis.samples.shape(), [20, 8, 8]);
    for name in ["settings", "seed", "adapter", "backend", "precision", "source", "rmse_window"] {
        assert!(vi.attributes.get(name).is_some(), "no attribute {name}");
    }
}

#[test]
fn twin_default_directory_is_the_preset() {
    let d = fresh();
    succeed(&d, &format!("twin {SMALL} --preset isda-16-prior"));
    assert!(d.path().join("out/isda-16-prior/vi.nc").is_file());
}

#[test]
fn resolved_settings_give_the_same_bytes() {
    let d = fresh();
    succeed(&d, &format!("twin {SMALL} --out a --drop 0.3 --seed 7 --background-noise 15,25 --hessian full"));
    // A flag that is already in the file changes nothing; the command's name in the files is the same.
    succeed(&d, "twin --config a/twin.toml --out b");
    for name in ["problem.nc", "4dvar.nc", "vi.nc", "twin.toml"] {
        assert_eq!(bytes(&d, &format!("a/{name}")), bytes(&d, &format!("b/{name}")), "{name}");
    }
    let problem = Problem::read(d.path().join("b/problem.nc")).unwrap();
    assert_eq!(problem.seeds, [7]);
}

#[test]
fn resolved_settings_keep_the_largest_seed() {
    let d = fresh();
    succeed(&d, &format!("simulate --seed {} --out a.nc", u64::MAX));
    succeed(&d, "simulate --config a.toml --out b.nc");
    assert_eq!(bytes(&d, "a.nc"), bytes(&d, "b.nc"));
}

#[test]
fn flag_wins_over_file_over_preset_over_default() {
    let d = fresh();
    fs::write(d.path().join("f.toml"), "preset = \"isda-16-prior\"\nsites = 12\ntimes = 9\nassimilated-times = 5\n")
        .unwrap();
    succeed(&d, "simulate --config f.toml --times 7 --out p.nc");
    let problem = Problem::read(d.path().join("p.nc")).unwrap();
    assert_eq!((problem.sites(), problem.window.times, problem.window.assimilated_times), (12, 7, 5));
    let saved = fs::read_to_string(d.path().join("p.toml")).unwrap();
    assert!(saved.contains("kind = \"prior\"") && saved.contains("parameters = \"forcing=8\""), "{saved}");
}

#[test]
fn one_file_serves_several_commands() {
    let d = fresh();
    succeed(&d, &format!("twin {SMALL} --out a"));
    succeed(&d, "simulate --config a/twin.toml --out p.nc");
    let (a, p) = (Problem::read(d.path().join("a/problem.nc")).unwrap(), Problem::read(d.path().join("p.nc")).unwrap());
    assert_eq!((a.truth, a.background.mean), (p.truth, p.background.mean));
}

#[test]
fn simulate_assimilate_evaluate_chain() {
    let d = fresh();
    succeed(&d, "simulate --sites 8 --out p.nc");
    for method in ["4dvar", "vi"] {
        let table =
            succeed(&d, &format!("assimilate p.nc --backend cpu --samples 20 --method {method} --out {method}.nc"));
        assert!(table.to_lowercase().contains(method), "{table}");
    }
    let best = read_analysis(d.path().join("4dvar.nc")).unwrap();
    let problem = Problem::read(d.path().join("p.nc")).unwrap();
    let members = ndarray::stack![ndarray::Axis(0), best.analysis.mean.row(0), problem.background.mean_of(0)];
    write_members(d.path().join("m.nc"), members.view(), &Attributes::new(), false).unwrap();
    succeed(&d, "evaluate p.nc --members m.nc --backend cpu --precision f64 --out e.nc");
    succeed(&d, "evaluate p.nc --members m.nc --backend cpu --precision f64 --trajectories --out t.nc");
    let size = |name| bytes(&d, name).len();
    assert!(size("t.nc") >= size("e.nc") + 2 * 16 * 8 * 8);
}

/// Estimated together with x0: the table, the files of every method, and commands that read such a problem.
#[test]
fn model_errors_and_a_forcing_from_twin_to_evaluation() {
    let d = fresh();
    let flags =
        "--parameter-std forcing=0.5 --model-error-std 0.1 --members 20 --particles 200 --nuts-draws 50 --nuts-tune 50";
    let table = succeed(&d, &format!("twin {SMALL} {flags} --out a"));
    let (_, parameters) = table.split_once("Parameters of the model").unwrap_or_else(|| panic!("{table}"));
    for name in ["Prior", "4DVAR", "ABC", "Ens. 4DVAR", "VI-4DVAR", "Reference"] {
        let row = parameters.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_else(|| panic!("{name}: {table}"));
        assert_eq!(row.split_whitespace().filter(|n| n.parse::<f64>().is_ok()).count(), 4, "{row}");
    }
    assert!(fs::read_to_string(d.path().join("a/report.html")).unwrap().contains("Parameters of the model"));
    let saved = fs::read_to_string(d.path().join("a/twin.toml")).unwrap();
    assert!(saved.contains("parameter-std = \"forcing=0.5\"") && saved.contains("model-error-std = 0.1"), "{saved}");

    let problem = Problem::read(d.path().join("a/problem.nc")).unwrap();
    let layout = problem.control();
    assert_eq!((layout.errors, layout.parameters, layout.len()), (5, 1, 49));
    assert!(problem.true_parameters_of(0).is_some());
    for method in Method::CASE_STUDY {
        let read = read_analysis(d.path().join(format!("a/{}.nc", method.name()))).unwrap();
        for (name, shape) in [
            ("parameter_mean", &[1][..]),
            ("parameter_spread", &[1]),
            ("model_error_mean", &[5, 8]),
            ("model_error_spread", &[5, 8]),
        ] {
            assert_eq!(read.analysis.record(name).unwrap().values.shape(), shape, "{} {name}", method.name());
        }
    }

    write_members(d.path().join("m.nc"), problem.background.mean.view(), &Attributes::new(), false).unwrap();
    succeed(&d, "evaluate a/problem.nc --members m.nc --backend cpu --precision f64 --trajectories --out e.nc");
    let mut file = netcdf3::FileReader::open(d.path().join("e.nc")).unwrap();
    // At xb all of the control is at its prior mean; F goes without saying, and errors of the model are 0.
    assert_eq!(file.read_var_f64("cost_background").unwrap(), [0.0]);
    assert_eq!(file.data_set().get_var("gradient").unwrap().dim_names(), ["member", "control"]);
    let gradient = file.read_var_f64("gradient").unwrap();
    assert!(gradient.len() == 49 && gradient.iter().all(|g| g.is_finite()) && gradient[48] != 0.0, "{gradient:?}");
    let mut x = problem.background.mean_of(0).to_vec();
    problem.model.integrate(&[8.0], &mut x, 0.1, 7);
    let trajectory = file.read_var_f64("trajectory").unwrap();
    assert!(trajectory[7 * 8..].iter().zip(&x).all(|(a, b)| (a - b).abs() < 1e-10), "{trajectory:?} {x:?}");

    // Analyses of other priors are not compared.
    succeed(&d, "assimilate a/problem.nc --backend cpu --method 4dvar --out 4dvar.nc");
    succeed(&d, "compare 4dvar.nc a/vi.nc --out same");
    for other in [
        "--parameter-std forcing=0.4 --model-error-std 0.1",
        "--parameter-std forcing=0.5 --model-error-std 0.2 --model-noise 0.1",
    ] {
        succeed(&d, &format!("twin {SMALL} {other} --methods 4dvar --out b --force"));
        let message = refuse(&d, "compare 4dvar.nc b/4dvar.nc --out different");
        assert!(message.contains("prior of the control") || message.contains("model error"), "{message}");
    }
}

/// A model brings its own settings, and each of its parameters is shown.
#[test]
fn lorenz63_by_name_alone() {
    let d = fresh();
    let few = "--backend cpu --iterations 50 --samples 20 --batch 4 --methods prior,4dvar,vi";
    let std = "sigma=0.5,rho=1,beta=0.1";
    let table = succeed(&d, &format!("twin --model lorenz63 --parameter-std {std} {few} --out a"));
    assert!(table.starts_with("lorenz63, 3 sites, 6 of 9 times assimilated"), "{table}");
    for name in ["sigma", "rho", "beta"] {
        assert!(table.contains(&format!("Parameters of the model: {name}\n")), "{table}");
    }
    let problem = Problem::read(d.path().join("a/problem.nc")).unwrap();
    assert_eq!((problem.control().parameters, problem.window.dt, problem.window.steps_per_time), (3, 0.01, 25));
    let text = fs::read_to_string(d.path().join("a/twin.toml")).unwrap();
    for line in ["sites = 3", "parameters = \"sigma=10,rho=28,beta=2.6666666666666665\"", &format!("\"{std}\"")] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let scores = fs::read_to_string(d.path().join("a/scores.json")).unwrap();
    let scores: serde_json::Value = serde_json::from_str(&scores).unwrap();
    let names = scores["methods"][1]["scores"]["parameters"].as_array().unwrap().iter().map(|p| p["name"].clone());
    assert_eq!(names.collect::<Vec<_>>(), ["sigma", "rho", "beta"]);
    // The saved settings give the same again, as a table does and as flags do.
    succeed(&d, &format!("simulate --config a/twin.toml --parameter-std {std} --out b.nc"));
    fs::write(
        d.path().join("f.toml"),
        format!("model = \"lorenz63\"\nparameter-std = {{ {} }}", std.replace(',', ", ")),
    )
    .unwrap();
    succeed(&d, "simulate --config f.toml --out c.nc");
    let same = |name: &str| {
        let other = Problem::read(d.path().join(name)).unwrap();
        assert_eq!((&other.truth, &other.parameter_std), (&problem.truth, &problem.parameter_std), "{name}");
    };
    ["b.nc", "c.nc"].iter().for_each(|name| same(name));
    // Another preset is made of the model's own size and step.
    succeed(&d, "simulate --preset isda-16-mild --model lorenz63 --parameters rho=26 --out d.nc");
    let other = Problem::read(d.path().join("d.nc")).unwrap();
    assert_eq!((other.sites(), other.window.dt, other.window.steps_per_time), (3, 0.01, 10));
    assert_eq!(other.parameters, ndarray::array![[10.0, 26.0, 8.0 / 3.0]]);
    let flags = "--cycles 10 --burn-in 5 --climatology 500 --repeat 2 --windows 1";
    let table = succeed(&d, &format!("cycle --model lorenz63 --backend cpu {flags} --parameter-std {std} --out e"));
    assert!(table.starts_with("lorenz63, 3 sites observed every 0.25 time units"), "{table}");
    assert!(["sigma", "rho", "beta"].iter().all(|name| table.lines().nth(1).unwrap().contains(name)), "{table}");
    let figure = fs::read_to_string(d.path().join("e/parameters.svg")).unwrap();
    assert!(["sigma", "rho", "beta"].iter().all(|name| figure.contains(&format!(">{name}<"))), "a panel for each");
}

#[test]
fn repeated_twins_score_what_each_gives_alone_and_show_the_first() {
    let d = fresh();
    let table = succeed(&d, &format!("twin {SMALL} --precision f64 --repeat 3 --seed 4 --out many"));
    assert!(table.contains("seeds 4 to 6"), "{table}");
    succeed(&d, &format!("twin {SMALL} --precision f64 --seed 4 --out one"));
    let read = |path: &str| read_analysis(d.path().join(path)).unwrap();
    for method in Method::CASE_STUDY {
        let name = method.name();
        let (many, one) = (read(&format!("many/{name}.nc")), read(&format!("one/{name}.nc")));
        assert_eq!(many.problem.truth, one.problem.truth);
        let worst = (&many.analysis.mean - &one.analysis.mean).iter().fold(0.0f64, |a, e| a.max(e.abs()));
        assert!(worst < 1e-6, "{name}: {worst}");
    }
    succeed(&d, &format!("twin {SMALL} --repeat 2 --background-correlation 2 --out correlated"));
}

#[test]
fn only_the_methods_asked_for_run() {
    let d = fresh();
    let table = succeed(&d, &format!("twin {SMALL} --methods vi,prior --out some"));
    assert!(table.contains("Prior") && table.contains("VI-4DVAR") && !table.contains("\n4DVAR"), "{table}");
    assert!(!d.path().join("some/4dvar.nc").exists());
    // Written over, a directory holds the new experiment alone.
    succeed(&d, &format!("twin {SMALL} --methods prior,4dvar,abc --out over"));
    succeed(&d, &format!("twin {SMALL} --methods prior --seed 2 --out over --force"));
    assert!(d.path().join("over/prior.nc").exists() && !d.path().join("over/4dvar.nc").exists());
    assert!(!d.path().join("over/figures/abc-costs.svg").exists());
    assert!(refuse(&d, &format!("twin {SMALL} --methods enkf --out none")).contains("4dvar"));
}

#[test]
fn nothing_is_written_over_without_force() {
    let d = fresh();
    succeed(&d, "simulate --out p.nc");
    let before = bytes(&d, "p.nc");
    assert!(refuse(&d, "simulate --seed 2 --out p.nc").contains("--force"));
    assert_eq!(bytes(&d, "p.nc"), before);
    succeed(&d, "simulate --seed 2 --out p.nc --force");
    assert_ne!(bytes(&d, "p.nc"), before);
    // The settings beside a result are a result too.
    fs::remove_file(d.path().join("p.nc")).unwrap();
    assert!(refuse(&d, "simulate --out p.nc").contains("p.toml"));
    succeed(&d, &format!("twin {SMALL} --out t"));
    fs::remove_file(d.path().join("t/problem.nc")).unwrap();
    assert!(refuse(&d, &format!("twin {SMALL} --out t")).contains("prior.nc"));
    succeed(&d, &format!("twin {SMALL} --out t --force"));
}

#[test]
fn bad_settings_are_refused_with_their_name() {
    let d = fresh();
    let cases = [
        ("--operator cube", "identity, square, cubic, softplus"),
        ("--model l96", "lorenz96"),
        ("--preset isda", "isda-16"),
        ("--kind classical", "classic"),
        ("--sites 3", "at least 4"),
        ("--times 0", "at least one stored time"),
        ("--assimilated-times 99", "assimilated_times"),
        ("--drop 1.1", "drop"),
        ("--drop -0.5", "drop"),
        ("--background-noise -10,20", "background-noise"),
        ("--background-noise 10", "LOW,HIGH"),
        ("--observation-noise 0,5", "observation-noise"),
        ("--block-size 3", "block_size"),
        ("--dt 0", "dt"),
        ("--dt -0.1", "dt"),
        ("--steps-per-time 0", "steps_per_time"),
        ("--parameters forcing=nan", "parameters"),
        ("--parameters sigma=10", "parameters of lorenz96: forcing, found sigma"),
        ("--parameters 8", "NAME=VALUE"),
        ("--parameter-std forcing=0", "parameter-std"),
        ("--true-parameters forcing=inf", "true-parameters"),
        ("--model lorenz63 --sites 4", "3 for lorenz63"),
        ("--model lorenz63 --parameter-std rho=1", "each of sigma, rho, beta"),
        ("--true-steps-per-time 0", "true-steps-per-time"),
        ("--model-error-std -0.1", "model-error-std"),
        ("--model-error-std 0.1 --model-error-interval 0", "model-error-interval"),
        ("--model-error-interval 1", "model-error-std"),
        ("--model-error-std 0.1 --model-error-correlation nan", "model-error-correlation"),
        ("--model-noise nan", "model-noise"),
        ("--sites many", "--sites"),
        ("--seed -1", "--seed"),
        ("--sites 1000000 --times 1000000", "4 GiB"),
        ("--sitse 40", "--sites"),
        ("--out missing/p.nc", "missing"),
    ];
    for (arguments, expected) in cases {
        let message = refuse(&d, &format!("simulate {arguments}"));
        assert!(message.contains(expected), "{arguments}: {message}");
    }
    let cases = [
        ("--iterations 0", "iterations"),
        ("--samples 1", "samples"),
        ("--samples 1000000000", "4 GiB"),
        ("--batch 0", "batch"),
        ("--starts 0", "starts"),
        ("--starts 1000000000", "starts"),
        ("--history 18446744073709551615", "history"),
        ("--smoothing-window 1", "smoothing-window"),
        ("--max-diverged-share 2", "max-diverged-share"),
        ("--learning-rate 0", "learning-rate"),
        ("--repeat 0", "repeat"),
        ("--abc-trials 0", "abc-trials"),
        ("--abc-keep 0", "abc-keep"),
        ("--abc-keep 1e-9", "abc-keep"),
        ("--abc-threshold nan", "abc-threshold"),
        ("--criterion best", "criterion"),
        ("--members 1", "members"),
        ("--members 4000000000", "trajectory"),
        ("--prior-keep 4000000000", "trajectory"),
        ("--perturbation -1", "perturbation"),
        ("--perturbation nan", "perturbation"),
        ("--stages 0", "stages"),
        ("--particles 3", "particles"),
        ("--particles 16777216 --runs 128", "particles"),
        ("--runs 1", "runs"),
        ("--ess-share 1e-9", "ess-share"),
        ("--nuts-chains 1", "nuts-chains"),
        ("--nuts-draws 0", "nuts-draws"),
        ("--repeat 18446744073709551615", "repeat"),
        ("--threads 100000", "threads"),
        ("--adapter nope", "adapter"),
        ("--background-noise 1e-30,1e-30", "background_std"),
        ("--threads 0", "threads"),
        ("--memory 0", "memory"),
        ("--precision f16", "f32, f64"),
        ("--schedule linear", "cosine"),
        ("--hessian exact", "gauss-newton"),
    ];
    for (arguments, expected) in cases {
        let message = refuse(&d, &format!("twin --backend cpu {arguments}"));
        assert!(message.contains(expected), "{arguments}: {message}");
    }
    assert!(refuse(&d, "twin --backend cuda").contains("auto, gpu, cpu"));
    assert!(refuse(&d, "").contains("Usage") || refuse(&d, "").contains("subcommand"));
    assert!(refuse(&d, "twins").contains("twin"));
}

#[test]
fn little_or_nothing_observed_is_no_error() {
    let small = SMALL.replace("--assimilated-times 6", "");
    for few in ["--drop 1", "--time-stride 100", "--assimilated-times 1", "--assimilated-times 1 --observe-initial"] {
        let d = fresh();
        let all = if few.contains("assimilated") { "" } else { "--assimilated-times 6" };
        let table = succeed(&d, &format!("twin {small} {all} --out a {few}"));
        assert!(table.contains("VI-4DVAR"), "{few}: {table}");
    }
}

#[test]
fn steps_beyond_all_bounds_are_a_divergence() {
    let d = fresh();
    let output =
        vi4dvar(&d, &format!("twin {SMALL} --learning-rate 1e6 --out a")).assert().code(1).get_output().clone();
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("diverged") && message.contains("learning rate"), "{message}");
}

#[test]
fn an_input_is_never_written_over() {
    let d = fresh();
    succeed(&d, "simulate --sites 8 --out p.nc");
    let before = bytes(&d, "p.nc");
    let message = refuse(&d, "assimilate p.nc --method vi --backend cpu --out ./p.nc --force");
    assert!(message.contains("written over"), "{message}");
    assert_eq!(bytes(&d, "p.nc"), before);
}

#[test]
fn bad_configurations_are_refused_with_file_and_key() {
    let d = fresh();
    let cases = [
        ("sitse = 40", "`sitse`; the closest known one is `sites`"),
        ("assimilated_times = 4", "`assimilated-times`"),
        ("config = \"g.toml\"", "`config`"),
        ("sites = \"many\"", "--sites"),
        ("sites = -4", "--sites"),
        ("operator = \"cube\"", "identity, square"),
        ("background-noise = [10]", "LOW,HIGH"),
        ("[sites]", "`sites`"),
        ("sites = = 4", "line 1"),
        ("\n\nsites 4", "line 3"),
    ];
    for (text, expected) in cases {
        fs::write(d.path().join("f.toml"), text).unwrap();
        let message = refuse(&d, "simulate --config f.toml");
        assert!(message.contains(expected) && message.contains("f.toml"), "{text}: {message}");
    }
    assert!(refuse(&d, "simulate --config absent.toml").contains("absent.toml"));
}

#[test]
fn bad_files_are_refused() {
    let d = fresh();
    succeed(&d, "simulate --sites 8 --out p.nc");
    succeed(&d, "simulate --sites 12 --out q.nc");
    let other = Problem::read(d.path().join("q.nc")).unwrap();
    let members = |name: &str, states: ndarray::Array2<f64>| {
        write_members(d.path().join(name), states.view(), &Attributes::new(), false).unwrap();
    };
    members("m12.nc", other.background.mean.clone());
    members("nan.nc", ndarray::Array2::from_elem((2, 8), f64::NAN));
    members("good.nc", ndarray::Array2::ones((2, 8)));
    let all = bytes(&d, "p.nc");
    fs::write(d.path().join("short.nc"), &all[..all.len() / 2]).unwrap();
    fs::write(d.path().join("text.nc"), "not NetCDF").unwrap();
    let cases = [
        ("assimilate absent.nc --method vi", "absent.nc"),
        ("assimilate short.nc --method vi", "short.nc"),
        ("assimilate text.nc --method vi", "text.nc"),
        ("assimilate good.nc --method vi", "expected a problem"),
        ("assimilate p.nc --method 3dvar", "4dvar"),
        ("assimilate p.nc", "--method"),
        ("assimilate --method vi", "PROBLEM.nc"),
        ("assimilate p.nc --method vi --out p.nc", "written over"),
        ("assimilate p.nc --method vi --out good.nc", "--force"),
        ("evaluate p.nc", "--members"),
        ("evaluate p.nc --members absent.nc", "absent.nc"),
        ("evaluate p.nc --members p.nc", "initial_state"),
        ("evaluate p.nc --members m12.nc", "8 sites"),
        ("evaluate p.nc --members nan.nc", "NaN"),
        ("evaluate short.nc --members good.nc", "short.nc"),
    ];
    for (arguments, expected) in cases {
        let message = refuse(&d, &format!("{arguments} --backend cpu"));
        assert!(message.contains(expected), "{arguments}: {message}");
    }
    let message = refuse(&d, "compare p.nc");
    assert!(message.contains("expected an analysis"), "{message}");
}

/// Hides every Vulkan driver from the command.
fn without_drivers(command: &mut Command) -> &mut Command {
    command.env("VK_DRIVER_FILES", "/nonexistent").env("VK_ICD_FILENAMES", "/nonexistent").env("WGPU_BACKEND", "vulkan")
}

#[test]
fn gpu_without_an_adapter_is_an_error_and_auto_is_the_cpu() {
    let d = fresh();
    let mut command = vi4dvar(&d, &format!("twin {SMALL} --out gpu --backend gpu").replace("--backend cpu", ""));
    let output = without_drivers(&mut command).assert().code(2).get_output().clone();
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("cpu") && !message.contains("panicked"), "{message}");
    assert!(names(d.path()).is_empty());
    let mut command = vi4dvar(&d, &format!("twin {SMALL} --out auto").replace("--backend cpu", "--backend auto"));
    let output = without_drivers(&mut command).assert().success().get_output().clone();
    assert!(String::from_utf8(output.stdout).unwrap().contains("on CPU"));
    let output = without_drivers(&mut vi4dvar(&d, "devices")).assert().success().get_output().clone();
    assert!(String::from_utf8(output.stdout).unwrap().contains("no GPU adapter"));
}

#[test]
fn quiet_says_nothing_but_the_result() {
    let d = fresh();
    let output = vi4dvar(&d, &format!("twin {SMALL} --out a --quiet")).assert().success().get_output().clone();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    // Standard error is no terminal here, so no bar appears without --quiet either.
    let output = vi4dvar(&d, &format!("twin {SMALL} --out b")).assert().success().get_output().clone();
    assert!(!output.stderr.contains(&b'\r'));
}

#[cfg(unix)]
#[test]
fn a_reader_that_goes_away_is_no_error() {
    let d = fresh();
    let binary = assert_cmd::cargo::cargo_bin("vi4dvar");
    let line = format!("set -o pipefail; '{}' twin {SMALL} --out a --quiet | true", binary.display());
    let status = std::process::Command::new("bash").args(["-c", &line]).current_dir(&d).status().unwrap();
    assert!(status.success());
}

#[test]
fn lists_and_help_need_nothing() {
    let d = fresh();
    assert!(succeed(&d, "simulate --preset list").contains("isda-16-prior"));
    assert!(succeed(&d, "twin --preset list").contains("isda-16-prior"));
    for command in ["twin", "simulate", "assimilate", "evaluate", "devices"] {
        assert!(succeed(&d, &format!("{command} --help")).contains("--config"));
    }
    assert!(succeed(&d, "--version").contains(env!("CARGO_PKG_VERSION")));
    assert!(names(d.path()).is_empty());
}

/// Every flag of a table says its default, and the default is what it says: the saved settings of a run without flags.
#[test]
fn documented_defaults_are_the_defaults() {
    for command in ["twin", "cycle"] {
        documented_defaults_are_the_defaults_of(command);
    }
}

fn documented_defaults_are_the_defaults_of(command: &str) {
    let d = fresh();
    // The CPU, so that no adapter is looked for; a short run, since its settings are all that matters.
    succeed(&d, &format!("{command} --backend cpu --out a"));
    let saved: toml::Table = fs::read_to_string(d.path().join(format!("a/{command}.toml"))).unwrap().parse().unwrap();
    let help = succeed(&d, &format!("{command} --help"));
    let mut unseen: Vec<_> = saved.keys().map(String::as_str).collect();
    let mut flag = None;
    let words = help.split_whitespace().collect::<Vec<_>>();
    for (k, word) in words.iter().enumerate() {
        if let Some(name) = word.strip_prefix("--") {
            flag = name.split('[').next();
        }
        let (true, Some(name)) = (*word == "Default:", flag) else { continue };
        let documented = words[k + 1];
        let actual = match saved.get(name) {
            Some(toml::Value::String(text)) => text.clone(),
            Some(toml::Value::Array(values)) => values
                .iter()
                .map(|v| v.as_str().map_or_else(|| v.to_string(), String::from))
                .map(|v| v.trim_end_matches(".0").to_string())
                .collect::<Vec<_>>()
                .join(","),
            Some(toml::Value::Float(number)) => number.to_string(),
            Some(other) => other.to_string(),
            None => continue,
        };
        let expected = if name == "backend" { "auto" } else { documented };
        assert_eq!((name, if name == "backend" { "auto" } else { &actual }), (name, expected));
        unseen.retain(|n| *n != name);
    }
    assert!(unseen.is_empty(), "{command}: no documented default: {unseen:?}");
}

/// A training that takes no time, of windows that a problem of these sizes is one of.
#[cfg(feature = "neural")]
const TRAINING: &str = "train amortized --quiet --backend cpu --sites 8 --times 8 --assimilated-times 6 --windows 60 --epochs 3 \
                        --network-width 8 --network-layers 1 --training-batch 16";

#[cfg(feature = "neural")]
#[test]
fn train_writes_weights_that_other_commands_read() {
    let d = fresh();
    let text = succeed(&d, TRAINING);
    for word in ["60 windows", "after 3 epochs", "-ELBO", "held out", "weights.nc"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert_eq!(names(d.path()), ["weights.nc", "weights.png", "weights.svg", "weights.toml"]);
    // The saved settings make the same bytes; nothing is written over.
    refuse(&d, TRAINING);
    let before = bytes(&d, "weights.nc");
    succeed(&d, "train amortized --quiet --config weights.toml --out again.nc");
    assert!(before == bytes(&d, "again.nc"), "another network by the same settings");

    let sizes = "--sites 8 --times 8 --assimilated-times 6 --preset amortized-l96 --seed 3";
    succeed(&d, &format!("simulate {sizes} --out problem.nc"));
    let few = "--backend cpu --quiet --samples 20 --importance-draws 500 --iterations 20 --batch 4";
    let text =
        succeed(&d, &format!("assimilate problem.nc --method amortized --weights weights.nc {few} --out amortized.nc"));
    assert!(text.contains("Amortized") && text.contains("convolution network"), "{text}");
    let analysis = read_analysis(d.path().join("amortized.nc")).unwrap().analysis;
    assert_eq!(analysis.samples.shape(), [20, 8, 8]);
    for method in ["--method vi --vi-start amortized", "--method 4dvar --first-start amortized"] {
        succeed(&d, &format!("assimilate problem.nc {method} --weights weights.nc {few} --out other.nc --force"));
        let message = refuse(&d, &format!("assimilate problem.nc {method} {few} --out none.nc"));
        assert!(message.contains("--weights"), "{message}");
    }
    let twin = "--methods prior,amortized,vi --vi-start amortized --weights weights.nc --repeat 2 --out results";
    let table = succeed(&d, &format!("twin {sizes} {few} {twin}"));
    assert!(table.lines().any(|l| l.starts_with("Amortized ")), "{table}");
    assert!(d.path().join("results/amortized.nc").is_file());
    succeed(&d, "compare results/amortized.nc results/vi.nc --out comparison");

    let message =
        refuse(&d, &format!("assimilate problem.nc --method amortized {few} --weights problem.nc --out no.nc"));
    assert!(message.contains("problem.nc") && message.contains("recognition"), "{message}");
    let other = "--sites 8 --times 8 --assimilated-times 5 --preset amortized-l96";
    let message = refuse(&d, &format!("twin {other} {few} --methods amortized --weights weights.nc --out elsewhere"));
    assert!(message.contains("assimilated times"), "{message}");
}

#[cfg(feature = "neural")]
#[test]
fn train_refuses_what_cannot_work() {
    let d = fresh();
    for (flags, word) in [
        ("--windows 1", "windows"),
        ("--network-width 0", "network-width"),
        ("--network-radius 4", "sites"),
        ("--passes 0", "passes"),
        ("--training-draws 1", "training-draws"),
        ("--epochs 0", "epochs"),
        ("--model-error-std 0.1", "initial state alone"),
        ("--out missing/weights.nc", "missing"),
    ] {
        let arguments = TRAINING.split_whitespace().collect::<Vec<_>>();
        let given: Vec<_> = flags.split_whitespace().collect();
        // A flag may be given once.
        let kept = arguments.chunks(1).map(|a| a[0]).collect::<Vec<_>>();
        let position = kept.iter().position(|a| *a == given[0]);
        let mut all: Vec<&str> = kept.clone();
        if let Some(k) = position {
            all.drain(k..k + 2);
        }
        let message = refuse(&d, &[all.join(" "), flags.to_string()].join(" "));
        assert!(message.contains(word), "{flags}: {message}");
    }
    assert!(succeed(&d, "train amortized --preset list").contains("amortized-l96"));
}

#[cfg(not(feature = "neural"))]
#[test]
fn networks_need_their_feature() {
    let d = fresh();
    let message = refuse(&d, "train amortized");
    assert!(message.contains("--features neural"), "{message}");
    succeed(&d, "simulate --out problem.nc");
    let message = refuse(&d, "assimilate problem.nc --method amortized --weights problem.nc --out analysis.nc");
    assert!(message.contains("--features neural"), "{message}");
}

#[cfg(unix)]
#[test]
fn a_configuration_without_end_is_refused() {
    let d = fresh();
    let message = refuse(&d, "simulate --config /dev/zero");
    assert!(message.contains("/dev/zero") && message.contains("at most 1048576 bytes"), "{message}");
}

//! Figures, the report and `compare`: whatever the numbers are, the files can be read, and say what they show.

use assert_cmd::Command;
use ndarray::{Array1, Array2, Array3, s};
use std::path::Path;
use vi4dvar::experiment::{Reference, ScoreTable, TwinSettings, simulate, simulate_set};
use vi4dvar::method::{Analysis, Record};
use vi4dvar::output::{
    Attributes, Figure, MethodReport, Report, Table, check_figures, figures, problem_facts, write_analysis,
    write_figures, write_report, write_scores, write_timings,
};
use vi4dvar::problem::{PointFunction, Problem};
use vi4dvar::random::{Stream, normals};

/// An analysis whose samples lie around something that is not the truth.
fn analysis(problem: &Problem, p: usize, method: &str, samples: usize) -> Analysis {
    let (times, sites) = (problem.window.times, problem.sites());
    let mean = Array2::from_shape_fn((times, sites), |(t, i)| ((3 * t + i) as f64 * 0.7).sin() * 4.0);
    let normal =
        |k: usize, at: usize| f64::from(normals(problem.seeds[p], Stream::Posterior, 0, k as u32, at as u32)[0]);
    let samples_at = |k, t, i| mean[[t, i]] + 0.5 * normal(k, t * sites + i);
    let drawn = Array3::from_shape_fn((samples, times, sites), |(k, t, i)| samples_at(k, t, i));
    Analysis {
        method: method.into(),
        std: Array2::from_elem((times, sites), 0.5),
        samples: drawn,
        mean,
        records: Vec::new(),
        summary: format!("{samples} samples"),
        seconds: 1.25,
    }
}

fn series(name: &str, values: impl Iterator<Item = f64>) -> Record {
    Record::new(name, name, &["iteration"], values.collect::<Array1<f64>>())
}

/// One analysis by each method, with the records that figures read.
fn all_methods(problem: &Problem, p: usize) -> Vec<Analysis> {
    let names = ["Prior", "4DVAR", "ABC", "Ens. 4DVAR", "VI-4DVAR", "Reference"];
    let mut all: Vec<_> = names.iter().map(|name| analysis(problem, p, name, 20)).collect();
    all[1].records = vec![series("minimum_cost", [41.0, 800.0, f64::INFINITY].into_iter())];
    all[2].records = vec![
        Record::new("cost_count", "trials by J_o", &["bin"], Array1::from_vec(vec![2.0, 0.0, 90.0, 8.0])),
        Record::new(
            "cost_bin_edge",
            "edges of the bins of J_o",
            &["bin_edge"],
            Array1::from_vec(vec![8.0, 16.0, 32.0, 64.0, 128.0]),
        ),
        Record::scalar("threshold", "largest J_o kept", 14.5),
        Record::scalar("trials", "trials", 100.0),
        Record::scalar("acceptance_rate", "share", 0.02),
    ];
    let cost =
        Array2::from_shape_fn((150, 12), |(m, k)| if k > 8 + m % 4 { f64::NAN } else { 1e4 / (k + 1 + m % 3) as f64 });
    all[3].records = vec![Record::new("cost", "cost", &["traced_member", "step"], cost)];
    let wave = |k: i32| f64::from(k % 7) / 7.0;
    all[4].records = vec![
        series("elbo", (0..200).map(|k| if k == 50 { f64::NAN } else { -60.0 - 1e3 / f64::from(k + 1) + wave(k) })),
        series("elbo_error", (0..200).map(|_| f64::NAN)),
        series("entropy", (0..200).map(|k| 20.0 - 0.1 * f64::from(k))),
        series("cost_background", (0..200).map(|k| 5.0 + wave(k))),
        series("cost_observation", (0..200).map(|k| 30.0 + 1e3 / f64::from(k + 1))),
    ];
    all
}

fn twin(change: impl FnOnce(&mut TwinSettings)) -> Problem {
    let mut settings = TwinSettings::default();
    change(&mut settings);
    simulate(&settings).unwrap()
}

fn draw(problem: &Problem, analyses: &[Analysis]) -> Vec<Figure> {
    figures(problem, analyses, &ScoreTable::default()).unwrap()
}

/// A drawn figure can be parsed, has a title and axis titles, and only finite numbers inside its page.
fn check(figure: &Figure) {
    let name = figure.name;
    let document = roxmltree::Document::parse(&figure.svg).unwrap_or_else(|e| panic!("{name}: {e}"));
    let root = document.root_element();
    let size = |side: &str| root.attribute(side).unwrap().parse::<f64>().unwrap();
    let (width, height) = (size("width"), size("height"));
    assert!(width == 920.0 && (100.0..3000.0).contains(&height), "{name}: {width} x {height}");
    let texts: Vec<_> = root.descendants().filter(|n| n.has_tag_name("text")).collect();
    let has = |words: &[&str]| texts.iter().any(|t| words.iter().any(|w| t.text().unwrap_or("").contains(w)));
    assert!(root.children().any(|n| n.has_tag_name("title") && n.text() == Some(&figure.title)), "{name}: no title");
    assert!(has(&[figure.title.split_whitespace().next().unwrap()]), "{name}: no heading");
    assert!(has(&["time (", "site", "iteration", "cost", "spread", "twins", "t = 0"]), "{name}: no axis title");
    assert!(figure.caption.len() > 40 && !figure.caption.contains("  "), "{name}: {:?}", figure.caption);
    for node in root.descendants().filter(roxmltree::Node::is_element) {
        for attribute in node.attributes() {
            let value = attribute.value();
            assert!(!value.contains("NaN") && !value.contains("inf"), "{name}: {value}");
            if ["x", "y", "cx", "cy"].contains(&attribute.name()) {
                let at: f64 = value.parse().unwrap_or_else(|e| panic!("{name}: {value}: {e}"));
                let limit = if attribute.name().ends_with('x') { width } else { height };
                assert!((-1.0..=limit + 1.0).contains(&at), "{name}: {} = {at} of {limit}", attribute.name());
            }
        }
        if let Some(size) = node.attribute("font-size") {
            assert!(size.parse::<f64>().unwrap() >= 11.0, "{name}: text of {size} pixels");
        }
    }
    for path in root.descendants().filter_map(|n| n.attribute("d")) {
        let numbers = path.split(|c: char| !(c.is_ascii_digit() || c == '.' || c == '-')).filter(|n| !n.is_empty());
        for number in numbers {
            let at: f64 = number.parse().unwrap_or_else(|e| panic!("{name}: {number}: {e}"));
            assert!(at.abs() <= width.max(height) + 1.0, "{name}: {at}");
        }
    }
    // The PNG's header states its size; its pixels come out whole.
    let pixels = tiny_skia::Pixmap::decode_png(&figure.png).unwrap_or_else(|e| panic!("{name}: {e}"));
    let twice = |length: f64| (2.0 * length).round() as u32;
    assert_eq!((pixels.width(), pixels.height()), (twice(width), twice(height)), "{name}");
}

fn names(figures: &[Figure]) -> Vec<&str> {
    figures.iter().map(|f| f.name).collect()
}

const OF_ONE_TWIN: [&str; 10] = [
    "data",
    "hovmoller",
    "error-and-spread",
    "trajectories",
    "lead-time",
    "spread-skill",
    "covariances",
    "vi-convergence",
    "ensemble-convergence",
    "abc-costs",
];

#[test]
fn every_figure_is_whole_and_labelled() {
    let problem = twin(|_| {});
    let drawn = draw(&problem, &all_methods(&problem, 0));
    assert_eq!(names(&drawn), OF_ONE_TWIN);
    drawn.iter().for_each(check);
}

#[test]
fn repeated_twins_add_their_figures() {
    let settings = TwinSettings { sites: 6, times: 5, assimilated_times: 3, ..TwinSettings::default() };
    let seeds: Vec<u64> = (1..=20).collect();
    let set = simulate_set(&settings, &seeds).unwrap();
    let per_twin: Vec<_> = (0..20).map(|p| all_methods(&set, p)).collect();
    let by_method: Vec<Vec<_>> = (0..6).map(|m| per_twin.iter().map(|all| all[m].clone()).collect()).collect();
    let table = ScoreTable::new(&set, &by_method, Some(Reference { method: 5, agreed: &[true; 20] }));
    let drawn = figures(&set.single(0), &per_twin[0], &table).unwrap();
    assert_eq!(names(&drawn)[10..], ["scores", "rank-histograms", "repeated-spread-skill"]);
    drawn.iter().for_each(check);
}

#[test]
fn what_is_not_there_is_left_out_and_what_is_odd_is_drawn() {
    let without_truth = Problem { truth: None, ..twin(|_| {}) };
    let drawn = draw(&without_truth, &all_methods(&without_truth, 0));
    assert!(!names(&drawn).contains(&"lead-time") && names(&drawn).contains(&"hovmoller"));
    drawn.iter().for_each(check);
    assert_eq!(names(&draw(&without_truth, &[])), ["data"]);

    // One time, nothing observed; everything assimilated; block means; a correlated background; a readable operator.
    let cases: [fn(&mut TwinSettings); 5] = [
        |s| (s.times, s.assimilated_times, s.drop) = (1, 1, 1.0),
        |s| s.assimilated_times = s.times,
        |s| s.block_size = 4,
        |s| s.background_correlation = 2.0,
        |s| (s.operator, s.drop) = (PointFunction::Identity, 0.9),
    ];
    for change in cases {
        let problem = twin(change);
        draw(&problem, &all_methods(&problem, 0)).iter().for_each(check);
    }

    let mut one_site = twin(|_| {});
    one_site.observations.slice_mut(s![0, .., 1..]).fill(f64::NAN);
    one_site.observations.slice_mut(s![0, .., 0]).fill(3.0);
    let mut odd = all_methods(&one_site, 0);
    odd.truncate(2);
    odd[0] = analysis(&one_site, 0, "Prior", 1);
    odd[0].mean.fill(0.0);
    odd[0].std.fill(0.0);
    odd[0].samples.fill(0.0);
    odd[1].samples.slice_mut(s![3, .., ..]).fill(1e30);
    odd[1].samples.slice_mut(s![4, .., ..]).fill(-1e300);
    odd[1].std.fill(1e-300);
    odd[1].mean.fill(1e200);
    draw(&one_site, &odd).iter().for_each(check);
}

#[test]
fn a_thousand_sites_stay_a_small_picture() {
    let problem = twin(|s| (s.sites, s.times, s.assimilated_times) = (1000, 6, 4));
    let all: Vec<_> = ["Prior", "VI-4DVAR"].iter().map(|m| analysis(&problem, 0, m, 5)).collect();
    for figure in draw(&problem, &all) {
        check(&figure);
        assert!(figure.svg.len() < 600_000, "{}: {} bytes", figure.name, figure.svg.len());
    }
}

#[test]
fn same_input_gives_the_same_bytes() {
    let problem = twin(|_| {});
    let all = all_methods(&problem, 0);
    for (a, b) in draw(&problem, &all).iter().zip(draw(&problem, &all)) {
        assert!(a.svg == b.svg && a.png == b.png, "{}", a.name);
    }
}

#[test]
fn figures_of_another_problem_are_refused() {
    let (problem, other) = (twin(|_| {}), twin(|s| s.sites = 8));
    let error = figures(&problem, &[analysis(&other, 0, "4DVAR", 3)], &ScoreTable::default()).unwrap_err();
    assert!(error.to_string().contains("analysis by 4DVAR: expected shape [16, 16], found [16, 8]"), "{error}");
}

#[test]
fn nothing_is_written_over_without_force() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("figures");
    let problem = twin(|_| {});
    let drawn = draw(&problem, &all_methods(&problem, 0)[..1]);
    check_figures(&place, false).unwrap();
    write_figures(&place, &drawn, false).unwrap();
    assert!(place.join("data.svg").is_file() && place.join("hovmoller.png").is_file());
    let error = check_figures(&place, false).unwrap_err();
    assert!(error.to_string().contains("exists already"), "{error}");
    assert!(write_figures(&place, &drawn, false).is_err());
    write_figures(&place, &drawn, true).unwrap();
}

/// A report on a method whose name and summary want to be markup.
fn hostile_report(directory: &Path) -> String {
    let problem = twin(|_| {});
    let mut all = all_methods(&problem, 0);
    all[4].method = "<script>alert(1)</script> & \"VI\"".into();
    all[4].summary = "<img src=x onerror=alert(1)>".into();
    let table = ScoreTable::new(&problem, &all.iter().map(|a| vec![a.clone()]).collect::<Vec<_>>(), None);
    let report = Report {
        title: "Case <study>".into(),
        about: "A & B".into(),
        command: "vi4dvar twin".into(),
        problem: problem_facts(&problem),
        hardware: vec![("adapter".into(), "<b>none</b>".into())],
        settings: "seed = 1 # </code></pre><script>".into(),
        methods: all.iter().map(|a| MethodReport::of(a, a.seconds)).collect(),
        tables: Table::scores(&table),
        figures: figures(&problem, &all, &table).unwrap(),
    };
    let path = directory.join("report.html");
    write_report(&path, &report, false).unwrap();
    assert!(write_report(&path, &report, false).is_err());
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn report_is_complete_in_itself_and_escapes_what_it_is_given() {
    let directory = tempfile::tempdir().unwrap();
    let html = hostile_report(directory.path());
    for part in ["<script", "<link", "<img", "<iframe", "@import", "url(", "src=\"", "<b>none"] {
        assert!(!html.contains(part), "{part}");
    }
    let links: Vec<_> = html.split("href=\"").skip(1).map(|l| l.split('"').next().unwrap()).collect();
    assert!(links.len() > 10 && links.iter().all(|l| l.starts_with('#')), "{links:?}");
    for link in links {
        assert!(html.contains(&format!("id=\"{}\"", &link[1..])), "{link} leads nowhere");
    }
    assert!(!html.replace("xmlns=\"http://www.w3.org/2000/svg\"", "").contains("http"));
    for text in ["Case &lt;study&gt;", "about 226", "about 113", "1.25", "RMSE of the mean", "Fair CRPS"] {
        assert!(html.contains(text), "{text} is missing");
    }
    assert_eq!(html.matches("<svg").count(), OF_ONE_TWIN.len());
    assert!(html.contains("&lt;img src=x onerror=alert(1)&gt;"));
}

#[test]
fn scores_are_the_same_bytes_whatever_the_time_and_times_live_apart() {
    let directory = tempfile::tempdir().unwrap();
    let problem = twin(|_| {});
    let write = |name: &str, seconds: f64| {
        let mut one = analysis(&problem, 0, "4DVAR", 5);
        one.seconds = seconds;
        let table = ScoreTable::new(&problem, &[vec![one]], None);
        write_scores(directory.path().join(format!("{name}.json")), &table, false).unwrap();
        write_timings(directory.path().join(format!("{name}-times.json")), &table, false).unwrap();
        let read = |file: String| std::fs::read_to_string(directory.path().join(file)).unwrap();
        (read(format!("{name}.json")), read(format!("{name}-times.json")))
    };
    let ((scores, times), (again, others)) = (write("a", 1.5), write("b", f64::NAN));
    assert_eq!(scores, again);
    let seconds = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap()["seconds"]["4DVAR"].clone();
    assert_eq!((seconds(&times), seconds(&others)), (1.5.into(), serde_json::Value::Null));
}

fn save(directory: &Path, name: &str, problem: &Problem, analysis: &Analysis) {
    write_analysis(directory.join(name), problem, analysis, &Attributes::new(), false).unwrap();
}

fn compare(directory: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vi4dvar"));
    let output = command.current_dir(directory).arg("compare").args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn compare_shows_analyses_of_one_problem_side_by_side() {
    let directory = tempfile::tempdir().unwrap();
    let problem = twin(|s| (s.sites, s.times, s.assimilated_times) = (8, 6, 4));
    let all = all_methods(&problem, 0);
    save(directory.path(), "map.nc", &problem, &all[1]);
    save(directory.path(), "short.nc", &problem, &all[4]);
    save(directory.path(), "long.nc", &problem, &all[4]);
    let (code, out, error) = compare(directory.path(), &["map.nc", "short.nc", "long.nc", "--out", "both"]);
    assert_eq!(code, 0, "{error}");
    for name in ["4DVAR", "VI-4DVAR (short)", "VI-4DVAR (long)"] {
        assert!(out.contains(name), "{name}: {out}");
    }
    for file in ["scores.json", "report.html", "figures/lead-time.svg", "figures/vi-convergence.png"] {
        assert!(directory.path().join("both").join(file).is_file(), "{file}");
    }
    let (code, _, error) = compare(directory.path(), &["map.nc", "--out", "both"]);
    assert!(code == 2 && error.contains("--force"), "{code}: {error}");
    let (code, _, error) = compare(directory.path(), &["map.nc", "--out", "both", "--force"]);
    assert_eq!(code, 0, "{error}");
}

#[test]
fn compare_refuses_analyses_of_different_problems() {
    let directory = tempfile::tempdir().unwrap();
    let small = |s: &mut TwinSettings| (s.sites, s.times, s.assimilated_times) = (8, 6, 4);
    let problem = twin(small);
    save(directory.path(), "a.nc", &problem, &analysis(&problem, 0, "4DVAR", 3));
    type Change = fn(&mut TwinSettings);
    let cases: [(&str, Change); 4] = [
        ("sites 12, not 8", |s| s.sites = 12),
        ("window of", |s| s.assimilated_times = 3),
        ("observation operator cubic over 1 sites, not square", |s| s.operator = PointFunction::Cubic),
        ("other numbers in its observations", |s| s.observation_noise = [20.0, 30.0]),
    ];
    for (k, (words, change)) in cases.into_iter().enumerate() {
        let other = twin(|s| {
            small(s);
            change(s);
        });
        let name = format!("b{k}.nc");
        save(directory.path(), &name, &other, &analysis(&other, 0, "VI-4DVAR", 3));
        let (code, out, error) = compare(directory.path(), &["a.nc", &name, "--out", "both"]);
        assert_eq!((code, out.as_str()), (2, ""), "{error}");
        assert!(error.starts_with(&format!("error: {name}: expected the problem of a.nc")), "{error}");
        assert!(error.contains(words) && error.lines().count() == 1, "{words}: {error}");
        assert!(!directory.path().join("both").exists());
    }
}

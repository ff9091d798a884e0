//! What is assimilated: truth, background, B^-1, observations and R^-1 as heat maps.

use super::axis::Axis;
use super::canvas::Frame;
use super::heat::{self, BAR, Scale};
use super::panel::{TIME, Written, heading, titled, x_axis, y_axis};
use super::style::{INK, MARGIN, WIDTH};
use super::{Case, Drawing};
use ndarray::{Array2, Axis as Side};

const LEFT: f64 = MARGIN + 52.0;
const HEIGHT: f64 = 210.0;

pub fn draw(case: &Case) -> Option<Drawing> {
    let problem = case.problem;
    let (times, sites, window) = (problem.window.times, problem.sites(), &problem.window);
    let observations = problem.observations_of(0);
    let coarse = if heat::coarse(sites.max(times)) { " Cells are means over blocks." } else { "" };
    let note = format!(
        "{} of {} observations of the assimilated times are there; blank cells were not observed.{coarse}",
        problem.assimilated_count(0),
        window.assimilated_times * problem.observations_per_time()
    );
    let (mut canvas, top) = titled("What is assimilated", &note);
    let time = Axis::cells(times, 6, |t| super::axis::plain(window.time(t)));
    let site = Axis::cells(sites, 6, |i| i.to_string());
    let wide = (WIDTH - LEFT - MARGIN - 2.0 * BAR - 60.0) / 2.0;
    let first = Frame { x: LEFT, y: top + 22.0, w: wide, h: HEIGHT };
    let second = Frame { x: LEFT + wide + BAR + 60.0, ..first };
    let mark = |canvas: &mut _, frame, named| {
        heat::mark_forecast(canvas, frame, times, window.assimilated_times, named);
    };

    // First row: the background beside the truth on one scale, then B^-1.
    let background = problem.background.mean_of(0).to_owned().insert_axis(Side(0));
    let truth = problem.truth_of(0);
    let state = Scale::amounts(background.iter().chain(truth.iter().flatten()).copied());
    let strip = Frame { w: if truth.is_some() { 44.0 } else { wide }, ..first };
    let site_axis = Written::full("site");
    heading(&mut canvas, Frame { w: wide, ..strip }, if truth.is_some() { "xb" } else { "Background xb, t = 0" }, INK);
    heat::heat(&mut canvas, strip, background.view(), &state, false);
    y_axis(&mut canvas, strip, &site, site_axis);
    x_axis(&mut canvas, strip, &Axis::cells(1, 1, |_| "0".into()), Written { labels: true, title: None });
    if let Some(truth) = truth {
        let frame = Frame { x: strip.right() + 18.0, w: wide - strip.w - 18.0, ..strip };
        heading(&mut canvas, frame, "Truth", INK);
        heat::heat(&mut canvas, frame, truth, &state, false);
        x_axis(&mut canvas, frame, &time, Written::full(TIME));
        y_axis(&mut canvas, frame, &site, Written { labels: false, title: None });
        mark(&mut canvas, frame, true);
        heat::bar(&mut canvas, frame, &state, "state x");
    } else {
        heat::bar(&mut canvas, strip, &state, "state x");
    }
    let precision = problem.background.precision_of(0);
    let signed = precision.iter().any(|v| *v < 0.0);
    let values = precision.mapv(|v| if v == 0.0 { f64::NAN } else { v });
    let scale = if signed { Scale::signed(values.iter().copied()) } else { Scale::amounts(values.iter().copied()) };
    let square = Frame { w: HEIGHT, ..second };
    heading(&mut canvas, Frame { w: wide, ..square }, "Background precision B⁻¹", INK);
    heat::heat(&mut canvas, square, values.view(), &scale, true);
    heat::matrix_axis(&mut canvas, square, &site, site_axis);
    x_axis(&mut canvas, square, &site, site_axis);
    heat::bar(&mut canvas, square, &scale, "1 / variance");

    // Second row: the observations and R^-1.
    let (first, second) =
        (Frame { y: first.y + HEIGHT + 76.0, ..first }, Frame { y: first.y + HEIGHT + 76.0, ..second });
    let name = if problem.operator.block_size == 1 { "site" } else { "block of sites" };
    let place = Axis::cells(problem.observations_per_time(), 6, |i| i.to_string());
    let std = problem.observation_std_of(0);
    let precision = Array2::from_shape_fn(std.dim(), |k| match observations[k].is_nan() {
        true => f64::NAN,
        false => 1.0 / (std[k] * std[k]),
    });
    let panels = [
        (
            first,
            format!("Observations y, operator {}", problem.operator.function.name()),
            observations,
            "observation y",
        ),
        (second, "Observation precision R⁻¹".into(), precision.view(), "1 / variance"),
    ];
    for (frame, title, values, label) in panels {
        let scale = Scale::amounts(values.iter().copied());
        heading(&mut canvas, frame, &title, INK);
        heat::heat(&mut canvas, frame, values, &scale, false);
        x_axis(&mut canvas, frame, &time, Written::full(TIME));
        y_axis(&mut canvas, frame, &place, Written::full(name));
        mark(&mut canvas, frame, false);
        heat::bar(&mut canvas, frame, &scale, label);
    }
    canvas.height = second.bottom() + 44.0;
    let caption = "Everything that the methods are given, and beside it the truth that they are not. The dashed line is \
                   where the assimilated times end: observations after it are kept for verification.";
    Some(Drawing { title: "What is assimilated", caption: caption.into(), canvas })
}

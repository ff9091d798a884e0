//! Cycled assimilation: error and spread of the analysis against time, estimated parameters against time, and the error by
//! window and factor on B.

use super::axis::Axis;
use super::canvas::{Anchor, Canvas, Frame, Pen};
use super::font;
use super::heat::{BAR, Scale, bar, heat};
use super::panel::{Entry, Grid, Plot, Sample, TIME, Written, heading, legend, titled, x_axis, y_axis};
use super::style::{BLANK, Color, FAINT, INK, INSET, LABEL, MARGIN, Map, WIDTH};
use super::{Drawing, Figure};
use crate::experiment::{CycledErrors, CycledMethod, CycledScores, Cycles};
use ndarray::{Array2, Array3, ArrayView2, Axis as Side, s};

/// Points of a line at most: more cycles are shown as means over blocks of them.
const POINTS: usize = 240;

/// The figures `cycles`; `parameters` where some are estimated; `windows` where there are several windows or factors.
pub fn cycle_figures(cycles: &Cycles) -> Vec<Figure> {
    let scores = cycles.scores();
    let drawn = [
        draw(cycles).finish("cycles"),
        parameters(cycles).and_then(|d| d.finish("parameters")),
        windows(cycles, &scores).and_then(|d| d.finish("windows")),
    ];
    drawn.into_iter().flatten().collect()
}

/// The windows or factors that there are, each once and in ascending order.
fn distinct(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.dedup();
    values
}

/// Mean over seeds and over blocks of cycles, at the blocks' middles: of values `[seeds, cycles]`.
fn line(cycles: &Cycles, values: ArrayView2<f64>) -> Vec<(f64, f64)> {
    let size = cycles.count().div_ceil(POINTS);
    let mean = values.mean_axis(Side(0)).expect("at least one seed");
    let middle = |k: usize, len: usize| (k * size) as f64 + 0.5 * (len as f64 + 1.0);
    mean.axis_chunks_iter(Side(0), size)
        .enumerate()
        .map(|(k, block)| (middle(k, block.len()) * cycles.interval, block.mean().unwrap_or(f64::NAN)))
        .filter(|(_, value)| value.is_finite())
        .collect()
}

/// Panels below each other, one for each method and window, and the colours in them: of factors and of inflations, each
/// kind from its smallest to its largest.
struct Panels<'a> {
    cycles: &'a Cycles,
    groups: Vec<Vec<&'a CycledErrors>>,
    factors: Vec<f64>,
    inflations: Vec<f64>,
}

impl<'a> Panels<'a> {
    fn new(cycles: &'a Cycles) -> Self {
        let mut groups: Vec<Vec<&CycledErrors>> = Vec::new();
        for errors in cycles.methods.iter().filter(|e| !e.method.is_baseline()) {
            let same = |a: CycledMethod| a.name() == errors.method.name() && a.window() == errors.method.window();
            match groups.iter_mut().find(|group| same(group[0].method)) {
                Some(group) => group.push(errors),
                None => groups.push(vec![errors]),
            }
        }
        let of = |f: fn(CycledMethod) -> Option<f64>| {
            distinct(groups.iter().flatten().filter_map(|errors| f(errors.method)))
        };
        Self { cycles, factors: of(CycledMethod::factor), inflations: of(CycledMethod::inflation), groups }
    }

    fn color(&self, method: CycledMethod) -> Color {
        let (map, all, value, first) = match (method.factor(), method.inflation()) {
            (Some(factor), _) => (Map::Amount, &self.factors, factor, 0.0),
            (None, inflation) => (Map::OtherAmount, &self.inflations, inflation.unwrap_or(1.0), 0.3),
        };
        let rank = all.iter().position(|v| *v == value).unwrap_or(0);
        // The scale's lightest end would not be seen on white.
        map.color(first + (0.85 - first) * rank as f64 / (all.len().max(2) - 1) as f64)
    }

    fn pen(&self, method: CycledMethod, width: f64) -> Pen {
        match method {
            CycledMethod::Climatology => Pen::new(FAINT, 1.2).dashed(2.0),
            CycledMethod::OptimalInterpolation => Pen::new(FAINT, 1.2).dashed(6.0),
            method => Pen::new(self.color(method), width),
        }
    }

    /// What the colours mean.
    fn entries(&self) -> Vec<Entry> {
        let mut entries: Vec<Entry> = Vec::new();
        for errors in self.groups.iter().flatten() {
            let label = match (errors.method.factor(), errors.method.inflation()) {
                (Some(factor), _) => format!("B = {factor} {}", self.cycles.covariance),
                (None, inflation) => format!("B = {} P, carried", inflation.unwrap_or(1.0)),
            };
            if entries.iter().all(|e| e.label != label) {
                entries.push(Entry::new(label, Sample::Line(self.pen(errors.method, 2.0))));
            }
        }
        entries
    }

    /// Draws every panel: axes, the burn-in, what `inside` puts there, and the name.
    fn draw(
        &self,
        canvas: &mut Canvas,
        top: f64,
        (name, y): (&str, &Axis),
        inside: impl Fn(&mut Canvas, &Plot, &[&CycledErrors]),
    ) {
        let left = MARGIN + 56.0;
        let width = WIDTH - left - MARGIN - INSET;
        let grid = Grid { left, top, width, columns: 1, height: 170.0, gaps: (0.0, 36.0) };
        let end = self.cycles.count() as f64 * self.cycles.interval;
        let burn_in = self.cycles.burn_in as f64 * self.cycles.interval;
        for (row, group) in self.groups.iter().enumerate() {
            let plot = Plot { frame: grid.panel(row, 0), x: Axis::between(0.0, end, 8), y: y.clone() };
            let edge = plot.x.place(burn_in, plot.frame.x, plot.frame.right());
            canvas.rect(Frame { w: edge - plot.frame.x, ..plot.frame }, BLANK, 1.0);
            plot.draw_axes(canvas, Written::at_edge(row + 1 == self.groups.len(), TIME), Written::full(name));
            plot.mark(canvas, burn_in, Pen::new(FAINT, 1.0).dashed(4.0));
            inside(canvas, &plot, group);
            plot.close(canvas);
            let method = group[0].method;
            let title = match method.window() {
                0 => method.name().into(),
                1 => format!("{}, window of 1 interval", method.name()),
                window => format!("{}, window of {window} intervals", method.name()),
            };
            heading(canvas, plot.frame, &title, INK);
        }
        canvas.height = grid.all(self.groups.len()).bottom() + 44.0;
    }

    /// What is averaged, for the note.
    fn blocks(&self) -> String {
        match self.cycles.count().div_ceil(POINTS) {
            1 => String::new(),
            size => format!(" and over {size} cycles each"),
        }
    }
}

fn draw(cycles: &Cycles) -> Drawing {
    let panels = Panels::new(cycles);
    let carried = !panels.inflations.is_empty();
    let title =
        if carried { "Error and spread of the analysis against time" } else { "Error of the analysis against time" };
    let spread = if carried { " Dotted: the spread, where a method has one." } else { "" };
    let note = format!(
        "RMSE at the window's end, mean over seeds{}.{spread} Shaded: the burn-in, which is not scored.",
        panels.blocks()
    );
    let (mut canvas, top) = titled(title, &note);
    let baselines: Vec<_> = cycles.methods.iter().filter(|e| e.method.is_baseline()).collect();
    let mut entries: Vec<_> =
        baselines.iter().map(|e| Entry::new(e.method.name(), Sample::Line(panels.pen(e.method, 1.2)))).collect();
    entries.extend(panels.entries());
    let top = legend(&mut canvas, top + 8.0, &entries);
    let lines = |e: &CycledErrors| [line(cycles, e.analysis.view()), line(cycles, e.spread.view())].concat();
    let values: Vec<f64> = cycles.methods.iter().flat_map(lines).map(|(_, v)| v).collect();
    let y = Axis::positive(values.into_iter(), 4);
    panels.draw(&mut canvas, top + 24.0, ("RMSE", &y), |canvas, plot, group| {
        for errors in baselines.iter().chain(group) {
            plot.line(canvas, line(cycles, errors.analysis.view()).into_iter(), panels.pen(errors.method, 1.5));
            let spread = line(cycles, errors.spread.view());
            plot.line(canvas, spread.into_iter(), panels.pen(errors.method, 1.5).dashed(1.5));
        }
    });
    let caption = "A filter that works comes down from its first background's error and stays far below climatology and \
                   optimal interpolation; bursts of error say that B is too small for the window. A spread below the error is \
                   too sure of itself.";
    Drawing { title, caption: caption.into(), canvas }
}

/// The estimate of each parameter against time, one parameter below the other.
fn parameters(cycles: &Cycles) -> Option<Drawing> {
    let panels = Panels::new(cycles);
    let first = panels.groups.first()?.first()?;
    let count = first.parameter_mean.len_of(Side(2));
    if count == 0 {
        return None;
    }
    let title = if count == 1 { "Estimated parameter against time" } else { "Estimated parameters against time" };
    let note = format!(
        "Posterior mean, averaged over seeds{}, with the mean posterior deviation around it; dashed: the truth.",
        panels.blocks()
    );
    let (mut canvas, top) = titled(title, &note);
    let mut top = legend(&mut canvas, top + 8.0, &panels.entries()) + 24.0;
    for k in 0..count {
        let (truth, name) = (cycles.true_parameters[k], cycles.parameter_names[k]);
        let of = |values: &Array3<f64>| line(cycles, values.slice(s![.., .., k]));
        let band = |errors: &CycledErrors| -> Vec<(f64, f64, f64)> {
            let (mean, std) = (of(&errors.parameter_mean), of(&errors.parameter_std));
            mean.into_iter().zip(std).map(|((x, mean), (_, std))| (x, mean - std, mean + std)).collect()
        };
        let values = panels.groups.iter().flatten().flat_map(|e| band(e)).flat_map(|(_, low, high)| [low, high]);
        let y = Axis::linear(values.chain([truth]).collect::<Vec<_>>().into_iter(), 5);
        panels.draw(&mut canvas, top, (name, &y), |canvas, plot, group| {
            for errors in group {
                plot.band(canvas, band(errors).into_iter(), panels.color(errors.method), 0.25);
            }
            for errors in group {
                plot.line(canvas, of(&errors.parameter_mean).into_iter(), panels.pen(errors.method, 1.5));
            }
            plot.level(canvas, truth, Pen::new(INK, 1.2).dashed(5.0));
        });
        top = canvas.height + 28.0;
    }
    let caption = "The band is what a single experiment believes. It shrinks until it balances what each cycle forgets; a mean \
                   that settles beside the truth by more than the band says that something else in the model is wrong.";
    Some(Drawing { title, caption: caption.into(), canvas })
}

fn windows(cycles: &Cycles, scores: &[CycledScores]) -> Option<Drawing> {
    let of = |names: [&str; 2]| -> Vec<_> { scores.iter().filter(|s| names.contains(&s.method)).collect() };
    let groups = [("3DVar and 4DVar", of(["3DVar", "4DVar"])), ("VAE-Var", of(["VAE-3DVar", "VAE-4DVar"]))];
    let groups: Vec<_> = groups.into_iter().filter(|(_, cells)| !cells.is_empty()).collect();
    let all = || groups.iter().flat_map(|(_, cells)| cells);
    let windows = distinct(all().map(|s| s.window as f64));
    let factors = distinct(all().filter_map(|s| s.factor));
    if windows.len() * factors.len() < 2 {
        return None;
    }
    let title = "Error by window and factor on B";
    let note = format!("Mean RMSE at the window's end over the scored cycles and seeds; B = x {}.", cycles.covariance);
    let (mut canvas, mut top) = titled(title, &note);
    let left = MARGIN + 60.0;
    let width = (WIDTH - left - MARGIN - BAR).min(factors.len() as f64 * 200.0);
    let height = (windows.len() as f64 * 60.0).max(150.0);
    let scale = Scale::logarithmic(all().map(|s| s.analysis.mean).filter(|v| v.is_finite()));
    let x = Axis::cells(factors.len(), factors.len(), |k| factors[k].to_string());
    let y = Axis::cells(windows.len(), windows.len(), |k| windows[k].to_string());
    for (name, cells) in &groups {
        let mut values = Array2::from_elem((factors.len(), windows.len()), f64::NAN);
        for cell in cells {
            let at = |list: &[f64], value: f64| list.iter().position(|v| *v == value).expect("it is in its own list");
            values[[at(&factors, cell.factor?), at(&windows, cell.window as f64)]] = cell.analysis.mean;
        }
        let frame = Frame { x: left, y: top + 34.0, w: width, h: height };
        heading(&mut canvas, frame, name, INK);
        heat(&mut canvas, frame, values.view(), &scale, false);
        x_axis(&mut canvas, frame, &x, Written::full(&format!("factor x on {}", cycles.covariance_name())));
        y_axis(&mut canvas, frame, &y, Written::full("window (intervals)"));
        for ((i, j), value) in values.indexed_iter().filter(|(_, v)| v.is_finite()) {
            let text = format!("{value:.3}");
            let at = (x.place(i as f64, frame.x, frame.right()), y.place(j as f64, frame.bottom(), frame.y));
            let pad = font::width(&text, LABEL, true) / 2.0 + 5.0;
            canvas.rect(Frame { x: at.0 - pad, y: at.1 - 9.0, w: 2.0 * pad, h: 18.0 }, [255; 3], 0.85);
            canvas.styled((at.0, at.1 + 4.5), &text, LABEL, Anchor::Middle, true, INK);
        }
        bar(&mut canvas, frame, &scale, "RMSE");
        top = frame.bottom() + 44.0;
    }
    canvas.height = top;
    let caption =
        "Longer windows carry more of the past's information and want a smaller B; too small a B loses the truth.";
    Some(Drawing { title, caption: caption.into(), canvas })
}

//! ABC: the costs of all trials, and the threshold below which they are kept.

use super::axis::{Axis, bounds};
use super::canvas::{Frame, Pen};
use super::panel::{Entry, Grid, Plot, Sample, Written, heading, legend, titled};
use super::style::{INK, INSET, MARGIN, WIDTH, pale};
use super::{Case, Drawing};

/// How strong the colour of rejected trials is.
const REJECTED: f64 = 0.35;

pub fn draw(case: &Case) -> Option<Drawing> {
    let histograms: Vec<_> = case
        .analyses
        .iter()
        .zip(&case.colors)
        .filter_map(|(a, c)| {
            let (counts, edges) = (&a.record("cost_count")?.values, &a.record("cost_bin_edge")?.values);
            // Without observations every cost is 0, which a logarithmic axis has not.
            let threshold = a.number("threshold").unwrap_or(f64::NAN);
            let fits = counts.sum() > 0.0 && edges.len() == counts.len() + 1 && threshold > 0.0;
            fits.then(|| (a, *c, counts.iter().copied().collect::<Vec<_>>(), edges.iter().copied().collect::<Vec<_>>()))
        })
        .collect();
    let (first, first_color, ..) = histograms.first()?;
    // "trials by J_o"
    let symbol =
        |text: &str| text.rsplit(' ').next().map_or("J".into(), |s| s.replace("J_o", "Jo").replace("J_b", "Jb"));
    let cost = symbol(&first.record("cost_count")?.long_name);
    let title = "ABC: costs of the trials, and which are kept";
    let note = format!(
        "Trials from the prior by their cost {cost}, as a density over its logarithm; kept are those left of the threshold."
    );
    let (mut canvas, top) = titled(title, &note);
    let entries = [
        Entry::new("kept", Sample::Patch(*first_color, 1.0)),
        Entry::new("rejected", Sample::Patch(*first_color, REJECTED)),
        Entry::new("threshold", Sample::Line(Pen::new(INK, 1.6).dashed(5.0))),
    ];
    let top = legend(&mut canvas, top + 8.0, &entries);
    let left = MARGIN + 60.0;
    let height = 240.0;
    let mut grid =
        Grid { left, top: top + 22.0, width: WIDTH - left - MARGIN - INSET, columns: 1, height, gaps: (0.0, 66.0) };
    for (analysis, color, counts, edges) in &histograms {
        // The least edge may be 0, which a logarithmic axis has not.
        let least = edges.iter().copied().find(|e| *e > 0.0)?;
        let x = Axis::log(least.min(edges[edges.len() - 1] / 2.0), edges[edges.len() - 1]);
        // Bins differ in width: heights are densities, so that areas are trials.
        let density = |(count, edge): (&f64, &[f64])| count / (edge[1] / edge[0].max(least / 2.0)).log2();
        let densities: Vec<f64> = counts.iter().zip(edges.windows(2)).map(density).collect();
        let (low, high) = bounds(densities.iter().copied().filter(|d| *d > 0.0));
        let plot = Plot { frame: grid.panel(0, 0), x, y: Axis::log(low / 2.0, high * 1.6) };
        plot.draw_axes(&mut canvas, Written::full(&format!("cost {cost}")), Written::full("trials per factor of 2"));
        let threshold = analysis.number("threshold").filter(|t| *t > 0.0);
        let floor = plot.frame.bottom();
        for (density, edge) in densities.iter().zip(edges.windows(2)).filter(|(d, _)| **d > 0.0) {
            let (from, to) = (edge[0].max(least), edge[1]);
            let (x0, y) = plot.at((from, *density));
            let x1 = plot.at((to, *density)).0;
            // The bin of the threshold is kept in part.
            let split = threshold.map_or(x0, |t| plot.at((t.clamp(from, to), *density)).0);
            let bar = Frame { x: x0, y, w: split - x0, h: floor - y };
            canvas.cells(*color, vec![bar]);
            canvas.cells(pale(*color, REJECTED), vec![Frame { x: split, w: (x1 - split).max(0.0), ..bar }]);
        }
        if let Some(t) = threshold {
            plot.mark(&mut canvas, t, Pen::new(INK, 1.6).dashed(5.0));
        }
        plot.close(&mut canvas);
        let number = |name: &str| analysis.number(name).map_or("?".into(), grouped);
        let rate = analysis.number("acceptance_rate").map_or("?".into(), |v| super::axis::plain(100.0 * v));
        let bound = threshold.map_or("?".into(), super::axis::plain);
        let text =
            format!("{}: {rate} % of {} trials kept, those with {cost} ≤ {bound}", analysis.method, number("trials"));
        heading(&mut canvas, plot.frame, &text, *color);
        grid.top += height + 66.0;
    }
    canvas.height = grid.top - 24.0;
    let caption = "A useful sample needs kept costs near half the number of observations. Where the threshold lies far above \
                   that, the kept trials are merely the least bad ones.";
    Some(Drawing { title, caption: caption.into(), canvas })
}

/// A count with its thousands apart.
fn grouped(count: f64) -> String {
    let digits = format!("{count:.0}");
    let parts: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|part| std::str::from_utf8(part).ok()).collect();
    parts.join(",")
}

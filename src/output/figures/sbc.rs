//! Simulation-based calibration: the distribution function of the ranks minus the uniform one, with its band.

use super::axis::{Axis, plain};
use super::canvas::Pen;
use super::panel::{Entry, Grid, Plot, Sample, Written, heading, legend, titled};
use super::style::{FAINT, INK, INSET, LABEL, MARGIN, RULE, WIDTH, colors};
use super::{Drawing, Figure};
use crate::diagnostics::BAND_LEVEL;
use crate::experiment::{Sbc, SbcMethod};

/// Panels beside each other, at most.
const COLUMNS: usize = 4;

/// The figure `sbc`: one panel for each method and time. Nothing where there is no method.
pub fn sbc_figure(sbc: &Sbc) -> Option<Figure> {
    let title = "Ranks of the truth: distribution function minus the uniform one";
    let note = format!(
        "Over {} prior twins. Grey: where the whole line of a calibrated method lies with probability {} %.",
        sbc.problems,
        (BAND_LEVEL * 100.0).round()
    );
    let (mut canvas, top) = titled(title, &note);
    let site = Pen::new(FAINT, 0.8).opacity(0.35);
    let entries = [
        Entry::new("one site of each twin, by turns", Sample::Line(Pen::new(INK, 2.2))),
        Entry::new("each site over all twins", Sample::Line(site)),
        Entry::new("band of either", Sample::Patch(RULE, 0.55)),
    ];
    let top = legend(&mut canvas, top + 8.0, &entries);
    let columns = sbc.methods.len().min(COLUMNS);
    let left = MARGIN + 76.0;
    let width = (WIDTH - left - MARGIN - INSET).min(columns as f64 * 340.0);
    let grid = Grid { left, top: top + 26.0, width, columns, height: 150.0, gaps: (24.0, 34.0) };
    let all = || sbc.methods.iter().flat_map(SbcMethod::named).map(|(_, ranks)| ranks);
    let widest = all().flat_map(|r| {
        let lines = r.site_ecdfs.iter().chain([&r.ecdf.ecdf, &r.ecdf.band_low, &r.ecdf.band_high]);
        lines.flat_map(|line| line.iter().zip(&r.ecdf.points).map(|(f, z)| (f - z).abs())).collect::<Vec<_>>()
    });
    let most = 1.08 * widest.fold(0.01, f64::max);
    let blocks: Vec<_> = sbc.methods.chunks(columns.max(1)).zip(colors_in_chunks(sbc, columns.max(1))).collect();
    let rows = 2 * blocks.len();
    for (block, (methods, colors)) in blocks.iter().enumerate() {
        for (column, (method, color)) in methods.iter().zip(colors).enumerate() {
            for (k, (time, ranks)) in method.named().into_iter().enumerate() {
                let row = 2 * block + k;
                let mut x = Axis::between(0.0, 1.0, 2);
                x.ticks = [0.0, 0.5, 1.0].map(|s| (s, plain(s))).to_vec();
                let plot = Plot { frame: grid.panel(row, column), x, y: Axis::between(-most, most, 4) };
                let last = row + 1 == rows;
                plot.draw_axes(
                    &mut canvas,
                    Written::at_edge(last, "rank / samples"),
                    Written::at_edge(column == 0, "difference"),
                );
                let ecdf = &ranks.ecdf;
                // From (0, 0) to (1, 0), where both functions are the same.
                let closed = |line: &[f64]| {
                    let inner = line.iter().zip(&ecdf.points).map(|(f, z)| (*z, f - z));
                    [(0.0, 0.0)].into_iter().chain(inner).chain([(1.0, 0.0)]).collect::<Vec<_>>()
                };
                let (low, high) = (closed(&ecdf.band_low), closed(&ecdf.band_high));
                plot.band(&mut canvas, low.iter().zip(&high).map(|(l, h)| (l.0, l.1, h.1)), RULE, 0.55);
                plot.level(&mut canvas, 0.0, Pen::new(FAINT, 1.0).dashed(4.0));
                for line in &ranks.site_ecdfs {
                    plot.line(&mut canvas, closed(line).into_iter(), site);
                }
                plot.line(&mut canvas, closed(&ecdf.ecdf).into_iter(), Pen::new(*color, 2.2));
                plot.close(&mut canvas);
                heading(&mut canvas, plot.frame, &method.method, *color);
                if column == 0 {
                    canvas.upwards((MARGIN + 10.0, plot.frame.centre().1), time, LABEL);
                }
            }
        }
    }
    canvas.height = grid.all(rows).bottom() + 44.0;
    let caption = "Inside the band is calibrated. First up, then down through the middle: too many truths at both ends, the \
                   posterior is too narrow; first down, then up: too wide; all above or all below: biased.";
    (!sbc.methods.is_empty()).then(|| Drawing { title, caption: caption.into(), canvas }.finish("sbc"))?
}

fn colors_in_chunks(sbc: &Sbc, columns: usize) -> Vec<Vec<super::style::Color>> {
    colors(sbc.methods.iter().map(|m| m.method.as_str())).chunks(columns).map(<[_]>::to_vec).collect()
}

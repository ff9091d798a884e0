//! Learned background errors: their distribution beside that of the errors themselves and of a Gaussian, and what each
//! latent does.

use super::axis::Axis;
use super::canvas::{Canvas, Marker, Pen};
use super::panel::{Entry, Grid, Plot, Sample, Written, heading, legend, titled};
use super::style::{BLUE, Color, FAINT, INK, INSET, MARGIN, Map, VERMILLION, WIDTH};
use super::{Drawing, Figure};
use crate::diagnostics::thinned;
use crate::method::Vae;
use crate::problem::CovarianceFactor;
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis as Side};

/// Sites that are shown.
const SITES: usize = 3;
/// Points of a pair plot.
const POINTS: usize = 700;
/// Rows that a density is made of.
const ROWS: usize = 20_000;
/// Cells of a histogram.
const CELLS: usize = 60;
/// Latents that are shown, the ones that carry most.
const LATENTS: usize = 4;

/// The figure `errors`: marginals and pairs of the first sites, of `errors: [rows, sites]`, the autoencoder and the
/// Gaussian with the errors' covariance.
///
/// Nothing where the covariance is not positive definite, or there is a single site.
pub fn error_figure(vae: &Vae, errors: ArrayView2<f64>, seed: u64) -> Option<Figure> {
    let sites = vae.sites().min(SITES);
    let rows = errors.nrows().min(ROWS);
    let gaussian = Vae::gaussian(vae.mean.clone(), &CovarianceFactor::new(vae.covariance.clone()).ok()?).ok()?;
    let samples: [(&str, Array2<f64>, Color); 3] = [
        ("errors", thinned(errors, rows), INK),
        ("autoencoder", vae.draw(seed, rows), VERMILLION),
        ("Gaussian", gaussian.draw(seed, rows), BLUE),
    ];
    let title = "Background errors, learned and true";
    let note = format!(
        "Above: densities of {} errors at the first sites, on a logarithmic axis. Below: pairs of sites, {} draws each.",
        errors.nrows(),
        rows.min(POINTS)
    );
    let (mut canvas, top) = titled(title, &note);
    let entry = |(name, _, color): &(&str, Array2<f64>, Color)| Entry::new(*name, Sample::Line(Pen::new(*color, 2.0)));
    let top = legend(&mut canvas, top + 8.0, &samples.iter().map(entry).collect::<Vec<_>>());
    let pairs: Vec<(usize, usize)> = (0..sites).flat_map(|i| (i + 1..sites).map(move |j| (i, j))).collect();
    let (left, columns) = (MARGIN + 60.0, sites.max(2));
    let width = WIDTH - left - MARGIN - INSET;
    let grid = Grid { left, top: top + 24.0, width, columns, height: 170.0, gaps: (64.0, 40.0) };
    // Beyond the outermost thousandth nothing is seen.
    let axis = |site: usize| {
        let mut values = samples[0].1.column(site).to_vec();
        values.sort_by(f64::total_cmp);
        let cut = values.len() / 1000;
        let reach = values[cut].abs().max(values[values.len() - 1 - cut].abs()) * 1.25;
        Axis::between(-reach, reach, 4)
    };
    for site in 0..sites {
        let x = axis(site);
        let densities: Vec<_> = samples.iter().map(|(_, rows, _)| density(rows.column(site), &x)).collect();
        let all = densities.iter().flatten().map(|(_, d)| *d).filter(|d| *d > 0.0);
        let y = Axis::positive(all.collect::<Vec<_>>().into_iter(), 4);
        let plot = Plot { frame: grid.panel(0, site), x, y };
        let y = Written { labels: true, title: (site == 0).then_some("density") };
        plot.draw_axes(&mut canvas, Written::full("error"), y);
        for (density, (_, _, color)) in densities.iter().zip(&samples) {
            let seen = density.iter().copied().filter(|(_, d)| *d > 0.0);
            plot.line(&mut canvas, seen, Pen::new(*color, 1.6));
        }
        plot.close(&mut canvas);
        heading(&mut canvas, plot.frame, &format!("site {}", site + 1), INK);
    }
    let below = Grid { top: grid.panel(0, 0).bottom() + 76.0, height: 190.0, columns: samples.len(), ..grid };
    for (row, (i, j)) in pairs.iter().enumerate() {
        for (column, (name, rows, color)) in samples.iter().enumerate() {
            let plot = Plot { frame: below.panel(row, column), x: axis(*i), y: axis(*j) };
            let (x, y) = (format!("site {}", i + 1), format!("site {}", j + 1));
            plot.draw_axes(
                &mut canvas,
                Written { labels: true, title: Some(&x) },
                Written { labels: true, title: (column == 0).then_some(&y) },
            );
            dots(&mut canvas, &plot, thinned(rows.view(), POINTS).view(), (*i, *j), *color);
            plot.close(&mut canvas);
            if row == 0 {
                heading(&mut canvas, plot.frame, name, *color);
            }
        }
    }
    canvas.height = below.panel(pairs.len().max(1) - 1, 0).bottom() + 44.0;
    let caption = "Where the errors' density leaves the Gaussian's and the autoencoder follows, VAE-Var knows something that \
                   3DVar and 4DVar do not.";
    (sites > 1).then(|| Drawing { title, caption: caption.into(), canvas }.finish("errors"))?
}

/// A histogram over an axis, as a density at the cells' middles.
fn density(values: ArrayView1<f64>, axis: &Axis) -> Vec<(f64, f64)> {
    let (low, high) = (axis.value(0.0), axis.value(1.0));
    let step = (high - low) / CELLS as f64;
    let mut counts = [0usize; CELLS];
    for v in values {
        let cell = ((v - low) / step).floor();
        if (0.0..CELLS as f64).contains(&cell) {
            counts[cell as usize] += 1;
        }
    }
    let scale = 1.0 / (values.len() as f64 * step);
    counts.iter().enumerate().map(|(k, c)| (low + (k as f64 + 0.5) * step, *c as f64 * scale)).collect()
}

fn dots(canvas: &mut Canvas, plot: &Plot, rows: ArrayView2<f64>, (i, j): (usize, usize), color: Color) {
    for row in rows.outer_iter() {
        let point = (row[i], row[j]);
        if plot.x.contains(point.0) && plot.y.contains(point.1) {
            canvas.marker(Marker::Circle, plot.at(point), 1.3, color);
        }
    }
}

/// The figure `latents`: what the error is along each of the latents that carry most.
///
/// Nothing where no latent is alive. Of a convolution's latents, which do the same at every site, one is shown.
pub fn latent_figure(vae: &Vae) -> Option<Figure> {
    let carried = |k: &usize| vae.latent_kl[vae.alive()[*k]];
    let places = vae.decoder.places;
    let mut order: Vec<usize> = (0..vae.latents()).collect();
    let which = if places > 1 {
        order.retain(|k| k * places / vae.latents() == places / 2);
        "that of the middle site, and so at each".to_string()
    } else {
        order.sort_by(|a, b| carried(b).total_cmp(&carried(a)));
        order.truncate(LATENTS);
        format!("the {} of {} that carry most", order.len(), vae.latents())
    };
    let title = "What each latent does";
    let note = format!("The error that is decoded as one latent goes from -3 to 3, the others 0: {which}.");
    let (mut canvas, top) = titled(title, &note);
    let steps: Vec<f64> = (-3..=3).map(f64::from).collect();
    let color = |t: f64| if t == 0.0 { FAINT } else { Map::Signed.color(0.5 + t / 6.0 * 0.94) };
    let entries: Vec<_> = steps
        .iter()
        .map(|t| Entry::new(format!("{t}").replace('-', "\u{2212}"), Sample::Line(Pen::new(color(*t), 2.2))))
        .collect();
    let top = legend(&mut canvas, top + 8.0, &entries);
    let left = MARGIN + 56.0;
    let grid = Grid {
        left,
        top: top + 26.0,
        width: WIDTH - left - MARGIN - INSET,
        columns: 2,
        height: 180.0,
        gaps: (64.0, 70.0),
    };
    let along = |latent: usize, t: f64| -> Array1<f64> {
        let mut z = Array2::zeros((1, vae.latents()));
        z[[0, latent]] = t;
        vae.decode(z.view()).index_axis(Side(0), 0).to_owned()
    };
    let panels: Vec<Vec<_>> = order.iter().map(|latent| steps.iter().map(|t| along(*latent, *t)).collect()).collect();
    let last = vae.sites() as f64;
    for (k, (latent, lines)) in order.iter().zip(&panels).enumerate() {
        let plot = Plot {
            frame: grid.panel(k / 2, k % 2),
            x: Axis::between(1.0, last.max(2.0), vae.sites().min(8) - 1),
            y: Axis::linear(panels.iter().flatten().flatten().copied(), 5),
        };
        plot.draw_axes(&mut canvas, Written::full("site"), Written::at_edge(k % 2 == 0, "error"));
        for (line, t) in lines.iter().zip(&steps) {
            let points = line.iter().enumerate().map(|(site, e)| (site as f64 + 1.0, *e));
            plot.line(&mut canvas, points, Pen::new(color(*t), 1.8));
        }
        plot.close(&mut canvas);
        heading(&mut canvas, plot.frame, &format!("{:.2} nats", carried(latent)), INK);
    }
    canvas.height = grid.all(order.len().div_ceil(2)).bottom() + 44.0;
    let caption = "Lines at equal distances, symmetric about the middle one, are what a Gaussian would have.";
    (!order.is_empty()).then(|| Drawing { title, caption: caption.into(), canvas }.finish("latents"))?
}

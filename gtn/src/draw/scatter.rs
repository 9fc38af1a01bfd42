//! Points as an SVG file, such as estimates of networks over their accuracies.

use super::curves::{Area, COLOURS, Drawn, is_drawable, span};
use crate::error::{Error, Result};
use crate::run::run_folder::write_atomically;
use plotters::prelude::*;
use std::path::Path;

/// Pixels of one panel.
const SIZE: (u32, u32) = (420, 340);
/// Panels side by side.
const COLUMNS: usize = 3;

/// Points over two axes.
#[derive(Clone, Debug, PartialEq)]
pub struct Scatter {
    /// Above the points.
    pub title: String,
    /// What the horizontal axis measures.
    pub x: String,
    /// What the vertical axis measures.
    pub y: String,
    /// The points.
    pub points: Vec<(f64, f64)>,
    /// Points that are joined by a line, such as a Pareto front.
    pub line: Vec<(f64, f64)>,
}

/// Writes panels, three in a row, as one SVG file.
///
/// ```
/// use gtn::draw::scatter::{Scatter, write};
/// let [title, x, y] = ["gtn", "estimate", "accuracy"].map(str::to_owned);
/// let points = vec![(1.0, 90.0), (2.0, 93.5)];
/// let dir = tempfile::tempdir()?;
/// write(&dir.path().join("scatter.svg"), &[Scatter { title, x, y, points, line: Vec::new() }])?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// If the file cannot be written.
pub fn write(path: &Path, panels: &[Scatter]) -> Result<()> {
    let columns = panels.len().clamp(1, COLUMNS);
    let rows = panels.len().div_ceil(columns).max(1);
    let mut svg = String::new();
    let root = SVGBackend::with_string(&mut svg, (SIZE.0 * columns as u32, SIZE.1 * rows as u32));
    let root = root.into_drawing_area();
    let draw = || {
        root.fill(&WHITE)?;
        for (area, panel) in root.split_evenly((rows, columns)).iter().zip(panels) {
            panel.draw(area)?;
        }
        root.present()
    };
    draw().map_err(|error| Error::run(format!("cannot draw the points: {error}")))?;
    drop(root);
    write_atomically(path, |file| file.write_all(svg.as_bytes()))
}

/// The Pareto front of points (cost, value): those that no other point beats in both. Ordered from the
/// cheapest on.
pub fn front(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut points = points.to_vec();
    points.sort_by(|a, b| a.0.total_cmp(&b.0).then(b.1.total_cmp(&a.1)));
    let mut highest = f64::NEG_INFINITY;
    points.retain(|point| {
        let better = point.1 > highest;
        highest = highest.max(point.1);
        better
    });
    points
}

impl Scatter {
    fn draw<'a>(&self, area: &Area<'a>) -> Drawn<'a> {
        let fits = |(x, y): &&(f64, f64)| is_drawable(*x) && is_drawable(*y);
        let points: Vec<(f64, f64)> = self.points.iter().filter(fits).copied().collect();
        let xs = span(points.iter().map(|point| point.0), 0.04);
        let ys = span(points.iter().map(|point| point.1), 0.04);
        let mut context = ChartBuilder::on(area)
            .caption(&self.title, ("sans-serif", 16))
            .margin(10)
            .x_label_area_size(40)
            .y_label_area_size(56)
            .build_cartesian_2d(xs, ys)?;
        context
            .configure_mesh()
            .x_desc(&self.x)
            .y_desc(&self.y)
            .x_labels(5)
            .axis_desc_style(("sans-serif", 13))
            .label_style(("sans-serif", 11))
            .light_line_style(TRANSPARENT)
            .bold_line_style(BLACK.mix(0.12))
            .draw()?;
        let dot = |&point: &(f64, f64)| Circle::new(point, 2, COLOURS[0].mix(0.6).filled());
        context.draw_series(points.iter().map(dot))?;
        let line = self.line.iter().filter(fits).copied();
        context.draw_series(LineSeries::new(line, COLOURS[1].stroke_width(2)))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_beyond_all_axes_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("points.svg");
        let points = vec![
            (1.0, 1e308),
            (2.0, -1e308),
            (1e308, 3.0),
            (1.0, 2.0),
            (2.0, 3.0),
        ];
        let scatter = Scatter {
            title: String::new(),
            x: String::new(),
            y: String::new(),
            line: points.clone(),
            points,
        };
        write(&path, &[scatter]).unwrap();
        let drawn = std::fs::read_to_string(&path).unwrap();
        assert_eq!(drawn.matches("<circle").count(), 2, "{drawn}");
    }

    #[test]
    fn the_front_is_what_no_other_beats() {
        let points = [
            (3.0, 5.0),
            (1.0, 2.0),
            (2.0, 1.0),
            (1.0, 3.0),
            (4.0, 5.0),
            (5.0, 6.0),
        ];
        assert_eq!(front(&points), [(1.0, 3.0), (3.0, 5.0), (5.0, 6.0)]);
    }
}

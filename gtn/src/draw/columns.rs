//! Numbers in groups as an SVG file, a column of points for each group: the accuracies of each variant's
//! runs, for instance.

use super::curves::{Area, COLOURS, Drawn, at, is_drawable, span};
use crate::error::{Error, Result};
use crate::run::run_folder::write_atomically;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::path::Path;

/// Width of a column in pixels if there are few, and if there are more; and the width beside all columns.
const WIDTHS: [u32; 2] = [190, 90];
const BESIDE: u32 = 110;
const FEW: usize = 6;
/// Pixels that a letter takes, about.
const LETTER: u32 = 8;
const HEIGHT: u32 = 460;
/// Pixels of a line of text.
const LINE: i32 = 18;

/// Columns over one axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Columns {
    /// Above the points.
    pub title: String,
    /// What the vertical axis measures.
    pub y: String,
    /// From left to right.
    pub columns: Vec<Column>,
}

/// One column.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// Below it.
    pub name: String,
    /// A point each, with a line at the mean of several.
    pub values: Vec<f64>,
    /// How many have no value: a cross each, at the bottom.
    pub broken: usize,
}

/// Writes columns as an SVG file.
///
/// ```
/// use gtn::draw::columns::{Column, Columns, write};
/// let column = Column { name: "weight norm".into(), values: vec![0.91, 0.94], broken: 1 };
/// let [title, y] = ["Norms", "accuracy"].map(str::to_owned);
/// let dir = tempfile::tempdir()?;
/// write(&dir.path().join("spread.svg"), &Columns { title, y, columns: vec![column] })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// If the file cannot be written.
pub fn write(path: &Path, columns: &Columns) -> Result<()> {
    let svg = svg(columns)?;
    write_atomically(path, |file| file.write_all(svg.as_bytes()))
}

fn svg(columns: &Columns) -> Result<String> {
    let mut svg = String::new();
    let width = columns.width() * columns.columns.len().max(2) as u32 + BESIDE;
    let height = HEIGHT + (columns.name_lines() - 1) * LINE as u32;
    let root = SVGBackend::with_string(&mut svg, (width, height)).into_drawing_area();
    let draw = || {
        root.fill(&WHITE)?;
        columns.draw(&root)?;
        root.present()
    };
    draw().map_err(|error| Error::run(format!("cannot draw the columns: {error}")))?;
    drop(root);
    Ok(svg)
}

impl Columns {
    /// Pixels of a column.
    fn width(&self) -> u32 {
        WIDTHS[usize::from(self.columns.len() > FEW)]
    }

    /// A name broken into lines that fit the column, if its words do. Up to [`FEW`] columns have room for one
    /// line.
    fn lines(&self, name: &str) -> Vec<String> {
        let most = (self.width() / LETTER) as usize;
        let mut lines: Vec<String> = Vec::new();
        for word in name.split_whitespace() {
            match lines.last_mut() {
                Some(line) if self.columns.len() <= FEW || line.len() + word.len() < most => {
                    *line += " ";
                    *line += word;
                }
                _ => lines.push(word.to_owned()),
            }
        }
        lines
    }

    /// Lines of the name that has the most.
    fn name_lines(&self) -> u32 {
        let names = self
            .columns
            .iter()
            .map(|column| self.lines(&column.name).len());
        names.max().unwrap_or(1).max(1) as u32
    }

    fn draw<'a>(&self, area: &Area<'a>) -> Drawn<'a> {
        let values = self.columns.iter().flat_map(|column| &column.values);
        let mut ys = span(values.copied(), 0.05);
        let least = ys.start;
        // Crosses stand below all values.
        let row = least - 0.06 * (ys.end - least);
        if self.columns.iter().any(|column| column.broken > 0) {
            ys.start = least - 0.12 * (ys.end - least);
        }
        let mut context = ChartBuilder::on(area)
            .caption(&self.title, ("sans-serif", 20))
            .margin(12)
            .x_label_area_size((self.name_lines() + 1) * LINE as u32 + 8)
            .y_label_area_size(64)
            .build_cartesian_2d(0.0..self.columns.len().max(1) as f64, ys)?;
        context
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(0)
            .y_desc(&self.y)
            .axis_desc_style(("sans-serif", 15))
            .label_style(("sans-serif", 13))
            // Where the crosses stand, the axis measures nothing.
            .y_label_formatter(&|&y| if y <= row { String::new() } else { label(y) })
            .light_line_style(TRANSPARENT)
            .bold_line_style(BLACK.mix(0.12))
            .draw()?;
        let bottom = context.plotting_area().get_pixel_range().1.end;
        for (i, column) in self.columns.iter().enumerate() {
            let (colour, middle) = (COLOURS[i % COLOURS.len()], i as f64 + 0.5);
            let values = column.values.iter().copied();
            let values: Vec<f64> = values.filter(|&value| is_drawable(value)).collect();
            let places = beside(values.len()).zip(&values);
            let dot =
                |(aside, &value)| Circle::new((middle + aside, value), 4, colour.mix(0.6).filled());
            context.draw_series(places.map(dot))?;
            let cross = |aside| Cross::new((middle + aside, row), 4, colour.stroke_width(2));
            context.draw_series(beside(column.broken).map(cross))?;
            if values.len() > 1 {
                let mean = values.iter().sum::<f64>() / values.len() as f64;
                let line = vec![(middle - 0.3, mean), (middle + 0.3, mean)];
                context.draw_series([PathElement::new(line, BLACK.mix(0.7).stroke_width(2))])?;
            }
            let (x, _) = at(area, context.plotting_area(), (middle, row));
            let style = ("sans-serif", 14).into_font().color(&BLACK);
            let style = style.pos(Pos::new(HPos::Center, VPos::Top));
            let mut below = self.lines(&column.name);
            if column.broken > 0 {
                let all = column.values.len() + column.broken;
                below.push(format!("× {} of {all} broke", column.broken));
            }
            for (line, text) in (0..).zip(&below) {
                area.draw_text(text, &style, (x, bottom + 6 + line * LINE))?;
            }
        }
        Ok(())
    }
}

/// Horizontal offsets of a column's points, so that equal values do not cover each other. The first is 0;
/// multiples of the golden ratio spread any number of points evenly.
fn beside(count: usize) -> impl Iterator<Item = f64> {
    const GOLDEN: f64 = 0.618_033_988_749_895;
    (0..count).map(|i| 0.5 * ((0.5 + i as f64 * GOLDEN).fract() - 0.5))
}

fn label(y: f64) -> String {
    ((y * 1e3).round() / 1e3).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_a_point_and_every_broken_run_a_cross_below_them() {
        let column = |name: &str, values: &[f64], broken| Column {
            name: name.to_owned(),
            values: values.to_vec(),
            broken,
        };
        let columns = |columns| Columns {
            title: "Norms".to_owned(),
            y: "accuracy".to_owned(),
            columns,
        };
        let drawn = svg(&columns(vec![
            column("with", &[0.9, 0.5, 0.9], 0),
            column("without", &[0.7], 2),
        ]))
        .unwrap();
        assert_eq!(drawn.matches("<circle").count(), 4);
        for word in ["Norms", "accuracy", "with", "without", "× 2 of 3 broke"] {
            assert!(drawn.contains(&format!("\n{word}\n")), "{word} in {drawn}");
        }
        // Names of many columns are cut into lines.
        let many = vec![column("real loss at the end only", &[0.5], 1); FEW + 1];
        let drawn = svg(&columns(many)).unwrap();
        for line in ["real loss", "at the end", "only", "× 1 of 2 broke"] {
            assert_eq!(
                drawn.matches(&format!("\n{line}\n")).count(),
                FEW + 1,
                "{line}"
            );
        }
        for nothing in [
            vec![],
            vec![column("none", &[], 3)],
            vec![column("one", &[0.5], 0)],
            vec![column("beyond", &[1e308, -1e308, f64::NAN], 1)],
        ] {
            let drawn = svg(&columns(nothing)).unwrap();
            assert!(!drawn.contains("NaN"));
        }
    }
}

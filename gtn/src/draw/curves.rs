//! Curves as an SVG file, such as accuracy over inner steps.

use crate::error::{Error, Result};
use crate::eval::report::{Report, Way};
use crate::run::run_folder::write_atomically;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::ops::Range;
use std::path::Path;

/// Pixels of one chart.
const SIZE: (u32, u32) = (760, 440);

/// The greatest value that is drawn. Near the end of the number range an axis has no end, and drawing none either.
const MOST: f64 = 1e100;

/// Pixels of a line of text.
const LINE: i32 = 17;

/// Colours that colour-blind people can tell apart, too (Okabe and Ito, "Color Universal Design", 2008).
pub(super) const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];

/// One point of a curve.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Point {
    x: f64,
    mean: f64,
    low: f64,
    high: f64,
}

/// A named curve, with a band around it where it stands for several runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    name: String,
    points: Vec<Point>,
    runs: usize,
}

impl Series {
    /// The mean of several runs in a band from their least to their greatest value.
    ///
    /// Each run has a value for each of `xs`. Values that are missing, not finite or beyond ±10¹⁰⁰ are left out.
    pub fn of_runs<R: AsRef<[f64]>>(name: &str, xs: &[f64], runs: &[R]) -> Self {
        let xs = xs.iter().enumerate().filter(|(_, x)| is_drawable(**x));
        let points = xs.filter_map(|(i, &x)| {
            let values = runs.iter().filter_map(|run| run.as_ref().get(i));
            let values: Vec<f64> = values
                .copied()
                .filter(|&value| is_drawable(value))
                .collect();
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            let low = values.iter().copied().reduce(f64::min)?;
            let high = values.iter().copied().reduce(f64::max)?;
            Some(Point { x, mean, low, high })
        });
        Series {
            name: name.to_owned(),
            points: points.collect(),
            runs: runs.len(),
        }
    }

    /// The learning curves of one of the report's ways.
    pub fn of_way(name: &str, report: &Report, way: &Way) -> Self {
        let steps: Vec<f64> = report.looks(way).iter().map(|&step| step as f64).collect();
        Self::of_runs(name, &steps, &way.curves)
    }

    /// The values of one run.
    pub fn of_run(name: &str, xs: &[f64], values: &[f64]) -> Self {
        Self::of_runs(name, xs, &[values])
    }

    /// The series in the coordinates of a scale.
    fn placed(&self, scale: Scale) -> Self {
        let fits = |p: &&Point| scale == Scale::Linear || (p.x > 0.0 && p.low > 0.0);
        let placed = |p: &Point| Point {
            x: scale.place(p.x),
            mean: scale.place(p.mean),
            low: scale.place(p.low),
            high: scale.place(p.high),
        };
        Self {
            points: self.points.iter().filter(fits).map(placed).collect(),
            ..self.clone()
        }
    }

    fn legend(&self) -> String {
        match self.runs {
            0 | 1 => self.name.clone(),
            runs => format!("{} (mean, min, max of {runs} runs)", self.name),
        }
    }
}

/// Curves over a common axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Chart {
    /// Above the curves.
    pub title: String,
    /// What the horizontal axis counts.
    pub x: String,
    /// What the vertical axis measures.
    pub y: String,
    /// The scale of both axes.
    pub scale: Scale,
    /// The curves.
    pub series: Vec<Series>,
}

/// The scale of an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Evenly.
    Linear,
    /// By powers of two; values that are not above zero are left out.
    Logarithmic,
}

impl Scale {
    /// The coordinate of a value.
    fn place(self, value: f64) -> f64 {
        match self {
            Self::Linear => value,
            Self::Logarithmic => value.log2(),
        }
    }

    /// The label for a coordinate.
    fn label(self, place: f64) -> String {
        match self {
            // Steps are whole numbers: "5000", and not "5000.0".
            Self::Linear => ((place * 1e3).round() / 1e3).to_string(),
            Self::Logarithmic => {
                let value = place.exp2();
                let digits = 10_f64.powf((2.0 - value.log10().floor()).max(0.0));
                ((value * digits).round() / digits).to_string()
            }
        }
    }
}

/// How a learner's accuracy grows: with synthetic data beside real data, say.
pub fn learning(series: Vec<Series>) -> Chart {
    Chart {
        title: "Accuracy of learners".to_owned(),
        x: "inner step".to_owned(),
        y: "accuracy".to_owned(),
        scale: Scale::Linear,
        series,
    }
}

/// Writes the charts, one below the other, as one SVG file.
///
/// ```
/// use gtn::draw::curves::{Series, learning, write};
///
/// let taught = Series::of_runs("GTN", &[0., 1., 2.], &[[0.1, 0.8, 0.9], [0.1, 0.7, 0.9]]);
/// let real = Series::of_run("real data", &[0., 1., 2.], &[0.1, 0.4, 0.5]);
/// let dir = tempfile::tempdir()?;
/// write(&dir.path().join("learning.svg"), &[learning(vec![taught, real])])?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write(path: &Path, charts: &[Chart]) -> Result<()> {
    let svg = svg(charts)?;
    write_atomically(path, |file| file.write_all(svg.as_bytes()))
}

/// As [`write()`], but with the name of each curve at its end, where nothing is covered.
///
/// # Errors
/// If the file cannot be written.
pub fn write_named(path: &Path, charts: &[Chart]) -> Result<()> {
    let svg = drawn(charts, Names::AtEnds)?;
    write_atomically(path, |file| file.write_all(svg.as_bytes()))
}

/// The charts, one below the other, as the text of an SVG file.
pub fn svg(charts: &[Chart]) -> Result<String> {
    drawn(charts, Names::InLegend)
}

/// Where the names of curves stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Names {
    InLegend,
    AtEnds,
}

fn drawn(charts: &[Chart], names: Names) -> Result<String> {
    let mut svg = String::new();
    let root = SVGBackend::with_string(&mut svg, (SIZE.0, SIZE.1 * charts.len() as u32));
    let root = root.into_drawing_area();
    let draw = || {
        root.fill(&WHITE)?;
        for (area, chart) in root.split_evenly((charts.len(), 1)).iter().zip(charts) {
            chart.draw(area, names)?;
        }
        root.present()
    };
    draw().map_err(|error| Error::run(format!("cannot draw the curves: {error}")))?;
    drop(root);
    Ok(svg)
}

/// An area of an SVG text, and what drawing there may return.
pub(super) type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Plane = Cartesian2d<RangedCoordf64, RangedCoordf64>;
pub(super) type Drawn<'a> =
    Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>>;

impl Chart {
    fn draw<'a>(&self, area: &Area<'a>, names: Names) -> Drawn<'a> {
        let beside = match names {
            Names::InLegend => 28,
            Names::AtEnds => self.widest_name() + 28,
        };
        let series: Vec<Series> = self.series.iter().map(|s| s.placed(self.scale)).collect();
        let points = || series.iter().flat_map(|series| &series.points);
        let xs = span(points().map(|p| p.x), 0.0);
        let ys = span(points().flat_map(|p| [p.low, p.high]), 0.05);
        let mut context = ChartBuilder::on(area)
            .caption(&self.title, ("sans-serif", 20))
            .margin(12)
            .margin_right(beside)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d(xs.clone(), ys.clone())?;
        let label = |place: &f64| self.scale.label(*place);
        let mut mesh = context.configure_mesh();
        mesh.x_desc(&self.x)
            .y_desc(&self.y)
            .axis_desc_style(("sans-serif", 15))
            .label_style(("sans-serif", 13))
            .x_label_formatter(&label)
            .light_line_style(TRANSPARENT)
            .bold_line_style(BLACK.mix(0.12));
        let doublings = |axis: &Range<f64>| (axis.end - axis.start).floor() as usize + 1;
        if self.scale == Scale::Logarithmic {
            // As many labels as there are powers of two, so that they stand at those.
            mesh.x_labels(doublings(&xs))
                .y_labels(doublings(&ys))
                .y_label_formatter(&label);
        }
        mesh.draw()?;
        // Bands go first, so that none covers a curve.
        for (i, series) in series.iter().enumerate().filter(|(_, s)| s.runs > 1) {
            let points = &series.points;
            let above = points.iter().map(|p| (p.x, p.high));
            let below = points.iter().rev().map(|p| (p.x, p.low));
            let outline: Vec<_> = above.chain(below).collect();
            let colour = COLOURS[i % COLOURS.len()].mix(0.2);
            context.draw_series([Polygon::new(outline, colour.filled())])?;
        }
        for (i, series) in series.iter().enumerate() {
            let points = &series.points;
            let colour = COLOURS[i % COLOURS.len()];
            let pen = colour.stroke_width(2);
            let line = points.iter().map(|p| (p.x, p.mean));
            // A line needs two points: a single one is drawn as a dot.
            let dot = if points.len() == 1 { 3 } else { 0 };
            // When all colours are taken, they come again in dashes.
            let (drawn, length) = if i < COLOURS.len() || points.len() == 1 {
                let line = LineSeries::new(line, pen).point_size(dot);
                (context.draw_series(line)?, 18)
            } else {
                let line = DashedLineSeries::new(line, 6, 4, pen);
                (context.draw_series(line)?, 7)
            };
            drawn
                .label(series.legend())
                .legend(move |(x, y)| PathElement::new([(x, y), (x + length, y)], pen));
        }
        if names == Names::AtEnds {
            return name_ends(area, context.plotting_area(), &series);
        }
        context
            .configure_series_labels()
            .position(self.legend_position(&ys))
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.3))
            .label_font(("sans-serif", 14))
            .draw()
    }

    /// Pixels that the longest name takes at most.
    fn widest_name(&self) -> u32 {
        let letters = self.series.iter().map(|series| series.name.chars().count());
        7 * letters.max().unwrap_or(0) as u32
    }

    /// To the right, away from the ends of the curves.
    fn legend_position(&self, ys: &Range<f64>) -> SeriesLabelPosition {
        let ends = self.series.iter().filter_map(|series| series.points.last());
        let middle = f64::midpoint(ys.start, ys.end);
        let sides: Vec<bool> = ends.map(|end| end.mean >= middle).collect();
        let above = sides.iter().filter(|&&above| above).count();
        if 2 * above >= sides.len() {
            SeriesLabelPosition::LowerRight
        } else {
            SeriesLabelPosition::UpperRight
        }
    }
}

/// Pixels of a place of a plot, in the area around it.
pub(super) fn at<'a>(
    area: &Area<'a>,
    plot: &DrawingArea<SVGBackend<'a>, Plane>,
    place: (f64, f64),
) -> (i32, i32) {
    let ((x, y), (left, top)) = (plot.map_coordinate(&place), area.get_base_pixel());
    (x - left, y - top)
}

/// Writes the name of each curve at its end, in its colour, and those that would overlap below each other.
fn name_ends<'a>(
    area: &Area<'a>,
    plot: &DrawingArea<SVGBackend<'a>, Plane>,
    series: &[Series],
) -> Drawn<'a> {
    let end = |(i, series): (usize, &'_ Series)| {
        let last = series.points.last()?;
        Some((i, at(area, plot, (last.x, last.mean))))
    };
    let mut ends: Vec<(usize, (i32, i32))> = series.iter().enumerate().filter_map(end).collect();
    ends.sort_by_key(|(_, (_, y))| *y);
    let wanted: Vec<i32> = ends.iter().map(|(_, (_, y))| *y).collect();
    for ((i, (x, _)), y) in ends.into_iter().zip(apart(&wanted)) {
        let style = ("sans-serif", 14)
            .into_font()
            .color(&COLOURS[i % COLOURS.len()]);
        let style = style.pos(Pos::new(HPos::Left, VPos::Center));
        area.draw_text(&series[i].name, &style, (x + 8, y))?;
    }
    Ok(())
}

/// Places for lines of text near the wanted ones, which ascend. Lines that would overlap form a group, which
/// is spread around its middle.
fn apart(wanted: &[i32]) -> Vec<i32> {
    // Groups by the sum of their wanted places and the number of lines.
    let mut groups: Vec<(i32, i32)> = Vec::new();
    let top = |(sum, lines): (i32, i32)| sum / lines - LINE * (lines - 1) / 2;
    for &y in wanted {
        groups.push((y, 1));
        while let [.., before, last] = groups[..]
            && top(before) + LINE * before.1 > top(last)
        {
            groups.truncate(groups.len() - 2);
            groups.push((before.0 + last.0, before.1 + last.1));
        }
    }
    let places = |group: (i32, i32)| (0..group.1).map(move |line| top(group) + LINE * line);
    groups.into_iter().flat_map(places).collect()
}

/// Whether a value can be drawn: it is finite, and so are sums and differences of such values.
pub(super) fn is_drawable(value: f64) -> bool {
    value.abs() <= MOST
}

/// From the least to the greatest value and a share of that beyond, never empty. Values that cannot be drawn do not count.
pub(super) fn span(values: impl Iterator<Item = f64>, beyond: f64) -> Range<f64> {
    let drawable = values.filter(|&value| is_drawable(value));
    let (low, high) = drawable.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    if low > high {
        return 0.0..1.0;
    }
    // Between numbers that differ in last digits only, the marks of an axis would not be apart.
    let apart = 1e-9 * low.abs().max(high.abs());
    if high - low <= apart.max(MOST.recip()) {
        let half = apart.max(0.5);
        return low - half..high + half;
    }
    let margin = beyond * (high - low);
    low - margin..high + margin
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_the_mean_between_least_and_greatest() {
        let runs = [
            vec![1.0, 5.0, f64::NAN],
            vec![3.0, f64::INFINITY],
            vec![2.0],
        ];
        let series = Series::of_runs("s", &[0.0, 10.0, 20.0, 30.0], &runs);
        let expected = [
            Point {
                x: 0.0,
                mean: 2.0,
                low: 1.0,
                high: 3.0,
            },
            Point {
                x: 10.0,
                mean: 5.0,
                low: 5.0,
                high: 5.0,
            },
        ];
        assert_eq!(
            series.points, expected,
            "what is lacking or not finite is left out"
        );
    }

    #[test]
    fn the_file_names_everything_and_is_the_same_every_time() {
        let taught = Series::of_runs("GTN", &[0.0, 5000.0], &[[0.1, 0.9], [0.2, 0.8]]);
        let real = Series::of_run("real <data>", &[0.0, 5000.0], &[0.1, 0.4]);
        let charts = [learning(vec![taught, real])];
        let drawn = svg(&charts).unwrap();
        let words = [
            "Accuracy of learners",
            "inner step",
            "accuracy",
            "5000",
            "GTN (mean, min, max of 2 runs)",
            "real &lt;data&gt;",
        ];
        for word in words {
            assert!(drawn.contains(&format!("\n{word}\n")), "{word} in {drawn}");
        }
        assert_eq!(
            drawn.matches("<polygon").count(),
            1,
            "only several runs have a band"
        );
        assert_eq!(
            drawn.matches("stroke=\"#0072B2\"").count(),
            2,
            "a curve and its legend"
        );
        assert_eq!(drawn, svg(&charts).unwrap());
    }

    #[test]
    fn a_logarithmic_chart_has_labels_at_powers_of_two_and_more_curves_than_colours() {
        let curve =
            |i: usize| Series::of_run(&format!("s{i}"), &[0.0, 8.0, 512.0], &[1.0, 2.0, 64.0]);
        let mut chart = learning((0..7).map(curve).collect());
        chart.scale = Scale::Logarithmic;
        let drawn = svg(&[chart]).unwrap();
        for label in ["8", "16", "128", "512", "64"] {
            assert!(
                drawn.contains(&format!("\n{label}\n")),
                "{label} in {drawn}"
            );
        }
        assert!(!drawn.contains("NaN") && !drawn.contains("inf"));
        let first = drawn.matches("stroke=\"#0072B2\"").count();
        assert!(
            first > 10,
            "a curve with its legend, and the dashes of another: {first}"
        );
    }

    #[test]
    fn names_at_ends_stand_apart_and_no_legend_covers_anything() {
        assert_eq!(apart(&[10, 100]), [10, 100]);
        assert_eq!(apart(&[100, 101, 102, 300]), [84, 101, 118, 300]);
        let spread = apart(&[10, 20, 24, 40]);
        assert!(
            spread.windows(2).all(|pair| pair[1] - pair[0] >= LINE),
            "{spread:?}"
        );
        let curve = |name| Series::of_run(name, &[0.0, 1.0], &[0.1, 0.9]);
        let chart = learning(["full", "real <data>"].map(curve).to_vec());
        let drawn = drawn(&[chart], Names::AtEnds).unwrap();
        for word in ["full", "real &lt;data&gt;"] {
            assert_eq!(drawn.matches(&format!("\n{word}\n")).count(), 1, "{drawn}");
        }
        assert_eq!(
            drawn.matches("stroke=\"#0072B2\"").count(),
            1,
            "a curve only"
        );
    }

    #[test]
    fn charts_stand_one_below_the_other() {
        let chart = |name| learning(vec![Series::of_run(name, &[1.0, 2.0], &[2.0, 1.0])]);
        let drawn = svg(&["train", "validation"].map(chart)).unwrap();
        let height = SIZE.1 * 2;
        assert!(drawn.starts_with(&format!("<svg width=\"760\" height=\"{height}\"")));
        assert!(drawn.find("train") < drawn.find("validation"));
    }

    #[test]
    fn an_axis_has_an_end_whatever_the_values_are() {
        for values in [
            [1e308, -1e308],
            [f64::MAX, f64::MIN],
            [1e100, -1e100],
            [1e17, 1e17 + 16.0],
            [1e100, 1e100],
            [0.0, 5e-324],
        ] {
            let curve = Series::of_run("s", &[0.0, 1.0], &values);
            let drawn = svg(&[learning(vec![curve])]).unwrap();
            assert!(!drawn.contains("NaN"), "{values:?}");
        }
        let curve = Series::of_run("s", &[1e308, -1e308, 2.0], &[1.0; 3]);
        assert_eq!(curve.points.len(), 1);
        assert_eq!(span([1e308, 2.0, 3.0].into_iter(), 0.0), 2.0..3.0);
        assert_eq!(span([2.0, 2.0].into_iter(), 0.0), 1.5..2.5);
    }

    #[test]
    fn nothing_or_a_single_value_can_be_drawn() {
        for values in [
            &[][..],
            &[0.5],
            &[f64::NAN],
            &[3e38],
            &[0.5, 0.5],
            &[3e38, 0.1],
        ] {
            let xs: Vec<f64> = (0..values.len()).map(|i| i as f64).collect();
            let drawn = svg(&[learning(vec![Series::of_run("s", &xs, values)])]).unwrap();
            let dots = usize::from(values.len() == 1 && values[0].is_finite());
            assert_eq!(drawn.matches("<circle").count(), dots, "{values:?}");
        }
        assert!(svg(&[]).is_ok() && svg(&[learning(vec![])]).is_ok());
    }

    #[test]
    fn the_legend_stands_where_the_curves_do_not_end() {
        let place = |values: &[f64; 2]| {
            let chart = learning(vec![Series::of_run("s", &[0.0, 1.0], values)]);
            chart.legend_position(&(0.0..1.0))
        };
        assert!(matches!(
            place(&[0.0, 1.0]),
            SeriesLabelPosition::LowerRight
        ));
        assert!(matches!(
            place(&[1.0, 0.0]),
            SeriesLabelPosition::UpperRight
        ));
    }
}

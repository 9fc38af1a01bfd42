//! A run as one page of HTML that needs no other file.

use crate::draw::curves::{self, Chart, Scale, Series};
use crate::error::Result;
use crate::eval::report::{Report, Way};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde_json::Value;

/// What is shown of a run.
#[derive(Debug)]
pub struct Page<'a> {
    /// The name of its folder.
    pub name: &'a str,
    /// Its settings, as TOML.
    pub settings: &'a str,
    /// The command that makes it again.
    pub command: &'a str,
    /// The lines of its metrics.
    pub metrics: &'a [Value],
    /// Its evaluation, if it came to one.
    pub report: Option<&'a Report>,
    /// Pictures: a caption, and the bytes of a PNG file.
    pub pictures: &'a [(&'a str, Vec<u8>)],
}

const STYLE: &str = "
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; } td, th { padding: .2rem .8rem .2rem 0; text-align: right; }
td:first-child, th:first-child { text-align: left; } th { border-bottom: 1px solid #888; }
img, svg { max-width: 100%; height: auto; } img { image-rendering: pixelated; }
pre { background: #f4f4f4; padding: .8rem; overflow-x: auto; } .bad { color: #b00; }
";

impl Page<'_> {
    /// The page.
    ///
    /// # Errors
    /// If a curve cannot be drawn.
    pub fn html(&self) -> Result<String> {
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    title { (self.name) }
                    style { (PreEscaped(STYLE)) }
                }
                body {
                    h1 { (self.name) }
                    @if let Some(report) = self.report { (evaluation(report)?) }
                    @else { p.bad { "This run has no evaluation yet: it was stopped, or still goes on." } }
                    h2 { "Outer steps" }
                    (PreEscaped(curves::svg(&self.losses())?))
                    @for (caption, png) in self.pictures {
                        h2 { (caption) }
                        img alt=(caption) src={ "data:image/png;base64," (STANDARD.encode(png)) };
                    }
                    h2 { "The same run again" }
                    pre { (self.command) }
                    h2 { "Settings" }
                    pre { (self.settings) }
                }
            }
        };
        Ok(page.into_string())
    }

    /// Meta-loss, and accuracy on validation images where it was measured.
    fn losses(&self) -> Vec<Chart> {
        let of = |name: &str| -> (Vec<f64>, Vec<f64>) {
            let at = |line: &Value| Some((line["outer_step"].as_f64()?, line[name].as_f64()?));
            self.metrics.iter().filter_map(at).unzip()
        };
        let chart = |title: &str, name| {
            let (steps, values) = of(name);
            Chart {
                title: title.to_owned(),
                x: "outer step".to_owned(),
                y: title.to_owned(),
                scale: Scale::Linear,
                series: vec![Series::of_run(title, &steps, &values)],
            }
        };
        vec![
            chart("meta-loss", "meta_loss"),
            chart(
                "accuracy of a fresh learner on validation images",
                "validation_accuracy",
            ),
        ]
    }
}

fn evaluation(report: &Report) -> Result<Markup> {
    let series = report
        .ways
        .iter()
        .map(|way| Series::of_way(&way.name, report, way));
    let curves = curves::svg(&[curves::learning(series.collect())])?;
    let percent = |x: f64| format!("{:.2} %", 100.0 * x);
    let interval = |way: &Way| match way.accuracies.len() {
        0 | 1 => "-".to_owned(),
        _ => percent(way.interval),
    };
    Ok(html! {
        @if let Some(outdated) = report.outdated() { p.bad { "This run was " (outdated) "." } }
        p {
            "Accuracy on " (report.test_images) " test images of " (report.dataset) " after " (report.inner_steps)
            " steps of " (report.inner_batch) " images, " (report.learners) " fresh learners (" (report.learner) " "
            (report.widths) ")."
        }
        table {
            tr { th {} th { "mean" } th { "± 95 %" } th { "min" } th { "ran away" } th { "tuned" } }
            @for way in &report.ways {
                tr {
                    td { (way.name) }
                    td { (percent(way.mean())) }
                    td { (interval(way)) }
                    td { (percent(way.min())) }
                    td { (way.runaways) }
                    td { (way.tuned.as_deref().unwrap_or("")) }
                }
            }
        }
        @if let Some(steps) = report.equal_steps() {
            p { (steps) }
        }
        @if report.margin().is_some_and(|margin| margin <= 0.0) {
            p.bad { "This run does not teach yet: real images teach better." }
        }
        h2 { "Inner steps" }
        (PreEscaped(curves))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_text_and_pictures_are_inside() {
        let metrics = [serde_json::json!({"outer_step": 1, "meta_loss": 2.0})];
        let page = Page {
            name: "<b>a & b</b>",
            settings: "seed = 1",
            command: "gtn train",
            metrics: &metrics,
            report: None,
            pictures: &[("samples", vec![1, 2, 3])],
        };
        let html = page.html().unwrap();
        assert!(html.contains("&lt;b&gt;a &amp; b&lt;/b&gt;") && !html.contains("<b>a"));
        assert!(html.contains("data:image/png;base64,AQID") && html.contains("no evaluation yet"));
        assert!(
            !html.contains("src=\"http") && !html.contains("href"),
            "no other file"
        );
    }
}

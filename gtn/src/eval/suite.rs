//! A suite: the same evaluation for several structures of learners, and the worst of them.

use crate::eval::report::Report;
use serde::Serialize;
use std::fmt::Write;

/// The evaluation of a suite.
#[derive(Clone, Debug, Serialize)]
pub struct SuiteReport {
    /// One for every structure, in the order of the suite.
    pub suite: Vec<Entry>,
    /// The lowest mean accuracy of learners that the run taught.
    pub worst_gtn: f64,
    /// The smallest margin: mean accuracy minus that of the strongest baseline. `None` without baselines.
    pub worst_margin: Option<f64>,
}

/// A structure of learners, and how it did.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    /// Its name in the suite.
    pub name: String,
    /// How it did.
    #[serde(flatten)]
    pub report: Report,
}

impl SuiteReport {
    /// For at least one structure.
    pub fn new(suite: Vec<Entry>) -> Self {
        let means = suite.iter().map(|entry| entry.report.gtn_accuracy_mean);
        let margins = suite.iter().filter_map(|entry| entry.report.margin());
        Self {
            worst_gtn: means.fold(f64::INFINITY, f64::min),
            worst_margin: margins.reduce(f64::min),
            suite,
        }
    }

    /// A line for every structure, and the worst.
    pub fn table(&self) -> String {
        let percent = |x: f64| format!("{:>8.2} %", 100.0 * x);
        let first = &self.suite[0].report;
        let mut table = format!(
            "Accuracy on {} test images of {} after {} steps of {} images, {} fresh learners each:\n\n\
             {:<26}{:>10}{:>10}{:>10}   strongest baseline\n",
            first.test_images,
            first.dataset,
            first.inner_steps,
            first.inner_batch,
            first.learners,
            "",
            "mean",
            "min",
            "real"
        );
        for Entry { name, report } in &self.suite {
            let numbers = [report.gtn_accuracy_mean, report.gtn_accuracy_min].map(percent);
            let _ = write!(table, "  {name:<24}{}", numbers.concat());
            if let Some(strongest) = &report.strongest {
                let real = percent(strongest.real_accuracy_mean);
                let _ = write!(table, "{real}   {}", strongest.baseline);
            }
            if report.runaways > 0 {
                let _ = write!(
                    table,
                    "   {} of {} ran away",
                    report.runaways, report.learners
                );
            }
            if report.margin().is_some_and(|margin| margin <= 0.0) {
                table.push_str("   below real images");
            }
            table.push('\n');
        }
        let _ = write!(
            table,
            "\n  worst mean {}",
            percent(self.worst_gtn).trim_start()
        );
        if let Some(margin) = self.worst_margin {
            let _ = write!(
                table,
                ", worst margin over real images {:+.2} points",
                100.0 * margin
            );
        }
        table.push('\n');
        table
    }
}

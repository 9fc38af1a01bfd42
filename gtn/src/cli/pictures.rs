//! The pictures of a run.

use super::say;
use crate::draw::curves::{self, Series};
use crate::draw::picture::ImageGrid;
use crate::error::Result;
use crate::eval::evaluate::TrainingData;
use crate::eval::report::{Report, Way};
use crate::outer::meta::MetaTrainer;
use std::path::Path;

/// Columns of the sheet of samples.
const COLUMNS: usize = 16;

/// Draws every synthetic image of a training, and a sheet of some by class and step.
pub(super) fn draw_lesson(
    folder: &Path,
    trainer: &MetaTrainer,
    lesson: &TrainingData,
) -> Result<()> {
    let images = lesson.images()?;
    let (batch, shape) = (
        trainer.config().inner_batch,
        trainer.teacher().problem.image,
    );
    let grid = ImageGrid::new(&images, &lesson.labels, batch, shape)?;
    for (name, picture) in [
        ("curriculum.png", grid.every_image()),
        ("samples.png", grid.by_class_and_step(COLUMNS)),
    ] {
        picture.write(&folder.join(name))?;
        say(&format!("Wrote {}", folder.join(name).display()));
    }
    Ok(())
}

/// Draws how the learners of an evaluation learned.
pub(super) fn draw_curves(folder: &Path, report: &Report) -> Result<()> {
    let steps: Vec<f64> = (0..=report.inner_steps).map(|step| step as f64).collect();
    let series = |way: &Way| Series::of_runs(&way.name, &steps, &way.curves);
    let series = report.ways.iter().map(series).collect();
    let path = folder.join("learning.svg");
    curves::write(&path, &[curves::learning(series)])?;
    say(&format!("Wrote {}", path.display()));
    Ok(())
}

//! The pictures of a run.

use super::say;
use crate::data::{Dataset, Problem};
use crate::draw::curves::{self, Series};
use crate::draw::picture::{ImageGrid, Picture};
use crate::error::Result;
use crate::eval::report::Report;
use crate::eval::training_data::TrainingData;
use crate::outer::meta::MetaTrainer;
use std::path::Path;

/// Columns of the sheet of samples.
const COLUMNS: usize = 16;

/// Draws the synthetic images of a training, up to where they repeat, and a sheet of samples by class and
/// step.
pub(super) fn draw_lesson(
    folder: &Path,
    trainer: &MetaTrainer,
    lesson: &TrainingData,
) -> Result<()> {
    let images = lesson.images()?;
    let (config, problem) = (trainer.config(), trainer.teacher().problem);
    let batch = config.inner_batch;
    let places = config.example_count().next_multiple_of(batch);
    let count = places.min(lesson.labels.len());
    let images = &images[..count * problem.image_len()];
    let grid = ImageGrid::new(images, &lesson.labels[..count], batch, problem.image)?;
    for (name, picture) in [
        ("curriculum.png", grid.every_image()),
        ("samples.png", grid.by_class_and_step(COLUMNS)),
    ] {
        picture.write(&folder.join(name))?;
        say(&format!("Wrote {}", folder.join(name).display()));
    }
    Ok(())
}

/// Draws some training images of a data set: a row for each class.
pub(super) fn samples_of(data: &Dataset) -> Result<Picture> {
    let Problem { image, classes } = data.problem();
    let mut of_class = vec![Vec::new(); classes];
    for (i, &label) in data.train.labels.iter().enumerate() {
        of_class[usize::from(label)].push(i);
    }
    let (mut values, mut labels) = (Vec::new(), Vec::new());
    for column in 0..COLUMNS {
        for (label, images) in of_class.iter().enumerate() {
            labels.push(label as u16);
            match images.get(column) {
                // From -2, which is black, to 2.
                Some(&i) => values.extend(
                    data.train
                        .image(i)
                        .iter()
                        .map(|&p| f32::from(p) / 63.75 - 2.0),
                ),
                None => values.extend(vec![-2.0; data.problem().image_len()]),
            }
        }
    }
    Ok(ImageGrid::new(&values, &labels, classes, image)?.by_class_and_step(COLUMNS))
}

/// Draws how the learners of an evaluation learned.
pub(super) fn draw_curves(folder: &Path, report: &Report) -> Result<()> {
    let series = report
        .ways
        .iter()
        .map(|way| Series::of_way(&way.name, report, way));
    let path = folder.join("learning.svg");
    curves::write(&path, &[curves::learning(series.collect())])?;
    say(&format!("Wrote {}", path.display()));
    Ok(())
}

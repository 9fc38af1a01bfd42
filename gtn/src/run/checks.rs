//! Checks that involve more than one setting.

use super::config::Config;
use super::values::name_of;
use crate::error::{Error, Result};
use crate::outer::curriculum::{Curriculum, ImagesChoice, LabelsChoice, StartImages};
use crate::outer::inner::Inner;
use autograd::optim::Optimizer;

impl Config {
    /// Refuses settings that make no sense together.
    pub(super) fn check(&self) -> Result<()> {
        Inner::of(self).check()?;
        self.check_growth()?;
        self.check_optimizers()?;
        self.check_labels()?;
        self.check_examples()?;
        self.check_passes()?;
        self.check_order()?;
        self.check_widths()
    }

    /// Refuses a `--grow-steps` that begins with more inner steps than it ends with.
    fn check_growth(&self) -> Result<()> {
        let all = self.inner_steps;
        let Some(from) = self.grow_steps.first().filter(|&from| from > all) else {
            return Ok(());
        };
        let message = format!("--grow-steps begins with {from} inner steps, and there are {all}");
        Err(Error::usage(message).hint(format!("--inner-steps {from}, or fewer at the start")))
    }

    /// Refuses optimisers where they cannot work.
    fn check_optimizers(&self) -> Result<()> {
        let (inner, outer) = (self.inner_optimizer.0, self.outer_optimizer.0);
        if inner == Optimizer::Lion && self.curriculum != Curriculum::RealData {
            let message = "a step of lion has the slope 0 in images and labels: nothing reaches what makes them";
            return Err(Error::usage(message).hint(
                "--curriculum real-data learns lion's rates; --outer-optimizer lion moves what is learned",
            ));
        }
        if outer == Optimizer::ReversibleMomentum {
            let message = "outer steps are not undone, as those of reversible-momentum can be";
            return Err(Error::usage(message).hint("--outer-optimizer momentum"));
        }
        Ok(())
    }

    /// Refuses labels from a generator where there is no generator.
    fn check_labels(&self) -> Result<()> {
        let generates = self.curriculum.generates() && self.images == ImagesChoice::Generator;
        if self.labels != LabelsChoice::Generator || generates {
            return Ok(());
        }
        let message = "--labels generator is for images that a generator makes";
        Err(Error::usage(message).hint("--images generator, and a curriculum of synthetic images"))
    }

    /// Refuses to learn pixels or labels image by image in a curriculum with new images at every step.
    fn check_examples(&self) -> Result<()> {
        let pixels = self.images == ImagesChoice::Pixels;
        let real = self.start_images == StartImages::Real;
        let soft = self.labels == LabelsChoice::Soft;
        let learned = [
            (pixels, ["--images pixels", "--images generator"]),
            (real, ["--start-images real", "--start-images noise"]),
            (soft, ["--labels soft", "--labels fixed"]),
        ];
        let flags = |which: usize| {
            let flags = learned.iter().filter(|(learned, _)| *learned);
            let flags: Vec<&str> = flags.map(|(_, flags)| flags[which]).collect();
            flags.join(" ")
        };
        if flags(0).is_empty() || self.curriculum.learns_examples() {
            return Ok(());
        }
        let message = format!(
            "{} is for images that are learned one by one, and --curriculum {} has new ones at every step",
            flags(0),
            name_of(&self.curriculum)
        );
        Err(Error::usage(message).hint(format!(
            "--curriculum full, shuffled-batch or all-shuffled; or {}",
            flags(1)
        )))
    }

    /// Refuses a number of examples that does not suit the curriculum, or is more than a training sees.
    fn check_passes(&self) -> Result<()> {
        let [steps, batch] = [self.inner_steps, self.inner_batch];
        let (examples, places) = (self.examples, steps.saturating_mul(batch));
        let (why, hint) = if examples == 0 {
            return Ok(());
        } else if !self.curriculum.learns_examples() {
            let curriculum = name_of(&self.curriculum);
            (
                format!("--curriculum {curriculum} has new ones at every step"),
                "--examples 0, or --curriculum full".to_owned(),
            )
        } else if examples > places {
            (
                format!("{steps} steps of {batch} see {places} of them"),
                format!("--examples {places}, or more steps"),
            )
        } else if self.curriculum == Curriculum::ShuffledBatch && !examples.is_multiple_of(batch) {
            (
                format!("--curriculum shuffled-batch has whole batches of {batch}"),
                format!(
                    "--examples {}",
                    examples.next_multiple_of(batch).min(places)
                ),
            )
        } else {
            return Ok(());
        };
        let message = format!("--examples {examples} makes no sense: {why}");
        Err(Error::usage(message).hint(hint))
    }

    /// Refuses to rank where there is nothing to rank.
    fn check_order(&self) -> Result<()> {
        if self.rank_by.path().is_none() {
            return Ok(());
        }
        if self.population().space().is_none() {
            let message = format!(
                "--rank-by is for networks of a search space, and {} is none",
                self.learner.name()
            );
            return Err(
                Error::usage(message).hint("--learner nasbench201,channels=8,cells=1,held_out=200")
            );
        }
        if self.most_at_once() < 2 {
            let message = "--rank-by compares the learners of a lot, and there is one in each";
            return Err(
                Error::usage(message).hint("--learners-per-step 4, and --learners-at-once 0 or 2")
            );
        }
        Ok(())
    }

    /// Refuses a number of widths that differs from the learner's number of layers with widths.
    fn check_widths(&self) -> Result<()> {
        let own = self.learner.widths();
        let [places, given] = [own.layers(), self.widths.layers()];
        if places == given {
            return Ok(());
        }
        let learner = self.learner.name();
        let message = format!(
            "{learner} has {places} layers with widths, and {given} are given: {}",
            self.widths
        );
        Err(Error::usage(message).hint(format!("--widths {own}")))
    }
}

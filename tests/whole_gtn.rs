//! The meta-gradient of a whole small GTN in f64: generator, weight norm, a learner with running
//! statistics, momentum, a real-data loss at several inner steps.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use autograd::prelude::*;
use gtn::data::Problem;
use gtn::nn::{Family, Generator, GeneratorConfig, Norm, ParamSpec, Variant, init, stack};
use gtn::outer::curriculum::Noise;
use gtn::outer::inner::Inner;
use gtn::outer::rule::{Rates, Rule};
use gtn::outer::training::{Lesson, Sizes, by_labeller, by_lesson, with_real_loss};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::ops::Range;

const STEPS: usize = 4;
const OUTER_AT: [usize; 2] = [2, STEPS];
const BATCH: usize = 10;
const OUTER_BATCH: usize = 12;

/// What makes the examples, and which of their labels are learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Makes {
    Images,
    ImagesOfSoftLabels,
    PixelsOfSoftLabels,
    /// So few that they come again within a step, and from step to step.
    FewPixelsOfSoftLabels,
    ImagesAndLabels,
    LabelsOfReal,
}

/// All that a meta-gradient is taken at, and with respect to.
struct Gtn {
    unroll: Unroll,
    values: Values,
    starts: Vec<ArraySpec>,
}

impl Gtn {
    fn new(norm: Norm, mode: Mode) -> Self {
        Self::with(&[0], norm, mode)
    }

    /// With learners of these numbers, trained at once.
    fn with(learners: &[u64], norm: Norm, mode: Mode) -> Self {
        let teacher = (Makes::Images, Noise::Learned, Rates::One);
        Self::taught(teacher, learners, norm, mode)
    }

    /// Taught by what makes images and labels, by one rate or several.
    fn taught(
        (makes, noise, rates): (Makes, Noise, Rates),
        learners: &[u64],
        norm: Norm,
        mode: Mode,
    ) -> Self {
        let device = Device::cpu(Some(1)).unwrap();
        let config = GeneratorConfig {
            variant: Variant::Paper,
            noise: 3,
            classes: 10,
            labels: makes == Makes::ImagesAndLabels,
            hidden: 6,
            channels: [3, 2],
            image: [28, 28, 1],
        };
        let generator = Generator::new(config).unwrap();
        let learner = Family::default()
            .learner([28, 28, 1], 10, &[2, 3, 5], norm)
            .unwrap();
        let labeller = Family::default()
            .learner([28, 28, 1], 10, &[2, 3, 4], Norm::Batch)
            .unwrap();
        let of_pixels = matches!(
            makes,
            Makes::PixelsOfSoftLabels | Makes::FewPixelsOfSoftLabels
        );
        let generates = !of_pixels && makes != Makes::LabelsOfReal;
        let examples = match makes {
            Makes::FewPixelsOfSoftLabels => 7,
            _ => STEPS * BATCH,
        };
        let sizes = Sizes {
            problem: Problem::MNIST,
            steps: STEPS,
            batch: BATCH,
            examples,
            learners: learners.len(),
            dtype: F64,
        };
        let real = sizes.batches(["x_real", "y_real"], OUTER_AT.len(), OUTER_BATCH);
        let lesson = Lesson {
            generator: generates.then_some(&generator),
            noise,
            soft_labels: of_pixels || makes == Makes::ImagesOfSoftLabels,
        };
        let mut inner = Inner::momentum(0.1, 0.6);
        inner.rule = Rule {
            rates,
            ..inner.rule
        };
        let taught = match makes {
            Makes::LabelsOfReal => by_labeller(&labeller, &learner, sizes, &inner),
            _ => by_lesson(lesson, &learner, sizes, &inner),
        };
        let taught = taught.given(real);
        let starts = taught.weight_specs().to_vec();
        let training = with_real_loss(taught, &learner).learned(&starts);
        let horizon = Horizon::new(STEPS)
            .outer_at(|step| OUTER_AT.contains(&step))
            .mode(mode);
        let mut gtn = Self {
            unroll: Unroll::new(&device, &training, &horizon).unwrap(),
            values: Values::zeros(&device, &[]).unwrap(),
            starts,
        };
        let given = training.given_specs().chain(training.learned_specs());
        gtn.fill(given, examples);
        let (specs, params) = if generates {
            (sizes.generator(&generator), generator.params())
        } else {
            (Vec::new(), &[][..])
        };
        gtn.draw(&specs, params, learner.params(), learners);
        gtn
    }

    /// Networks, as they are drawn for a training.
    fn draw(
        &mut self,
        phi_specs: &[ArraySpec],
        phi: &[ParamSpec],
        theta: &[ParamSpec],
        learners: &[u64],
    ) {
        let rng = &mut StdRng::seed_from_u64(3);
        let phi = init(phi, F64, rng).unwrap();
        let first = init(theta, F64, rng).unwrap();
        let learner = |&number: &u64| match number {
            0 => first.clone(),
            _ => init(theta, F64, &mut StdRng::seed_from_u64(100 + number)).unwrap(),
        };
        let theta = stack(&learners.iter().map(learner).collect::<Vec<_>>()).unwrap();
        let specs = phi_specs.iter().chain(&self.starts);
        for (spec, array) in specs.zip(phi.iter().chain(&theta)) {
            self.values.set(&spec.name, array).unwrap();
        }
    }

    /// Everything else.
    fn fill<'a>(&mut self, specs: impl Iterator<Item = &'a ArraySpec>, examples: usize) {
        // With seeds from 0 on, a window or rectifier changes sides too near: see `slope`.
        for (spec, seed) in specs.zip(1..) {
            let count = spec.shape.count();
            let array = |numbers: Vec<f64>| Array::new(spec.shape.clone(), numbers).unwrap();
            let steps = (0..count).map(|i| i as f64 * STEPS as f64 / count as f64);
            let array = match spec.name.as_str() {
                "log_lr" => array(steps.map(|t| (0.1 + 0.02 * t).ln()).collect()),
                "log_momentum" => array(steps.map(|t| (0.6 - 0.1 * t).ln()).collect()),
                // One-hot classes in turn.
                "y" | "y_real" => {
                    let hot = |i: usize| f64::from(u8::from(i / 10 % 10 == i % 10));
                    array((0..count).map(hot).collect())
                }
                // The examples from the last to the first, again and again.
                "order" => {
                    let last_first = (0..count).rev().map(|place| (place % examples) as i32);
                    Array::new([count], last_first.collect::<Vec<_>>()).unwrap()
                }
                _ => Array::uniform(F64, spec.shape.clone(), [-1.0, 1.0], seed),
            };
            self.values.set(&spec.name, &array).unwrap();
        }
    }

    /// Computes the meta-gradient; gives the meta-loss.
    fn differentiate(&mut self) -> f64 {
        self.unroll.gradient(&self.values).unwrap().total()
    }

    /// What is learned, and its meta-gradient: arrays, and of those that belong to steps the parts.
    fn learned(&self) -> Vec<(Place, Vec<f64>)> {
        let mut all = Vec::new();
        for (name, gradient) in self.unroll.gradients().to_arrays().unwrap() {
            let gradient = gradient.to_f64_vec();
            let by_step = ["z", "log_lr", "log_momentum"].contains(&&*name);
            let parts = if by_step { STEPS } else { 1 };
            let size = gradient.len() / parts;
            let start = self.starts.iter().any(|spec| spec.name == name);
            for part in 0..parts {
                let range = part * size..(part + 1) * size;
                let numbers = gradient[range.clone()].to_vec();
                let name = name.clone();
                all.push((Place { name, range, start }, numbers));
            }
        }
        all
    }

    /// The slope of the meta-loss along a direction in one array, by differences of fourth order. The
    /// inner gradients jump where a pooling window or a rectifier changes sides, and so does the meta-loss:
    /// the points must be near enough that none of the thousands does so between them.
    fn slope(&mut self, place: &Place, direction: &[f64]) -> f64 {
        const H: f64 = 5e-7;
        let at = self.values.get(&place.name).unwrap();
        let mut moved = |steps: f64| {
            let mut numbers = at.to_f64_vec();
            for (x, d) in numbers[place.range.clone()].iter_mut().zip(direction) {
                *x += steps * H * d;
            }
            let array = Array::new(at.shape().clone(), numbers).unwrap();
            self.values.write(&place.name, &array).unwrap();
            self.differentiate()
        };
        let difference =
            (8.0 * (moved(1.0) - moved(-1.0)) - (moved(2.0) - moved(-2.0))) / (12.0 * H);
        self.values.write(&place.name, &at).unwrap();
        difference
    }
}

/// An array, and which of its numbers.
#[derive(Clone, Debug)]
struct Place {
    name: String,
    range: Range<usize>,
    /// Whether learners start from it.
    start: bool,
}

fn norm(numbers: &[f64]) -> f64 {
    numbers.iter().map(|x| x * x).sum::<f64>().sqrt()
}

fn length_of_all(learned: &[(Place, Vec<f64>)]) -> f64 {
    norm(&learned.iter().map(|(_, g)| norm(g)).collect::<Vec<_>>())
}

/// Along every array's own gradient the slope is the gradient's length.
#[test]
fn the_meta_gradient_of_a_gtn_is_the_slope_of_its_meta_loss() {
    for (kind, teacher) in [
        (Norm::MeanOnly, (Makes::Images, Noise::Learned, Rates::One)),
        (Norm::Batch, (Makes::Images, Noise::Learned, Rates::Role)),
        (
            Norm::Batch,
            (Makes::ImagesOfSoftLabels, Noise::Gaussian, Rates::One),
        ),
        (
            Norm::Batch,
            (Makes::PixelsOfSoftLabels, Noise::Learned, Rates::One),
        ),
        (
            Norm::Batch,
            (Makes::FewPixelsOfSoftLabels, Noise::Learned, Rates::One),
        ),
        (
            Norm::Batch,
            (Makes::ImagesAndLabels, Noise::Learned, Rates::One),
        ),
        (
            Norm::MeanOnly,
            (Makes::LabelsOfReal, Noise::Fresh, Rates::One),
        ),
    ] {
        let mut gtn = Gtn::taught(teacher, &[0], kind, Mode::Mixed);
        gtn.differentiate();
        let learned = gtn.learned();
        let whole = length_of_all(&learned);
        for (place, gradient) in learned {
            let length = norm(&gradient);
            let direction: Vec<f64> = gradient.iter().map(|g| g / length.max(1e-300)).collect();
            let slope = gtn.slope(&place, &direction);
            assert!(
                (slope - length).abs() <= 1e-7 * length + 1e-9 * whole,
                "{kind:?} {teacher:?} {place:?}: {slope} and {length}"
            );
        }
    }
}

#[test]
fn both_modes_give_the_same_meta_gradient_of_a_gtn() {
    for kind in [Norm::MeanOnly, Norm::Batch] {
        let [mixed, reverse] = [Mode::Mixed, Mode::Reverse].map(|mode| {
            let mut gtn = Gtn::new(kind, mode);
            gtn.differentiate();
            gtn.learned()
        });
        let whole = length_of_all(&reverse);
        for ((place, a), (_, b)) in mixed.iter().zip(&reverse) {
            let apart: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
            // The floor is for gradients that are zero but for rounding, as of a gain before a batch norm.
            assert!(
                norm(&apart) <= 1e-12 * norm(b).max(1e-4 * whole),
                "{kind:?} {place:?}: {:e} of {:e}",
                norm(&apart),
                norm(b)
            );
        }
    }
}

#[test]
fn the_meta_gradient_of_several_learners_is_the_mean_of_theirs() {
    let differentiate = |learners: &[u64], kind, mode| {
        let mut gtn = Gtn::with(learners, kind, mode);
        (gtn.differentiate(), gtn.learned())
    };
    for (kind, mode) in [
        (Norm::MeanOnly, Mode::Mixed),
        (Norm::Batch, Mode::Mixed),
        (Norm::Batch, Mode::Reverse),
    ] {
        let (loss, together) = differentiate(&[0, 1, 2], kind, mode);
        let alone = [0, 1, 2].map(|number| differentiate(&[number], kind, mode));
        let mean = alone.iter().map(|(loss, _)| loss / 3.0).sum::<f64>();
        assert!((loss - mean).abs() <= 1e-10 * mean, "{loss} and {mean}");
        let whole = length_of_all(&together);
        for (i, (place, found)) in together.iter().enumerate() {
            let shares = alone
                .iter()
                .map(|(_, learned)| learned[i].1.iter().map(|g| g / 3.0));
            // Every learner has a start of its own; everything else is theirs together.
            let wanted: Vec<f64> = if place.start {
                shares.flatten().collect()
            } else {
                let mut sum = vec![0.0; found.len()];
                shares.for_each(|share| sum.iter_mut().zip(share).for_each(|(s, g)| *s += g));
                sum
            };
            assert_eq!(found.len(), wanted.len(), "{place:?}");
            let apart: Vec<f64> = found.iter().zip(&wanted).map(|(a, b)| a - b).collect();
            assert!(
                norm(&apart) <= 1e-10 * norm(&wanted).max(1e-4 * whole),
                "{kind:?} {mode:?} {place:?}: {:e} of {:e}",
                norm(&apart),
                norm(&wanted)
            );
        }
    }
}

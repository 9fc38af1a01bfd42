//! The meta-gradient of a whole small GTN in f64: generator, weight norm, a learner with running
//! statistics, momentum, a real-data loss at several inner steps.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use autograd::{Given, Horizon, Mode, Port, Records, Training, Unroll};
use gtn::nn::{Generator, GeneratorConfig, LearnerKind, Norm, ParamSpec, Variant, init, stack};
use gtn::outer::training::{by_generator, together};
use kernels::Device;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tensor::{Array, DType};

const STEPS: usize = 4;
const OUTER_AT: [usize; 2] = [2, STEPS];
const BATCH: usize = 10;
const OUTER_BATCH: usize = 12;

/// All that a meta-gradient is taken at, and with respect to.
struct Gtn {
    unroll: Unroll,
    start: Records,
    phi: Records,
    rows: Records,
    rates: Records,
    outer: Records,
}

/// Every array of a training in f64; the program sets them up in f32.
fn widen(training: &mut Training<'_>) {
    let Training {
        theta,
        buffers,
        shared,
        rows,
        outer_rows,
        ..
    } = training;
    let rows = rows.iter_mut().map(|row| &mut row.port);
    let arrays = [theta, buffers, shared, outer_rows];
    for port in arrays.into_iter().flatten().chain(rows) {
        port.dtype = DType::F64;
    }
}

impl Gtn {
    fn new(norm: Norm, mode: Mode) -> Self {
        Self::with(&[0], norm, mode)
    }

    /// With learners of these numbers, trained at once.
    fn with(learners: &[u64], norm: Norm, mode: Mode) -> Self {
        let device = Device::cpu(Some(1)).unwrap();
        let config = GeneratorConfig {
            variant: Variant::Paper,
            noise: 3,
            classes: 10,
            hidden: 6,
            channels: [3, 2],
            image: [28, 28, 1],
        };
        let generator = Generator::new(config).unwrap();
        let learner = LearnerKind::BaseFc
            .learner([28, 28, 1], 10, &[2, 3, 5], norm)
            .unwrap();
        let alone = by_generator(&generator, &learner, BATCH, OUTER_BATCH, true);
        let mut training = together(alone, learners.len());
        widen(&mut training);
        let records = |ports: Vec<Port>, count| Records::new(&device, ports, count).unwrap();
        let horizon = Horizon::new(STEPS)
            .outer_at(|step| OUTER_AT.contains(&step))
            .mode(mode);
        let gtn = Self {
            start: records(training.start_ports(), 1),
            phi: records(training.shared.clone(), 1),
            rows: records(training.row_ports(), STEPS),
            outer: records(training.outer_rows.clone(), OUTER_AT.len()),
            rates: records(training.hyper_ports(), STEPS),
            unroll: Unroll::new(&device, &training, &horizon).unwrap(),
        };
        gtn.draw(generator.params(), learner.params(), learners);
        gtn
    }

    fn draw(&self, phi: &[ParamSpec], theta: &[ParamSpec], learners: &[u64]) {
        let rng = &mut StdRng::seed_from_u64(3);
        let phi = init(phi, DType::F64, rng).unwrap();
        let first = init(theta, DType::F64, rng).unwrap();
        let learner = |&number: &u64| match number {
            0 => first.clone(),
            _ => init(theta, DType::F64, &mut StdRng::seed_from_u64(100 + number)).unwrap(),
        };
        let theta = stack(&learners.iter().map(learner).collect::<Vec<_>>()).unwrap();
        for (records, arrays) in [(&self.phi, phi), (&self.start, theta)] {
            for (field, array) in arrays.iter().enumerate() {
                records.set(0, field, array).unwrap();
            }
        }
        for records in [&self.rows, &self.rates, &self.outer] {
            for record in 0..records.count() {
                for (field, port) in records.ports().iter().enumerate() {
                    let numbers: Vec<f64> = match port.name.as_str() {
                        "lr" => vec![0.1 + 0.02 * record as f64],
                        "momentum" => vec![0.6 - 0.1 * record as f64],
                        "y" => (0..port.shape.count())
                            .map(|i| f64::from(u8::from(i / 10 % 10 == i % 10)))
                            .collect(),
                        _ => (0..port.shape.count())
                            .map(|_| rng.random_range(-1.0..1.0))
                            .collect(),
                    };
                    let array = Array::new(port.shape.clone(), numbers).unwrap();
                    records.set(record, field, &array).unwrap();
                }
            }
        }
    }

    /// Computes the meta-gradient; gives the meta-loss.
    fn differentiate(&mut self) -> f64 {
        let given = Given {
            start: &self.start,
            shared: &self.phi,
            rows: &self.rows,
            hyper: &self.rates,
            outer_rows: &self.outer,
        };
        self.unroll.gradient(given).unwrap().total()
    }

    /// What is learned, by name: where the values are, and the meta-gradient.
    fn learned(&self) -> Vec<(String, Place, Vec<f64>)> {
        let mut all = Vec::new();
        let mut add = |records: &Records, gradient: &Records, from: usize, place: Place| {
            let name = format!("{} {}", records.ports()[place.field].name, place.record);
            all.push((
                name,
                place,
                gradient.get(from, place.field).unwrap().to_f64_vec(),
            ));
        };
        let (start_gradient, at) = self.unroll.start_gradient();
        for (field, port) in self.start.ports().iter().enumerate() {
            // Momentum and statistics start from zero and are not learned.
            if port.name.ends_with(['v', 's', 'b']) && !port.name.contains("momentum") {
                let place = Place {
                    of: Of::Start,
                    record: 0,
                    field,
                };
                add(&self.start, start_gradient, at, place);
            }
        }
        for field in 0..self.phi.ports().len() {
            let place = Place {
                of: Of::Phi,
                record: 0,
                field,
            };
            add(&self.phi, self.unroll.shared_gradient(), 0, place);
        }
        for record in 0..STEPS {
            let (noise, rates) = (self.unroll.row_gradient(), self.unroll.hyper_gradient());
            for (of, records, gradient, field) in [
                (Of::Rows, &self.rows, noise, 0),
                (Of::Rates, &self.rates, rates, 0),
                (Of::Rates, &self.rates, rates, 1),
            ] {
                let place = Place { of, record, field };
                add(records, gradient, record, place);
            }
        }
        all
    }

    fn records(&self, of: Of) -> &Records {
        match of {
            Of::Start => &self.start,
            Of::Phi => &self.phi,
            Of::Rows => &self.rows,
            Of::Rates => &self.rates,
        }
    }

    /// The slope of the meta-loss along a direction in one array, by differences of fourth order. The
    /// inner gradients jump where a pooling window or a rectifier changes sides, and so does the meta-loss:
    /// the points must be near enough that none of the thousands does so between them.
    fn slope(&mut self, place: Place, direction: &[f64]) -> f64 {
        const H: f64 = 5e-7;
        let Place { of, record, field } = place;
        let at = self.records(of).get(record, field).unwrap();
        let mut moved = |steps: f64| {
            let along = at
                .to_f64_vec()
                .iter()
                .zip(direction)
                .map(|(x, d)| x + steps * H * d)
                .collect::<Vec<_>>();
            let array = Array::new(at.shape().clone(), along).unwrap();
            self.records(of).set(record, field, &array).unwrap();
            self.differentiate()
        };
        let difference =
            (8.0 * (moved(1.0) - moved(-1.0)) - (moved(2.0) - moved(-2.0))) / (12.0 * H);
        self.records(of).set(record, field, &at).unwrap();
        difference
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Of {
    Start,
    Phi,
    Rows,
    Rates,
}

#[derive(Clone, Copy)]
struct Place {
    of: Of,
    record: usize,
    field: usize,
}

fn norm(numbers: &[f64]) -> f64 {
    numbers.iter().map(|x| x * x).sum::<f64>().sqrt()
}

fn length_of_all(learned: &[(String, Place, Vec<f64>)]) -> f64 {
    norm(&learned.iter().map(|(_, _, g)| norm(g)).collect::<Vec<_>>())
}

/// Along every array's own gradient the slope is the gradient's length.
#[test]
fn the_meta_gradient_of_a_gtn_is_the_slope_of_its_meta_loss() {
    for kind in [Norm::MeanOnly, Norm::Batch] {
        let mut gtn = Gtn::new(kind, Mode::Mixed);
        gtn.differentiate();
        let learned = gtn.learned();
        let whole = length_of_all(&learned);
        for (name, place, gradient) in learned {
            let length = norm(&gradient);
            let direction: Vec<f64> = gradient.iter().map(|g| g / length.max(1e-300)).collect();
            let slope = gtn.slope(place, &direction);
            assert!(
                (slope - length).abs() <= 1e-7 * length + 1e-9 * whole,
                "{kind:?} {name}: {slope} and {length}"
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
        for ((name, _, a), (_, _, b)) in mixed.iter().zip(&reverse) {
            let apart: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
            // The floor is for gradients that are zero but for rounding, as of a gain before a batch norm.
            assert!(
                norm(&apart) <= 1e-12 * norm(b).max(1e-4 * whole),
                "{kind:?} {name}: {:e} of {:e}",
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
        for (i, (name, place, found)) in together.iter().enumerate() {
            let shares = alone
                .iter()
                .map(|(_, learned)| learned[i].2.iter().map(|g| g / 3.0));
            // Every learner has a start of its own; everything else is theirs together.
            let wanted: Vec<f64> = if place.of == Of::Start {
                shares.flatten().collect()
            } else {
                let mut sum = vec![0.0; found.len()];
                shares.for_each(|share| sum.iter_mut().zip(share).for_each(|(s, g)| *s += g));
                sum
            };
            assert_eq!(found.len(), wanted.len(), "{name}");
            let apart: Vec<f64> = found.iter().zip(&wanted).map(|(a, b)| a - b).collect();
            assert!(
                norm(&apart) <= 1e-10 * norm(&wanted).max(1e-4 * whole),
                "{kind:?} {mode:?} {name}: {:e} of {:e}",
                norm(&apart),
                norm(&wanted)
            );
        }
    }
}

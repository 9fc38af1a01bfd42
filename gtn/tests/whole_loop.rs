//! Every family through the whole loop, in f64: the meta-gradient of a small training against differences, and forward over
//! reverse against reverse over reverse.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use autograd::prelude::*;
use gtn::nn::network::Activation;
use gtn::nn::widths::Widths;
use gtn::nn::{Family, Learner, Network, Statistics, init};
use rand::{SeedableRng, rngs::StdRng};

const IMAGE: [usize; 3] = [16, 16, 1];
const CLASSES: usize = 3;
const STEPS: usize = 3;
const BATCH: usize = 6;

/// Layers that no family has.
const OTHERS: [&str; 4] = [
    "conv 4 | group 2 | silu | conv 4 3x1 groups 2 dilation 2 stride 2 | layer | leaky 0.2 | avg 3 stride 2 pad 1 | mean | dense",
    "init orthogonal | concat(conv 2 | mean_only | tanh; max 3 stride 1 pad 1) | depthwise 5x5 stride 3 | gelu | dense 4 | group 2 | dense",
    "conv 3 stride 2 | batch | silu | dropout 0.3 | add(conv 3 | tanh | drop_path 0.5) | mean | dense",
    "weight_norm off | init xavier_uniform 2 | instance | conv 3 2x2 stride 2 | bias | add(conv 3 1x1; conv 3 | tanh; input) | dense",
];

/// Small learners of all families; smooth, so that differences are slopes.
fn learners() -> Vec<(String, Learner)> {
    let family = |family: &Family| {
        let small = Family {
            widths: Widths::fixed(&vec![3; family.widths.layers()]),
            activations: vec![Activation::Gelu],
            depth: [1; 2],
            ..family.clone()
        };
        (family.name.clone(), small.middle().unwrap().network)
    };
    let other = |text: &&str| (text.to_string(), text.parse::<Network>().unwrap());
    let networks = Family::all()
        .iter()
        .map(family)
        .chain(OTHERS.iter().map(other));
    let learner =
        |(name, network): (String, Network)| (name, network.learner(IMAGE, CLASSES).unwrap());
    networks.map(learner).collect()
}

/// SGD on free images, which are learned with the rates and the start.
fn training(learner: &Learner) -> Training<'_> {
    let [h, w, c] = IMAGE;
    let spec = |name: &str, shape: &[usize]| ArraySpec::new(name, F64, shape);
    let specs = |params: &[gtn::nn::ParamSpec]| -> Vec<ArraySpec> {
        params.iter().map(|p| spec(&p.name, &p.shape)).collect()
    };
    let weights = specs(learner.params());
    Training::new(Optimizer::Sgd)
        .learned([
            spec("x", &[STEPS, BATCH, h, w, c]),
            spec("log_lr", &[STEPS]),
        ])
        .learned(&weights)
        .weights(weights)
        .buffers(specs(learner.buffers()))
        .given([
            spec("y", &[STEPS, BATCH, CLASSES]),
            spec("x_real", &[BATCH, h, w, c]),
            spec("y_real", &[BATCH, CLASSES]),
            ArraySpec::new("dropped", U32, [STEPS, 4]),
        ])
        .per_step(["x", "y", "dropped"])
        .prepare("lr", |s| s["log_lr"].exp())
        .loss_and_buffers(|s| {
            let statistics = Statistics::Training(s["dropped"]);
            let (logits, buffers) = learner.logits(s.weights(), s["x"], statistics)?;
            Ok((logits.cross_entropy(s["y"])?, buffers))
        })
        .outer(|s| {
            let statistics = Statistics::Stored(s.buffers());
            let (logits, _) = learner.logits(s.weights(), s["x_real"], statistics)?;
            logits.cross_entropy(s["y_real"])
        })
}

struct Meta {
    unroll: Unroll,
    values: Values,
    learned: Vec<String>,
}

impl Meta {
    fn new(learner: &Learner, mode: Mode) -> Self {
        let device = Device::cpu(Some(1)).unwrap();
        let training = training(learner);
        let horizon = Horizon::new(STEPS).mode(mode);
        let mut values = Values::zeros(&device, &[]).unwrap();
        let specs = training.given_specs().chain(training.learned_specs());
        for (spec, seed) in specs.zip(1..) {
            let array = match &*spec.name {
                "log_lr" => Array::full(F64, [STEPS], 0.1_f64.ln()),
                "dropped" => {
                    Array::new([STEPS, 4], (0..4 * STEPS as u32).collect::<Vec<_>>()).unwrap()
                }
                name if name.starts_with('y') => {
                    let hot = |i: usize| f64::from(u8::from(i / CLASSES % CLASSES == i % CLASSES));
                    Array::new(
                        spec.shape.clone(),
                        (0..spec.shape.count()).map(hot).collect::<Vec<_>>(),
                    )
                    .unwrap()
                }
                _ => Array::normal(F64, spec.shape.clone(), 1.0, seed),
            };
            values.set(&spec.name, &array).unwrap();
        }
        let start = init(learner.params(), F64, &mut StdRng::seed_from_u64(3)).unwrap();
        for (param, array) in learner.params().iter().zip(&start) {
            values.set(&param.name, array).unwrap();
        }
        Self {
            unroll: Unroll::new(&device, &training, &horizon).unwrap(),
            values,
            learned: training
                .learned_specs()
                .map(|spec| spec.name.clone())
                .collect(),
        }
    }

    fn loss(&mut self) -> f64 {
        self.unroll.gradient(&self.values).unwrap().total()
    }

    fn gradient(&mut self) -> Vec<f64> {
        self.loss();
        let gradients = self.unroll.gradients();
        let of = |name: &String| gradients.get(name).unwrap().to_f64_vec();
        self.learned.iter().flat_map(of).collect()
    }

    /// Moves all that is learned along a direction.
    fn moved(&mut self, direction: &[f64], length: f64) -> f64 {
        let mut rest = direction;
        let mut before = Vec::new();
        for name in &self.learned {
            let array = self.values.get(name).unwrap();
            let (own, after) = rest.split_at(array.shape().count());
            rest = after;
            let along = array.to_f64_vec().into_iter().zip(own);
            let moved: Vec<f64> = along.map(|(x, d)| x + length * d).collect();
            let moved = Array::new(array.shape().clone(), moved).unwrap();
            self.values.write(name, &moved).unwrap();
            before.push(array);
        }
        let loss = self.loss();
        for (name, array) in self.learned.iter().zip(&before) {
            self.values.write(name, array).unwrap();
        }
        loss
    }
}

#[test]
fn meta_gradients_of_all_families_are_slopes_in_both_modes() {
    // Near enough that no pooling window changes its winner between the points.
    const H: f64 = 1e-7;
    for (name, learner) in learners() {
        let mut reverse = Meta::new(&learner, Mode::Reverse);
        let gradient = reverse.gradient();
        let length = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
        let mixed = Meta::new(&learner, Mode::Mixed).gradient();
        let apart = mixed.iter().zip(&gradient).map(|(a, b)| (a - b).powi(2));
        let apart = apart.sum::<f64>().sqrt();
        assert!(apart <= 1e-11 * length, "{name}: {apart:e} of {length:e}");
        // Along the gradient the slope is its length.
        let direction: Vec<f64> = gradient.iter().map(|g| g / length).collect();
        let mut at = |steps: f64| reverse.moved(&direction, steps * H);
        let slope = (8.0 * (at(1.0) - at(-1.0)) - (at(2.0) - at(-2.0))) / (12.0 * H);
        let error = (slope / length - 1.0).abs();
        assert!(error < 1e-6, "{name}: slope {slope}, gradient {length}");
    }
}

//! The set-ups against JAX: a whole meta-gradient on one tape, reverse over reverse. Slow and greedy for
//! memory, but nothing but the networks and the tape.

use crate::nn::{ParamSpec, Setup, Statistics, layers};
use autograd::{Plan, Result, Tape, Var};
use kernels::Device;
use std::collections::BTreeMap;
use tensor::{Array, read_safetensors};

/// Inputs by name, with their arrays in our order of axes.
struct Start<'t> {
    setup: Setup,
    vars: BTreeMap<String, Var<'t>>,
    arrays: BTreeMap<String, Array>,
}

impl<'t> Start<'t> {
    fn new(setup: Setup, tape: &'t Tape, file: &BTreeMap<String, Array>) -> Self {
        let own = |(name, array): (&String, &Array)| {
            let name = name.strip_prefix("init.")?.to_owned();
            let array = setup.from_file(&name, array).unwrap();
            Some((name, array))
        };
        let arrays: BTreeMap<_, _> = file.iter().filter_map(own).collect();
        let input = |(name, a): (&String, &Array)| {
            let var = tape.input(name, a.dtype(), a.shape().clone()).unwrap();
            (name.clone(), var)
        };
        let vars = arrays.iter().map(input).collect();
        Self {
            setup,
            vars,
            arrays,
        }
    }

    fn params(&self, prefix: &str, specs: &[ParamSpec]) -> Vec<Var<'t>> {
        let named = |p: &ParamSpec| self.vars[&format!("{prefix}{}", p.name)];
        specs.iter().map(named).collect()
    }

    /// Slice number t of an array over inner steps.
    fn at(&self, name: &str, t: usize) -> Result<Var<'t>> {
        let whole = self.vars[name];
        let mut extents = whole.shape().to_vec();
        extents[0] = 1;
        let mut start = vec![0; extents.len()];
        start[0] = t;
        whole.slice(&start, &extents)?.reshape(&extents[1..])
    }

    fn meta_loss(&self) -> Result<Var<'t>> {
        let Setup {
            learner, generator, ..
        } = &self.setup;
        let generated = self.vars.contains_key("meta.z");
        let prepared = if generated {
            generator.prepare(&self.params("meta.gen.", generator.params()))?
        } else {
            Vec::new()
        };
        let cross_entropy = |theta: &[Var<'t>], x: Var<'t>, y: Var<'t>| {
            let (logits, _) = learner.logits(theta, x, Statistics::Batch)?;
            layers::cross_entropy(logits, y.one_hot(10, x.dtype())?)
        };
        let mut theta = self.params("theta0.", learner.params());
        let zeros = |p: &Var<'t>| p.tape().constant(0.0, p.dtype(), p.shape());
        let mut momenta: Vec<_> = theta.iter().map(zeros).collect();
        for t in 0..self.setup.steps {
            let y = self.at("y", t)?;
            let x = if generated {
                let z = self.at("meta.z", t)?;
                generator.images(&prepared, z, y.one_hot(10, z.dtype())?)?
            } else {
                self.at("meta.x", t)?
            };
            let loss = cross_entropy(&theta, x, y)?;
            let gradients = x.tape().grad(loss, &theta)?;
            let (lr, momentum) = (self.at("meta.lr", t)?, self.at("meta.mom", t)?);
            for ((p, u), g) in theta.iter_mut().zip(&mut momenta).zip(gradients) {
                *u = ((momentum * *u)? + g)?;
                *p = (*p - (lr * *u)?)?;
            }
        }
        cross_entropy(&theta, self.vars["xo"], self.vars["yo"])
    }
}

fn largest(numbers: &[f64]) -> f64 {
    numbers.iter().fold(0.0, |m, x| x.abs().max(m))
}

fn agrees_with_jax(setup: &str, data: &str, bn: bool) {
    let suffix = if bn { "-bn" } else { "" };
    let file = format!("../tests/goldens/{setup}-{data}{suffix}.safetensors");
    let (golden, _) = read_safetensors(file).unwrap();
    let tape = Tape::new();
    let start = Start::new(Setup::parse(setup, bn).unwrap(), &tape, &golden);
    let meta: Vec<(&str, Var<'_>)> = start
        .vars
        .iter()
        .filter_map(|(name, var)| Some((name.strip_prefix("meta.")?, *var)))
        .collect();
    let vars: Vec<_> = meta.iter().map(|pair| pair.1).collect();
    let loss = start.meta_loss().unwrap();
    let mut outs = vec![loss];
    outs.extend(tape.grad(loss, &vars).unwrap());
    let arrays: Vec<_> = start.arrays.iter().map(|(n, a)| (&n[..], a)).collect();
    let device = Device::cpu(Some(1)).unwrap();
    let results = Plan::new(&outs).unwrap().run(&device, &arrays).unwrap();

    let expected = golden["loss"].to_f64_vec()[0];
    assert!((results[0].to_f64_vec()[0] - expected).abs() < 1e-11);
    let wanted: BTreeMap<&str, Vec<f64>> = golden
        .iter()
        .filter_map(|(name, array)| Some((name.strip_prefix("grad.")?, array.to_f64_vec())))
        .collect();
    assert_eq!(wanted.len(), meta.len());
    // A bias before a batch norm has a gradient of zero: differences count against the others as well.
    let floor = wanted.values().map(|v| largest(v)).fold(0.0, f64::max) * 1e-6;
    for ((name, _), ours) in meta.iter().zip(&results[1..]) {
        let (ours, theirs) = (start.setup.to_file(name, ours).unwrap(), &wanted[name]);
        let differences = ours
            .to_f64_vec()
            .into_iter()
            .zip(theirs)
            .map(|(a, b)| a - b);
        let worst = largest(&differences.collect::<Vec<_>>()) / largest(theirs).max(floor);
        assert!(worst < 1e-9, "{setup} {data} {name}: {worst:e}");
    }
}

#[test]
fn tiny_learners_agree_with_jax() {
    agrees_with_jax("tiny", "gen", false);
    agrees_with_jax("tiny", "gen", true);
    agrees_with_jax("tiny", "direct", false);
    agrees_with_jax("tiny", "direct", true);
}

#[test]
fn tiny_perceptrons_agree_with_jax() {
    agrees_with_jax("tinymlp", "gen", false);
    agrees_with_jax("tinymlp", "direct", false);
}

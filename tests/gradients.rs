//! Every primitive and derived function of the tape: derivatives of orders 1 and 2 in all modes, plans
//! against the reference, f32 against f64.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

#[path = "gradients/conventions.rs"]
mod conventions;
#[path = "gradients/programs.rs"]
mod programs;
#[path = "gradients/table.rs"]
mod table;

use autograd::check::{self, Options};
use autograd::prelude::*;
use autograd::reference;
use table::{Case, table};

/// Numbers in [−1, 1) that depend on the seed.
fn noise(shape: Shape, seed: u64) -> Array {
    Array::uniform(F64, shape, [-1.0, 1.0], seed)
}

/// A function with its first and second derivatives along random directions, and what it runs on.
struct Recorded<'t> {
    outs: Vec<Var<'t>>,
    arrays: Vec<(Var<'t>, Array)>,
}

impl<'t> Recorded<'t> {
    /// Records it with float inputs of a type.
    fn new<F>(tape: &'t Tape, f: F, points: &[Array], dtype: DType) -> Result<Self>
    where
        F: FnOnce(&'t Tape, &[Var<'t>]) -> Result<Vec<Var<'t>>>,
    {
        let mut arrays: Vec<(Var<'t>, Array)> = Vec::new();
        let mut add = |name: &str, array: Array| {
            let var = tape.input(name, array.dtype(), array.shape().clone())?;
            arrays.push((var, array));
            Ok::<_, Error>(var)
        };
        let mut inputs = Vec::new();
        for point in points {
            let float = point.dtype().is_float();
            let point = point.cast(if float { dtype } else { point.dtype() });
            inputs.push(add("input", point)?);
        }
        let outs = f(tape, &inputs)?;
        inputs.retain(|var| var.dtype().is_float());
        let mut directions = |name: &str, vars: &[Var<'t>]| -> Result<Vec<_>> {
            let mut pairs = Vec::new();
            for (i, var) in vars.iter().enumerate() {
                let numbers = noise(var.shape(), 7 + i as u64).cast(dtype);
                pairs.push((*var, add(name, numbers)?));
            }
            Ok(pairs)
        };
        let cotangents = directions("cotangent", &outs)?;
        let tangents = directions("tangent", &inputs)?;
        let forward = tape.jvp(&outs, &tangents)?;
        let gradient = tape.vjp(&cotangents, &inputs)?;
        let second = tape.jvp(&gradient, &tangents)?;
        let outs = [outs, forward, gradient, second].concat();
        Ok(Self { outs, arrays })
    }

    fn given(&self) -> Vec<(Var<'t>, &Array)> {
        let pairs = self.arrays.iter();
        pairs.map(|(var, array)| (*var, array)).collect()
    }

    fn planned(&self, threads: usize) -> Result<Vec<Array>> {
        Plan::new(&self.outs)?.run(&Device::cpu(Some(threads))?, &self.given())
    }

    fn reference(&self) -> Result<Vec<Array>> {
        reference::run(&self.outs, &self.given())
    }
}

/// The greatest difference, relative to the greatest number (to 1 if that is less).
fn apart(ours: &Array, theirs: &Array) -> f64 {
    assert_eq!(ours.shape(), theirs.shape());
    let (ours, theirs) = (ours.to_f64_vec(), theirs.to_f64_vec());
    let scale = theirs.iter().fold(1.0_f64, |most, x| most.max(x.abs()));
    let pairs = ours.iter().zip(&theirs);
    let errors = pairs.map(|(a, b)| if a == b { 0.0 } else { (a - b).abs() / scale });
    errors.fold(
        0.0,
        |most, e| if e <= most || most.is_nan() { most } else { e },
    )
}

/// Fails with a line for every case that does.
fn for_all_cases(test: impl Fn(&Case) -> std::result::Result<(), String>) {
    let failures: Vec<String> = table()
        .iter()
        .filter_map(|case| Some(format!("{}: {}", case.name, test(case).err()?)))
        .collect();
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

#[test]
fn derivatives_agree_with_differences_and_each_other() {
    for_all_cases(|case| {
        let report = check::gradients(&case.f, &case.points, &Options::default());
        report.map(|_| ()).map_err(|error| error.to_string())
    });
}

#[test]
fn every_primitive_is_in_the_table() {
    let mut missing = reference::primitives();
    for case in table() {
        let tape = Tape::new();
        let recorded = Recorded::new(&tape, &case.f, &case.points, F64).unwrap();
        for name in reference::primitives_of(&recorded.outs) {
            missing.remove(name);
        }
    }
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn plans_compute_what_the_tape_says() {
    for_all_cases(|case| {
        let tape = Tape::new();
        let compare = || {
            let recorded = Recorded::new(&tape, &case.f, &case.points, F64)?;
            let (ours, theirs) = (recorded.planned(1)?, recorded.reference()?);
            let same = ours == recorded.planned(3)?;
            let errors = ours.iter().zip(&theirs).map(|(a, b)| apart(a, b));
            Ok((same, errors.collect::<Vec<_>>()))
        };
        let (same, errors) = compare().map_err(|error: Error| error.to_string())?;
        if !same {
            return Err("one thread and three give different bits".into());
        }
        match errors
            .iter()
            .position(|error| error.is_nan() || *error > 1e-13)
        {
            Some(i) => Err(format!("result {i} is off by {:.1e}", errors[i])),
            None => Ok(()),
        }
    });
}

#[test]
fn single_precision_is_as_good_as_it_can_be() {
    for_all_cases(|case| {
        let tape = Tape::new();
        let compare = || {
            let recorded = Recorded::new(&tape, &case.f, &case.points, F32)?;
            let (ours, theirs) = (recorded.planned(1)?, recorded.reference()?);
            let errors = ours.iter().zip(&theirs).map(|(a, b)| apart(a, b));
            Ok(errors.collect::<Vec<_>>())
        };
        let errors = compare().map_err(|error: Error| error.to_string())?;
        let terms = case.points.iter().map(|p| p.shape().count()).max();
        let allowed = 1e-5 * (terms.unwrap_or(1).max(1) as f64).sqrt();
        match errors
            .iter()
            .position(|error| error.is_nan() || *error > allowed)
        {
            Some(i) => Err(format!("result {i} is off by {:.1e}", errors[i])),
            None => Ok(()),
        }
    });
}

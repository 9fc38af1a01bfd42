//! Small inputs at the edges of the number range, with right answers by hand or by arithmetic with 60 digits
//! (`data/edge-cases.json`): values, first derivatives in both directions, second ones in all four orders, on the
//! processor and on the stand-in CUDA device.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

#[path = "edge_cases/programs.rs"]
mod programs;
#[path = "../kernels/tests/stand_in/mod.rs"]
mod stand_in;

use autograd::prelude::*;
use kernels::Precision;
use serde_json::Value;
use stand_in::StandIn;

/// Kinds and ids that are no programs on a tape: tests of files, settings, runs, optimisers and the command line have
/// them.
const ELSEWHERE: [&str; 14] = [
    "data-names",
    "data-content",
    "npz-header",
    "safetensors",
    "settings-vanish-in-f32",
    "eps-vanishes",
    "metrics-lost",
    "message",
    "touched",
    "long-sums",
    "R27b",
    "R27b64",
    "R30e",
    "R30f",
];

/// A case of the file.
struct Case {
    id: String,
    inputs: Vec<Array>,
    /// Which inputs are differentiated.
    wrt: Vec<usize>,
    value: Option<Vec<f64>>,
    first: Option<Vec<f64>>,
    second: Option<Vec<f64>>,
    relative: f64,
    absolute: f64,
}

fn number(value: &Value) -> f64 {
    match value.as_str() {
        Some("nan") => f64::NAN,
        Some("inf") => f64::INFINITY,
        Some("-inf") => f64::NEG_INFINITY,
        _ => value.as_f64().unwrap(),
    }
}

fn numbers(value: &Value) -> Option<Vec<f64>> {
    Some(value.as_array()?.iter().map(number).collect())
}

fn array(input: &Value) -> Array {
    if let Some(x) = input.get("x") {
        return Array::scalar(number(x), F64);
    }
    let shape = numbers(&input["shape"]).unwrap();
    let shape: Vec<usize> = shape.iter().map(|&n| n as usize).collect();
    let dtype = match input["dtype"].as_str().unwrap() {
        "f32" => F32,
        "f64" => F64,
        _ => I32,
    };
    let values = numbers(&input["values"]).unwrap();
    Array::new(shape, values).unwrap().cast(dtype)
}

impl Case {
    fn new(case: &Value) -> Self {
        let expected = &case["expected"];
        let inputs = case["inputs"]
            .as_array()
            .filter(|inputs| inputs.iter().all(Value::is_object));
        let inputs = inputs.map_or(&[][..], Vec::as_slice);
        let wrt = |i: &usize| inputs[*i]["differentiated"] == true;
        Self {
            id: case["id"].as_str().unwrap().into(),
            inputs: inputs.iter().map(array).collect(),
            wrt: (0..inputs.len()).filter(wrt).collect(),
            value: numbers(&expected["value"]),
            first: numbers(&expected["first"]),
            second: numbers(&expected["second"]),
            relative: number(&case["tolerance"]["relative"]),
            absolute: number(&case["tolerance"]["absolute"]),
        }
    }

    /// Computes all that the file has an answer for; says what is wrong.
    fn check(&self, device: &Device) -> Result<Vec<String>> {
        let tape = Tape::new();
        let mut given = Vec::new();
        let mut input = |array: &Array| -> Result<Var<'_>> {
            let var = tape.input("x", array.dtype(), array.shape().clone())?;
            given.push((var, array.clone()));
            Ok(var)
        };
        let inputs = self
            .inputs
            .iter()
            .map(&mut input)
            .collect::<Result<Vec<_>>>()?;
        let wrt: Vec<Var<'_>> = self.wrt.iter().map(|&i| inputs[i]).collect();
        let zeros = wrt.iter().map(|x| Array::zeros(x.dtype(), x.shape()));
        let zeros: Vec<Array> = zeros.collect();
        let mut direction = || zeros.iter().map(&mut input).collect::<Result<Vec<_>>>();
        let (one, other) = (direction()?, direction()?);
        let out = programs::record(&self.id, &tape, &inputs)?.expect("a program of this id");
        let mut wrong = Vec::new();
        let mut compare = |what: &str, found: &[f64], expected: &Option<Vec<f64>>| {
            let Some(expected) = expected else { return };
            let near = |(x, e): (&f64, &f64)| {
                x == e
                    || x.is_nan() && e.is_nan()
                    || (x - e).abs() <= self.relative * e.abs() + self.absolute
            };
            if found.len() != expected.len() || !found.iter().zip(expected).all(near) {
                wrong.push(format!("{} {what}: {found:?}, not {expected:?}", self.id));
            }
        };
        // Runs a plan for the unit vectors that the directions are.
        let run = |out: Var<'_>, units: [Option<usize>; 2]| -> Result<Vec<f64>> {
            let mut given = given.clone();
            for (vars, unit) in [&one, &other].into_iter().zip(units) {
                let Some(mut at) = unit else { continue };
                for var in vars {
                    let count = var.shape().count();
                    let mut numbers = vec![0.0; count];
                    if at < count {
                        numbers[at] = 1.0;
                    }
                    at = at.wrapping_sub(count);
                    let array = Array::new(var.shape(), numbers)?.cast(var.dtype());
                    given.iter_mut().find(|(known, _)| known == var).unwrap().1 = array;
                }
            }
            let pairs: Vec<_> = given.iter().map(|(var, array)| (*var, array)).collect();
            Ok(Plan::new(&[out])?.run(device, &pairs)?[0].to_f64_vec())
        };
        let count: usize = wrt.iter().map(|x| x.shape().count()).sum();
        let flat = |parts: &[Var<'_>]| -> Result<Vec<f64>> {
            let parts = parts.iter().map(|part| run(*part, [None; 2]));
            Ok(parts.collect::<Result<Vec<_>>>()?.concat())
        };
        compare("value", &run(out, [None; 2])?, &self.value);
        if self.first.is_none() && self.second.is_none() {
            return Ok(wrong);
        }
        let sum = out.sum_all()?;
        let gradient = tape.grad(sum, &wrt)?;
        let slope = tape.jvp(&[sum], &pairs(&wrt, &one))?[0];
        compare("reverse", &flat(&gradient)?, &self.first);
        let forward = (0..count).map(|i| run(slope, [Some(i), None]));
        compare(
            "forward",
            &forward.collect::<Result<Vec<_>>>()?.concat(),
            &self.first,
        );
        if self.second.is_none() {
            return Ok(wrong);
        }
        let seeds = pairs(&gradient, &one);
        let reversed = [
            ("rev∘rev", tape.vjp(&seeds, &wrt)?),
            ("fwd∘rev", tape.jvp(&gradient, &pairs(&wrt, &one))?),
            ("rev∘fwd", tape.grad(slope, &wrt)?),
        ];
        for (order, parts) in reversed {
            let row = |i: usize| -> Result<Vec<f64>> {
                let parts = parts.iter().map(|part| run(*part, [Some(i), None]));
                Ok(parts.collect::<Result<Vec<_>>>()?.concat())
            };
            let rows = (0..count).map(row).collect::<Result<Vec<_>>>()?;
            compare(order, &rows.concat(), &self.second);
        }
        let bend = tape.jvp(&[slope], &pairs(&wrt, &other))?[0];
        let places = (0..count).flat_map(|i| (0..count).map(move |j| (i, j)));
        let bends = places.map(|(i, j)| run(bend, [Some(i), Some(j)]));
        compare(
            "fwd∘fwd",
            &bends.collect::<Result<Vec<_>>>()?.concat(),
            &self.second,
        );
        Ok(wrong)
    }
}

fn pairs<'t>(vars: &[Var<'t>], with: &[Var<'t>]) -> Vec<(Var<'t>, Var<'t>)> {
    vars.iter().copied().zip(with.iter().copied()).collect()
}

/// The cases of the file that are programs.
fn cases() -> Vec<Case> {
    let file: Value = serde_json::from_str(include_str!("data/edge-cases.json")).unwrap();
    let cases = file["cases"].as_array().unwrap().iter();
    let elsewhere = |name: &Value| ELSEWHERE.contains(&name.as_str().unwrap());
    let here = cases.filter(|case| !elsewhere(&case["kind"]) && !elsewhere(&case["id"]));
    here.map(Case::new).collect()
}

fn check(device: &Device, cases: &[Case]) {
    let wrong = cases.iter().flat_map(|case| case.check(device).unwrap());
    let wrong: Vec<String> = wrong.collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// Value, slope and bend at a number; the slopes of what saturates are small, so errors are relative.
const MORE: [(&str, f64, [f64; 3]); 22] = [
    ("root behind a mask", 0.0, [0.0, 0.0, 0.0]),
    ("logarithm behind a mask", 1.0, [0.0, 0.0, 0.0]),
    ("power behind a mask", 0.0, [0.0, 0.0, 0.0]),
    ("cap of an overflow", 60.0, [1.0, 0.0, 0.0]),
    ("cap of an overflow", 1000.0, [1.0, 0.0, 0.0]),
    ("clamp of a logarithm", 0.0, [-5.0, 0.0, 0.0]),
    ("tanh", 10.0, [1.0, 8.244_614_456e-9, -1.648_922_884e-8]),
    ("tanh", -10.0, [-1.0, 8.244_614_456e-9, 1.648_922_884e-8]),
    ("sigmoid", 20.0, [1.0, 2.061_153_614e-9, -2.061_153_605e-9]),
    (
        "sigmoid",
        -20.0,
        [2.061_153_618e-9, 2.061_153_614e-9, 2.061_153_605e-9],
    ),
    (
        "softplus",
        -50.0,
        [1.928_749_848e-22, 1.928_749_848e-22, 1.928_749_848e-22],
    ),
    ("softplus", 50.0, [50.0, 1.0, 1.928_749_848e-22]),
    ("log1p", 1e-20, [1e-20, 1.0, -1.0]),
    ("expm1", 1e-20, [1e-20, 1.0, 1.0]),
    (
        "gelu",
        -10.0,
        [-7.619_853_024e-23, -7.618_400_096e-22, -7.540_706_654e-21],
    ),
    ("gelu", 0.0, [0.0, 0.5, 0.797_884_560_8]),
    ("square of a root", 0.0, [0.0, 1.0, 0.0]),
    ("square by a power", 0.0, [0.0, 0.0, 2.0]),
    ("square by a power", -3.0, [9.0, -6.0, 2.0]),
    ("sign times itself", 0.0, [0.0, 0.0, 0.0]),
    ("log1p", 0.0, [0.0, 1.0, -1.0]),
    ("expm1", 0.0, [0.0, 1.0, 1.0]),
];

/// A function of two numbers at a point: value, slopes, and bends where they are finite.
type Pair = (&'static str, [f64; 2], f64, [f64; 2], Option<[f64; 4]>);

/// The same for two numbers.
const PAIRS: [Pair; 4] = [
    (
        "logsumexp",
        [f64::NEG_INFINITY, 0.0],
        0.0,
        [0.0, 1.0],
        Some([0.0; 4]),
    ),
    (
        "logsumexp",
        [0.0, 20.0],
        20.0,
        [2.061_153_618e-9, 1.0],
        Some([
            2.061_153_614e-9,
            -2.061_153_614e-9,
            -2.061_153_614e-9,
            2.061_153_614e-9,
        ]),
    ),
    ("norm", [3e-25, 4e-25], 5e-25, [0.6, 0.8], None),
    ("norm", [3e25, 4e25], 5e25, [0.6, 0.8], None),
];

/// Those in one type.
fn more(dtype: DType) -> Vec<Case> {
    let case = |id: &str, inputs: &[f64], value: f64, first: &[f64], second: Option<&[f64]>| Case {
        id: id.into(),
        inputs: vec![
            Array::new([inputs.len()], inputs.to_vec())
                .unwrap()
                .cast(dtype),
        ],
        wrt: vec![0],
        value: Some(vec![value]),
        first: Some(first.to_vec()),
        second: second.map(<[f64]>::to_vec),
        relative: if dtype == F64 { 1e-8 } else { 2e-6 },
        absolute: 1e-37,
    };
    let one = MORE
        .map(|(id, x, [value, first, second])| case(id, &[x], value, &[first], Some(&[second])));
    let two = PAIRS.map(|(id, x, value, first, second)| {
        case(id, &x, value, &first, second.as_ref().map(|s| &s[..]))
    });
    one.into_iter().chain(two).collect()
}

#[test]
fn more_of_the_same_kinds_are_right() {
    let device = Device::cpu(Some(1)).unwrap();
    check(
        &device,
        &[more(F32), more(F64)]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>(),
    );
}

#[test]
fn all_are_right() {
    let cases = cases();
    assert_eq!(cases.len(), 46);
    check(&Device::cpu(Some(2)).unwrap(), &cases);
}

/// Sums of 0.1 over so many terms in products, which are off by little: within 1e-5 of the right value.
#[test]
fn long_sums_in_products_keep_their_digits() {
    let device = Device::cpu(Some(2)).unwrap();
    let file: Value = serde_json::from_str(include_str!("data/edge-cases.json")).unwrap();
    let cases = file["cases"].as_array().unwrap().iter();
    for case in cases.filter(|case| case["kind"] == "long-sums") {
        let expected = numbers(&case["expected"]["value"]).unwrap();
        let tape = Tape::new();
        let sums = programs::long_sum(case["id"].as_str().unwrap(), &tape).unwrap();
        let [tenths, ones] = sums.operands;
        let of =
            |var: Var<'_>, x: f32| Array::new(var.shape(), vec![x; var.shape().count()]).unwrap();
        let given = [(tenths, &of(tenths, 0.1)), (ones, &of(ones, 1.0))];
        let found = Plan::new(&[sums.product])
            .unwrap()
            .run(&device, &given)
            .unwrap();
        for x in found[0].to_f64_vec() {
            let error = (x / expected[0] - 1.0).abs();
            assert!(error < 1e-5, "{}: {x}, off by {error:.1e}", case["id"]);
        }
    }
}

#[test]
fn all_in_single_precision_are_right_on_cuda() {
    if let Some(device) = StandIn::build() {
        device.pass(&[], &[]);
    }
}

#[test]
#[ignore = "an ordinary test runs it in a child process on a CUDA device: see `stand_in`"]
fn on_cuda() {
    let mut cases = cases();
    cases.retain(|case| case.inputs.iter().all(|input| input.dtype() != F64));
    cases.extend(more(F32));
    check(&Device::cuda(0, Precision::Fp32).unwrap(), &cases);
}

//! Exported files compute what the engine computes: in `onnxruntime`, and networks in PyTorch as well. Tests
//! are skipped where Python lacks these.

use super::proto::{Extent, Model};
use super::{Trained, generator};
use crate::export::python::Program;
use crate::nn::{Generator, GeneratorConfig, Learner, Network, Statistics, Variant, init};
use autograd::{Plan, Tape, Var};
use kernels::Device;
use prost::Message;
use rand::{SeedableRng, rngs::StdRng};
use std::path::Path;
use std::process::Command;
use tensor::{Array, Arrays, DType, write_npz};

const IMAGE: [usize; 3] = [13, 10, 2];
const CLASSES: usize = 4;
const NORMALISATION: [[f32; 2]; 2] = [[0.3, 0.5], [0.2, 0.25]];

/// Every kind of layer.
const NETWORKS: [&str; 3] = [
    "conv 8 stride 2 | batch | relu | add(conv 8 | instance | gelu | drop_path 0.3) | concat(max 3 stride 1 pad 1; avg 3 stride 1 pad 1) \
     | mean_only | tanh | depthwise 3x3 | group 4 | silu | dropout 0.5 | dense 24 | layer | leaky | dense",
    "weight_norm off | init pytorch | conv 6 2x3 groups 2 pad 0x1x1x0 dilation 1x2 no_bias | bias | layer | graph(a = conv 4 | relu; b = \
     zero; add(a; b | conv 4; a | batch)) | avg 2x3 pad 0x1 | flatten | dense 12 no_bias | group 3 | leaky 0.3 | dense",
    "conv 5 stride 3 | relu | mean | batch | dense",
];

/// Runs a function of arrays in f32.
fn compute(
    arrays: &[Array],
    record: impl for<'t> FnOnce(&[Var<'t>]) -> autograd::Result<Var<'t>>,
) -> Array {
    let tape = Tape::new();
    let numbered = arrays.iter().enumerate();
    let vars: Vec<_> = numbered
        .map(|(i, array)| {
            tape.input(&format!("a{i}"), DType::F32, array.shape().clone())
                .unwrap()
        })
        .collect();
    let plan = Plan::new(&[record(&vars).unwrap()]).unwrap();
    let given: Vec<_> = vars.iter().copied().zip(arrays).collect();
    let device = Device::cpu(Some(1)).unwrap();
    plan.run(&device, &given).unwrap().remove(0)
}

/// A Python that has these modules, `GTN_PYTHON` or the usual one; otherwise a line says that a test is skipped.
fn python(modules: &str) -> Option<String> {
    let named = std::env::var("GTN_PYTHON").ok();
    let has = |python: &String| {
        let imports = format!("import {modules}");
        let found = Command::new(python).args(["-c", &imports]).output();
        found.is_ok_and(|output| output.status.success())
    };
    let python = named.into_iter().chain(["python3".to_owned()]).find(has);
    if python.is_none() {
        eprintln!("skipped: no Python with {modules}; GTN_PYTHON may name one");
    }
    python
}

/// Runs a Python program in a folder. The program prints the largest difference.
fn difference(python: &str, folder: &Path, program: &str) -> f64 {
    let output = Command::new(python)
        .args(["-c", program])
        .current_dir(folder)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    let printed = String::from_utf8(output.stdout).unwrap();
    printed.trim().parse().unwrap()
}

const ONNX: &str = "
import numpy as np, onnx, onnxruntime
onnx.checker.check_model('model.onnx', full_check=True)
arrays = np.load('arrays.npz')
session = onnxruntime.InferenceSession('model.onnx', providers=['CPUExecutionProvider'])
results = session.run(None, {i.name: arrays[i.name] for i in session.get_inputs()})
found = np.concatenate([r.reshape(len(r), -1) for r in results], 1) if len(results) > 1 else results[0]
assert found.shape == arrays['expected'].shape, found.shape
print(np.abs(found - arrays['expected']).max() / max(1, np.abs(arrays['expected']).max()))
";

const TORCH: &str = "
import numpy as np, torch, network
arrays = np.load('arrays.npz')
model = network.load('network.npz')
found = model(torch.from_numpy(arrays['images'])).detach().numpy()
assert found.shape == arrays['expected'].shape, found.shape
print(np.abs(found - arrays['expected']).max() / max(1, np.abs(arrays['expected']).max()))
";

fn drawn(shape: &[usize], seed: u64) -> Array {
    Array::normal(DType::F32, shape, 1.0, seed)
}

/// A learner with parameters and statistics as after some training.
fn trained(text: &str) -> (Learner, [Vec<Array>; 2]) {
    let network: Network = text.parse().unwrap();
    let learner = network.learner(IMAGE, CLASSES).unwrap();
    let weights = init(learner.params(), DType::F32, &mut StdRng::seed_from_u64(5)).unwrap();
    let moved = |(i, array): (usize, Array)| {
        let noise = drawn(array.shape(), i as u64).to_f64_vec();
        let numbers = array.to_f64_vec().into_iter().zip(noise);
        let numbers: Vec<f32> = numbers.map(|(x, e)| (x + 0.2 * e) as f32).collect();
        Array::new(array.shape().clone(), numbers).unwrap()
    };
    let weights = weights.into_iter().enumerate().map(moved).collect();
    let buffers = learner.buffers().iter().enumerate();
    // Variances are above zero; means may be, too.
    let buffers = buffers
        .map(|(i, spec)| Array::uniform(DType::F32, spec.shape.clone(), [0.5, 1.5], i as u64));
    (learner.clone(), [weights, buffers.collect()])
}

#[test]
fn networks_compute_the_same_elsewhere() {
    let [onnx, torch] = ["onnx, onnxruntime, numpy", "torch, numpy"].map(python);
    for text in NETWORKS {
        let (learner, [weights, buffers]) = trained(text);
        let [rows, columns, channels] = IMAGE;
        let images = Array::uniform(DType::F32, [7, channels, rows, columns], [0.0, 1.0], 9);
        let [mean, std] = NORMALISATION;
        let model = Trained {
            network: learner.network(),
            image: IMAGE,
            arrays: [&weights, &buffers],
            normalisation: [&mean, &std],
        };
        let bytes = model.onnx("a test".to_owned()).unwrap();
        let graph = Model::decode(&bytes[..]).unwrap().graph.unwrap();
        let shape = graph.output[0]
            .kind
            .clone()
            .unwrap()
            .tensor
            .unwrap()
            .shape
            .unwrap();
        assert_eq!(shape.dim[1].extent, Some(Extent::Value(CLASSES as i64)));

        let counts = [weights.len(), buffers.len()];
        let all = [&weights[..], &buffers, std::slice::from_ref(&images)].concat();
        let expected = compute(&all, |a| {
            let (theta, rest) = a.split_at(counts[0]);
            let (stored, images) = rest.split_at(counts[1]);
            let images = images[0].permute(&[0, 2, 3, 1])?;
            let tape = images.tape();
            let per_channel = |numbers: [f32; 2]| -> autograd::Result<Var<'_>> {
                let parts = numbers.map(|x| tape.constant(f64::from(x), DType::F32, [1]));
                tape.concat(&parts, 0)
            };
            let images = ((images - per_channel(mean)?)? / per_channel(std)?)?;
            Ok(learner.logits(theta, images, Statistics::Stored(stored))?.0)
        });
        let folder = tempfile::tempdir().unwrap();
        let arrays = [("images", images), ("expected", expected)];
        let arrays: Arrays = arrays.map(|(name, array)| (name.to_owned(), array)).into();
        write_npz(folder.path().join("arrays.npz"), &arrays).unwrap();
        if let Some(python) = &onnx {
            std::fs::write(folder.path().join("model.onnx"), &bytes).unwrap();
            let apart = difference(python, folder.path(), ONNX);
            assert!(apart < 1e-5, "{text}: {apart}");
        }
        if let Some(python) = &torch {
            let program = Program {
                network: learner.network(),
                rule: autograd::optim::Optimizer::Adam.into(),
                rate_groups: &[],
                statistics: [&mean, &std],
                origin: "a test".to_owned(),
            };
            std::fs::write(folder.path().join("network.py"), program.module()).unwrap();
            let kinds = [("weight", &weights), ("statistic", &buffers)];
            let named = kinds.into_iter().flat_map(|(kind, arrays)| {
                let numbered = arrays.iter().enumerate();
                numbered.map(move |(i, array)| (format!("{kind}{i}"), array.clone()))
            });
            write_npz(folder.path().join("network.npz"), &named.collect()).unwrap();
            let apart = difference(python, folder.path(), TORCH);
            assert!(apart < 1e-5, "{text}: {apart}");
        }
    }
}

#[test]
fn generators_compute_the_same_elsewhere() {
    let python = python("onnx, onnxruntime, numpy");
    for (variant, image, labels) in [
        (Variant::Paper, [8, 8, 1], false),
        (Variant::Paper, [7, 45, 3], false),
        (Variant::Benchmark, [8, 12, 2], false),
        (Variant::Paper, [8, 8, 1], true),
        (Variant::Benchmark, [9, 7, 2], true),
    ] {
        let config = GeneratorConfig {
            variant,
            noise: 5,
            classes: 3,
            labels,
            hidden: 12,
            channels: [6, 4],
            image,
        };
        let made = Generator::new(config).unwrap();
        let params = init(made.params(), DType::F32, &mut StdRng::seed_from_u64(2)).unwrap();
        let bytes = generator(&made, &params, "a test".to_owned()).unwrap();
        assert!(Model::decode(&bytes[..]).is_ok());
        let (z, y) = (drawn(&[6, 5], 1), drawn(&[6, 3], 2));
        let all = [&params[..], &[z.clone(), y.clone()]].concat();
        let expected = compute(&all, |a| {
            let [params @ .., z, y] = a else {
                unreachable!("parameters, z and y")
            };
            let prepared = made.prepare(params)?;
            if !labels {
                let images = made.images(&prepared, *z, *y)?;
                return images.permute(&[0, 3, 1, 2]);
            }
            let [images, shares] = made.images_and_labels(&prepared, *z)?;
            let images = images
                .permute(&[0, 3, 1, 2])?
                .reshape([6, image.iter().product()])?;
            images.tape().concat(&[images, shares], 1)
        });
        let folder = tempfile::tempdir().unwrap();
        let arrays = [("z", z), ("y", y), ("expected", expected)];
        let arrays: Arrays = arrays.map(|(name, array)| (name.to_owned(), array)).into();
        write_npz(folder.path().join("arrays.npz"), &arrays).unwrap();
        std::fs::write(folder.path().join("model.onnx"), &bytes).unwrap();
        if let Some(python) = &python {
            let apart = difference(python, folder.path(), ONNX);
            assert!(apart < 1e-5, "{variant:?}, {image:?}: {apart}");
        }
    }
}

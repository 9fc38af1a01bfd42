//! Scores of networks that are not trained, from a single pass.

use crate::data::{Dataset, Problem};
use crate::nn::network::{Layer, Node};
use crate::nn::{Learner, Network, Statistics, init};
use crate::seeds::{Draw, rng};
use autograd::prelude::*;
use autograd::{Plan, Task};
use std::time::Instant;

/// The logarithm of synaptic flow (Tanaka et al. 2020, arXiv 2006.05467): Σ |θ · ∂R/∂θ|. R is the sum of the
/// logits for an image of ones, of the network without norms and with |θ| as parameters.
///
/// # Errors
/// If the network cannot be built or computed.
pub fn synflow(
    device: &Device,
    learner: &Learner,
    image: [usize; 3],
    classes: usize,
    seed: u64,
) -> Result<f64> {
    let network = learner.network();
    let plain = Network {
        weight_norm: false,
        init: network.init,
        layers: without_norms(&network.layers),
    };
    let learner = plain.learner(image, classes)?;
    let theta = init(learner.params(), F64, &mut rng(seed, Draw::Learner, 0, 0))?;
    let absolute = |array: &Array| {
        let numbers: Vec<f64> = array.to_f64_vec().into_iter().map(f64::abs).collect();
        Array::new(array.shape().clone(), numbers)
    };
    let theta: Vec<Array> = theta
        .iter()
        .map(absolute)
        .collect::<std::result::Result<_, _>>()?;
    let tape = Tape::new();
    let input = |array: &Array| tape.input("theta", F64, array.shape().clone());
    let vars: Vec<_> = theta.iter().map(input).collect::<Result<_>>()?;
    let [h, w, c] = image;
    let ones = tape.constant(1.0, F64, [1, h, w, c]);
    let (logits, _) = learner.logits(&vars, ones, Statistics::Batch)?;
    let gradients = tape.grad(logits.sum_all()?, &vars)?;
    let flows: Vec<_> = vars
        .iter()
        .zip(gradients)
        .map(|(&theta, gradient)| (theta * gradient)?.abs()?.sum_all())
        .collect::<Result<_>>()?;
    let plan = Plan::new(&[tape.sum_of(&flows)?])?;
    let given: Vec<_> = vars.iter().copied().zip(&theta).collect();
    let flow = plan.run(device, &given)?[0].to_f64_vec()[0];
    // Nothing flows through a network whose output does not depend on its input.
    Ok(flow.max(f64::MIN_POSITIVE).ln())
}

fn without_norms(layers: &[Layer]) -> Vec<Layer> {
    let branches = |of: &[Vec<Layer>]| of.iter().map(|branch| without_norms(branch)).collect();
    let one = |layer: &Layer| match layer {
        Layer::Norm(_) => None,
        Layer::Add(of) => Some(Layer::Add(branches(of))),
        Layer::Concat(of) => Some(Layer::Concat(branches(of))),
        Layer::Graph { nodes, result } => {
            let node = |node: &Node| Node {
                name: node.name.clone(),
                layers: without_norms(&node.layers),
            };
            Some(Layer::Graph {
                nodes: nodes.iter().map(node).collect(),
                result: without_norms(result),
            })
        }
        layer => Some(layer.clone()),
    };
    layers.iter().filter_map(one).collect()
}

/// Images that [`naswot`] compares.
const IMAGES: usize = 64;

/// The score of Mellor et al. (2021, arXiv 2006.04647): log |det K|, where K counts for every two of 64 training images the
/// activations that are above 0 for both or for neither.
///
/// # Errors
/// If the network cannot be computed.
pub fn naswot(device: &Device, learner: &Learner, data: &Dataset, seed: u64) -> Result<f64> {
    let theta = init(learner.params(), F32, &mut rng(seed, Draw::Learner, 0, 0))?;
    let chosen = data.train.spread(IMAGES);
    let count = chosen.len();
    let [h, w, c] = data.problem().image;
    let images = Array::new([count, h, w, c], data.normalised(&data.train, &chosen))?;
    let tape = Tape::new();
    let input = |array: &Array| tape.input("array", F32, array.shape().clone());
    let vars: Vec<_> = theta.iter().map(input).collect::<Result<_>>()?;
    let x = input(&images)?;
    let before = learner.before_activations(&vars, x)?;
    let given: Vec<_> = vars
        .iter()
        .copied()
        .zip(&theta)
        .chain([(x, &images)])
        .collect();
    let mut kernel = vec![0.0; count * count];
    if !before.is_empty() {
        for array in Plan::new(&before)?.run(device, &given)? {
            add_agreements(&mut kernel, count, array.as_f32().expect("all is f32"));
        }
    }
    Ok(log_determinant(kernel, count))
}

/// Runs to warm up, and runs that are timed.
const WARM: usize = 3;
const TIMED: usize = 15;

/// Milliseconds for the logits of one image on this device: the median of 15 runs.
///
/// # Errors
/// If the network cannot be computed.
pub fn latency(device: &Device, learner: &Learner, problem: Problem) -> Result<f64> {
    let tape = Tape::new();
    let [h, w, c] = problem.image;
    let params = learner
        .params()
        .iter()
        .map(|param| (param.name.clone(), param.shape.clone()));
    let buffers = learner
        .buffers()
        .iter()
        .map(|param| (param.name.clone(), param.shape.clone()));
    let arrays = params
        .chain(buffers)
        .chain([("image".to_owned(), [1, h, w, c].into())]);
    let specs: Vec<ArraySpec> = arrays
        .map(|(name, shape)| ArraySpec::new(name, F32, shape))
        .collect();
    let input = |spec: &ArraySpec| tape.input(&spec.name, F32, spec.shape.clone());
    let vars: Vec<_> = specs.iter().map(input).collect::<Result<_>>()?;
    let (params, rest) = vars.split_at(learner.params().len());
    let (buffers, image) = rest.split_at(learner.buffers().len());
    let (logits, _) = learner.logits(params, image[0], Statistics::Stored(buffers))?;
    let mut values = Values::zeros(device, &specs)?;
    values.reserve(ArraySpec::new("logits", F32, logits.shape()))?;
    let names = specs.iter().map(|spec| spec.name.as_str());
    let given: Vec<_> = vars.iter().copied().zip(names).collect();
    let task = Task::new(device, &given, &[(logits, "logits")])?;
    let mut times = Vec::with_capacity(TIMED);
    for run in 0..WARM + TIMED {
        let begin = Instant::now();
        task.run(|name| values.view(name))?;
        // Waits for a GPU.
        values.get("logits")?;
        if run >= WARM {
            times.push(1e3 * begin.elapsed().as_secs_f64());
        }
    }
    times.sort_by(f64::total_cmp);
    Ok(times[TIMED / 2])
}

/// Adds for every two images in how many places their signs agree.
fn add_agreements(kernel: &mut [f64], images: usize, activations: &[f32]) {
    let width = activations.len() / images;
    let bits: Vec<Vec<u64>> = activations
        .chunks_exact(width)
        .map(|image| {
            image
                .chunks(64)
                .map(|some| {
                    some.iter()
                        .fold(0, |word, &x| word << 1 | u64::from(x > 0.0))
                })
                .collect()
        })
        .collect();
    for i in 0..images {
        for j in 0..=i {
            let differ: u32 = bits[i]
                .iter()
                .zip(&bits[j])
                .map(|(a, b)| (a ^ b).count_ones())
                .sum();
            let agree = (width - differ as usize) as f64;
            kernel[i * images + j] += agree;
            if i != j {
                kernel[j * images + i] += agree;
            }
        }
    }
}

/// log |det| of a square matrix, by elimination. For a singular matrix it is the logarithm of the least
/// positive number.
fn log_determinant(mut matrix: Vec<f64>, n: usize) -> f64 {
    let mut sum = 0.0;
    for k in 0..n {
        let pivot = (k..n)
            .max_by(|&a, &b| matrix[a * n + k].abs().total_cmp(&matrix[b * n + k].abs()))
            .expect("k < n");
        let found = matrix[pivot * n + k];
        if found == 0.0 {
            return f64::MIN_POSITIVE.ln();
        }
        (0..n).for_each(|j| matrix.swap(k * n + j, pivot * n + j));
        sum += found.abs().ln();
        for i in k + 1..n {
            let factor = matrix[i * n + k] / found;
            (k..n).for_each(|j| matrix[i * n + j] -= factor * matrix[k * n + j]);
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn determinants_are_right() {
        let matrix = vec![2.0, 1.0, 0.0, 1.0, 3.0, 1.0, 0.0, 1.0, 4.0];
        assert!((log_determinant(matrix, 3) - 18f64.ln()).abs() < 1e-12);
        assert!(log_determinant(vec![1.0, 2.0, 2.0, 4.0], 2) < -700.0);
    }

    #[test]
    fn the_flow_of_a_chain_is_the_product_of_its_weights() {
        // R = Σ over classes of Σ over pixels |w|, and every parameter of a layer has the whole flow.
        let network: Network = "weight_norm off | dense 4 no_bias | batch | dense no_bias"
            .parse()
            .unwrap();
        let device = Device::cpu(Some(1)).unwrap();
        let learner = network.learner([2, 2, 1], 3).unwrap();
        let flow = synflow(&device, &learner, [2, 2, 1], 3, 1).unwrap();
        let theta = init(
            network_without(&network).params(),
            F64,
            &mut rng(1, Draw::Learner, 0, 0),
        )
        .unwrap();
        let [first, second] = [&theta[0], &theta[1]].map(Array::to_f64_vec);
        let mut wanted = 0.0;
        for unit in 0..4 {
            let come: f64 = first[unit * 4..][..4].iter().map(|w| w.abs()).sum();
            let go: f64 = (0..3).map(|class| second[class * 4 + unit].abs()).sum();
            wanted += come * go;
        }
        assert!((flow - (2.0 * wanted).ln()).abs() < 1e-9, "{flow}");
    }

    fn network_without(network: &Network) -> Learner {
        let plain = Network {
            layers: without_norms(&network.layers),
            ..network.clone()
        };
        plain.learner([2, 2, 1], 3).unwrap()
    }

    #[test]
    fn images_that_differ_everywhere_score_more_than_equal_ones() {
        let signs = |rows: &[[f32; 4]]| {
            let mut kernel = vec![0.0; 9];
            add_agreements(&mut kernel, 3, &rows.concat());
            kernel
        };
        let kernel = signs(&[
            [1.0, 1.0, -1.0, 0.0],
            [1.0, -1.0, 1.0, -1.0],
            [-1.0, 1.0, 1.0, 1.0],
        ]);
        assert_eq!(kernel, [4.0, 2.0, 1.0, 2.0, 4.0, 1.0, 1.0, 1.0, 4.0]);
        let same = signs(&[[1.0; 4]; 3]);
        assert!(log_determinant(kernel, 3) > log_determinant(same, 3));
    }
}

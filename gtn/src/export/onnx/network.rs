//! A trained network as ONNX.

use super::Feed;
use super::graph::{Builder, float, int, ints};
use super::proto::Attribute;
use crate::error::{Error, Result};
use crate::nn::layers::BATCH_NORM_EPS;
use crate::nn::network::{Activation, Layer, Network, Norm, Pool, Window};
use tensor::Array;

/// A trained network: layers, parameters and statistics.
#[derive(Debug)]
pub struct Trained<'a> {
    /// With all numbers: see [`Learner::network`](crate::nn::Learner::network).
    pub network: &'a Network,
    /// Rows, columns and channels of an image.
    pub image: [usize; 3],
    /// Its parameters, and the statistics of its norms over batches, in the order in which it takes them.
    pub arrays: [&'a [Array]; 2],
    /// For every channel, the mean of the training pixels divided by 255; and their standard deviation.
    pub normalisation: [&'a [f32]; 2],
}

impl Trained<'_> {
    /// The bytes of a model that gives `logits` \[n, classes\] of `images` \[n, channels, rows, columns\] from 0 to 1.
    ///
    /// # Errors
    /// If the arrays are not those of the network.
    pub fn onnx(&self, about: String) -> Result<Vec<u8>> {
        let [rows, columns, channels] = self.image;
        let [weights, statistics] = self.arrays.map(Feed::of);
        let mut pass = Pass {
            graph: Builder::default(),
            weight_norm: self.network.weight_norm,
            weights,
            statistics,
            nodes: Vec::new(),
        };
        let images = Value {
            name: "images".to_owned(),
            shape: vec![channels, rows, columns],
        };
        let [mean, std] = self.normalisation;
        let scale: Vec<f64> = std.iter().map(|&std| 1.0 / f64::from(std)).collect();
        let shift = mean.iter().zip(&scale);
        let shift: Vec<f64> = shift
            .map(|(&mean, scale)| -f64::from(mean) * scale)
            .collect();
        let images = pass.affine(&images, scale, shift)?;
        let last = pass.sequence(&self.network.layers, images)?;
        let last = pass.flat(&last);
        Ok(pass.graph.model(
            ("network", about),
            &[("images", &[channels, rows, columns])],
            &[(&last.name, ("logits", &last.shape))],
        ))
    }
}

/// The name of a value, and the shape of one example: \[channels, rows, columns\] or \[units\].
#[derive(Clone)]
struct Value {
    name: String,
    shape: Vec<usize>,
}

struct Pass<'a> {
    graph: Builder,
    weight_norm: bool,
    weights: Feed<'a>,
    statistics: Feed<'a>,
    /// Results of nodes, by name.
    nodes: Vec<(&'a str, Value)>,
}

impl<'a> Pass<'a> {
    fn sequence(&mut self, layers: &'a [Layer], mut now: Value) -> Result<Value> {
        for layer in layers {
            now = self.layer(layer, now)?;
        }
        Ok(now)
    }

    fn layer(&mut self, layer: &'a Layer, now: Value) -> Result<Value> {
        match layer {
            Layer::Conv {
                window,
                groups,
                bias,
                ..
            } => {
                let kernel = self.weights.weights(self.weight_norm)?;
                self.conv(&now, &kernel, window, (*groups, *bias))
            }
            Layer::Depthwise { window, bias } => {
                let kernel = self.weights.weights(self.weight_norm)?;
                let groups = now.shape[0];
                self.conv(&now, &kernel, window, (groups, *bias))
            }
            Layer::Dense { bias, .. } => self.dense(&now, *bias),
            Layer::Bias => {
                let bias = self.weights.next()?.to_f64_vec();
                self.affine(&now, vec![1.0; bias.len()], bias)
            }
            Layer::Norm(norm) => self.norm(*norm, now),
            Layer::Activation(activation) => Ok(self.activation(*activation, now)),
            Layer::Pool { kind, window } => self.pool(*kind, window, &now),
            // Nothing is dropped in evaluation.
            Layer::Dropout(_) | Layer::DropPath(_) => Ok(now),
            Layer::Mean => {
                let mean = self.graph.node("GlobalAveragePool", &[&now.name], vec![]);
                let name = self.graph.node("Flatten", &[&mean], vec![int("axis", 1)]);
                let shape = vec![now.shape[0]];
                Ok(Value { name, shape })
            }
            Layer::Flatten => Ok(self.flat(&now)),
            Layer::Add(branches) => {
                let ends = self.branches(branches, &now)?;
                Ok(self.joined("Sum", &ends, vec![], ends[0].shape.clone()))
            }
            Layer::Concat(branches) => {
                let ends = self.branches(branches, &now)?;
                let mut shape = ends[0].shape.clone();
                shape[0] = ends.iter().map(|end| end.shape[0]).sum();
                Ok(self.joined("Concat", &ends, vec![int("axis", 1)], shape))
            }
            Layer::Graph { nodes, result } => {
                let known = self.nodes.len();
                for node in nodes {
                    let made = self.sequence(&node.layers, now.clone())?;
                    self.nodes.push((&node.name, made));
                }
                let made = self.sequence(result, now);
                self.nodes.truncate(known);
                made
            }
            Layer::Node(name) => {
                let found = self.nodes.iter().rev().find(|(known, _)| known == name);
                let missing = || Error::run(format!("there is no node `{name}`"));
                found.map(|(_, made)| made.clone()).ok_or_else(missing)
            }
            Layer::Zero => {
                let shape = self.graph.node("Shape", &[&now.name], vec![]);
                let name = self.graph.node("ConstantOfShape", &[&shape], vec![]);
                Ok(Value { name, ..now })
            }
        }
    }

    fn branches(&mut self, branches: &'a [Vec<Layer>], now: &Value) -> Result<Vec<Value>> {
        let end = |branch: &'a Vec<Layer>| self.sequence(branch, now.clone());
        branches.iter().map(end).collect()
    }

    fn joined(
        &mut self,
        op: &str,
        ends: &[Value],
        attributes: Vec<Attribute>,
        shape: Vec<usize>,
    ) -> Value {
        let names: Vec<&str> = ends.iter().map(|end| end.name.as_str()).collect();
        let name = self.graph.node(op, &names, attributes);
        Value { name, shape }
    }

    /// Convolution with a kernel \[out, rows, columns, in / groups\], and a bias.
    fn conv(
        &mut self,
        now: &Value,
        kernel: &Array,
        window: &Window,
        (groups, bias): (usize, bool),
    ) -> Result<Value> {
        let filters = kernel.shape()[0];
        let kernel = kernel.permute(&[0, 3, 1, 2]).map_err(Error::engine)?;
        let bias = self.weights.bias(bias)?;
        let mut attributes = seen(window);
        attributes.extend([ints("dilations", &window.dilation), int("group", groups)]);
        let name = self
            .graph
            .weighted("Conv", &now.name, (&kernel, bias), attributes);
        let [rows, columns] = counted(window, &now.shape)?;
        let shape = vec![filters, rows, columns];
        Ok(Value { name, shape })
    }

    fn pool(&mut self, kind: Pool, window: &Window, now: &Value) -> Result<Value> {
        let mut attributes = seen(window);
        let op = match kind {
            Pool::Max => "MaxPool",
            Pool::Average => {
                attributes.push(int("count_include_pad", 0));
                "AveragePool"
            }
        };
        let name = self.graph.node(op, &[&now.name], attributes);
        let [rows, columns] = counted(window, &now.shape)?;
        let shape = vec![now.shape[0], rows, columns];
        Ok(Value { name, shape })
    }

    fn dense(&mut self, now: &Value, bias: bool) -> Result<Value> {
        let now = self.flat(now);
        let weights = self.weights.weights(self.weight_norm)?;
        let bias = self.weights.bias(bias)?;
        let turned = vec![int("transB", 1)];
        let name = self
            .graph
            .weighted("Gemm", &now.name, (&weights, bias), turned);
        let shape = vec![weights.shape()[0]];
        Ok(Value { name, shape })
    }

    /// An image as a vector, in which channels vary fastest.
    fn flat(&mut self, now: &Value) -> Value {
        if now.shape.len() == 1 {
            return now.clone();
        }
        let channels_last = vec![ints("perm", &[0, 2, 3, 1])];
        let turned = self.graph.node("Transpose", &[&now.name], channels_last);
        Value {
            name: self.graph.node("Flatten", &[&turned], vec![int("axis", 1)]),
            shape: vec![now.shape.iter().product()],
        }
    }

    /// Every channel times a number, plus another.
    fn affine(&mut self, now: &Value, scale: Vec<f64>, shift: Vec<f64>) -> Result<Value> {
        let mut shape = vec![1; now.shape.len()];
        shape[0] = scale.len();
        let mut name = now.name.clone();
        for (op, numbers, neutral) in [("Mul", scale, 1.0), ("Add", shift, 0.0)] {
            if numbers.iter().all(|&number| number == neutral) {
                continue;
            }
            let array = Array::new(shape.clone(), numbers).map_err(Error::engine)?;
            let array = self.graph.constant(&array);
            name = self.graph.node(op, &[&name, &array], vec![]);
        }
        let shape = now.shape.clone();
        Ok(Value { name, shape })
    }

    fn norm(&mut self, norm: Norm, now: Value) -> Result<Value> {
        match norm {
            Norm::None => Ok(now),
            Norm::MeanOnly => {
                let mean = self.statistics.next()?.to_f64_vec();
                let bias = self.weights.next()?.to_f64_vec();
                let shift = bias.iter().zip(&mean).map(|(bias, mean)| bias - mean);
                self.affine(&now, vec![1.0; mean.len()], shift.collect())
            }
            Norm::Batch => {
                let [mean, variance] = [self.statistics.next()?, self.statistics.next()?];
                let [gamma, beta] = [self.weights.next()?, self.weights.next()?];
                let [mean, variance, gamma, beta] =
                    [mean, variance, gamma, beta].map(Array::to_f64_vec);
                let scale = gamma.iter().zip(&variance);
                let scale: Vec<f64> = scale
                    .map(|(gamma, variance)| gamma / (variance + BATCH_NORM_EPS).sqrt())
                    .collect();
                let shift = beta.iter().zip(mean.iter().zip(&scale));
                let shift = shift.map(|(beta, (mean, scale))| beta - mean * scale);
                let shift = shift.collect();
                self.affine(&now, scale, shift)
            }
            norm => self.group_norm(norm.groups(now.shape[0]).unwrap_or(1), &now),
        }
    }

    /// Normalisation of each example by itself, in groups of channels, then the affine map of every channel.
    fn group_norm(&mut self, groups: usize, now: &Value) -> Result<Value> {
        let graph = &mut self.graph;
        let split = graph.whole(&[0, groups as i64, -1]);
        let split = graph.node("Reshape", &[&now.name, &split], vec![]);
        let ones = Array::full(tensor::DType::F32, [groups], 1.0);
        let zeros = Array::full(tensor::DType::F32, [groups], 0.0);
        let [ones, zeros] = [graph.constant(&ones), graph.constant(&zeros)];
        let eps = vec![float("epsilon", BATCH_NORM_EPS)];
        let normed = graph.node("InstanceNormalization", &[&split, &ones, &zeros], eps);
        let whole: Vec<i64> = std::iter::once(0)
            .chain(now.shape.iter().map(|&n| n as i64))
            .collect();
        let whole = graph.whole(&whole);
        let name = graph.node("Reshape", &[&normed, &whole], vec![]);
        let shape = now.shape.clone();
        let [gamma, beta] = [self.weights.next()?, self.weights.next()?].map(Array::to_f64_vec);
        self.affine(&Value { name, shape }, gamma, beta)
    }

    fn activation(&mut self, activation: Activation, now: Value) -> Value {
        let (graph, x) = (&mut self.graph, now.name.as_str());
        let name = match activation {
            Activation::Relu => graph.node("Relu", &[x], vec![]),
            Activation::Leaky(slope) => graph.node("LeakyRelu", &[x], vec![float("alpha", slope)]),
            Activation::Tanh => graph.node("Tanh", &[x], vec![]),
            Activation::Silu => {
                let share = graph.node("Sigmoid", &[x], vec![]);
                graph.node("Mul", &[x, &share], vec![])
            }
            // x/2·(1 + erf(x/√2)).
            Activation::Gelu => {
                let root = graph.number(0.5f64.sqrt());
                let scaled = graph.node("Mul", &[x, &root], vec![]);
                let erf = graph.node("Erf", &[&scaled], vec![]);
                let [one, half] = [graph.number(1.0), graph.number(0.5)];
                let share = graph.node("Add", &[&erf, &one], vec![]);
                let share = graph.node("Mul", &[&share, &half], vec![]);
                graph.node("Mul", &[x, &share], vec![])
            }
        };
        Value { name, ..now }
    }
}

/// The window of a convolution or pooling. ONNX orders pads as above, left, below, right.
fn seen(window: &Window) -> Vec<Attribute> {
    let [above, below, left, right] = window.pad;
    vec![
        ints("kernel_shape", &window.size),
        ints("strides", &window.stride),
        ints("pads", &[above, left, below, right]),
    ]
}

fn counted(window: &Window, shape: &[usize]) -> Result<[usize; 2]> {
    let misfit = || Error::run(format!("a window does not fit an image of shape {shape:?}"));
    let &[_, rows, columns] = shape else {
        return Err(misfit());
    };
    window.count([rows, columns]).ok_or_else(misfit)
}

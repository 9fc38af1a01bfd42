//! Makes a learner of a network: shapes, parameters and buffers of every layer.

use super::learner::{Described, Learner};
use super::network::{Layer, Network, Node, Norm, Scheme, Window};
use super::{Init, ParamSpec};
use autograd::{Error, Result};
use std::fmt::Display;

impl Network {
    /// The learner with these layers for images \[h, w, c\] of so many classes. Convolutions are named c1, c2, … and
    /// dense layers d1, d2, …; biases and normalisations go by the name of the weights before them, where those have none
    /// yet, else n1, n2, ….
    ///
    /// # Errors
    /// If a layer does not fit what comes before it, which it names, or if the last gives something else than logits of
    /// the classes.
    pub fn learner(&self, image: [usize; 3], classes: usize) -> Result<Learner> {
        let learner = self.unchecked(image, classes)?;
        let last = learner.layers().last();
        match last {
            Some(last) if last.shape == [classes] => Ok(learner),
            last => {
                let (number, shape) = last.map_or(("0", &image[..]), |l| (&l.number, &l.shape));
                Err(Error::Setting(format!(
                    "learner, layer {number}: the last layer gives {shape:?}, not a number for each of {classes} \
                     classes, as `dense` does"
                )))
            }
        }
    }

    /// The same without a check of the shape that the last layer gives.
    pub(super) fn unchecked(&self, image: [usize; 3], classes: usize) -> Result<Learner> {
        let mut builder = Builder {
            network: self,
            classes,
            params: Vec::new(),
            buffers: Vec::new(),
            described: Vec::new(),
            drops: false,
            counts: [0; 3],
            owner: None,
            nodes: Vec::new(),
        };
        let (layers, _) = builder.sequence(&self.layers, &image, "")?;
        let network = Self {
            layers,
            ..self.clone()
        };
        let Builder {
            params,
            buffers,
            described,
            drops,
            ..
        } = builder;
        Ok(Learner::new(network, [params, buffers], described, drops))
    }
}

struct Builder<'a> {
    network: &'a Network,
    classes: usize,
    params: Vec<ParamSpec>,
    buffers: Vec<ParamSpec>,
    described: Vec<Described>,
    /// Whether any layer is a dropout.
    drops: bool,
    /// How many names convolutions, dense layers and other layers have taken so far.
    counts: [usize; 3],
    /// The name of the last weights.
    owner: Option<String>,
    /// Nodes that layers may begin with, and the shapes of their results.
    nodes: Vec<(String, Vec<usize>)>,
}

impl Builder<'_> {
    /// Adds layers one after another; gives them with all numbers that they left open, and the shape after them.
    fn sequence(
        &mut self,
        layers: &[Layer],
        input: &[usize],
        before: &str,
    ) -> Result<(Vec<Layer>, Vec<usize>)> {
        let mut shape = input.to_vec();
        let mut made = Vec::with_capacity(layers.len());
        for (i, layer) in layers.iter().enumerate() {
            let number = format!("{before}{}", i + 1);
            let place = self.params.len();
            self.drops |= matches!(layer, Layer::Dropout(_) | Layer::DropPath(_));
            let (layer, after, multiply_adds) = match layer {
                Layer::Add(_) | Layer::Concat(_) => self.joined(layer, &shape, &number)?,
                Layer::Graph { nodes, result } => self.graph(nodes, result, &shape, &number)?,
                layer => self.plain(layer, &shape, &number)?,
            };
            let own = match layer {
                Layer::Add(_) | Layer::Concat(_) | Layer::Graph { .. } => &[],
                _ => &self.params[place..],
            };
            shape = after;
            if shape.contains(&0) {
                return Err(misfit(&number, &layer, input));
            }
            self.described.push(Described {
                number,
                layer: short(&layer),
                shape: shape.clone(),
                parameters: own.iter().map(|param| param.shape.count()).sum(),
                multiply_adds,
            });
            made.push(layer);
        }
        Ok((made, shape))
    }

    /// Branches on the same input, added or side by side.
    fn joined(&mut self, layer: &Layer, input: &[usize], number: &str) -> Result<Built> {
        let (Layer::Add(branches) | Layer::Concat(branches)) = layer else {
            return Err(misfit(number, layer, input));
        };
        let (mut made, mut shapes) = (Vec::new(), Vec::new());
        for (i, branch) in branches.iter().enumerate() {
            let before = format!("{number}.{}.", i + 1);
            let (layers, shape) = self.sequence(branch, input, &before)?;
            made.push(layers);
            shapes.push(shape);
        }
        let Some((first, others)) = shapes.split_first() else {
            return Err(misfit(number, layer, input));
        };
        let adds = matches!(layer, Layer::Add(_));
        // Branches side by side may differ in their last axis.
        let axes = first.len() - usize::from(!adds);
        let alike =
            |other: &Vec<usize>| other.len() == first.len() && other[..axes] == first[..axes];
        if !others.iter().all(alike) {
            let what = if adds {
                "of one shape"
            } else {
                "of images of one size"
            };
            return Err(refused(
                number,
                layer,
                format!("its branches give {shapes:?}, which are not {what}"),
            ));
        }
        let channels = |shape: &Vec<usize>| shape.last().copied().unwrap_or_default();
        let mut shape = first.clone();
        if adds {
            return Ok((Layer::Add(made), shape, 0));
        }
        if let Some(last) = shape.last_mut() {
            *last = shapes.iter().map(channels).sum();
        }
        Ok((Layer::Concat(made), shape, 0))
    }

    /// Nodes one after another, and the result.
    fn graph(
        &mut self,
        nodes: &[Node],
        result: &[Layer],
        input: &[usize],
        number: &str,
    ) -> Result<Built> {
        let known = self.nodes.len();
        let mut made = Vec::with_capacity(nodes.len());
        for Node { name, layers } in nodes {
            let (layers, shape) = self.sequence(layers, input, &format!("{number}.{name}."))?;
            let name = name.clone();
            self.nodes.push((name.clone(), shape));
            made.push(Node { name, layers });
        }
        let (result, shape) = self.sequence(result, input, &format!("{number}.result."))?;
        self.nodes.truncate(known);
        Ok((
            Layer::Graph {
                nodes: made,
                result,
            },
            shape,
            0,
        ))
    }

    /// A layer without branches.
    fn plain(&mut self, layer: &Layer, input: &[usize], number: &str) -> Result<Built> {
        let fit = || misfit(number, layer, input);
        let keep = |layer: &Layer| Ok((layer.clone(), input.to_vec(), 0));
        let channels = *input.last().ok_or_else(fit)?;
        match (layer, input) {
            (
                Layer::Conv {
                    filters,
                    window,
                    groups,
                    bias,
                },
                &[h, w, c],
            ) => {
                if !c.is_multiple_of(*groups) || !filters.is_multiple_of(*groups) || *groups == 0 {
                    let what = format!("{c} channels to {filters} cannot be in {groups} groups");
                    return Err(refused(number, layer, what));
                }
                let [kh, kw] = window.size;
                let [h, w] = fits(window, [h, w]).ok_or_else(fit)?;
                self.weights('c', vec![*filters, kh, kw, c / groups], *bias);
                let adds = product([h, w, *filters, kh, kw, c / groups]);
                Ok((layer.clone(), vec![h, w, *filters], adds))
            }
            (Layer::Depthwise { window, bias }, &[h, w, c]) => {
                let [kh, kw] = window.size;
                let [h, w] = fits(window, [h, w]).ok_or_else(fit)?;
                self.weights('c', vec![c, kh, kw, 1], *bias);
                Ok((layer.clone(), vec![h, w, c], product([h, w, c, kh, kw])))
            }
            (&Layer::Dense { units, bias }, input) => {
                let (inputs, width) = (input.iter().product(), units.unwrap_or(self.classes));
                self.weights('d', vec![width, inputs], bias);
                let units = Some(width);
                let adds = product([inputs, width]);
                Ok((Layer::Dense { units, bias }, vec![width], adds))
            }
            (Layer::Pool { window, .. }, &[h, w, c]) => {
                let [h, w] = fits(window, [h, w]).ok_or_else(fit)?;
                Ok((layer.clone(), vec![h, w, c], 0))
            }
            (Layer::Mean, &[_, _, c]) => Ok((Layer::Mean, vec![c], 0)),
            (Layer::Flatten, input) => Ok((Layer::Flatten, vec![input.iter().product()], 0)),
            (Layer::Bias, _) => {
                let owner = self.owner("b");
                self.params.push(ParamSpec::bias(&owner, channels));
                keep(layer)
            }
            (Layer::Norm(norm), _) => {
                let norm = norm.fitting(channels);
                if norm.groups(channels) == Some(input.iter().product()) {
                    let what = format!(
                        "of an input of shape {input:?} every number is normalised by itself: 0 is left"
                    );
                    return Err(refused(number, layer, what));
                }
                self.norm(norm, channels);
                keep(&Layer::Norm(norm))
            }
            (Layer::Activation(_) | Layer::Dropout(_) | Layer::DropPath(_) | Layer::Zero, _) => {
                keep(layer)
            }
            (Layer::Node(name), _) => {
                let found = self.nodes.iter().rev().find(|(known, _)| known == name);
                let Some((_, shape)) = found else {
                    return Err(refused(number, layer, "there is no such node before it"));
                };
                Ok((layer.clone(), shape.clone(), 0))
            }
            _ => Err(fit()),
        }
    }

    /// Weights under a new name, and a bias.
    fn weights(&mut self, letter: char, shape: Vec<usize>, bias: bool) {
        let name = self.named(letter);
        let (units, start) = (shape[0], self.network.init);
        let fan_in = shape[1..].iter().product::<usize>() as f64;
        if self.network.weight_norm {
            self.params.extend(ParamSpec::weight(&name, shape, start));
        } else {
            let name = format!("{name}.w");
            self.params
                .push(ParamSpec::new(name, shape, Init::Weights(start)));
        }
        if bias {
            let mut bias = ParamSpec::bias(&name, units);
            if start.scheme == Scheme::Pytorch {
                bias.init = Init::Uniform(fan_in.sqrt().recip() * start.scale);
            }
            self.params.push(bias);
        }
    }

    fn norm(&mut self, norm: Norm, channels: usize) {
        if norm == Norm::None {
            return;
        }
        let owner = self.owner("beta");
        let [gamma, beta] = ParamSpec::affine(&owner, channels);
        let buffer = |role| ParamSpec::new(format!("{owner}.{role}"), [channels], Init::Zeros);
        match norm {
            Norm::MeanOnly => {
                self.params.push(beta);
                self.buffers.push(buffer("mean"));
            }
            Norm::Batch => {
                self.params.extend([gamma, beta]);
                self.buffers.extend([buffer("mean"), buffer("variance")]);
            }
            _ => self.params.extend([gamma, beta]),
        }
    }

    /// The name for a bias or normalisation: that of the last weights, if they have no such parameter yet.
    fn owner(&mut self, role: &str) -> String {
        let free = self.owner.clone().filter(|owner| {
            let name = format!("{owner}.{role}");
            self.params.iter().all(|param| param.name != name)
        });
        free.unwrap_or_else(|| self.named('n'))
    }

    /// A new name, which what follows goes by.
    fn named(&mut self, letter: char) -> String {
        let count = match letter {
            'c' => &mut self.counts[0],
            'd' => &mut self.counts[1],
            _ => &mut self.counts[2],
        };
        *count += 1;
        let name = format!("{letter}{count}");
        self.owner = Some(name.clone());
        name
    }
}

/// A layer with all numbers that it left open, the shape after it, and its multiply-adds.
type Built = (Layer, Vec<usize>, usize);

/// A product of sizes; the greatest number there is if it is beyond that.
fn product<const N: usize>(sizes: [usize; N]) -> usize {
    sizes.into_iter().fold(1, usize::saturating_mul)
}

/// How many windows there are along rows and columns. `None` if there is no room, or if a window would lie in
/// the border only.
fn fits(window: &Window, image: [usize; 2]) -> Option<[usize; 2]> {
    let (count, [rows, columns], pad) = (window.count(image)?, window.reach(), window.pad);
    let inside =
        pad[..2].iter().all(|&pad| pad < rows) && pad[2..].iter().all(|&pad| pad < columns);
    inside.then_some(count)
}

/// The layer as text; of branches the word alone.
fn short(layer: &Layer) -> String {
    match layer {
        Layer::Add(_) => "add".to_owned(),
        Layer::Concat(_) => "concat".to_owned(),
        Layer::Graph { .. } => "graph".to_owned(),
        layer => layer.to_string(),
    }
}

fn misfit(number: &str, layer: &Layer, shape: &[usize]) -> Error {
    let layer = short(layer);
    let what =
        format!("learner, layer {number}: `{layer}` does not fit an input of shape {shape:?}");
    Error::Setting(what)
}

fn refused(number: &str, layer: &Layer, what: impl Display) -> Error {
    let layer = short(layer);
    Error::Setting(format!("learner, layer {number}: `{layer}`: {what}"))
}

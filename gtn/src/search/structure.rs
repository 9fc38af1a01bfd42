//! What is known about a network without training it: counts.

use crate::nn::Learner;
use crate::nn::network::Layer;

/// Counts of a network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Structure {
    /// Parameters.
    pub params: usize,
    /// Multiply-adds of a forward pass of one image.
    pub macs: usize,
    /// Activations on the longest path from the image to the classes.
    pub depth: usize,
    /// Convolutions.
    pub convs: usize,
    /// Convolutions on the longest path from the image to the classes; 0 if there is no path.
    pub path: usize,
}

impl Structure {
    /// Counts a learner's layers and parameters.
    pub fn of(learner: &Learner) -> Self {
        let layers = &learner.network().layers;
        let longest = |counts: fn(&Layer) -> bool| {
            Walk {
                counts,
                nodes: Vec::new(),
            }
            .longest(layers, Some(0))
            .unwrap_or(0)
        };
        Self {
            params: learner.parameter_count(),
            macs: learner.multiply_adds(),
            depth: longest(|layer| matches!(layer, Layer::Activation(_))),
            convs: learner
                .layers()
                .iter()
                .filter(|layer| {
                    layer.parameters > 0 && layer.shape.len() == 3 && layer.multiply_adds > 0
                })
                .count(),
            path: longest(is_conv),
        }
    }
}

fn is_conv(layer: &Layer) -> bool {
    matches!(layer, Layer::Conv { .. } | Layer::Depthwise { .. })
}

/// Follows the paths through a network.
struct Walk<'a> {
    counts: fn(&Layer) -> bool,
    nodes: Vec<(&'a str, Option<usize>)>,
}

impl<'a> Walk<'a> {
    /// The most counted layers on a path through `layers`, added to `before`. `None` if only zeros reach the
    /// end.
    fn longest(&mut self, layers: &'a [Layer], before: Option<usize>) -> Option<usize> {
        layers.iter().fold(before, |before, layer| match layer {
            Layer::Add(branches) | Layer::Concat(branches) => {
                let ends = branches.iter().map(|branch| self.longest(branch, before));
                ends.max().flatten()
            }
            Layer::Graph { nodes, result } => {
                let known = self.nodes.len();
                for node in nodes {
                    let end = self.longest(&node.layers, before);
                    self.nodes.push((&node.name, end));
                }
                let end = self.longest(result, before);
                self.nodes.truncate(known);
                end
            }
            Layer::Node(name) => self
                .nodes
                .iter()
                .rev()
                .find(|(known, _)| known == name)
                .and_then(|(_, end)| *end),
            Layer::Zero => None,
            layer => before.map(|before| before + usize::from((self.counts)(layer))),
        })
    }
}

//! Networks as data: layers one after another, with branches, and a line of text for each.
//!
//! | text | layer |
//! | --- | --- |
//! | `conv 16 3x3` | convolution; then any of `stride 2`, `pad 1`, `groups 4`, `dilation 2`, `no_bias` |
//! | `depthwise 3x3` | a convolution of every channel by itself, with the same words |
//! | `dense 64`, `dense` | dense layer over all of an example; without a number it has a unit for each class;
//! `no_bias` |
//! | `max 2`, `avg 3 stride 2 pad 1` | the greatest or the mean of every window |
//! | `mean`, `flatten` | the mean of every channel over the image; an image as a vector |
//! | `batch`, `mean_only`, `instance`, `group 4`, `layer` | normalisation |
//! | `relu`, `leaky`, `leaky 0.2`, `gelu`, `silu`, `tanh` | activation |
//! | `bias` | a bias per channel, where the layer with weights has none |
//! | `add(a; b)`, `add(a)` | the sum of branches; of a single branch and its input |
//! | `concat(a; b)`, `concat(a)` | branches side by side, channel after channel |
//! | `graph(n = a; m = n \| b; add(n; m))` | nodes: layers whose result others begin with, by its name; then the graph's result |
//! | `dropout 0.3` | in training, zeros in place of three tenths of all numbers, and the others 1/0.7 times as large |
//! | `drop_path 0.2` | the same for all of an example: at the end of a branch of `add` |
//! | `zero` | zeros in place of what comes in, as a cell without a path has them |
//! | `3 x (a)` | the same layers three times |
//!
//! `|` stands between layers, and `input` for a branch without layers. Before the first layer may stand `init pytorch`
//! (or another [`Start`], and a scale after it) and `weight_norm off`.

mod display;
mod names;
mod parse;
mod words;

pub use parse::Places;
pub(super) use parse::{parse, widths_in};
pub use words::{Activation, Norm, Scheme, Start};

use std::str::FromStr;

/// A network: layers, and how their weights are written and start.
///
/// ```
/// use gtn::nn::Network;
/// let network: Network = "conv 16 | batch | relu | max 2 | dense".parse()?;
/// assert_eq!(network.to_string(), "conv 16 3x3 | batch | relu | max 2 | dense");
/// let learner = network.learner([28, 28, 1], 10).unwrap();
/// assert_eq!(learner.layers()[0].shape, [28, 28, 16]);
/// let lost = "max 2 | conv".parse::<Network>().unwrap_err();
/// assert_eq!(lost, "network, at `conv`: a number is needed");
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    /// Whether weights are s·v/‖v‖, a gain per output unit and a direction (Salimans and Kingma 2016).
    pub weight_norm: bool,
    /// How weights start.
    pub init: Start,
    /// The layers, in order.
    pub layers: Vec<Layer>,
}

impl Network {
    /// The same network with the default initialisation. Networks that differ only in how weights start share
    /// recordings and plans.
    #[must_use]
    pub fn structure(&self) -> Self {
        Self {
            init: Start::default(),
            ..self.clone()
        }
    }
}

/// One layer.
#[derive(Clone, Debug, PartialEq)]
pub enum Layer {
    /// Convolution with weights \[filters, kh, kw, channels / groups\].
    Conv {
        /// Channels of the result.
        filters: usize,
        /// Its window.
        window: Window,
        /// Groups of channels that are convolved separately.
        groups: usize,
        /// Whether a bias per channel is added.
        bias: bool,
    },
    /// Convolution of every channel with a window of its own.
    Depthwise {
        /// Its window.
        window: Window,
        /// Whether a bias per channel is added.
        bias: bool,
    },
    /// Dense layer over everything but the batch axis.
    Dense {
        /// Width of the result; `None` for as many as there are classes.
        units: Option<usize>,
        /// Whether a bias per unit is added.
        bias: bool,
    },
    /// A learned bias per channel.
    Bias,
    /// Normalisation, then a learned map per channel.
    Norm(Norm),
    /// A function of every number.
    Activation(Activation),
    /// The greatest or the mean of every window.
    Pool {
        /// Which of the two.
        kind: Pool,
        /// Its window.
        window: Window,
    },
    /// Zeros at random, in training only: with this probability a number is lost, and what stays is divided by its
    /// probability (Srivastava et al. 2014).
    Dropout(f64),
    /// The same for whole examples: of a residual branch, stochastic depth (Huang et al. 2016).
    DropPath(f64),
    /// The mean of every channel over the image.
    Mean,
    /// An image as a vector.
    Flatten,
    /// The sum of branches, each a few layers on the same input, or none.
    Add(Vec<Vec<Layer>>),
    /// Branches side by side, the channels of the first first.
    Concat(Vec<Vec<Layer>>),
    /// Nodes, whose results may be used several times, and the layers that give the result of all.
    Graph {
        /// In the order in which they are computed; each sees the earlier ones.
        nodes: Vec<Node>,
        /// Layers that compute the result from the graph's input and nodes.
        result: Vec<Layer>,
    },
    /// The result of the node of that name in a graph around it, whatever comes in.
    Node(String),
    /// Zeros in the shape of what comes in.
    Zero,
}

/// A part of a graph: layers on the graph's input or, if they begin with [`Layer::Node`], on an earlier node's result.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The name by which others refer to its result.
    pub name: String,
    /// Its layers, in order.
    pub layers: Vec<Layer>,
}

/// What a pooling layer takes from a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// The greatest number; a border never wins.
    Max,
    /// The mean; a border does not count.
    Average,
}

/// The window of a convolution or pooling. Numbers are for rows, then columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Pixels that it sees.
    pub size: [usize; 2],
    /// Step to the next window.
    pub stride: [usize; 2],
    /// Border above and below, left and right.
    pub pad: [usize; 4],
    /// Distance from one pixel that it sees to the next.
    pub dilation: [usize; 2],
}

impl Window {
    /// Rows and columns from the first pixel that it sees to the last.
    pub fn reach(&self) -> [usize; 2] {
        [0, 1].map(|i| (self.size[i] - 1) * self.dilation[i] + 1)
    }

    /// A border that leaves the size of an image as it is, where the stride is 1.
    pub fn same(size: [usize; 2], dilation: [usize; 2]) -> [usize; 4] {
        let [rows, columns] = [0, 1].map(|i| (size[i] - 1) * dilation[i]);
        [
            rows / 2,
            rows - rows / 2,
            columns / 2,
            columns - columns / 2,
        ]
    }

    /// Windows along the rows and columns of an image; `None` if there is no room for one.
    pub fn count(&self, image: [usize; 2]) -> Option<[usize; 2]> {
        let reach = self.reach();
        let along = |i: usize| {
            let extent = image[i] + self.pad[2 * i] + self.pad[2 * i + 1];
            Some(extent.checked_sub(reach[i])?.checked_div(self.stride[i])? + 1)
        };
        Some([along(0)?, along(1)?])
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse(text, None)
    }
}

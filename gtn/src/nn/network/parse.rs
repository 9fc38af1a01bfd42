//! Reads a network's line of text.

use super::names::is_free;
use super::{Activation, Layer, Network, Node, Norm, Pool, Start, Window};
use std::fmt::Display;

/// Larger numbers are mistakes, and their products overflow.
const LARGEST: usize = 1 << 14;
/// Layers of a network, branches included.
const MOST_LAYERS: usize = 1000;
/// Branches within branches.
const DEEPEST: usize = 16;
/// What stands between words.
const SIGNS: [&str; 5] = ["|", ";", "(", ")", "="];

/// What stands in the places that a family's text leaves open.
#[derive(Clone, Debug, PartialEq)]
pub struct Places {
    /// For `w1`, `w2`, …
    pub widths: Vec<usize>,
    /// For `depth`: how often layers are repeated.
    pub depth: usize,
    /// For `norm`.
    pub norm: Norm,
    /// For `act`.
    pub activation: Activation,
}

/// Reads a network; open places in the text take what is given for them.
pub(in crate::nn) fn parse(text: &str, places: Option<&Places>) -> Result<Network, String> {
    let tokens = tokens(text);
    let mut parser = Parser {
        tokens: &tokens,
        at: 0,
        places,
        layers: 0,
        branches: 0,
        nodes: Vec::new(),
    };
    let (init, weight_norm) = parser.settings()?;
    let layers = parser.sequence()?;
    if let Some(token) = parser.peek() {
        return Err(format!("network: `{token}` without its `(`"));
    }
    Ok(Network {
        weight_norm,
        init,
        layers,
    })
}

/// How many widths a text leaves open: the greatest N of its words `wN`.
///
/// # Errors
/// If they are more than a thousand: as many as layers, and each takes memory.
pub(in crate::nn) fn widths_in(text: &str) -> Result<usize, String> {
    let number = |token: &&str| token.strip_prefix('w')?.parse().ok();
    match tokens(text).iter().filter_map(number).max().unwrap_or(0) {
        most @ 0..=MOST_LAYERS => Ok(most),
        more => Err(format!(
            "network, at `w{more}`: w1 to w{MOST_LAYERS} are the widths that there may be"
        )),
    }
}

fn tokens(text: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    for word in text.split_whitespace() {
        let mut rest = word;
        while let Some(at) = rest.find(['|', ';', '(', ')', '=']) {
            tokens.extend([&rest[..at], &rest[at..=at]]);
            rest = &rest[at + 1..];
        }
        tokens.push(rest);
    }
    tokens.retain(|token| !token.is_empty());
    tokens
}

struct Parser<'a> {
    tokens: &'a [&'a str],
    at: usize,
    places: Option<&'a Places>,
    /// Layers that were read so far.
    layers: usize,
    /// Parentheses that are open.
    branches: usize,
    /// The names that may stand for a result here.
    nodes: Vec<&'a str>,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&'a str> {
        self.tokens.get(self.at).copied()
    }

    /// The next word of this layer, if it has another.
    fn word(&mut self) -> Option<&'a str> {
        let word = self.peek();
        let word = word.filter(|word| !SIGNS.contains(word))?;
        self.at += 1;
        Some(word)
    }

    fn accept(&mut self, token: &str) -> bool {
        let found = self.peek() == Some(token);
        self.at += usize::from(found);
        found
    }

    /// An error about the layer that began with a token.
    fn wrong<T>(&self, begin: usize, what: &str) -> Result<T, String> {
        let end = self.at.clamp(begin, self.tokens.len());
        let layer = self.tokens[begin..end].join(" ");
        Err(format!("network, at `{layer}`: {what}"))
    }

    /// What stands before the layers.
    fn settings(&mut self) -> Result<(Start, bool), String> {
        let (mut init, mut weight_norm) = (Start::default(), true);
        loop {
            let begin = self.at;
            let name = self.peek();
            if !matches!(name, Some("init" | "weight_norm")) {
                return Ok((init, weight_norm));
            }
            self.at += 1;
            let words: Vec<&str> = std::iter::from_fn(|| self.word()).collect();
            match (name, words.join(" ").as_str()) {
                (Some("init"), start) => init = start.parse().map_err(network)?,
                (_, "on") => weight_norm = true,
                (_, "off") => weight_norm = false,
                _ => return self.wrong(begin, "`on` or `off` is needed"),
            }
            if !self.accept("|") {
                return self.wrong(begin, "layers are needed after it");
            }
        }
    }

    /// Reads layers, up to a token that cannot belong to them.
    fn sequence(&mut self) -> Result<Vec<Layer>, String> {
        let mut layers = Vec::new();
        loop {
            self.item(&mut layers)?;
            if self.layers > MOST_LAYERS {
                return Err(format!("network: more than {MOST_LAYERS} layers"));
            }
            if let Some(Layer::Node(name)) = layers
                .iter()
                .skip(1)
                .find(|layer| matches!(layer, Layer::Node(_)))
            {
                return Err(format!(
                    "network, at `{name}`: a node's result stands before all other layers of a branch"
                ));
            }
            if !self.accept("|") {
                return Ok(layers);
            }
        }
    }

    /// A layer, or the same layers several times.
    fn item(&mut self, layers: &mut Vec<Layer>) -> Result<(), String> {
        let begin = self.at;
        let Some(name) = self.word() else {
            return Err(match self.peek() {
                Some(token) => format!("network: a layer is needed before `{token}`"),
                None => "network: a layer is needed at the end".to_owned(),
            });
        };
        let layer = match name {
            "add" | "concat" => {
                let branches = self.branches(begin)?;
                match name {
                    "add" => Layer::Add(branches),
                    _ => Layer::Concat(branches),
                }
            }
            "graph" => self.graph(begin)?,
            node if self.nodes.contains(&node) => Layer::Node(node.to_owned()),
            "norm" | "norm_or_bias" => {
                let norm = self.places(begin)?.norm;
                layers.extend(match (norm, name) {
                    (Norm::None, "norm") => None,
                    (Norm::None, _) => Some(Layer::Bias),
                    (norm, _) => Some(Layer::Norm(norm)),
                });
                return self.end(begin);
            }
            "act" => Layer::Activation(self.places(begin)?.activation),
            "depth" => return self.repeated(begin, self.places(begin)?.depth, layers),
            number if number.starts_with(|c: char| c.is_ascii_digit()) => {
                let times = self.parsed(begin, Some(number), 1)?;
                return self.repeated(begin, times, layers);
            }
            name => self.plain(begin, name)?,
        };
        self.layers += 1;
        layers.push(layer);
        self.end(begin)
    }

    fn end(&mut self, begin: usize) -> Result<(), String> {
        match self.word() {
            Some(word) => self.wrong(begin, &format!("`{word}` says nothing here")),
            None => Ok(()),
        }
    }

    fn places(&self, begin: usize) -> Result<&'a Places, String> {
        match self.places {
            Some(places) => Ok(places),
            None => self.wrong(begin, "this stands for a choice in families only"),
        }
    }

    /// `( … )`, so many times.
    fn repeated(
        &mut self,
        begin: usize,
        times: usize,
        layers: &mut Vec<Layer>,
    ) -> Result<(), String> {
        if self.word() != Some("x") || !self.accept("(") {
            return self.wrong(begin, "`x (…)` is needed after how often");
        }
        let before = self.layers;
        let once = self.inner(begin, Self::sequence)?;
        self.layers = before.saturating_add((self.layers - before).saturating_mul(times));
        if self.layers <= MOST_LAYERS {
            layers.extend(std::iter::repeat_n(once, times).flatten());
        }
        self.end(begin)
    }

    /// `( … ; … )`; a single branch goes with the input.
    fn branches(&mut self, begin: usize) -> Result<Vec<Vec<Layer>>, String> {
        if !self.accept("(") {
            return self.wrong(begin, "branches in `(…)` are needed");
        }
        let branches = self.inner(begin, |parser| {
            let mut branches = vec![parser.branch()?];
            while parser.accept(";") {
                branches.push(parser.branch()?);
            }
            Ok(branches)
        })?;
        Ok(match branches.len() {
            1 => [vec![Vec::new()], branches].concat(),
            _ => branches,
        })
    }

    /// `( name = … ; … )`, where the last has no name.
    fn graph(&mut self, begin: usize) -> Result<Layer, String> {
        if !self.accept("(") {
            return self.wrong(begin, "nodes in `(…)` are needed");
        }
        let known = self.nodes.len();
        let graph = self.inner(begin, |parser| {
            let mut nodes = Vec::new();
            while parser.tokens.get(parser.at + 1) == Some(&"=") {
                nodes.push(parser.node()?);
            }
            let result = parser.branch()?;
            Ok(Layer::Graph { nodes, result })
        });
        self.nodes.truncate(known);
        graph
    }

    /// `name = … ;`
    fn node(&mut self) -> Result<Node, String> {
        let begin = self.at;
        let name = self.tokens[begin];
        self.at += 2;
        if !is_free(name) {
            return self.wrong(
                begin,
                "a node's name is small letters, digits and `_`, and no word of the text",
            );
        }
        if self.nodes.contains(&name) {
            return self.wrong(begin, "there is a node of that name");
        }
        let layers = self.branch()?;
        if !self.accept(";") {
            return self.wrong(begin, "`;` and the graph's result are needed after it");
        }
        self.nodes.push(name);
        let name = name.to_owned();
        Ok(Node { name, layers })
    }

    fn branch(&mut self) -> Result<Vec<Layer>, String> {
        if self.accept("input") {
            return Ok(Vec::new());
        }
        self.sequence()
    }

    /// What is in parentheses, the first of which was read.
    fn inner<T>(
        &mut self,
        begin: usize,
        read: impl FnOnce(&mut Self) -> Result<T, String>,
    ) -> Result<T, String> {
        self.branches += 1;
        if self.branches > DEEPEST {
            return Err(format!("network: more than {DEEPEST} branches in branches"));
        }
        let found = read(self)?;
        self.branches -= 1;
        if self.accept(")") {
            return Ok(found);
        }
        self.wrong(begin, "`)` is needed at its end")
    }

    /// A layer without branches.
    fn plain(&mut self, begin: usize, name: &str) -> Result<Layer, String> {
        Ok(match name {
            "conv" => {
                let word = self.word();
                let filters = self.parsed(begin, word, 1)?;
                let (window, groups, bias) = self.window(begin, Some([3; 2]))?;
                Layer::Conv {
                    filters,
                    window,
                    groups,
                    bias,
                }
            }
            "depthwise" => match self.window(begin, Some([3; 2]))? {
                (window, 1, bias) => Layer::Depthwise { window, bias },
                _ => return self.wrong(begin, "it has as many groups as channels"),
            },
            "dense" => {
                let units = self.peek().filter(|word| *word != "no_bias");
                let units = match units.and_then(|_| self.word()) {
                    Some(word) => Some(self.parsed(begin, Some(word), 1)?),
                    None => None,
                };
                let bias = !self.accept("no_bias");
                Layer::Dense { units, bias }
            }
            "max" | "avg" => {
                let kind = match name {
                    "max" => Pool::Max,
                    _ => Pool::Average,
                };
                let (window, groups, bias) = self.window(begin, None)?;
                if (window.dilation, groups, bias) != ([1; 2], 1, true) {
                    return self.wrong(begin, "a window, stride and pad are all that it has");
                }
                Layer::Pool { kind, window }
            }
            "dropout" => Layer::Dropout(self.rate(begin)?),
            "drop_path" => Layer::DropPath(self.rate(begin)?),
            "mean" => Layer::Mean,
            "flatten" => Layer::Flatten,
            "bias" => Layer::Bias,
            "zero" => Layer::Zero,
            _ => self.words(begin, name)?,
        })
    }

    /// The probability with which something is dropped.
    fn rate(&mut self, begin: usize) -> Result<f64, String> {
        let rate = self.word().and_then(|word| word.parse().ok());
        match rate.filter(|rate| (0.0..1.0).contains(rate)) {
            Some(rate) => Ok(rate),
            None => self.wrong(begin, "a probability from 0 to below 1 is needed"),
        }
    }

    /// A normalisation or activation.
    fn words(&mut self, begin: usize, name: &str) -> Result<Layer, String> {
        let all = [
            &[name],
            &*std::iter::from_fn(|| self.word()).collect::<Vec<_>>(),
        ]
        .concat();
        let text = all.join(" ");
        match name {
            "none" | "mean_only" | "batch" | "instance" | "group" | "layer" => {
                text.parse().map(Layer::Norm).map_err(network)
            }
            "relu" | "leaky" | "gelu" | "silu" | "tanh" => {
                text.parse().map(Layer::Activation).map_err(network)
            }
            _ => self.wrong(
                begin,
                "there is no such layer, but conv, depthwise, dense, bias, max, avg, mean, flatten, add, concat, graph, dropout, drop_path, \
                 zero, none, mean_only, batch, instance, group, layer, relu, leaky, gelu, silu and tanh",
            ),
        }
    }

    /// The window of a convolution, whose usual size is given, or of a pooling; groups; and whether there is a bias.
    fn window(
        &mut self,
        begin: usize,
        usual: Option<[usize; 2]>,
    ) -> Result<(Window, usize, bool), String> {
        let sized = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit());
        let size = match (self.peek().filter(sized), usual) {
            (None, Some(usual)) => usual,
            _ => self.two(begin, 1)?,
        };
        let mut stride = if usual.is_some() { [1; 2] } else { size };
        let (mut dilation, mut groups, mut bias) = ([1; 2], 1, true);
        let mut pad = None;
        while let Some(word) = self.word() {
            match word {
                "stride" => stride = self.two(begin, 1)?,
                "dilation" => dilation = self.two(begin, 1)?,
                "pad" => pad = Some(self.border(begin)?),
                "groups" => {
                    let word = self.word();
                    groups = self.parsed(begin, word, 1)?;
                }
                "no_bias" => bias = false,
                other => return self.wrong(begin, &format!("`{other}` says nothing here")),
            }
        }
        let usual = match usual {
            Some(_) => Window::same(size, dilation),
            None => [0; 4],
        };
        let window = Window {
            size,
            stride,
            pad: pad.unwrap_or(usual),
            dilation,
        };
        Ok((window, groups, bias))
    }

    /// A number for rows and columns, or one for each, as 1x3.
    fn two(&mut self, begin: usize, least: usize) -> Result<[usize; 2], String> {
        match self.numbers(begin, least)?[..] {
            [both] => Ok([both; 2]),
            [rows, columns] => Ok([rows, columns]),
            _ => self.wrong(begin, "a number or two, as 3 or 1x3, is needed"),
        }
    }

    /// The same for borders; or four numbers: above, below, left and right.
    fn border(&mut self, begin: usize) -> Result<[usize; 4], String> {
        match self.numbers(begin, 0)?[..] {
            [all] => Ok([all; 4]),
            [rows, columns] => Ok([rows, rows, columns, columns]),
            [above, below, left, right] => Ok([above, below, left, right]),
            _ => self.wrong(begin, "one, two or four numbers are needed, as 1 or 0x1"),
        }
    }

    fn numbers(&mut self, begin: usize, least: usize) -> Result<Vec<usize>, String> {
        let word = self.word().unwrap_or_default();
        let number = |part| self.parsed(begin, Some(part), least);
        word.split('x').map(number).collect()
    }

    /// A number, or the width that a word as `w1` stands for.
    fn parsed(&self, begin: usize, word: Option<&str>, least: usize) -> Result<usize, String> {
        let Some(word) = word else {
            return self.wrong(begin, "a number is needed");
        };
        let width = word
            .strip_prefix('w')
            .and_then(|number| number.parse().ok());
        if let Some(width) = width {
            let widths = &self.places(begin)?.widths;
            let width: Option<&usize> = widths.get(usize::wrapping_sub(width, 1));
            return match width {
                Some(&width) => Ok(width),
                None => self.wrong(begin, &format!("there are {} widths", widths.len())),
            };
        }
        match word.parse() {
            Ok(number) if (least..=LARGEST).contains(&number) => Ok(number),
            _ => self.wrong(
                begin,
                &format!("`{word}` is no number from {least} to {LARGEST}"),
            ),
        }
    }
}

fn network(error: impl Display) -> String {
    format!("network: {error}")
}

//! A network as a Python literal, and the programs that train it.

use crate::error::one_line;
use crate::nn::network::{Activation, Layer, Network, Node, Norm, Pool, Start, Window};
use crate::nn::role::RateGroup;
use crate::outer::rule::Rule;
use autograd::optim::Optimizer;
use std::fmt::Write;

/// A program that trains networks on exported batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framework {
    /// JAX, without further libraries.
    Jax,
    /// PyTorch.
    Torch,
}

/// What a program is written for.
#[derive(Debug)]
pub struct Program<'a> {
    /// The network, with all numbers: see [`Learner::network`](crate::nn::Learner::network).
    pub network: &'a Network,
    /// What moves its weights.
    pub rule: Rule,
    /// What their rates depend on: see [`Learner::rate_groups`](crate::nn::Learner::rate_groups).
    pub rate_groups: &'a [RateGroup],
    /// For every channel, the mean of the training pixels divided by 255; and their standard deviation.
    pub statistics: [&'a [f32]; 2],
    /// Where it comes from, for a comment in the program: a path may have line ends, which do not get there.
    pub origin: String,
}

impl Program<'_> {
    /// The text of the program.
    pub fn text(&self, framework: Framework) -> String {
        let template = match framework {
            Framework::Jax => include_str!("train_jax.py"),
            Framework::Torch => include_str!("train_torch.py"),
        };
        template
            .replace("@SETTINGS@\n", &self.settings())
            .replace("@OPTIMIZER@\n", &update(self.rule.optimizer))
    }

    /// The text of a module that builds a trained network in PyTorch and loads its weights.
    pub fn module(&self) -> String {
        let passes = include_str!("train_torch.py");
        let from = passes.find("EPS = ").expect("a test says so");
        let to = passes.find("def draw_weight").expect("a test says so");
        include_str!("network.py")
            .replace("@SETTINGS@\n", &self.settings())
            .replace("@PASS@\n", &passes[from..to])
    }

    fn settings(&self) -> String {
        let [mean, std] = self.statistics;
        let names: Vec<_> = self
            .rule
            .optimizer
            .hyper()
            .iter()
            .map(|(name, _)| *name)
            .collect();
        let Start { scheme, scale } = self.network.init;
        let scheme = Start { scheme, scale: 1.0 };
        format!(
            "# {}\nNETWORK = [\n{}]\nWEIGHT_NORM = {}\nINIT, INIT_SCALE = \"{}\", {}\n\
             # The optimizer is {}. Of rates by role: the place of each weight's rate, and its factor.\n\
             HYPER = {names:?}\nRATES = {:?}\nMEAN, STD = {mean:?}, {std:?}\n",
            one_line(&self.origin),
            layers(&self.network.layers, 1),
            if self.network.weight_norm {
                "True"
            } else {
                "False"
            },
            scheme,
            scale,
            self.rule.optimizer.name(),
            self.rule.shares(self.rate_groups).unwrap_or_default(),
        )
    }
}

/// Two functions: the state of a weight before the first step, and a step.
fn update(optimizer: Optimizer) -> String {
    let (like, decay) = match optimizer {
        // Its fixed-point arithmetic serves only to undo steps; the steps themselves are those of momentum.
        Optimizer::ReversibleMomentum => (Optimizer::Momentum, ""),
        Optimizer::AdamW => (Optimizer::Adam, " + h[\"weight_decay\"] * theta"),
        other => (other, ""),
    };
    let mark = format!("{}\n", like.name());
    let mut all = include_str!("optimizers.py").split("#: ");
    let found = all.find_map(|part| part.strip_prefix(&mark));
    found
        .expect("a test says that every optimiser is there")
        .replace("@DECAY@", decay)
}

/// A line for every layer.
fn layers(of: &[Layer], depth: usize) -> String {
    let indent = "    ".repeat(depth);
    of.iter().fold(String::new(), |mut lines, layer| {
        let _ = writeln!(lines, "{indent}{},", one(layer, depth));
        lines
    })
}

fn one(layer: &Layer, depth: usize) -> String {
    match layer {
        Layer::Conv {
            filters,
            window,
            groups,
            bias,
        } => format!(
            "(\"conv\", {filters}, {}, {groups}, {})",
            seen(window),
            truth(*bias)
        ),
        Layer::Depthwise { window, bias } => {
            format!("(\"depthwise\", {}, {})", seen(window), truth(*bias))
        }
        Layer::Dense { units, bias } => {
            let units = units.expect("a learner's network has all numbers");
            format!("(\"dense\", {units}, {})", truth(*bias))
        }
        Layer::Bias => "(\"bias\",)".to_owned(),
        Layer::Norm(Norm::Group(groups)) => format!("(\"norm\", \"group\", {groups})"),
        Layer::Norm(norm) => format!("(\"norm\", \"{norm}\", 1)"),
        Layer::Activation(Activation::Leaky(slope)) => {
            format!("(\"activation\", \"leaky\", {slope})")
        }
        Layer::Activation(activation) => format!("(\"activation\", \"{activation}\", 0)"),
        Layer::Pool { kind, window } => {
            let kind = match kind {
                Pool::Max => "max",
                Pool::Average => "avg",
            };
            let Window {
                size, stride, pad, ..
            } = window;
            format!(
                "(\"pool\", \"{kind}\", {}, {}, {})",
                tuple(size),
                tuple(stride),
                tuple(pad)
            )
        }
        Layer::Dropout(rate) => format!("(\"dropout\", {rate})"),
        Layer::DropPath(rate) => format!("(\"drop_path\", {rate})"),
        Layer::Mean => "(\"mean\",)".to_owned(),
        Layer::Flatten => "(\"flatten\",)".to_owned(),
        Layer::Add(branches) => joined("add", branches, depth),
        Layer::Concat(branches) => joined("concat", branches, depth),
        Layer::Graph { nodes, result } => graph(nodes, result, depth),
        Layer::Node(name) => format!("(\"node\", \"{name}\")"),
        Layer::Zero => "(\"zero\",)".to_owned(),
    }
}

fn graph(nodes: &[Node], result: &[Layer], depth: usize) -> String {
    let indent = "    ".repeat(depth + 1);
    let lines = nodes.iter().fold(String::new(), |mut lines, node| {
        let own = layers(&node.layers, depth + 2);
        let _ = writeln!(lines, "{indent}(\"{}\", [\n{own}{indent}]),", node.name);
        lines
    });
    let (end, result) = ("    ".repeat(depth), layers(result, depth + 1));
    format!("(\"graph\", [\n{lines}{end}], [\n{result}{end}])")
}

fn joined(name: &str, branches: &[Vec<Layer>], depth: usize) -> String {
    let indent = "    ".repeat(depth + 1);
    let lines = branches.iter().fold(String::new(), |mut lines, branch| {
        let _ = writeln!(lines, "{indent}[\n{}{indent}],", layers(branch, depth + 2));
        lines
    });
    format!("(\"{name}\", [\n{lines}{}])", "    ".repeat(depth))
}

fn seen(window: &Window) -> String {
    let Window {
        size,
        stride,
        pad,
        dilation,
    } = window;
    let all = [tuple(size), tuple(stride), tuple(pad), tuple(dilation)];
    all.join(", ")
}

fn tuple(numbers: &[usize]) -> String {
    let words: Vec<_> = numbers.iter().map(ToString::to_string).collect();
    format!("({})", words.join(", "))
}

fn truth(yes: bool) -> &'static str {
    if yes { "True" } else { "False" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outer::rule::Rates;

    #[test]
    fn every_optimizer_has_its_functions_and_nothing_is_left_open() {
        let network: Network = "add(conv 4 | batch; conv 4 1x1 | drop_path 0.25) | leaky | dropout 0.5 | avg 2 | dense"
            .parse()
            .unwrap();
        let learner = network.learner([8, 8, 3], 10).unwrap();
        for optimizer in Optimizer::ALL {
            for framework in [Framework::Jax, Framework::Torch] {
                let program = Program {
                    network: learner.network(),
                    rule: Rule {
                        optimizer,
                        rates: Rates::Role,
                    },
                    rate_groups: &learner.rate_groups(),
                    statistics: [&[0.5, 0.5, 0.25], &[0.1, 0.2, 0.3]],
                    origin: "a\n\r\u{c}\u{b}test()\u{85}\0\u{1b}".to_owned(),
                };
                let text = program.text(framework);
                assert!(text.contains("\n# a test() \\u{0}\\u{1b}\n"), "{text}");
                for open in ["@SETTINGS@", "@OPTIMIZER@", "@DECAY@"] {
                    assert!(!text.contains(open), "{optimizer:?}: {open}");
                }
                let decays = text.contains("h[\"weight_decay\"] * theta");
                let has_decay = |(name, _): &(&str, f64)| *name == "weight_decay";
                assert_eq!(decays, optimizer.hyper().iter().any(has_decay));
                assert_eq!(text.matches("def update(").count(), 1, "{optimizer:?}");
                assert!(
                    text.contains("    return theta - h[\"lr\"]"),
                    "{optimizer:?}"
                );
                for layer in [
                    "(\"dense\", 10, True)",
                    "(\"dropout\", 0.5)",
                    "    (\"drop_path\", 0.25)",
                ] {
                    assert!(text.contains(&format!("    {layer},\n")), "{text}");
                }
                let module = program.module();
                assert!(
                    !module.contains("@SETTINGS@") && !module.contains("@PASS@"),
                    "{module}"
                );
                for part in [
                    "class Pass:",
                    "class Trained(Pass):",
                    "(\"dense\", 10, True),",
                ] {
                    assert_eq!(module.matches(part).count(), 1, "{part} in {module}");
                }
            }
        }
    }
}

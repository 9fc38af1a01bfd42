//! Which names the nodes of a graph may have.

/// Words that mean something else in a network's text.
const TAKEN: [&str; 36] = [
    "conv",
    "depthwise",
    "dense",
    "bias",
    "max",
    "avg",
    "mean",
    "flatten",
    "add",
    "concat",
    "graph",
    "dropout",
    "drop_path",
    "zero",
    "input",
    "none",
    "mean_only",
    "batch",
    "instance",
    "group",
    "layer",
    "relu",
    "leaky",
    "gelu",
    "silu",
    "tanh",
    "norm",
    "norm_or_bias",
    "act",
    "depth",
    "init",
    "weight_norm",
    "stride",
    "pad",
    "groups",
    "dilation",
];

/// Whether a node may be called so: a small letter, then small letters, digits and `_`, and no word of the text.
pub(super) fn is_free(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let is_width = name
        .strip_prefix('w')
        .is_some_and(|rest| rest.parse::<usize>().is_ok());
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(plain)
        && !is_width
        && !TAKEN.contains(&name)
}

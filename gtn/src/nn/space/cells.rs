//! The space of Such et al. (2020, arXiv 1912.07768): a normal and a reduction cell.
//!
//! A convolution to 3F channels; N normal cells, a reduction cell, N normal, a reduction, N normal; mean, classes. A cell
//! sees the results of the two cells before it, each through a convolution 1×1. Each of its five nodes sums two operations,
//! each on one of the cell's inputs or an earlier node; nodes that no other uses are the result, side by side. Operations of
//! a reduction cell on its inputs have stride 2, and it doubles the channels. Code: for every node of the normal cell, then of
//! the reduction cell, which result goes in and which operation is done, twice. Operations: 0 identity; 1 convolution 1×1; 2
//! 3×3; 3 1×3 then 3×1; 4 1×7 then 7×1; 5, 6, 7 the greatest of 2×2, 3×3, 5×5; 8, 9, a their mean.

use super::options::Options;

pub(super) const OPTIONS: Options = Options::published(32, Some(3), true);

const NODES: usize = 5;
const OPERATIONS: usize = 11;

pub(super) fn places() -> Vec<usize> {
    let node = |i: usize| [i + 2, OPERATIONS, i + 2, OPERATIONS];
    (0..2).flat_map(|_| (0..NODES).flat_map(node)).collect()
}

/// Every node reads the cell's inputs only, so all are part of the result; every operation is the costliest.
pub(super) fn largest() -> Vec<u8> {
    [0, 4, 1, 4].repeat(2 * NODES)
}

/// The same text for all codes of one function: the order of a node's two terms does not matter.
pub(super) fn function(code: &[u8]) -> String {
    let node = |node: &[u8]| {
        let mut terms = [&node[..2], &node[2..]];
        terms.sort_unstable();
        format!("{terms:?}")
    };
    code.chunks_exact(4).map(node).collect()
}

pub(super) fn text(code: &[u8], options: &Options) -> String {
    let (normal, reduction) = code.split_at(code.len() / 2);
    let count = options.cells.unwrap_or(1);
    let mut channels = options.channels;
    let mut nodes = vec![format!("stem = conv {} 3x3 no_bias | batch", 3 * channels)];
    // The results of the two cells before, and whether the older has twice the height and width.
    let (mut before, mut larger) = (["stem".to_owned(), "stem".to_owned()], false);
    for i in 0..3 * count + 2 {
        let reduces = i == count || i == 2 * count + 1;
        channels *= if reduces { 2 } else { 1 };
        let own = if reduces { reduction } else { normal };
        let name = format!("cell{i}");
        nodes.push(format!(
            "{name} = {}",
            cell(own, &before, channels, (larger, reduces))
        ));
        before = [before[1].clone(), name];
        larger = reduces;
    }
    format!(
        "{}graph({}; {} | leaky | mean | dense)",
        options.settings(),
        nodes.join("; "),
        before[1]
    )
}

fn cell(
    code: &[u8],
    [elder, last]: &[String; 2],
    channels: usize,
    (larger, reduces): (bool, bool),
) -> String {
    let half = if larger { " stride 2" } else { "" };
    let mut nodes = vec![
        format!("a = {elder} | leaky | conv {channels} 1x1{half} no_bias | batch"),
        format!("b = {last} | leaky | conv {channels} 1x1 no_bias | batch"),
    ];
    let mut used = [false; NODES + 2];
    let name = |of: usize| match of {
        0 => "a".to_owned(),
        1 => "b".to_owned(),
        node => format!("n{}", node - 2),
    };
    for (i, node) in code.chunks_exact(4).enumerate() {
        let mut term = |from: u8, op: u8| {
            let from = usize::from(from);
            used[from] = true;
            let stride = if reduces && from < 2 { 2 } else { 1 };
            format!("{}{}", name(from), operation(op, channels, stride))
        };
        let terms = [term(node[0], node[1]), term(node[2], node[3])];
        nodes.push(format!("n{i} = add({})", terms.join("; ")));
    }
    let free: Vec<String> = (2..NODES + 2)
        .filter(|&node| !used[node])
        .map(name)
        .collect();
    let result = match &free[..] {
        [one] => one.clone(),
        several => format!("concat({})", several.join("; ")),
    };
    format!("graph({}; {result})", nodes.join("; "))
}

/// The text of an operation, to follow the name of its input.
fn operation(op: u8, channels: usize, stride: usize) -> String {
    let conv = |windows: [&str; 2], strides: [String; 2]| {
        let one = |(window, stride): (&str, &String)| {
            if window.is_empty() {
                return String::new();
            }
            format!(" | leaky | conv {channels} {window}{stride} no_bias | batch")
        };
        windows.into_iter().zip(&strides).map(one).collect()
    };
    let none = String::new;
    let both = if stride == 1 {
        none()
    } else {
        " stride 2".to_owned()
    };
    let apart = if stride == 1 {
        [none(), none()]
    } else {
        [" stride 1x2".to_owned(), " stride 2x1".to_owned()]
    };
    let pool = |kind: &str, size: u8| {
        let (before, after) = ((size - 1) / 2, size / 2);
        format!(" | {kind} {size} stride {stride} pad {before}x{after}x{before}x{after}")
    };
    match op {
        0 if stride == 1 => String::new(),
        0 | 1 => conv(["1x1", ""], [both, none()]),
        2 => conv(["3x3", ""], [both, none()]),
        3 => conv(["1x3", "3x1"], apart),
        4 => conv(["1x7", "7x1"], apart),
        5..=7 => pool("max", [2, 3, 5][usize::from(op) - 5]),
        _ => pool("avg", [2, 3, 5][usize::from(op) - 8]),
    }
}

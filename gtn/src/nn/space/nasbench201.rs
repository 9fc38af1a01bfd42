//! The topologies of NAS-Bench-201 (Dong and Yang 2020, arXiv 2001.00326).
//!
//! A convolution to 16 channels; three stages of five equal cells, with residual blocks that halve the image and double the
//! channels between them; mean, classes. A cell has four nodes; each sums an operation on every earlier one. Digits are
//! the operations of the edges 0→1, 0→2, 1→2, 0→3, 1→3, 2→3: 0 none, 1 skip, 2 convolution 1×1, 3 convolution 3×3, 4 average
//! of 3×3.

use super::options::Options;

pub(super) const OPTIONS: Options = Options::published(16, Some(5), false);

/// The nodes that an edge goes from and to.
const EDGES: [(usize, usize); 6] = [(0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)];

pub(super) fn places() -> Vec<usize> {
    vec![5; EDGES.len()]
}

pub(super) fn text(code: &[u8], options: &Options) -> String {
    let channels = options.channels;
    let stage = |channels: usize| {
        let cells = options.cells.unwrap_or(1);
        format!("{cells} x ({})", cell(code, channels))
    };
    let half = |channels: usize| {
        format!(
            "add(avg 2 | conv {channels} 1x1 no_bias; relu | conv {channels} 3x3 stride 2 no_bias | batch | relu | \
             conv {channels} 3x3 no_bias | batch)"
        )
    };
    let [second, third] = [2 * channels, 4 * channels];
    format!(
        "{}conv {channels} 3x3 no_bias | batch | {} | {} | {} | {} | {} | batch | relu | mean | dense",
        options.settings(),
        stage(channels),
        half(second),
        stage(second),
        half(third),
        stage(third)
    )
}

fn cell(code: &[u8], channels: usize) -> String {
    let node = |to: usize| {
        let edges = EDGES.iter().zip(code).filter(|(edge, _)| edge.1 == to);
        let terms: Vec<String> = edges
            .filter_map(|(&(from, _), &op)| term(from, op, channels))
            .collect();
        match &terms[..] {
            [] => "zero".to_owned(),
            [one] => one.clone(),
            several => format!("add({})", several.join("; ")),
        }
    };
    format!("graph(n1 = {}; n2 = {}; {})", node(1), node(2), node(3))
}

/// An operation on a node's result; `None` for the operation "none".
fn term(from: usize, op: u8, channels: usize) -> Option<String> {
    let conv = |size: &str| format!("relu | conv {channels} {size} no_bias | batch");
    let layers = match op {
        0 => return None,
        1 => String::new(),
        2 => conv("1x1"),
        3 => conv("3x3"),
        _ => "avg 3 stride 1 pad 1".to_owned(),
    };
    Some(match (from, layers.is_empty()) {
        (0, true) => "input".to_owned(),
        (0, false) => layers,
        (from, true) => format!("n{from}"),
        (from, false) => format!("n{from} | {layers}"),
    })
}

/// What a cell computes, as a text that is equal for cells that compute the same. Terms are sorted, a skip
/// becomes the node that it skips from, and zeros are left out.
pub(super) fn function(code: &[u8]) -> String {
    let mut nodes = vec![vec!["x".to_owned()]];
    for to in 1..4 {
        let mut terms = Vec::new();
        for (&(from, _), op) in EDGES.iter().zip(code).filter(|(edge, _)| edge.1 == to) {
            match op {
                0 => {}
                1 => terms.extend(nodes[from].clone()),
                4 if nodes[from].is_empty() => {}
                op => terms.push(format!("{op}({})", nodes[from].join("+"))),
            }
        }
        terms.sort_unstable();
        nodes.push(terms);
    }
    nodes[3].join("+")
}

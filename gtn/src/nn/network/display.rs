//! A network as a line of text, which [`parse`](super::parse()) reads.

use super::{Layer, Network, Pool, Start, Window};
use std::fmt::{self, Display, Formatter};

impl Display for Network {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.init != Start::default() {
            write!(f, "init {} | ", self.init)?;
        }
        if !self.weight_norm {
            f.write_str("weight_norm off | ")?;
        }
        separated(f, &self.layers, " | ")
    }
}

impl Display for Layer {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conv {
                filters,
                window,
                groups,
                bias,
            } => {
                let [rows, columns] = window.size;
                write!(f, "conv {filters} {rows}x{columns}")?;
                window.words(f, Window::same(window.size, window.dilation))?;
                word(f, "groups", [*groups; 2], [1; 2])?;
                no_bias(f, *bias)
            }
            Self::Depthwise { window, bias } => {
                let [rows, columns] = window.size;
                write!(f, "depthwise {rows}x{columns}")?;
                window.words(f, Window::same(window.size, window.dilation))?;
                no_bias(f, *bias)
            }
            Self::Dense { units, bias } => {
                f.write_str("dense")?;
                units.map_or(Ok(()), |units| write!(f, " {units}"))?;
                no_bias(f, *bias)
            }
            Self::Bias => f.write_str("bias"),
            Self::Norm(norm) => norm.fmt(f),
            Self::Activation(activation) => activation.fmt(f),
            Self::Pool { kind, window } => {
                f.write_str(match kind {
                    Pool::Max => "max ",
                    Pool::Average => "avg ",
                })?;
                extents(f, window.size)?;
                word(f, "stride", window.stride, window.size)?;
                window.border(f, [0; 4])
            }
            Self::Dropout(rate) => write!(f, "dropout {rate}"),
            Self::DropPath(rate) => write!(f, "drop_path {rate}"),
            Self::Mean => f.write_str("mean"),
            Self::Flatten => f.write_str("flatten"),
            Self::Add(branches) => joined(f, "add", branches),
            Self::Concat(branches) => joined(f, "concat", branches),
            Self::Graph { nodes, result } => {
                f.write_str("graph(")?;
                for node in nodes {
                    write!(f, "{} = ", node.name)?;
                    branch(f, &node.layers)?;
                    f.write_str("; ")?;
                }
                branch(f, result)?;
                f.write_str(")")
            }
            Self::Node(name) => f.write_str(name),
            Self::Zero => f.write_str("zero"),
        }
    }
}

impl Window {
    fn words(&self, f: &mut Formatter<'_>, pad: [usize; 4]) -> fmt::Result {
        word(f, "stride", self.stride, [1; 2])?;
        self.border(f, pad)?;
        word(f, "dilation", self.dilation, [1; 2])
    }

    fn border(&self, f: &mut Formatter<'_>, usual: [usize; 4]) -> fmt::Result {
        if self.pad == usual {
            return Ok(());
        }
        let [above, below, left, right] = self.pad;
        if (above, left) == (below, right) {
            return word(f, "pad", [above, left], [usize::MAX; 2]);
        }
        write!(f, " pad {above}x{below}x{left}x{right}")
    }
}

/// A word with its numbers, unless they are the usual ones.
fn word(f: &mut Formatter<'_>, name: &str, numbers: [usize; 2], usual: [usize; 2]) -> fmt::Result {
    if numbers == usual {
        return Ok(());
    }
    write!(f, " {name} ")?;
    extents(f, numbers)
}

fn extents(f: &mut Formatter<'_>, [rows, columns]: [usize; 2]) -> fmt::Result {
    if rows == columns {
        write!(f, "{rows}")
    } else {
        write!(f, "{rows}x{columns}")
    }
}

fn no_bias(f: &mut Formatter<'_>, bias: bool) -> fmt::Result {
    f.write_str(if bias { "" } else { " no_bias" })
}

fn joined(f: &mut Formatter<'_>, name: &str, branches: &[Vec<Layer>]) -> fmt::Result {
    write!(f, "{name}(")?;
    let branches = match branches {
        [input, branch] if input.is_empty() && !branch.is_empty() => std::slice::from_ref(branch),
        branches => branches,
    };
    for (i, layers) in branches.iter().enumerate() {
        f.write_str(if i > 0 { "; " } else { "" })?;
        branch(f, layers)?;
    }
    f.write_str(")")
}

fn branch(f: &mut Formatter<'_>, layers: &[Layer]) -> fmt::Result {
    if layers.is_empty() {
        f.write_str("input")?;
    }
    separated(f, layers, " | ")
}

fn separated<T: Display>(f: &mut Formatter<'_>, items: &[T], between: &str) -> fmt::Result {
    for (i, item) in items.iter().enumerate() {
        write!(f, "{}{item}", if i > 0 { between } else { "" })?;
    }
    Ok(())
}

//! Words of a network's text: normalisations, activations, starts.

use serde::{Serialize, Serializer};
use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

/// How a layer's results are normalised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Norm {
    /// Not at all.
    None,
    /// Every channel by its mean over the batch; a learned bias.
    #[default]
    MeanOnly,
    /// Every channel by mean and variance over the batch; a learned scale and bias.
    Batch,
    /// Every channel of every image by itself, by mean and variance.
    Instance,
    /// Channels of an image in groups of one size: this many groups, or the next smaller number that divides
    /// the channels.
    Group(usize),
    /// All channels of an image together.
    Layer,
}

impl Norm {
    /// The same norm with a number of groups that divides `channels`.
    pub(in crate::nn) fn fitting(self, channels: usize) -> Self {
        match self {
            Self::Group(most) => {
                let divides = |groups: &usize| channels.is_multiple_of(*groups);
                Self::Group((1..=most).rev().find(divides).unwrap_or(1))
            }
            norm => norm,
        }
    }

    /// How many groups of channels of an image it normalises separately; `None` if it normalises over
    /// batches.
    pub(crate) fn groups(self, channels: usize) -> Option<usize> {
        match self {
            Self::None | Self::MeanOnly | Self::Batch => None,
            Self::Instance => Some(channels),
            Self::Group(groups) => Some(groups),
            Self::Layer => Some(1),
        }
    }
}

impl Display for Norm {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::MeanOnly => "mean_only",
            Self::Batch => "batch",
            Self::Instance => "instance",
            Self::Group(groups) => return write!(f, "group {groups}"),
            Self::Layer => "layer",
        })
    }
}

impl FromStr for Norm {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        Ok(match words[..] {
            ["none"] => Self::None,
            ["mean_only"] => Self::MeanOnly,
            ["batch"] => Self::Batch,
            ["instance"] => Self::Instance,
            ["layer"] => Self::Layer,
            ["group", groups] => match groups.parse() {
                Ok(groups @ 1..=1024) => Self::Group(groups),
                _ => return Err(format!("`{text}`: from 1 to 1024 groups are needed")),
            },
            _ => {
                return Err(format!(
                    "there is no norm `{text}`, but none, mean_only, batch, instance, layer and group N"
                ));
            }
        })
    }
}

impl Serialize for Norm {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// A function of every number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// x where x > 0, else 0.
    Relu,
    /// x where x > 0, else the slope times x.
    Leaky(f64),
    /// x·Φ(x), Φ the distribution function of the standard normal.
    Gelu,
    /// x·σ(x).
    Silu,
    /// tanh x.
    Tanh,
}

impl Display for Activation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Relu => "relu",
            Self::Leaky(crate::nn::layers::LEAK) => "leaky",
            Self::Leaky(slope) => return write!(f, "leaky {slope}"),
            Self::Gelu => "gelu",
            Self::Silu => "silu",
            Self::Tanh => "tanh",
        })
    }
}

impl FromStr for Activation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        Ok(match words[..] {
            ["relu"] => Self::Relu,
            ["leaky"] => Self::Leaky(crate::nn::layers::LEAK),
            ["leaky", slope] => match slope.parse() {
                Ok(slope) if (0.0..=1.0).contains(&slope) => Self::Leaky(slope),
                _ => return Err(format!("`{text}`: a slope from 0 to 1 is needed")),
            },
            ["gelu"] => Self::Gelu,
            ["silu"] => Self::Silu,
            ["tanh"] => Self::Tanh,
            _ => {
                return Err(format!(
                    "there is no activation `{text}`, but relu, leaky, gelu, silu and tanh"
                ));
            }
        })
    }
}

/// How weights start: a distribution, and a factor on what is drawn. Biases start at 0, but for [`Scheme::Pytorch`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Start {
    /// The distribution.
    pub scheme: Scheme,
    /// The factor.
    pub scale: f64,
}

/// The distribution of a layer's first weights. Fan-in is the number of inputs of an output, fan-out the
/// number of outputs of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Normal with variance 2 / fan-in (He et al. 2015).
    KaimingNormal,
    /// Uniform with that variance.
    KaimingUniform,
    /// Normal with variance 2 / (fan-in + fan-out) (Glorot and Bengio 2010).
    XavierNormal,
    /// Uniform with that variance.
    XavierUniform,
    /// Orthonormal rows, or columns where there are more rows (Saxe et al. 2014).
    Orthogonal,
    /// Weights and biases uniform within ±1/√fan-in, the default of `PyTorch`'s layers.
    Pytorch,
}

impl Scheme {
    const NAMES: [(Self, &'static str); 6] = [
        (Self::KaimingNormal, "kaiming_normal"),
        (Self::KaimingUniform, "kaiming_uniform"),
        (Self::XavierNormal, "xavier_normal"),
        (Self::XavierUniform, "xavier_uniform"),
        (Self::Orthogonal, "orthogonal"),
        (Self::Pytorch, "pytorch"),
    ];
}

impl Default for Start {
    fn default() -> Self {
        Self {
            scheme: Scheme::KaimingNormal,
            scale: 1.0,
        }
    }
}

impl Display for Start {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let named = |(scheme, _): &&(Scheme, _)| *scheme == self.scheme;
        let (_, name) = Scheme::NAMES.iter().find(named).expect("all have names");
        f.write_str(name)?;
        if self.scale != 1.0 {
            write!(f, " {}", self.scale)?;
        }
        Ok(())
    }
}

impl FromStr for Start {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let (name, scale) = match words[..] {
            [name] => (name, Ok(1.0)),
            [name, scale] => (name, scale.parse()),
            _ => ("", Ok(1.0)),
        };
        let named = Scheme::NAMES.iter().find(|(_, known)| *known == name);
        let Some(&(scheme, _)) = named else {
            let names = Scheme::NAMES.map(|(_, name)| name).join(", ");
            return Err(format!("there is no init `{text}`, but {names}"));
        };
        match scale {
            Ok(scale) if scale > 0.0 && scale <= 1e3 => Ok(Self { scheme, scale }),
            _ => Err(format!("init `{text}`: a scale above 0 is needed")),
        }
    }
}

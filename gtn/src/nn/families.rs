//! Families of learners: a structure by name, of any widths.

use super::{Layer, Learner, Norm};
use autograd::{Error, Result};
use serde::Serialize;

/// The structures that Such et al. (2020) train generators with. The widths are those of the layers in
/// order, but for the last one, which has the classes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum LearnerKind {
    /// Two convolutions with max-pooling, two dense layers: the learner for MNIST.
    #[default]
    BaseFc,
    /// The same with the mean over the image and one dense layer.
    Base,
    /// Five convolutions, the second and fourth with step 2, the mean, and a dense layer: the learner for
    /// CIFAR-10.
    BaseLarger2,
    /// Three dense layers.
    Linear,
}

impl LearnerKind {
    /// The widths that the kind is known with.
    pub fn default_widths(self) -> &'static [usize] {
        match self {
            Self::BaseFc => &[64, 128, 256],
            Self::Base => &[64, 128],
            Self::BaseLarger2 => &[64, 128, 128, 256, 256],
            Self::Linear => &[256, 128],
        }
    }

    /// The learner of this kind for images \[h, w, c\].
    ///
    /// # Errors
    /// If there are more or fewer widths than layers, or the image is too small.
    pub fn learner(
        self,
        image: [usize; 3],
        classes: usize,
        widths: &[usize],
        norm: Norm,
    ) -> Result<Learner> {
        let wanted = self.default_widths().len();
        if widths.len() != wanted {
            return Err(Error::Setting(format!(
                "learner {self:?}: {wanted} widths wanted, {} given",
                widths.len()
            )));
        }
        let pool = Layer::MaxPool {
            window: 3,
            stride: 2,
            pad: 1,
        };
        let conv = |i: usize, stride, then: &[Layer]| {
            let filters = widths[i];
            // Where the mean is taken out, the normalisation's bias is the bias.
            let bias = if norm == Norm::None {
                Layer::Bias
            } else {
                Layer::Norm(norm)
            };
            [
                &[Layer::Conv { filters, stride }],
                then,
                &[bias, Layer::Leaky],
            ]
            .concat()
        };
        let dense = |i: usize| {
            let units = widths[i];
            vec![
                Layer::Dense { units },
                Layer::Bias,
                Layer::Norm(norm),
                Layer::Leaky,
            ]
        };
        let mut layers = match self {
            Self::BaseFc => [conv(0, 1, &[pool]), conv(1, 1, &[pool]), dense(2)].concat(),
            Self::Base => [
                conv(0, 1, &[pool]),
                conv(1, 1, &[pool]),
                vec![Layer::GlobalMean],
            ]
            .concat(),
            Self::BaseLarger2 => {
                let convs = [1, 2, 1, 2, 1].iter().enumerate();
                let convs = convs.flat_map(|(i, &stride)| conv(i, stride, &[]));
                convs.chain([Layer::GlobalMean]).collect()
            }
            Self::Linear => [dense(0), dense(1)].concat(),
        };
        layers.extend([Layer::Dense { units: classes }, Layer::Bias]);
        Learner::new(image, &layers)
    }
}
